"""Descriptions of data sets that were read."""

from __future__ import annotations

import numpy as np

from hpo.datasets import Dataset
from hpo.datasets.description import describe_dataset


def test_images_with_classes() -> None:
    x = np.zeros((6, 4, 3, 3), np.uint8)
    x[5] = 200
    y = np.array([1, 0, 1, 0, 1, 1])
    described = describe_dataset(
        Dataset(
            train=(x, y), test=lambda: (x[:2], y[:2]), classes=2, task="classification", output_names=("cat", "dog")
        )
    )
    expected = "6 train, 2 test samples: colour images of 4x3 (height, width), uint8 from 0 to 200; task classification"
    assert described.summary == expected
    assert described.outputs == [{"class": "cat", "train": 2, "test": 1}, {"class": "dog", "train": 4, "test": 1}]
    assert [(each["row"], each["label"]) for each in described.samples] == [(1, "dog"), (2, "cat")]


def test_arrays_with_targets_and_labels() -> None:
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    targets = np.array([[1, 5], [2, 6], [3, 7], [6, 8]], np.float32)
    rows = {"train": np.array([3, 5, 7, 9])}
    described = describe_dataset(Dataset(train=(x, targets), classes=2, task="regression", rows=rows))
    assert described.summary == "4 train samples: 2 features, float32 from 0 to 7; task regression"
    first = {"target": "0", "lowest": 1.0, "median": 2.5, "mean": 3.0, "highest": 6.0}
    assert described.outputs[0] == first
    assert described.samples[1] == {"row": 5, "label": "2 6", "sample": "2 3"}
    labels = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], np.float32)
    described = describe_dataset(Dataset(train=(x, labels), classes=2, task="multilabel", output_names=("a", "b")))
    assert described.outputs == [{"label": "a", "train": 3}, {"label": "b", "train": 1}]
