"""Schema of a table: the features that its columns make, and how rows become the raw matrix that models start from."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from hpo.datasets.columns import (
    Column,
    count_categories,
    count_missing,
    count_values,
    describe_column,
    explain_missing,
    find_date_formats,
    find_misfit,
    numbers_rows,
    parse_dates,
)
from hpo.datasets.features import Feature
from hpo.datasets.table_labels import TableLabels, to_texts
from hpo.errors import DataError
from hpo.utils.text import shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TableSchema", "make_schema"]

Array = np.ndarray[Any, Any]
CPUS = len(os.sched_getaffinity(0))  # threads that compute columns; polars does so without Python's lock
SAMPLE = 100_000  # rows by which the parts of a date are chosen
MAX_CATEGORIES = 1000
LEAST_ROWS = 2  # of a category that has a code of its own
FIRST_DAY = 10_957  # 1 January 2000, from which days are counted, in days since 1970
DAY = 86_400_000_000  # in microseconds
PERIODS = {"month": 12, "weekday": 7, "hour": 24}  # of the parts of a date that recur
STEPS = {"month": 1, "weekday": 1, "hour": 60}  # in which each is counted: minutes


class TableSchema(BaseModel):
    """Schema of a table, with which new rows are read as the training data were.

    Attributes:
        features: the columns of the raw matrix.
        labels: what is predicted.
        dates: the columns that hold dates, with the format of those that are texts; empty for others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[Feature, ...]
    labels: TableLabels
    dates: dict[str, str] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that features are made of."""
        return tuple(dict.fromkeys(feature.column for feature in self.features))

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that are texts, whatever their values look like; see `read_table`."""
        categories = [feature.column for feature in self.features if feature.kind == "category"]
        return (*categories, *(column for column, form in self.dates.items() if form))

    def read(self, frame: pl.DataFrame, where: str = "the table", rows: Array | None = None) -> Array:
        """Return the raw matrix of rows, float32 (N, features), as `Feature` describes it.

        Args:
            frame: a table (N rows) with the columns of the features; others are ignored.
            where: how the file is called in errors.
            rows: the number (N,) of each row in its file; by default from 1.

        Raises:
            DataError: a column is missing, or a value is no number, no date or infinite.
        """
        numbers = np.arange(1, frame.height + 1) if rows is None else rows
        return self.fill(self.choose(frame, where), [np.arange(frame.height)], where, numbers)[0]

    def choose(self, frame: pl.DataFrame, where: str) -> dict[str, pl.Series]:
        """Return the columns of a table that features are made of; see `read`."""
        for column in self.columns:
            if column not in frame.columns:
                raise DataError(f"{where}: {explain_missing(column, frame.columns)}")
        return {column: frame[column] for column in self.columns}

    def fill(self, columns: dict[str, pl.Series], parts: Sequence[Array], where: str, rows: Array) -> list[Array]:
        """Return the raw matrices (n, features) of parts of a table, from its columns as `choose` returns them.

        They lie in memory column by column, as tables do: it is the encoder that gathers samples.

        Args:
            columns: of the table (N rows). Each is taken out as it is used, so that no value is in memory twice.
            parts: the indices (n,) of the rows of each.
            where: how the file is called in errors.
            rows: the number (N,) of each row in its file.

        Raises:
            DataError: a value is no number, no date or infinite.
        """
        matrices = [np.empty((len(self.features), len(index)), np.float32).T for index in parts]

        def fill_column(name: str) -> None:
            places = [place for place, feature in enumerate(self.features) if feature.column == name]
            column = self._convert(columns.pop(name), where, rows).to_frame()
            found = column.select(self._express(self.features[place]) for place in places)
            del column
            for place, values in zip(places, (each.to_numpy() for each in found), strict=True):
                if np.isinf(values).any():
                    raise DataError(
                        f"{where}, column '{name}', row {rows[np.isinf(values).argmax()]}: holds an infinite number, "
                        "or one beyond 3.4e38; replace it, or leave it empty"
                    )
                for index, x in zip(parts, matrices, strict=True):
                    np.take(values, index, out=x[:, place], mode="clip")  # in the mode "raise" it makes a copy

        with ThreadPoolExecutor(CPUS) as pool:
            list(pool.map(fill_column, self.columns))
        return matrices

    def _convert(self, values: pl.Series, where: str, rows: Array) -> pl.Series:
        """Return a column with the type that its features are computed from."""
        import polars as pl

        feature = next(each for each in self.features if each.column == values.name)
        if feature.kind == "category":
            return _to_codes(values, feature.categories)
        if values.name in self.dates:
            converted, what = _to_times(values, self.dates[values.name]), "date like those in training"
        elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
            converted, what = values.cast(pl.String).cast(pl.Float64, strict=False), "number"
        elif values.dtype == pl.Duration:
            return values.dt.total_microseconds() / DAY
        elif values.dtype == pl.Time:
            return values.cast(pl.Int64) / (DAY * 1000)  # polars counts its nanoseconds
        else:
            return values
        if converted.null_count() > values.null_count():
            row = int((converted.is_null() & values.is_not_null()).arg_max() or 0)
            raise DataError(
                f"{where}, column '{values.name}', row {rows[row]}: {shorten(values[row], 40)} is no {what}; "
                "correct it, or drop the column"
            )
        return converted

    def _express(self, feature: Feature) -> pl.Expr:
        """Return the expression by which a feature is computed from its column."""
        import polars as pl

        column = pl.col(feature.column)
        if feature.column not in self.dates:
            return column.cast(pl.Float32).alias(feature.name)
        part = feature.name.removeprefix(feature.column).removeprefix(".")
        if not part:
            return (column.dt.timestamp("us") / DAY - FIRST_DAY).cast(pl.Float32).alias(feature.name)
        return _express_wave(column, *part.split("_")).alias(feature.name)


def _express_wave(column: pl.Expr, part: str, wave: str) -> pl.Expr:
    """Return the expression of the sine or cosine of a part of dates, looked up: there are few values of it."""
    import polars as pl

    period, steps = PERIODS[part], STEPS[part]
    angles = pl.Series(np.arange(period * steps) / steps).cast(pl.Float32) * (2 * math.pi / period)
    return pl.lit(angles.sin() if wave == "sin" else angles.cos()).gather(_express_part(column, part))


def _express_part(column: pl.Expr, part: str) -> pl.Expr:
    """Return the expression of a part of dates, counted from 0 in its `STEPS`."""
    import polars as pl

    if part == "hour":
        return column.dt.hour().cast(pl.UInt32) * 60 + column.dt.minute()
    return (column.dt.month() if part == "month" else column.dt.weekday()).cast(pl.UInt32) - 1


def _to_codes(values: pl.Series, categories: tuple[str, ...]) -> pl.Series:
    """Return values as codes: null where missing, 0 for any that is not listed, i + 1 for the i-th."""
    import polars as pl

    if values.dtype == pl.Categorical:
        return _to_codes_of_categories(values, categories)
    codes = to_texts(values).cast(pl.Enum(categories), strict=False).to_physical().cast(pl.UInt16) + 1
    return codes.fill_null(0).set(values.is_null(), None)


def _to_codes_of_categories(values: pl.Series, categories: tuple[str, ...]) -> pl.Series:
    """Return what `_to_codes` does by looking up polars' own codes, in a tenth of the time."""
    import polars as pl

    codes, counts, texts = count_categories(values)
    position = {category: code for code, category in enumerate(categories, 1)}
    table = np.zeros(max(len(counts), 1), np.uint16)
    table[codes] = [position.get(text, 0) for text in texts]
    coded = pl.Series(values.name, table[values.to_physical().fill_null(0).to_numpy()])
    return coded.set(values.is_null(), None) if values.null_count() else coded


def _to_times(values: pl.Series, form: str) -> pl.Series:
    """Return dates as times without a zone; null where they cannot be read."""
    import polars as pl

    if values.dtype.is_temporal():
        times = values.cast(pl.Datetime("us", getattr(values.dtype, "time_zone", None)))
        return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if times.dtype.time_zone else times  # type: ignore[attr-defined]
    formats = [form] if form else find_date_formats(values)
    return (
        parse_dates(values, formats[0]) if formats else pl.Series(values.name, [None] * len(values), pl.Datetime("us"))
    )


def make_schema(
    frame: pl.DataFrame,
    labels: TableLabels,
    where: str,
    chosen: Array,
    rows: Array,
    skip: Collection[str] = (),
    time: str | None = None,
) -> tuple[TableSchema, list[Column]]:
    """Return the schema of a table by its training rows, and the columns of which something is to be said.

    Args:
        frame: the table (N rows).
        labels: what is predicted; its columns are no features.
        where: how the file is called in errors.
        chosen: which rows (N,) are training rows.
        rows: the number (N,) of each row in its file.
        skip: columns that are no features either.
        time: the column by which the latest rows are test and validation data; of it, only what recurs is a feature,
            for later times are never among those that a model was trained with.

    Raises:
        DataError: a column holds numbers and a few texts, or no column is left to learn from.
    """
    import polars as pl

    names = [name for name in frame.columns if name not in labels.columns and name not in skip]
    mask = pl.Series(chosen)
    with ThreadPoolExecutor(CPUS) as pool:
        made = list(pool.map(lambda name: _make_features(frame[name], mask, name == time), names))
    columns = [column for column, _, _ in made]
    for column in columns:
        if column.kind == "mixed":
            raise _explain_misfit(frame[column.name], where, rows)
    features = [feature for _, found, _ in made for feature in found]
    if not features:
        raise DataError(
            f"{where}: has no column to learn from; {_list_dropped(columns) or 'all are labels or dropped'}"
        )
    names = [feature.name for feature in features]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}, column '{double}': a date's part is called so; rename the column")
    dates = {column.name: form for column, found, form in made if column.kind == "date" and found}
    noted = [column for column, found, _ in made if column.note or not found]
    return TableSchema(features=tuple(features), labels=labels, dates=dates), noted


def _list_dropped(columns: list[Column]) -> str:
    return "; ".join(f"'{column.name}' {column.note}" for column in columns[:5])


def _explain_misfit(values: pl.Series, where: str, rows: Array) -> DataError:
    row, text = find_misfit(values) or (1, "")
    return DataError(
        f"{where}, column '{values.name}', row {rows[row - 1]}: holds {shorten(text, 40)}, but nearly all others are "
        "numbers; correct it, leave it empty, or drop the column"
    )


def _describe_training(whole: pl.Series, mask: pl.Series) -> tuple[Column, pl.Series]:
    """Return what the training rows (mask) of a column hold, and their values.

    What numbers the rows of the file does not number those of a part of it, and a column that says nothing in the
    training rows may have other values elsewhere.
    """
    values = whole.filter(mask)
    column = describe_column(values, count=False)
    if column.kind == "number" and numbers_rows(whole):
        return describe_column(whole, count=False), values
    if column.kind == "constant" and describe_column(whole, count=False).kind != "constant":
        others = len(whole) - count_missing(whole) - (len(values) - column.missing)
        held = "one value" if column.missing < len(values) else "no value"
        note = f"has {held} in the {len(values):,} training rows ({others:,} in the other rows); it is dropped"
        return replace(column, note=note), values
    return column, values


def _make_features(whole: pl.Series, mask: pl.Series, is_time: bool) -> tuple[Column, list[Feature], str]:
    """Return what the training rows (mask) of a column hold, its features, and its date format."""
    column, values = _describe_training(whole, mask)
    name, missing = values.name, column.missing > 0
    if column.kind == "category":
        categories = _list_categories(values)
        return column, [Feature(name=name, column=name, kind="category", missing=missing, categories=categories)], ""
    if column.kind == "date":
        form = "" if values.dtype.is_temporal() else find_date_formats(values)[0]
        parts = _choose_parts(_to_times(values.head(SAMPLE), form))
        names = [*([] if is_time else [name]), *(f"{name}.{part}_{wave}" for part in parts for wave in ("sin", "cos"))]
        return column, [Feature(name=each, column=name, missing=missing) for each in names], form
    if not column.usable or is_time:
        return column, [], ""
    return column, [Feature(name=name, column=name, missing=missing)], ""


def _list_categories(values: pl.Series) -> tuple[str, ...]:
    """Return the values that recur, the most frequent first."""
    import polars as pl

    counts = count_values(values).filter(pl.col("count") >= LEAST_ROWS)
    counts = counts.with_columns(to_texts(counts["value"])).sort(["count", "value"], descending=[True, False])
    return tuple(counts["value"].head(MAX_CATEGORIES))


def _choose_parts(times: pl.Series) -> list[str]:
    """Return the parts of dates that differ among them."""
    import polars as pl

    table = pl.DataFrame({"time": times.drop_nulls()})
    return [part for part in PERIODS if table.select(_express_part(pl.col("time"), part)).n_unique() > 1]
