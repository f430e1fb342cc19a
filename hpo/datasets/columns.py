"""Columns of a table: what each holds, and the task that a column as target makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hpo.errors import DataError, find_closest
from hpo.utils.text import shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Column", "ColumnKind", "Task", "describe_columns", "guess_task"]

ColumnKind = Literal["number", "category", "date", "text", "identifier", "constant", "nested"]
Task = Literal["binary", "multiclass", "regression"]
LONG_TEXT = 40  # characters on average; longer ones are sentences, not names
MAX_CATEGORIES = 1000
MOST_CLASSES = 20  # that whole numbers are taken for without being asked
SAMPLE = 100_000  # rows from which the kind of a column of texts is told


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        name: as the file has it.
        kind: what it is used as; identifiers, constants, texts and nested values are of no use to a network.
        type: of its values, as polars calls it.
        missing: number of rows without a value.
        distinct: number of different values.
        range: lowest and highest of numbers and dates; the most frequent of others.
        note: what is odd about it, and what to do.
    """

    name: str
    kind: ColumnKind
    type: str
    missing: int
    distinct: int
    range: str = ""
    note: str = ""

    @property
    def usable(self) -> bool:
        """True if a model can learn from it."""
        return self.kind in ("number", "category", "date")


def describe_columns(frame: pl.DataFrame) -> list[Column]:
    """Return what each column of a table holds.

    Args:
        frame: the table, (N rows).
    """
    return [_describe(frame[name]) for name in frame.columns]


def _describe(series: pl.Series) -> Column:
    kind_type = str(series.dtype)
    if series.dtype.is_nested() or series.dtype.is_object():
        return Column(series.name, "nested", kind_type, series.null_count(), 0, note="holds lists or tables; drop it")
    missing = _count_missing(series)
    distinct = series.n_unique() - (series.null_count() > 0)
    kind, note = _find_kind(series, distinct, len(series) - missing)
    return Column(series.name, kind, kind_type, missing, distinct, _describe_range(series, kind), note)


def _count_missing(series: pl.Series) -> int:
    missing = series.null_count()
    if series.dtype.is_float():
        missing += int(series.is_nan().sum())
    return missing


def _find_kind(series: pl.Series, distinct: int, present: int) -> tuple[ColumnKind, str]:
    if distinct <= 1:
        return "constant", "has the same value everywhere; it is dropped" if distinct else "is empty; it is dropped"
    if series.dtype.is_temporal():
        return "date", ""
    if series.dtype.is_numeric():
        return ("identifier", "counts the rows; it is dropped") if _counts_rows(series, distinct) else ("number", "")
    if series.dtype.is_numeric() or str(series.dtype) == "Boolean":
        return "category", ""
    return _find_kind_of_texts(series, distinct, present)


def _counts_rows(series: pl.Series, distinct: int) -> bool:
    """Return whether whole numbers are those of the rows, in their order."""
    if not series.dtype.is_integer() or distinct != len(series) or distinct < 3:
        return False
    steps = series.diff().drop_nulls()
    return int(steps.min()) == 1 == int(steps.max())  # type: ignore[arg-type]


def _find_kind_of_texts(series: pl.Series, distinct: int, present: int) -> tuple[ColumnKind, str]:
    import polars as pl

    texts = series.drop_nulls().head(SAMPLE).cast(pl.String)
    if (problem := _find_misfit(series, texts)) is not None:
        return "text", problem
    if float(texts.str.len_chars().mean() or 0) > LONG_TEXT:  # type: ignore[arg-type]
        return "text", "holds sentences, which tables cannot learn from; drop it"
    if distinct == present and present > 20:
        return "identifier", "differs in every row; it is dropped"
    if distinct > MAX_CATEGORIES:
        return "text", f"has {distinct:,} different values; group them, or drop it"
    return "category", ""


def _find_misfit(series: pl.Series, texts: pl.Series) -> str | None:
    """Return which value makes a column of numbers one of texts, if nearly all of them are numbers."""
    import polars as pl

    numbers = texts.cast(pl.Float64, strict=False)
    odd = numbers.null_count()
    if not 0 < odd <= 0.1 * len(texts):
        return None
    row = next(i for i, value in enumerate(series) if value is not None and not _is_number(value))
    return f"row {row + 1}: {shorten(series[row], 40)} is no number, but nearly all others are; correct it"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _describe_range(series: pl.Series, kind: ColumnKind) -> str:
    if kind in ("number", "date"):
        values = series.drop_nulls()
        if series.dtype.is_float():
            values = values.drop_nans()
            return f"{float(values.min()):.6g} to {float(values.max()):.6g}"  # type: ignore[arg-type]
        return f"{values.min()!s} to {values.max()!s}"
    if kind in ("category", "constant") and series.null_count() < len(series):
        return f"most often {shorten(str(series.drop_nulls().mode().sort()[0]), 30, quote=False)}"
    return ""


def guess_task(frame: pl.DataFrame, label: str, where: str) -> tuple[Task, str]:
    """Guess the task that a column as target makes, and say why.

    Args:
        frame: the table.
        label: the column's name.
        where: how the file is called in errors.

    Raises:
        DataError: there is no such column, or it holds nothing that can be predicted.
    """
    if label not in frame.columns:
        raise DataError(f"{where}: {_explain_missing(label, frame.columns)}")
    series, column = frame[label], _describe(frame[label])
    if column.distinct == 0:
        raise DataError(f"{where}, column '{label}': holds no values; name another label")
    if column.distinct == 1:
        raise DataError(
            f"{where}, column '{label}': has one value everywhere ({column.range[11:]}); nothing is to learn"
        )
    if column.kind == "date" or column.kind == "nested":
        raise DataError(
            f"{where}, column '{label}': holds {column.type}, which cannot be predicted; name another label"
        )
    if series.dtype.is_float() and not (series.drop_nulls().drop_nans() % 1 == 0).all():
        return "regression", "its values are numbers with fractions"
    if series.dtype.is_numeric() and column.distinct > MOST_CLASSES:
        return "regression", f"it has {column.distinct:,} different numbers"
    if column.distinct == len(series) and len(series) > 20:
        raise DataError(f"{where}, column '{label}': differs in every row, like an identifier; name another label")
    what = "numbers" if series.dtype.is_numeric() else "values"
    return ("binary" if column.distinct == 2 else "multiclass"), f"it has {column.distinct} different {what}"


def _explain_missing(name: str, names: Sequence[str]) -> str:
    near = find_closest(name, names)
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"has no column '{name}'; " + (f"did you mean '{near}'?" if near else f"its columns are: {shown}")
