"""Files of arrays: .npz, .npy, safetensors and torch's, with classes, targets and several labels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.utils.data import TensorDataset

from hpo.datasets import Dataset, DatasetSource, check_unchanged, make_reference
from hpo.datasets.arrays import can_read, digest, read_source
from hpo.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.random((40, 3)).astype(np.float32)
Y = np.arange(40) % 4


def read(path: Path, **options: Any) -> Dataset:
    return read_source(path, DatasetSource(**options))


def refused(path: Path, **options: Any) -> str:
    def read_all() -> None:
        dataset = read(path, **options)
        assert callable(dataset.test)
        dataset.test()

    with pytest.raises(DataError) as raised:
        read_all()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "own.npz", **arrays)
    return path / "own.npz"


def save_npy(path: Path, **arrays: Any) -> Path:
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def save_safetensors(path: Path, **arrays: Any) -> Path:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path / "own.safetensors")
    return path / "own.safetensors"


def save_pt(path: Path, **arrays: Any) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path / "own.pt")
    return path / "own.pt"


SAVE = [save_npz, save_npy, save_safetensors, save_pt]
Save = Callable[..., Path]


@pytest.mark.parametrize("save", SAVE)
def test_each_kind_of_file_is_what_its_arrays_are(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path, x_train=X[:30], y_train=Y[:30], x_test=X[30:], y_test=Y[30:])
    assert can_read(path)
    dataset = read(path)
    assert (dataset.task, dataset.classes, tuple(dataset.output_names)) == ("classification", 4, ())
    for (x, y), rows in ((dataset.train, slice(30)), (dataset.test(), slice(30, None))):
        np.testing.assert_array_equal(x, X[rows])
        assert y.tolist() == Y[rows].tolist()
    files = [path] if path.is_file() else sorted(path.iterdir())
    assert digest(path) == {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


@pytest.mark.parametrize("save", SAVE)
def test_a_fifth_is_held_out_where_there_are_no_test_data(tmp_path: Path, save: Save) -> None:
    dataset = read(save(tmp_path, X=X, y=Y))
    (x, y), (test_x, test_y) = dataset.train, dataset.test()
    assert (len(x), np.bincount(test_y).tolist()) == (32, [2, 2, 2, 2])
    for part, samples, labels in (("train", x, y), ("test", test_x, test_y)):
        rows = dataset.rows[part] - 1
        np.testing.assert_array_equal(samples, X[rows])
        assert labels.tolist() == Y[rows].tolist()


@pytest.mark.parametrize(
    ("y", "task", "classes", "names"),
    [
        (RNG.random(40), "regression", 1, ()),
        (RNG.random((40, 3)), "regression", 3, ()),
        (np.arange(40.0), "regression", 1, ()),
        (np.arange(40)[:, None] % 2 / 1.0, "classification", 2, ()),
        (RNG.integers(0, 2, (40, 3)), "multilabel", 3, ()),
        (RNG.integers(0, 2, (40, 3)) > 0, "multilabel", 3, ()),
        (RNG.integers(0, 2, (40, 3)).astype(np.float32), "multilabel", 3, ()),
        (np.eye(4)[Y], "classification", 4, ()),
        (Y + 1, "classification", 4, ("1", "2", "3", "4")),
        ((Y - 1) * 10, "classification", 4, ("-10", "0", "10", "20")),
        (Y % 2 * 255, "classification", 2, ("0", "255")),
        (Y * 10**9, "classification", 4, ("0", "1000000000", "2000000000", "3000000000")),
        (Y + Y // 2, "classification", 5, ()),  # one class of five is missing
        (Y > 1, "classification", 2, ("False", "True")),
        (np.array(["b", "a", "c", "a"])[Y], "classification", 3, ("a", "b", "c")),
        (np.array(["10", "9", "100", "9"])[Y], "classification", 3, ("9", "10", "100")),
    ],
)
def test_labels_of_each_kind(tmp_path: Path, y: Any, task: str, classes: int, names: tuple[str, ...]) -> None:
    dataset = read(save_npz(tmp_path, x=X, y=y))
    assert (dataset.task, dataset.classes, tuple(dataset.output_names)) == (task, classes, names)
    labels, rows = dataset.train[1], dataset.rows["train"] - 1
    if task == "classification":
        assert (labels.dtype, labels.ndim) == (np.int64, 1)
        if names:
            assert [names[label] for label in labels] == [str(value) for value in y[rows]]
    else:
        assert labels.dtype == np.float32
        np.testing.assert_allclose(labels, y.reshape(40, -1)[rows], rtol=1e-6)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(400) % 20 * 7, "classification"),  # few values are classes wherever they lie
        (np.arange(400) % 30 + 1, "classification"),  # many are where they are numbered with few gaps
        (np.arange(400) % 31 + (np.arange(400) % 31 > 8), "classification"),
        (RNG.integers(18, 90, 400), "regression"),
        (np.arange(400) % 40 * 3, "regression"),
        (np.arange(400) // 1.5 // 1, "regression"),
        (np.arange(400) % 300, "regression"),  # a class has several samples
        (np.arange(400.0) % 30, "regression"),
    ],
)
def test_many_whole_numbers_are_classes_only_where_they_number_them(tmp_path: Path, y: Any, task: str) -> None:
    path = save_npz(tmp_path, x=RNG.random((400, 3)), y=y)
    dataset = read(path)
    assert dataset.task == task
    why = f"because its labels are {len(np.unique(y))} different whole numbers; say task = … for another"
    assert dataset.notes[0] == f"task {task}: to predict the label, {why}"
    other = "regression" if task == "classification" else "classification"
    if np.bincount(y.astype(int)).max() > 5:
        assert read(path, task=other).task == other


def test_the_task_that_is_asked_for(tmp_path: Path) -> None:
    path = save_npz(tmp_path, x=X, y=Y)
    assert (read(path, task="regression").task, read(path, task="regression").classes) == ("regression", 1)
    for y, task, wrong in ((Y, "multiclass", "binary"), (Y % 2, "binary", "multiclass")):
        assert read(save_npz(tmp_path, x=X, y=y), task=task).classes == len(set(y.tolist()))
        with pytest.raises(DataError, match=f"its labels have {len(set(y.tolist()))} classes, which is not {wrong}"):
            read(tmp_path / "own.npz", task=wrong)
    one_hot = save_npz(tmp_path, x=X, y=np.eye(4)[Y])
    assert read(one_hot, task="multilabel").classes == 4


def test_dates_and_texts_order_and_group_samples(tmp_path: Path) -> None:
    days = np.arange("2020-01-01", "2020-02-10", dtype="datetime64[D]")
    site = np.array(list("abcd"))[np.arange(40) % 4]
    for when in (days[::-1], days[::-1].astype(str), days[::-1].astype("datetime64[h]")):
        dataset = read(save_npz(tmp_path, x=X, y=Y, when=when, site=site), time="when")
        assert dataset.rows["test"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert dataset.times.tolist() == [float(day) for day in days.astype(int)[::-1][8:]]
    held = read(save_npz(tmp_path, x=X, y=Y // 2, when=days, site=site), group="site").rows["test"] - 1
    assert len(set(site[held])) == 1
    for wrong, line in (
        ({"time": "site"}, "column 'site', row 1: 'a' is no date; correct it"),
        ({"weight": "site"}, "column 'site', row 1: 'a' is no weight; it must be 0 or more"),
    ):
        with pytest.raises(DataError, match=re.escape(line)):
            read(tmp_path / "own.npz", **wrong)


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),
        ("trainX", "trainY", "testX", "testY", "valX", "valY"),
        ("X_train", "y_train", "X_test", "y_test", "X_valid", "y_valid"),
        ("set-x-train", "set-y-train", "set-x-test", "set-y-test", "set-x-validation", "set-y-validation"),
        ("xtrain", "ytrain", "xtest", "ytest", "xval", "yval"),
        ("training_data", "training_targets", "testing_data", "testing_targets", "validation_data", "validation_class"),
    ],
)
def test_names_that_people_give(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = (X[:20], Y[:20], X[20:30], Y[20:30], X[30:], Y[30:])
    dataset = read(save_npz(tmp_path, **dict(zip(names, arrays, strict=True))))
    assert [len(part[1]) for part in (dataset.train, dataset.test(), dataset.validation)] == [20, 10, 10]
    np.testing.assert_array_equal(dataset.validation[0], X[30:])


def test_labels_groups_and_weights_by_name(tmp_path: Path) -> None:
    path = save_npz(tmp_path, x=X, age=np.arange(40) / 3, size=np.arange(40) / 7, who=np.arange(40) // 4, w=X[:, 0])
    dataset = read(path, label=("age", "size"), group="who", weight="w")
    assert (dataset.task, dataset.output_names) == ("regression", ("age", "size"))
    rows = dataset.rows["train"] - 1
    np.testing.assert_allclose(dataset.train[1], np.stack([rows / 3, rows / 7], 1), rtol=1e-6)
    assert dataset.groups.tolist() == (rows // 4).tolist()
    assert dataset.weights.tolist() == X[rows, 0].tolist()
    assert read(path, label=("age",), drop=("size", "who", "w")).classes == 1
    assert not any("left out" in note for note in dataset.notes)


def test_arrays_that_nothing_names_are_told_of(tmp_path: Path) -> None:
    arrays = {"x_train": X[:30], "y_train": Y[:30], "groups_train": np.arange(30) // 3, "times": np.arange(30)}
    path = save_npz(tmp_path, **arrays, x_test=X[30:], y_test=Y[30:], groups_test=np.arange(10))
    told = "arrays left out: {}; name those that say something of each sample, as group = …, time = … or weight = …"
    assert told.format("groups_test, groups_train, times") in read(path).notes
    assert told.format("times") in read(path, group="groups").notes
    assert "arrays left out" not in " ".join(read(path, group="groups", drop=("times",)).notes)


def test_one_npy_file_stands_for_those_beside_it(tmp_path: Path) -> None:
    save_npy(tmp_path, a_x=X, a_y=Y, b_x=X[:20, :2], b_y=Y[:20])
    assert read(tmp_path / "b_x.npy").train[0].shape == (16, 2)
    assert sorted(digest(tmp_path / "a_x.npy")) == ["a_x.npy", "a_y.npy"]
    assert "a_y, b_y may be the labels of its train data; say which" in refused(tmp_path)


def test_test_data_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    save_npz(tmp_path / "more", x=X[30:], y=Y[30:] + 1)
    path = save_npz(tmp_path, x=X[:30], y=Y[:30] + 1)
    dataset = read(path, test="more/own.npz", validation="more/own.npz")
    assert (dataset.test()[1].tolist(), dataset.validation[1].tolist()) == (Y[30:].tolist(), Y[30:].tolist())
    assert "more/none.npz: cannot be read" in refused(path, test="more/none.npz")


def test_images_of_tensors_have_their_channels_first(tmp_path: Path) -> None:
    tensors = RNG.integers(0, 255, (40, 3, 8, 8), dtype=np.uint8)
    for save in (save_pt, save_safetensors):
        dataset = read(save(tmp_path, x=tensors, y=Y))
        np.testing.assert_array_equal(dataset.train[0], tensors.transpose(0, 2, 3, 1)[dataset.rows["train"] - 1])


def test_forms_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    torch.save((x, y), path)
    assert read(path).classes == 4
    torch.save({"train": {"x": x[:30], "y": y[:30]}, "test": (x[30:], y[30:])}, path)
    assert len(read(path).test()[1]) == 10
    torch.save({"x": x.bfloat16(), "y": y}, path)
    assert read(path).train[0].dtype == np.float32


SAVE_TENSORS = "save tensors alone: torch.save({'x': x, 'y': y}, path)"


def test_torch_files_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    for content, message in (
        (TensorDataset(x, y), "holds pickled Python, which could run any code, and is not read; " + SAVE_TENSORS),
        (x, "holds a single tensor; " + SAVE_TENSORS),
        ([x, y, x], "holds list of 3 values, where tensors are needed"),
        ({"x": x, "y": "text"}, "'y' is str, where tensors are needed"),
        ({"x": x.to_sparse(), "y": y}, "x is no plain tensor"),
    ):
        torch.save(content, path)
        assert message in refused(path)
    torch.save((x, y), path, _use_new_zipfile_serialization=False)
    assert "is not in the format of torch 1.6 and later" in refused(path)
    torch.save((x, y), path)
    content = bytearray(path.read_bytes())
    content[content.index(X.tobytes()) + 9] ^= 255
    path.write_bytes(content)
    assert "is damaged" in refused(path)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(b"nonsense")
    assert "is no complete safetensors file" in refused(tmp_path / "own.safetensors")
    assert "cannot be read (No such file" in refused(tmp_path / "none.npz")
    assert "none.safetensors: " in refused(tmp_path / "none.safetensors")
    (tmp_path / "alone").mkdir()
    np.save(tmp_path / "alone/x.npy", X)
    assert (
        "holds one array of its train data, x, and no labels; give a .npz with X and y, or put y.npy beside x.npy"
        in refused(tmp_path / "alone/x.npy")
    )
    assert not can_read(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": X, "y": Y}, {"label": ("yy",)}, "label = 'yy': there is no such array of its train data"),
        ({"x": X, "a": X, "y": Y}, {"label": ("b",)}, "it has a, x, y"),
        ({"a": X, "b": X, "y": Y}, {}, "a, b may be the samples of its train data; call them x, or leave out"),
        ({"x": X, "y": Y, "w": Y[:3]}, {"weight": "w"}, "w has shape (3,); it must be (40,)"),
        ({"x": X, "a": Y, "b": Y[:3]}, {"label": ("a", "b")}, "b has shape (3,); several labels must be (N,) each"),
        ({"x": X, "y": np.full(40, 2.5)}, {}, "its target is 2.5 in every sample; there is nothing to learn"),
        ({"x": X, "y": np.where(Y > 2, np.inf, Y)}, {}, "the target of sample 3 is inf; remove or replace it"),
        ({"x": X, "y": np.arange(40).astype(str)}, {}, "each of the 40 samples has a label of its own"),
        ({"x": X, "y": np.full(40, "a")}, {}, "every label is 'a'; at least 2 classes are needed"),
        ({"x": X, "y": np.full(40, "a")}, {"task": "regression"}, "the label 'a' is no number, which the task asks"),
        ({"x": X, "y": X[:, :2]}, {"task": "multilabel"}, "labels other than 0 and 1"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}, {"test": 0.5}, "has test data of its own"),
        ({"x": X, "y": Y}, {"test": 1.5}, "test = 1.5; it must be a file or folder, or a fraction between 0 and 1"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, arrays: Any, options: Any, message: str) -> None:
    assert message in refused(save_npz(tmp_path, **arrays), **options)


def test_a_changed_file_is_found_without_reading_samples(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 2)), y=np.arange(40) % 2)
    reference = make_reference(str(path))
    check_unchanged(reference)
    np.savez(path, x=np.zeros((41, 2)), y=np.arange(41) % 2)
    with pytest.raises(DataError, match=r"d\.npz: is not the file that the study was made with"):
        check_unchanged(reference)
    path.unlink()
    with pytest.raises(DataError, match=r"d\.npz: not found"):
        check_unchanged(reference)
