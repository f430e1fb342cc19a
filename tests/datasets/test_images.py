"""Folders of images: by class, by parts, and with labels.csv; decoded once and read from the cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpo.datasets import DatasetSource, decoder_pool, image_cache, make_reference
from hpo.datasets.dataset import Dataset
from hpo.datasets.folder_state import has_images
from hpo.datasets.images import digest, read_source
from hpo.errors import DataError, RegistryError
from hpo.utils import digest as digests

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(digests, "SETTLED_NS", -(10**12))
    monkeypatch.setattr("hpo.datasets.folder_state.SETTLED_NS", -(10**12))


def save(path: Path, size: tuple[int, ...] = (6, 5), kind: Any = np.uint8) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, np.iinfo(kind).max, size).astype(kind)
    Image.fromarray(pixels).save(path)
    return pixels


def classes(root: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 5, size: tuple[int, ...] = (6, 5)) -> Any:
    return {f"{name}/{i}.png": save(root / name / f"{i}.png", size) for name in names for i in range(count)}


def read(path: Path, **options: Any) -> Dataset:
    return read_source(path, DatasetSource(**options))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as raised:
        read(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---- folders by class


def test_each_image_is_in_one_part_with_its_class(tmp_path: Path) -> None:
    pixels = list(classes(tmp_path / "pets").values())
    dataset = read(tmp_path / "pets")
    assert (dataset.task, dataset.classes, dataset.output_names) == ("classification", 2, ("cat", "dog"))
    (x, y), (test_x, test_y) = dataset.train, dataset.test()
    assert (x.shape, x.dtype, len(test_y)) == ((8, 6, 5), np.uint8, 2)
    for part, images, labels in (("train", x, y), ("test", test_x, test_y)):
        for row, image, label in zip(dataset.rows[part], images, labels, strict=True):
            np.testing.assert_array_equal(image, pixels[row - 1])
            assert label == (row > 5)
    assert np.bincount(test_y).tolist() == [1, 1]  # stratified
    assert dataset.notes == (
        "task classification: to predict the label, because its labels are texts; say task = … for another",
        "test: 2 of 10 samples are held out (drawn at random, stratified); say test = … for a file or another share",
    )
    assert len(read(tmp_path / "pets", test=0.4).test()[1]) == 4
    assert read(tmp_path / "pets", test=0.4, task="classification").notes == (
        "test: 4 of 10 samples are held out (drawn at random, stratified)",
    )


@pytest.mark.parametrize("names", [("train", "test", "val"), ("Training", "Testing", "dev")])
def test_parts_below_the_folder(tmp_path: Path, names: Sequence[str]) -> None:
    for part, count in zip(names, (5, 1, 2), strict=True):
        classes(tmp_path / "pets" / part, count=count, size=(6, 5, 3))
    dataset = read(tmp_path / "pets")
    assert [len(part[1]) for part in (dataset.train, dataset.test(), dataset.validation)] == [10, 2, 4]
    assert dataset.train[0].shape == (10, 6, 5, 3)


def test_a_folder_lies_beside_the_study_file_or_in_that_of_all_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes(tmp_path / "project" / "pets")
    monkeypatch.chdir(tmp_path)
    assert make_reference("pets", tmp_path / "project").samples == 10 - 2
    with pytest.raises(RegistryError, match="unknown dataset 'pets'"):
        make_reference("pets")
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "project"))
    assert make_reference("pets").samples == 10 - 2


def test_parts_in_other_folders(tmp_path: Path) -> None:
    classes(tmp_path / "pets")
    kept = list(classes(tmp_path / "more", count=3).values())
    dataset = read(tmp_path / "pets", test="more")
    np.testing.assert_array_equal(dataset.test()[0], kept)
    assert len(dataset.train[1]) == 10
    (tmp_path / "more/cat").rename(tmp_path / "more/mouse")
    assert "the label of sample 3 is 'mouse', which no training sample has; theirs are cat, dog" in refused(
        tmp_path / "pets", test="more"
    )


def test_classes_that_are_numbers_are_ordered_by_value(tmp_path: Path) -> None:
    classes(tmp_path, ("5", "10", "100"))
    assert read(tmp_path).output_names == ("5", "10", "100")
    ages = read(tmp_path, task="regression")
    assert (ages.task, ages.train[1].shape) == ("regression", (12, 1))
    assert set(ages.train[1].ravel()) == {5.0, 10.0, 100.0}


# ---- sizes, colours, what is corrupt


def test_images_of_other_sizes_and_colours_are_brought_to_those_of_most(tmp_path: Path) -> None:
    classes(tmp_path)
    save(tmp_path / "cat/large.png", (30, 20, 3))
    save(tmp_path / "dog/large.png", (60, 20))
    dataset = read(tmp_path)
    assert dataset.train[0].shape[1:] == (6, 5, 3)
    assert "images have 3 sizes: 2 are brought to 6x5 (height, width; sides are stretched); resize" in "; ".join(
        dataset.notes
    )
    assert read(tmp_path, resize=(4, 3)).train[0].shape[1:] == (4, 3, 3)


def test_images_that_all_differ_are_brought_to_a_middle_size_of_bounded_side(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"{i % 2}/{i}.jpg", (400 + 20 * i, 200 + i))
    assert read(tmp_path).train[0].shape[1:] == (224, 101)


def test_a_colour_image_beyond_those_that_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "PROBES", 2)
    classes(tmp_path)
    save(tmp_path / "cat/3.png", (6, 5, 3))
    assert read(tmp_path).train[0].shape[1:] == (6, 5, 3)


def test_upper_bits_of_16_are_kept_and_told(tmp_path: Path) -> None:
    deep = [save(tmp_path / f"{i % 2}/{i}.png", kind=np.uint16) for i in range(4)]
    dataset = read(tmp_path, test=0.5)
    np.testing.assert_array_equal(dataset.train[0][0], [deep[0], deep[2]][dataset.rows["train"][0] - 1] >> 8)
    assert "4 images have 16 bits a pixel" in "; ".join(dataset.notes)


def test_corrupt_images_are_named_and_left_out_up_to_one_in_a_hundred(tmp_path: Path) -> None:
    pixels = classes(tmp_path, count=100)
    (tmp_path / "cat/3.png").write_bytes(b"")
    (tmp_path / "dog/77.png").write_bytes((tmp_path / "dog/77.png").read_bytes()[:50])
    dataset = read(tmp_path)
    assert "2 of 200 images cannot be decoded, and are left out: 'cat/3.png' is empty, 'dog/77.png'" in "; ".join(
        dataset.notes
    )
    names = sorted(pixels)
    for part, (x, y) in (("train", dataset.train), ("test", dataset.test())):
        assert len(x) == len(y) == len(dataset.rows[part])
        for row, image in zip(dataset.rows[part], x, strict=True):
            np.testing.assert_array_equal(image, pixels[names[row - 1]])
    (tmp_path / "dog/1.png").write_bytes(b"nonsense")
    message = refused(tmp_path)
    assert "3 of 200 images cannot be decoded, more than 1 %: 'cat/3.png' is empty, 'dog/1.png' is no" in message


def test_a_picture_of_a_format_that_is_not_asked_for_is_not_decoded(tmp_path: Path) -> None:
    classes(tmp_path, count=2)
    (tmp_path / "cat/0.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\nshowpage\n")
    assert "'cat/0.png' is no picture of a known format" in refused(tmp_path)


# ---- labels.csv


def labelled(folder: Path, *lines: str, count: int = 10) -> Path:
    for i in range(count):
        save(folder / f"{i}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_labels_of_a_file(tmp_path: Path) -> None:
    labelled(tmp_path, "file;label", *(f"{i}.png;{'cat' if i % 2 else 'a dog'}" for i in range(10)))
    assert read(tmp_path).output_names == ("a dog", "cat")
    labelled(tmp_path, "file,label", *(f"{i}.png,{'cat' if i % 2 else 'a dog'}" for i in range(10)))
    dataset = read(tmp_path)
    assert dataset.output_names == ("a dog", "cat")
    assert dataset.train[1].tolist() == [(row - 1) % 2 for row in dataset.rows["train"]]


def test_targets_groups_and_weights_of_a_file(tmp_path: Path) -> None:
    lines = [f"{i},{i * 1.5},{i // 2},{i + 1}" for i in range(10)]
    labelled(tmp_path, "id,age,patient,weight", *lines)
    dataset = read(tmp_path, label=("age",), group="patient", weight="weight")
    assert (dataset.task, dataset.output_names) == ("regression", ("age",))
    rows = dataset.rows["train"]
    np.testing.assert_allclose(dataset.train[1][:, 0], 1.5 * (rows - 1))
    assert dataset.groups.tolist() == [(row - 1) // 2 for row in rows]
    assert dataset.weights.tolist() == rows.tolist()
    assert not set(dataset.groups) & {(row - 1) // 2 for row in dataset.rows["test"]}


@pytest.mark.parametrize("form", ["{0}.1.2020", "2020-01-{0:02} 10:30:00", "{0}"])
def test_dates_of_a_file(tmp_path: Path, form: str) -> None:
    labelled(tmp_path, "file,label,taken", *(f"{i}.png,{i % 2},{form.format(20 - i)}" for i in range(10)))
    dataset = read(tmp_path, label=("label",), time="taken")
    assert dataset.rows["test"].tolist() == [1, 2]
    assert np.diff(dataset.times).tolist() == [-1.0] * 7


def test_several_labels_of_a_file(tmp_path: Path) -> None:
    labelled(tmp_path, "image,red,round", *(f"{i}.png,{i % 2},{int(i % 3 == 0)}" for i in range(10)))
    dataset = read(tmp_path)
    assert (dataset.task, dataset.classes, dataset.output_names) == ("multilabel", 2, ("red", "round"))


LINES = [f"{i}.png,{i % 2}" for i in range(10)]
TIMED = {"label": ("label",), "time": "at"}


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["file,label", *LINES, "11.png,1"], {}, "labels.csv, row 11: no image '11.png' (column 'file')"),
        (["file,label", *LINES, "3.png,1"], {}, "labels.csv, row 11: '3.png' has row 4 already"),
        (["file,label", *LINES, "3.png"], {}, "labels.csv, row 11: 1 values, where the header has 2"),
        (["file,label", *LINES], {"label": ("labl",)}, "has no column 'labl'; did you mean 'label'?"),
        (["file,size,age", *(f"{line},{i}" for i, line in enumerate(LINES))], {}, "say which of size, age it is"),
        (["file,label", *(f"{i}.png," for i in range(10))], {}, "column 'label' is empty in every row"),
        (["file,label", *(f"{i}.png,3" for i in range(10))], {}, "every label is '3'; at least 2 classes"),
        (["file,label", *(f"{i}.png,3.5" for i in range(10))], {}, "its target is 3.5 in every sample"),
        (["file,label", *(f"{i}.png,n{i}" for i in range(10))], {}, "each of the 10 samples has a label of its own"),
        (["file,label,label", *LINES], {}, "has two columns of one name"),
        (["label", *(str(i % 2) for i in range(10))], {}, "no column names the images beside it"),
        (["file,label"], {}, "has no rows"),
        (LINES, {}, "labels.csv: its first line holds '0.png', which is an image; put a line of column names above it"),
        (["file", *(f"{i}.png" for i in range(10))], {}, "has no column to predict; add one called label"),
        (["file,label,at", *(f"{i}.png,{i % 2},{'' if i == 4 else i}" for i in range(10))], TIMED, "row 5: is empty"),
        (["file,label,at", *(f"{i}.png,{i % 2},soon" for i in range(10))], TIMED, "row 1: 'soon' is no date"),
        (["file,label,at", *(f"{i}.png,{i % 2},-{i}" for i in range(10))], {"label": ("label",), "weight": "at"}, "-1"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, lines: list[str], options: Any, message: str) -> None:
    assert message in refused(labelled(tmp_path, *lines), **options)


# ---- what is no data set


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    assert "is no folder" in refused(tmp_path / "none")
    assert "holds no images (.bmp" in refused(tmp_path)
    save(tmp_path / "0.png")
    assert "has 1 image, such as '0.png', but no labels; put them into a folder for each class" in refused(tmp_path)
    classes(tmp_path, ("cat",))
    assert "has one class, 'cat'" in refused(tmp_path)
    save(tmp_path / "dog/0.png")
    assert "class 'dog' has a single image, so that none can be held out" in refused(tmp_path)
    save(tmp_path / "dog/1.png")
    (tmp_path / "mouse").mkdir()
    assert "class 'mouse' has no images" in refused(tmp_path)
    (tmp_path / "mouse").rmdir()
    assert "label names a column, but folders by class have none" in refused(tmp_path, label=("x",))
    assert "test = 3.0; it must be a file or folder, or a fraction" in refused(tmp_path, test=3.0)
    assert read(tmp_path).classes == 2


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path)
    scan = os.scandir

    def refuse(path: Any) -> Any:  # as the system does, which lets root read any folder
        if str(path).endswith("cat"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "cat: cannot be read (Permission denied)" in refused(tmp_path)


def test_more_images_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path)
    monkeypatch.setattr(image_cache, "free_memory", lambda: 2 * 5 * 10 * 30 - 1)
    assert "10 images of 6x5 take 1.5e-06 GB in training, more than half of the 3e-06 GB" in refused(tmp_path)
    assert read(tmp_path, resize=(2, 2)).classes == 2


def test_whether_a_folder_is_one_of_images(tmp_path: Path) -> None:
    assert not has_images(tmp_path)
    (tmp_path / "x.csv").write_text("")
    assert not has_images(tmp_path)
    assert not has_images(tmp_path / "x.csv")
    save(tmp_path / "a/0.JPG")
    assert has_images(tmp_path)


# ---- the cache


def no_decoding(*_: Any) -> Any:
    raise AssertionError("the images are decoded again")


def test_the_second_worker_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path / "pets")
    first, before = read(tmp_path / "pets"), digest(tmp_path / "pets")
    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "decode_all", no_decoding)
        patch.setattr("hpo.datasets.folder_state._digest_file", no_decoding)
        again = read(tmp_path / "pets")
        assert isinstance(again.train[0], np.memmap)
        np.testing.assert_array_equal(again.train[0], first.train[0])
        assert digest(tmp_path / "pets") == before
        save(tmp_path / "pets/cat/3.png")
        with pytest.raises(AssertionError):
            read(tmp_path / "pets")
    assert digest(tmp_path / "pets") != before


def test_a_copy_of_a_folder_has_its_digest_and_a_new_name_another(tmp_path: Path) -> None:
    for i, pixels in enumerate(classes(tmp_path / "one").values()):
        path = tmp_path / "two" / ("cat" if i < 5 else "dog") / f"{i % 5}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    assert digest(tmp_path / "one")["one"] == digest(tmp_path / "two")["two"]
    (tmp_path / "two/cat/0.png").rename(tmp_path / "two/cat/new.png")
    assert digest(tmp_path / "one")["one"] != digest(tmp_path / "two")["two"]


@pytest.mark.parametrize("damage", ["pixels", "index.json"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    classes(tmp_path / "pets")
    first = np.array(read(tmp_path / "pets").train[0])
    (cache,) = (tmp_path / "home/datasets").glob("images-*")
    (cache / damage).write_bytes(b"x")
    np.testing.assert_array_equal(read(tmp_path / "pets").train[0], first)
    assert [path.name for path in (tmp_path / "home/datasets").glob(".new*")] == []


@pytest.mark.integration
def test_processes_decode_what_threads_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path / "pets", count=100)
    (tmp_path / "pets/cat/50.png").write_bytes(b"")
    threads = read(tmp_path / "pets")
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(decoder_pool, "FEW", 0)
    processes = read(tmp_path / "pets")
    np.testing.assert_array_equal(processes.train[0], threads.train[0])
    np.testing.assert_array_equal(processes.rows["train"], threads.rows["train"])
    assert digest(tmp_path / "pets")


@pytest.mark.integration
def test_a_decoder_that_crashes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path / "pets")
    (tmp_path / "crash.py").write_text("import os; os.abort()\n")
    monkeypatch.setattr(decoder_pool, "FEW", 0)
    monkeypatch.setattr(decoder_pool.image_decoder, "__file__", str(tmp_path / "crash.py"))
    assert "the decoder has crashed on it or one of the 9 images after it (exit code -6)" in refused(tmp_path / "pets")
    assert list((tmp_path / "home/datasets").iterdir()) == []
