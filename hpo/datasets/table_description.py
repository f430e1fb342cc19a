"""Descriptions of tables: what `hpo datasets FILE` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets.columns import Column, describe_columns
from hpo.datasets.dataset import Dataset
from hpo.datasets.source import DatasetSource
from hpo.datasets.table import name_columns, read_frame
from hpo.datasets.table_file import read_table
from hpo.utils.text import quantity

__all__ = ["TableDescription", "describe_table"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TableDescription:
    """Description of a table.

    Attributes:
        rows: their number.
        columns: what each holds.
        notes: the task and why, what is held out, and what would be dropped; without a label, how to name one.
        outputs: a row for each class, label or target: how often it is there, or its range.
    """

    rows: int
    columns: list[Column]
    notes: list[str]
    outputs: list[dict[str, Any]]


def describe_table(path: Path, source: DatasetSource) -> TableDescription:
    """Return what the table in a file holds, and what would be learnt from it.

    Args:
        path: of the file.
        source: labels and columns to drop; without a label, only the columns are described.

    Raises:
        DataError: the file cannot be read, or the label cannot be predicted.
    """
    frame = read_table(path, exact=name_columns(source))
    columns = describe_columns(frame)
    if not source.label:
        note = "name the column to predict with --label, and the task, the classes and what is held out are told"
        return TableDescription(frame.height, columns, [note], [])
    dataset = read_frame(frame, source, str(path), path.parent)
    assert dataset.schema is not None
    features = f"{quantity(len(dataset.features), 'feature')} of {quantity(len(dataset.schema.columns), 'column')}"
    return TableDescription(frame.height, columns, [*dataset.notes, features], _describe_outputs(dataset))


def _describe_outputs(dataset: Dataset) -> list[dict[str, Any]]:
    parts = {"train": dataset.train, "test": dataset.test}
    labels = {name: part[1] for name, part in parts.items() if isinstance(part, tuple)}
    if dataset.task == "regression":
        return [_describe_target(name, labels["train"][:, i]) for i, name in enumerate(dataset.output_names)]
    classes = len(dataset.output_names)
    counts = {
        part: np.bincount(y, minlength=classes) if y.ndim == 1 else y.sum(0).astype(int) for part, y in labels.items()
    }
    what = "class" if dataset.task == "classification" else "label"
    return [
        {what: name, **{part: int(count[i]) for part, count in counts.items()}}
        for i, name in enumerate(dataset.output_names)
    ]


def _describe_target(name: str, y: Array) -> dict[str, Any]:
    low, median, high = (float(value) for value in np.quantile(y, (0, 0.5, 1)))
    return {"target": name, "lowest": low, "median": median, "mean": float(y.mean(dtype=float)), "highest": high}
