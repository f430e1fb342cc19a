"""Data in memory: saved once under a name that follows from the content, and read back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hpo.datasets import load, make_reference
from hpo.datasets.memory_data import save_data
from hpo.errors import DataError, DefinitionError

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"area": RNG.normal(size=60), "kind": RNG.choice(["a", "b"], 60), "price": RNG.normal(size=60)})


@pytest.mark.parametrize("frame", [FRAME, pl.from_pandas(FRAME)], ids=["pandas", "polars"])
def test_a_frame_is_a_table(frame: object) -> None:
    path = save_data(frame)
    assert path == save_data(frame)
    reference = make_reference({"path": path, "label": "price"})
    dataset = load(reference)
    assert (reference.task, [each.name for each in dataset.features]) == ("regression", ["area", "kind"])
    rows = dataset.rows["train"] - 1
    np.testing.assert_allclose(dataset.train[1][:, 0], FRAME["price"].to_numpy()[rows], rtol=1e-6)


@pytest.mark.parametrize("labels", [FRAME["kind"], FRAME[["kind"]], FRAME["kind"].to_numpy(), FRAME["kind"].tolist()])
def test_a_frame_with_its_labels_apart(labels: object) -> None:
    reference = make_reference(save_data((FRAME[["area", "price"]], labels)))
    assert (reference.task, reference.output_names, reference.shape) == ("classification", ("a", "b"), (2,))


@pytest.mark.parametrize(
    ("y", "task"), [(RNG.normal(size=60), "regression"), (np.arange(60) % 3, "classification")], ids=["real", "whole"]
)
def test_arrays(y: np.ndarray, task: str) -> None:
    reference = make_reference(save_data((RNG.normal(size=(60, 4)), y)))
    assert (reference.task, reference.shape, reference.samples) == (task, (4,), 48)


def test_map_style_data_sets_are_saved_as_arrays() -> None:
    x, y = torch.randn(60, 3), torch.randn(60)
    whole = make_reference(save_data(TensorDataset(x, y)))
    assert (whole.task, whole.shape, whole.samples) == ("regression", (3,), 48)
    parts = [TensorDataset(x[rows], y[rows]) for rows in (slice(40), slice(40, 50), slice(50, 60))]
    for data in (dict(zip(("train", "validation", "test"), parts, strict=True)), tuple(parts)):
        dataset = load(make_reference(save_data(data)))
        np.testing.assert_array_equal(np.asarray(dataset.train[0]), x[:40].numpy())
        np.testing.assert_array_equal(np.asarray(dataset.validation[0]), x[40:50].numpy())
        assert callable(dataset.test)
        np.testing.assert_array_equal(np.ravel(dataset.test()[1]), y[50:].numpy())


def test_data_sets_that_cannot_be_saved_are_told_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TensorDataset(torch.randn(60, 3), torch.randn(60))
    with pytest.raises(DataError, match=r"return the data set that it reads .*@hpo.dataset"):
        save_data(DataLoader(data))
    monkeypatch.setattr("hpo.datasets.map_style.free_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"^dataset, train: 60 samples take .*register a function that returns it"):
        save_data(data)


def test_what_names_data_is_left_as_it_is(tmp_path: Path) -> None:
    assert [save_data(each) for each in (None, "mnist", {"path": "x.csv"})] == [None, "mnist", {"path": "x.csv"}]
    assert save_data(tmp_path) == str(tmp_path)


@pytest.mark.parametrize("data", [3, (1, 2, 3), pd.DataFrame({"a": [object()]})], ids=["number", "three", "objects"])
def test_what_is_no_data_is_one_line(data: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        save_data(data)
    assert "\n" not in str(caught.value)


def test_errors_call_data_in_memory_what_they_are() -> None:
    with pytest.raises(DataError, match=r'^the DataFrame: which column is predicted\? Say label = "…"; its columns'):
        make_reference(save_data(FRAME))
    with pytest.raises(DataError, match=r"^the DataFrame: has no column 'prize'; did you mean 'price'\?"):
        make_reference({"path": save_data(FRAME), "label": "prize"})
    with pytest.raises(DataError, match=r"^the arrays \(X, y\), train: feature 1 of sample 2 is nan"):
        make_reference(save_data((np.where(np.arange(120).reshape(60, 2) == 5, np.nan, 1.0), np.arange(60) % 2)))


@pytest.mark.parametrize("value", [object(), {}], ids=["object", "dict"])
def test_a_column_that_cannot_be_saved_is_named(value: object) -> None:
    with pytest.raises(
        DefinitionError, match=f"column 'odd' of the DataFrame holds values of the type {type(value).__name__},"
    ):
        save_data(FRAME.assign(odd=[value] * len(FRAME)))


@pytest.mark.parametrize("labels", [pd.Series(["a", "b", None] * 20), pd.Categorical(["a", "b", None] * 20)])
@pytest.mark.parametrize("x", [np.zeros((60, 2)), pd.DataFrame({"u": np.arange(60.0)})])
def test_missing_labels_are_no_class(labels: object, x: object) -> None:
    with pytest.raises(DefinitionError, match="20 of 60 labels of y are missing; leave these rows out of X and y"):
        save_data((x, labels))


def test_a_feature_with_the_name_of_unnamed_labels_stays() -> None:
    saved = save_data((pd.DataFrame({"u": np.arange(40.0), "label": np.arange(40.0)}), np.arange(40) % 2))
    assert isinstance(saved, dict)
    assert pl.read_parquet(saved["path"]).columns == ["u", "label", "label_"]
    assert saved["label"] == ["label_"]


def test_images_of_torch_keep_their_axes() -> None:
    x, y = torch.rand(60, 3, 8, 4), torch.arange(60) % 2
    for data in (TensorDataset(x, y), (x, y)):
        assert make_reference(save_data(data)).shape == (3, 8, 4)


def test_columns_of_extension_types_are_read_as_they_are_stored(tmp_path: Path) -> None:
    days, ranges = pd.period_range("2020", periods=60, freq="2D"), pd.interval_range(0, 60)
    frame = FRAME.assign(day=RNG.permutation(days), range=ranges)
    frame.to_parquet(tmp_path / "own.parquet")
    for path in (save_data(frame), str(tmp_path / "own.parquet")):
        reference = make_reference({"path": path, "label": "price", "time": "day"})
        assert any(note.startswith("column 'range' holds lists or objects") for note in reference.notes)
        dataset = load(reference)
        assert dataset.times is not None
        assert dataset.times.max() < frame["day"].map(lambda day: day.ordinal)[dataset.rows["test"] - 1].min()


def test_bfloat16_is_read_as_float32() -> None:
    x = torch.randn(60, 3).bfloat16()
    dataset = load(make_reference(save_data((x, torch.arange(60) % 2))))
    assert isinstance(dataset.train, tuple)
    np.testing.assert_array_equal(dataset.train[0], x.float().numpy()[dataset.rows["train"] - 1])


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            pd.DataFrame(np.zeros((9, 3)), columns=["a", "a", "y"]),
            "dataset: two columns of the DataFrame are",
        ),
        (
            {"x": np.zeros((9, 2)), "y": np.zeros(9)},
            "dataset: a dict with arrays (x, y); give a tuple (X, y), or parts",
        ),
        ({"train": (np.zeros((9, 2)), np.zeros(9))}, "dataset: a dict with arrays (train); give a tuple (X, y), or"),
    ],
)
def test_data_in_a_form_that_is_not_taken_are_told_of_another(data: object, line: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        save_data(data)
    assert str(raised.value).startswith(line)
