"""Roles of a data set's columns: groups, times and weights of its samples, whatever kind of file they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.datasets.columns import count_missing, find_date_formats, parse_dates
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError
from hpo.utils.text import shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Roles"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Roles:
    """Columns that say how rows are used, (N,) each, or None.

    Attributes:
        groups: the number of each row's group, from 0.
        times: of each row; dates are days since 1970.
        weights: of each row in training, from 0 on.
    """

    groups: Array | None
    times: Array | None
    weights: Array | None

    @classmethod
    def read(cls, frame: pl.DataFrame, source: DatasetSource, where: str, rows: Array) -> Roles:
        """Read the columns that a source names from a table.

        Args:
            frame: the table, (N rows).
            source: its `group`, `time` and `weight` are columns of the table.
            where: the beginning of an error's line.
            rows: the number of each row in its file, (N,).

        Raises:
            DataError: a value is missing, or is no date or number, or no weight; the line names column and row.
        """
        for name in (source.group, source.time, source.weight):
            if name is not None and count_missing(frame[name]):
                row = rows[int(np.argmax(_is_missing(frame[name])))]
                raise DataError(f"{where}, column '{name}', row {row}: is empty; each row needs a value there")
        return cls(
            None if source.group is None else frame[source.group].rank("dense").to_numpy().astype(np.int64) - 1,
            None if source.time is None else _read_times(frame[source.time], where, rows),
            None if source.weight is None else _read_weights(frame[source.weight], where, rows),
        )

    def take(self, index: Array) -> dict[str, Any]:
        """Return those of some rows, as `Dataset` has them."""
        named = {"groups": self.groups, "times": self.times, "weights": self.weights}
        return {name: None if values is None else values[index] for name, values in named.items()}


def _is_missing(values: pl.Series) -> Array:
    missing = values.is_null() | values.is_nan() if values.dtype.is_float() else values.is_null()
    return missing.to_numpy()


def _read_times(values: pl.Series, where: str, rows: Array) -> Array:
    """Return times as float64, dates in days since 1970."""
    import polars as pl

    if values.dtype in (pl.String, pl.Categorical):
        formats = find_date_formats(values)
        dates = parse_dates(values, formats[0]) if formats else None
        if dates is None or dates.null_count():
            row = 0 if dates is None else int(dates.is_null().arg_max() or 0)
            text = shorten(values[row], 40)
            raise DataError(f"{where}, column '{values.name}', row {rows[row]}: {text} is no date; correct it")
        values = dates
    if values.dtype.is_temporal():
        return values.cast(pl.Datetime("us")).dt.timestamp("us").to_numpy() / 86_400_000_000
    if not values.dtype.is_numeric():
        raise DataError(f"{where}, column '{values.name}': holds {values.dtype}; times are dates or numbers")
    return values.cast(pl.Float64).to_numpy()


def _read_weights(values: pl.Series, where: str, rows: Array) -> Array:
    import polars as pl

    weights = values.cast(pl.Float64, strict=False).to_numpy()
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(bad.argmax())
        text = shorten(values[row], 40)
        raise DataError(f"{where}, column '{values.name}', row {rows[row]}: {text} is no weight; it must be 0 or more")
    if not weights.any():
        raise DataError(f"{where}, column '{values.name}': all weights are 0; some must be more")
    return weights.astype(np.float32)
