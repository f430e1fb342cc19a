"""Descriptions of data sets that were read from a file or a folder: sizes, classes with counts, and some samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.datasets.dataset import Dataset
from hpo.utils.text import shorten

__all__ = ["DatasetDescription", "describe_dataset"]

Array = np.ndarray[Any, Any]
SAMPLES = 5
MOST_OUTPUTS = 100  # classes, labels or targets that have a row of their own
WIDEST = 60  # characters of a sample's values


@dataclass(frozen=True)
class DatasetDescription:
    """Description of a data set.

    Attributes:
        summary: what a sample is, and how many each part has.
        outputs: a row for each class or label with its count in each part, or for each target with its range.
        samples: a row for each of some training samples, the first of each class.
        notes: what was guessed, and what was left out.
    """

    summary: str
    outputs: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    notes: list[str]


def describe_dataset(dataset: Dataset) -> DatasetDescription:
    """Return what a data set holds. Its test data are read.

    Args:
        dataset: as a reader returns it, with its task.
    """
    test = dataset.test() if callable(dataset.test) else dataset.test
    parts = {"train": dataset.train, "validation": dataset.validation, "test": test}
    splits = {name: part for name, part in parts.items() if isinstance(part, tuple)}
    x, _ = splits["train"]
    sizes = ", ".join(f"{len(part[1]):,} {name}" for name, part in splits.items())
    labels = {name: np.asarray(part[1]) for name, part in splits.items()}
    outputs = _describe_targets(dataset, labels) if dataset.task == "regression" else _count_labels(dataset, labels)
    notes = list(getattr(dataset, "notes", ()))
    if len(outputs) > MOST_OUTPUTS:
        notes.append(f"the first {MOST_OUTPUTS} of {len(outputs):,} are shown")
    summary = f"{sizes} samples: {_describe_shape(np.asarray(x))}, {_describe_values(np.asarray(x))}"
    return DatasetDescription(summary, outputs[:MOST_OUTPUTS], _pick_samples(dataset, labels["train"]), notes)


def _describe_shape(x: Array) -> str:
    if x.ndim == 2:
        return f"{x.shape[1]:,} features"
    kind = "colour" if x.ndim == 4 and x.shape[3] == 3 else "grey" if x.ndim == 3 else f"{x.shape[3]}-channel"
    return f"{kind} images of {x.shape[1]}x{x.shape[2]} (height, width)"


def _describe_values(x: Array) -> str:
    some = x[:: max(1, len(x) // 1000)]
    return f"{x.dtype} from {np.nanmin(some):.6g} to {np.nanmax(some):.6g}"


def _name_outputs(dataset: Dataset, count: int) -> list[str]:
    return list(dataset.output_names) or [str(i) for i in range(count)]


def _count_labels(dataset: Dataset, labels: Mapping[str, Array]) -> list[dict[str, Any]]:
    classes = dataset.classes or 0
    counts = {
        part: np.bincount(y, minlength=classes) if y.ndim == 1 else y.sum(0).astype(int) for part, y in labels.items()
    }
    what = "label" if dataset.task == "multilabel" else "class"
    return [
        {what: name, **{part: int(count[i]) for part, count in counts.items()}}
        for i, name in enumerate(_name_outputs(dataset, classes))
    ]


def _describe_targets(dataset: Dataset, labels: Mapping[str, Array]) -> list[dict[str, Any]]:
    y = labels["train"].reshape(len(labels["train"]), -1)
    low, median, high = np.quantile(y, (0, 0.5, 1), axis=0)
    return [
        {
            "target": name,
            "lowest": float(low[i]),
            "median": float(median[i]),
            "mean": float(y[:, i].mean(dtype=float)),
            "highest": float(high[i]),
        }
        for i, name in enumerate(_name_outputs(dataset, y.shape[1]))
    ]


def _pick_samples(dataset: Dataset, y: Array) -> list[dict[str, Any]]:
    x = dataset.train[0] if isinstance(dataset.train, tuple) else y
    _, firsts = np.unique(y, return_index=True) if y.ndim == 1 else (None, np.arange(len(y)))
    names = _name_outputs(dataset, dataset.classes or 0)
    rows = dataset.rows.get("train")
    return [
        {
            "row": int(index) + 1 if rows is None else int(rows[index]),
            "label": names[int(y[index])] if y.ndim == 1 else _shorten(y[index]),
            "sample": _shorten(np.asarray(x[index])),
        }
        for index in sorted(firsts)[:SAMPLES]
    ]


def _shorten(values: Array) -> str:
    """Return the beginning of a sample's or a label's values."""
    flat = values.reshape(-1)
    text = " ".join(f"{value:g}" for value in flat[:20].tolist())
    return shorten(text + (" …" if len(flat) > 20 else ""), WIDEST, quote=False)
