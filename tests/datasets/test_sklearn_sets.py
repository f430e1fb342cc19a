"""Data sets of scikit-learn by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.datasets import DatasetSource
from hpo.datasets.dataset import Dataset
from hpo.datasets.sklearn_sets import digest, read_source
from hpo.errors import DataError

sklearn_datasets = pytest.importorskip("sklearn.datasets")


def read(name: str, **options: Any) -> Dataset:
    return read_source(Path(f"sklearn:{name}"), DatasetSource(**options))


def refused(name: str, **options: Any) -> str:
    with pytest.raises(DataError) as raised:
        read(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "shape", "task", "names"),
    [
        ("iris", (120, 4), "classification", ("setosa", "versicolor", "virginica")),
        ("wine", (142, 13), "classification", ("class_0", "class_1", "class_2")),
        ("breast_cancer", (455, 30), "classification", ("malignant", "benign")),
        ("digits", (1438, 8, 8), "classification", tuple("0123456789")),
        ("diabetes", (354, 10), "regression", ("target",)),
        ("linnerud", (16, 3), "regression", ("Weight", "Waist", "Pulse")),
    ],
)
def test_each_that_is_shipped(name: str, shape: tuple[int, ...], task: str, names: tuple[str, ...]) -> None:
    dataset, bunch = read(name), getattr(sklearn_datasets, f"load_{name}")()
    assert (dataset.train[0].shape, dataset.task, dataset.output_names) == (shape, task, names)
    assert [feature.name for feature in dataset.features] == (list(bunch.feature_names) if len(shape) == 2 else [])
    for part, (x, y) in (("train", dataset.train), ("test", dataset.test())):
        rows = dataset.rows[part] - 1
        np.testing.assert_allclose(x.reshape(len(x), -1), bunch.data[rows], rtol=1e-6)
        np.testing.assert_allclose(y.reshape(len(y), -1), bunch.target[rows].reshape(len(y), -1), rtol=1e-6)
    assert digest(Path(f"sklearn:{name}")) == digest(Path(f"sklearn:{name}"))
    assert len(digest(Path(f"sklearn:{name}"))[name]) == 64


def test_targets_and_features_that_are_chosen() -> None:
    dataset = read("linnerud", label=("Waist",), drop=("Chins",), test=0.5)
    assert (dataset.train[0].shape, dataset.train[1].shape) == ((10, 2), (10, 1))
    assert dataset.output_names == ("Waist",)


def test_what_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown data set of scikit-learn 'iriss'; did you mean 'iris'?" in refused("iriss")
    assert "label: unknown name 'Wait'; did you mean 'Waist'?" in refused("linnerud", label=("Wait",))
    assert "drop: unknown name" in refused("iris", drop=("petal",))
    assert "every feature is dropped" in refused("linnerud", drop=("Chins", "Situps", "Jumps"))
    assert "has no column for `group`" in refused("iris", group="x")
    assert "test = 'more.csv'; it must be a fraction" in refused("iris", test="more.csv")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    message = refused("california_housing")
    assert "is not on this machine" in message
    assert "sklearn.datasets.fetch_california_housing()" in message
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "needs scikit-learn; pip install 'torch-hpo[sklearn]'" in refused("iris")
