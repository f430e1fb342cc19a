"""Rows of a user's data, read from where they are; a report has them only where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets import Dataset, DatasetReference, Feature, is_path, is_split, load
from hpo.datasets.readers import find_path
from hpo.datasets.reference import locate_file
from hpo.datasets.table_file import is_table, read_table
from hpo.errors import DataError
from hpo.report.data.predictions import WorstRows
from hpo.report.format import NONE, amount_text, one_line

__all__ = ["UserRows", "is_public", "read_user_rows"]

CELL_LIMIT = 40  # characters


@dataclass(frozen=True)
class UserRows:
    """Some rows of a table.

    Attributes:
        features: names of the columns.
        cells: of each row, the columns' values as texts.
    """

    features: Sequence[str]
    cells: Sequence[Sequence[str]]


def is_public(data: DatasetReference | None) -> bool:
    """Return whether a data set is one that the package names, and no user's."""
    return data is not None and data.module is None and not is_path(data.name)


def read_user_rows(data: DatasetReference, split: str, worst: WorstRows, limit: int) -> UserRows | None:
    """Read the first `limit` rows of the worst predictions; None where samples are no table.

    Those of a file of a table have all its columns, with the values that stand there.

    Args:
        data: the reference of the data set.
        split: `validation` or `test`, which they are of.
        worst: their numbers.
        limit: how many.

    Raises:
        DataError, RegistryError: the data set is not here, or is another one.
    """
    if worst.in_file and is_table(data.name):
        return _read_file_rows(data, split, worst.rows[:limit])
    dataset = load(data)
    part = _part(dataset, split)
    x: Any = _part_samples(dataset, part)
    if x is None or x.ndim != 2:
        return None
    places = _places(dataset, part, worst)[:limit]
    if places.size and (places.min() < 0 or places.max() >= len(x)):
        raise DataError(f"{data.name}: has no such rows; it is not the data set that was evaluated")
    features = dataset.features or [Feature(name=f"feature {i}", column="") for i in range(x.shape[1])]
    cells = [[_cell_text(feature, float(x[i, j])) for j, feature in enumerate(features)] for i in places]
    return UserRows([one_line(feature.name) for feature in features], cells)


def _read_file_rows(data: DatasetReference, split: str, rows: np.ndarray[Any, Any]) -> UserRows:
    """Read rows of the file that a split is in, by their numbers from 1."""
    path = locate_file(data)
    part = None if data.source is None else getattr(data.source, split)
    path = find_path(Path(part)) if isinstance(part, str) else path
    frame = read_table(path, texts=read_table(path).columns)  # as they are written, for 007 is not 7
    if rows.size and (rows.min() < 1 or rows.max() > frame.height):
        raise DataError(f"{path}: has no such rows; it is not the data set that was evaluated")
    cells = [[_value_text(value) for value in frame.row(int(row) - 1)] for row in rows]
    return UserRows([one_line(name) for name in frame.columns], cells)


def _value_text(value: Any) -> str:
    text = NONE if value is None else f"{value:.7g}" if isinstance(value, float) else str(value)
    return one_line(text)[:CELL_LIMIT]


def _part(dataset: Dataset, split: str) -> str:
    return "train" if split == "validation" and dataset.validation is None else split


def _part_samples(dataset: Dataset, name: str) -> Any:
    part: Any = getattr(dataset, name)
    part = part() if callable(part) else part
    if not is_split(part):
        return None
    x = part[0]
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _places(dataset: Dataset, part: str, worst: WorstRows) -> np.ndarray[Any, Any]:
    """Return the positions of the rows in their part; -1 where it has no such row."""
    if not worst.in_file:
        return worst.rows
    rows = dataset.rows.get(part, np.zeros(0, np.int64))
    known = {int(row): i for i, row in enumerate(rows)}
    return np.array([known.get(int(row), -1) for row in worst.rows], np.int64)


def _cell_text(feature: Feature, value: float) -> str:
    if math.isnan(value):
        return NONE
    if feature.kind == "number":
        return amount_text(value)
    code = int(value)
    text = feature.categories[code - 1] if 1 <= code <= len(feature.categories) else "(rare)"
    return one_line(text)[:CELL_LIMIT]
