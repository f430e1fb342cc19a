"""Columns of a table: what each holds, whether a model can learn from it, and what is odd about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpo.errors import find_closest
from hpo.utils.text import format_number, shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "Column",
    "ColumnKind",
    "count_categories",
    "count_missing",
    "count_values",
    "describe_column",
    "describe_columns",
    "explain_missing",
    "find_date_formats",
    "find_marked_number",
    "find_misfit",
    "numbers_rows",
    "parse_dates",
]

Array = np.ndarray[Any, Any]
ColumnKind = Literal["number", "boolean", "category", "date", "mixed", "text", "identifier", "constant", "nested"]
FEW_ROWS = 20  # up to which nothing is taken for an identifier: values that all differ are no wonder
LONG_TEXT, MANY_WORDS = 40, 6  # on average; more are sentences, not names
IDENTIFIER_NOTE = "differs in nearly every row; it is dropped"
MIDNIGHT = " 00:00:00"  # of a date without a time
SAMPLE = 10_000  # rows from which the kind of a column of texts is told
MISFITS = 0.1  # share of values that are no numbers, up to which a column of texts is one of numbers with mistakes
IDENTIFIER_NAME = re.compile(
    r"(?i:(?:^|[_ .-])(?:id|uuid|guid|index)$|^column_1$)|(?<=[a-z])I[dD]$"
    r"|^Unnamed: \d+$|^__index_level_\d+__$"  # the index of a frame that pandas has written
)
MARKED_NUMBER = (  # one with a sign, separators of thousands or a decimal comma, which is read as a text
    r"^\s*[+-]?[$€£¥]?\s?(?:\d+|\d{1,3}(?:[,.'\u00a0 ]\d{3})+)(?:[.,]\d+)?\s?[%‰$€£¥]?\s*$"
)
DATE = (
    r"^\d{1,4}[-/. ]\w{1,9}[-/. ,]+\d{1,4}(?:\D|$)|^[A-Za-z]{3,9} \d{1,2}, \d{4}"  # what may be one, or begin with one
)
DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d/%m/%y"),
    *("%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
TIMES = (
    *("", " %H:%M:%S", "T%H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f", "T%H:%M:%S%.f%#z"),
    *(" %H:%M:%S%.f%#z", " %I:%M:%S %p", " %I:%M %p"),
)


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        name: as the file has it.
        kind: what it is used as; no model learns from those of the last five kinds.
        type: of its values, as polars calls it.
        missing: number of rows without a value.
        distinct: number of different values; None where they were not counted.
        range: lowest and highest of numbers and dates; the most frequent of others.
        note: what is odd about it, and what to do.
    """

    name: str
    kind: ColumnKind
    type: str
    missing: int
    distinct: int | None = None
    range: str = ""
    note: str = ""

    @property
    def usable(self) -> bool:
        """True if a model can learn from it."""
        return self.kind in ("number", "boolean", "category", "date")


def describe_columns(frame: pl.DataFrame, *, count: bool = True) -> list[Column]:
    """Return what each column of a table holds.

    Args:
        frame: the table, (N rows).
        count: whether the different values are counted, and the most frequent found, which takes time.
    """
    with ThreadPoolExecutor() as pool:  # polars computes without Python's lock
        return list(pool.map(lambda values: describe_column(values, count=count), frame))


def describe_column(values: pl.Series, *, count: bool = True) -> Column:
    """Return what a column holds; see `describe_columns`."""
    import polars as pl

    column = Column(values.name, "nested", str(values.dtype), count_missing(values))
    if values.dtype.is_nested() or values.dtype in (pl.Object, pl.Binary):
        return replace(column, note="holds lists or objects, not one value a row; it is dropped")
    present = len(values) - column.missing
    if present == 0:
        return replace(column, kind="constant", distinct=0, note="is empty; it is dropped")
    low_high = _find_range(values)
    distinct = count_values(values).height if count else None
    if column.missing == 0 and _is_constant(values, low_high):
        note = "has the same value in every row; it is dropped"
        return replace(column, kind="constant", distinct=1, range=shorten(str(values[0]), 30, quote=False), note=note)
    kind, note = _find_kind(values, present, low_high)
    if count and kind == "date" and low_high is None:
        times = parse_dates(values, find_date_formats(values)[0])
        low_high = times.min(), times.max()
    return replace(column, kind=kind, distinct=distinct, range=_format_range(values, low_high, count), note=note)


def count_missing(values: pl.Series) -> int:
    """Return how many rows have no value: nothing, or NaN."""
    return values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)


def _is_constant(values: pl.Series, low_high: tuple[Any, Any] | None) -> bool:
    if low_high is not None:
        return bool(low_high[0] == low_high[1])
    return bool(values[0] == values[-1]) and values.n_unique() == 1


def count_values(values: pl.Series) -> pl.DataFrame:
    """Return the different values of a column and how often each is there, as the columns `value` and `count`."""
    import polars as pl

    values = values.drop_nulls().alias("value")
    if values.dtype.is_float():
        values = values.drop_nans()
    if values.dtype != pl.Categorical or not len(values):
        return values.value_counts(name="count")
    codes, counts, texts = count_categories(values)
    return pl.DataFrame({"value": texts, "count": counts[codes]})


def count_categories(values: pl.Series) -> tuple[Array, Array, pl.Series]:
    """Count categories by polars' codes of them, which takes a third of the time of its own `unique`.

    Args:
        values: a categorical column (N,), of which some may be missing.

    Returns:
        The codes that are there (n,), ascending, the number of each code from 0, and the texts (n,) of those there.
    """
    import polars as pl

    values = values.drop_nulls()
    codes = values.to_physical().to_numpy()
    counts = np.bincount(codes)
    places = np.empty(len(counts), np.int64)
    places[codes] = np.arange(len(codes))  # of one row of each code
    found = np.flatnonzero(counts)
    return found, counts, values.gather(places[found]).cast(pl.String)


def _count_distinct(values: pl.Series) -> int:
    """Count the different values of texts, one that is missing among them."""
    import polars as pl

    if values.dtype != pl.Categorical:
        return values.n_unique()
    return len(count_categories(values)[0]) + (values.null_count() > 0)


def _find_range(values: pl.Series) -> tuple[Any, Any] | None:
    """Return the lowest and highest value of numbers and dates; None for texts, whose order says nothing."""
    if not (values.dtype.is_numeric() or values.dtype.is_temporal()):
        return None
    return values.min(), values.max()


def _format_range(values: pl.Series, low_high: tuple[Any, Any] | None, count: bool) -> str:
    if low_high is not None:
        days = all(str(value).endswith(MIDNIGHT) for value in low_high)
        low, high = (format_number(each) if isinstance(each, float) else str(each) for each in low_high)
        return f"{low.removesuffix(MIDNIGHT)} to {high.removesuffix(MIDNIGHT)}" if days else f"{low} to {high}"
    if not count:
        return ""
    value, times = count_values(values).sort(["count", "value"], descending=[True, False]).row(0)
    return f"most often {shorten(str(value), 30, quote=False)}" if times > 1 else ""


def _find_kind(values: pl.Series, present: int, low_high: tuple[Any, Any] | None) -> tuple[ColumnKind, str]:
    import polars as pl

    if values.dtype in (pl.Date, pl.Datetime):
        return "date", ""
    if low_high is not None:
        return ("identifier", "numbers the rows; it is dropped") if numbers_rows(values) else ("number", "")
    return ("boolean", "") if values.dtype == pl.Boolean else _find_kind_of_texts(values, present)


def numbers_rows(values: pl.Series) -> bool:
    """Return whether whole numbers that all differ leave none out, or are called an identifier."""
    if not values.dtype.is_integer() or values.null_count() or len(values) <= FEW_ROWS:
        return False
    low, high = (int(each) for each in (values.min(), values.max()))  # type: ignore[arg-type]
    likely = high - low + 1 == len(values) or IDENTIFIER_NAME.search(values.name) is not None
    return likely and values.n_unique() == len(values)


def _find_kind_of_texts(values: pl.Series, present: int) -> tuple[ColumnKind, str]:
    import polars as pl

    sample = values.head(SAMPLE).drop_nulls().cast(pl.String)
    if formats := find_date_formats(values):
        return "date", f"read as {formats[0]}, though {formats[1]} fits as well" if len(formats) > 1 else ""
    if (misfit := find_misfit(values)) is not None:
        row, text = misfit
        return "mixed", f"row {row} holds {shorten(text, 40)}, but nearly all others are numbers; correct or drop it"
    marked = find_marked_number(sample)
    what = f"holds numbers such as {shorten(marked, 40)}, which are read as texts" if marked else ""
    note = what and f"{what}; write plain numbers"
    if _count_distinct(values) <= present / 2:
        return "category", note  # no more than half of them are there once
    once = int((count_values(values)["count"] == 1).sum())
    words = float(sample.str.count_matches(r"\s+").mean() or 0) + 1  # type: ignore[arg-type]
    length = float(sample.str.len_chars().mean() or 0)  # type: ignore[arg-type]
    if present > FEW_ROWS and once > present / 2 and (length > LONG_TEXT or words >= MANY_WORDS):
        advice = f'name it as text = "{values.name}" to learn from it alone, or put numbers in its place'
        return "text", f"holds free text, from which no table's model learns; it is dropped ({advice})"
    if present > FEW_ROWS and once > 0.95 * present:
        return "identifier", f"{what}; it is dropped, write plain numbers" if what else IDENTIFIER_NOTE
    return "category", note


def find_marked_number(texts: pl.Series) -> str | None:
    """Return the first marked one of texts that are nearly all numbers, some with a sign or separators: 3 %, 1,000."""
    import polars as pl

    marked = texts.str.contains(MARKED_NUMBER)
    plain = texts.cast(pl.Float64, strict=False).is_not_null()
    found = texts.filter(marked & ~plain)
    return str(found[0]) if len(found) and (marked | plain).sum() >= (1 - MISFITS) * len(texts) else None


def find_misfit(values: pl.Series) -> tuple[int, str] | None:
    """Return the first text among texts that are nearly all numbers, with its row from 1; None if they are not.

    Args:
        values: texts, (N,).
    """
    import polars as pl

    sample = values.head(SAMPLE).drop_nulls().cast(pl.String)
    if sample.cast(pl.Float64, strict=False).null_count() > MISFITS * len(sample):
        return None
    texts = values.cast(pl.String)
    wrong = texts.is_not_null() & texts.cast(pl.Float64, strict=False).is_null()
    if not 0 < int(wrong.sum()) <= MISFITS * len(texts):
        return None
    row = int(wrong.arg_max() or 0)
    return row + 1, str(texts[row])


def find_date_formats(values: pl.Series) -> list[str]:
    """Return the formats that fit texts which are dates: one, or two where nothing tells days from months.

    Args:
        values: texts, (N,); a few may be no dates.
    """
    import polars as pl

    sample = values.head(SAMPLE).drop_nulls().head(500).cast(pl.String)
    if not len(sample) or float(sample.str.contains(DATE).mean() or 0) < 1 - MISFITS:  # type: ignore[arg-type]
        return []
    for time in TIMES:
        found = [day + time for day in DAYS if _share(sample, day + time) >= 1 - MISFITS]
        if len(found) > 1:
            shares = {form: _share(values.drop_nulls().unique(), form) for form in found}
            found = [form for form in found if shares[form] == max(shares.values())]
        if found:
            return found[:2]
    return []


def _share(texts: pl.Series, form: str) -> float:
    """Return the share of texts that are dates of a format, from the year 1000 on: 21 is none of four digits."""
    dates = parse_dates(texts, form)
    return float((dates.dt.year() >= 1000).sum()) / len(texts)


def parse_dates(texts: pl.Series, form: str) -> pl.Series:
    """Return texts as times without a zone, those with one in UTC; null where they have another format."""
    import polars as pl

    texts = texts.cast(pl.String)
    if "%M" not in form:  # minutes, without which there is no time of day
        return texts.str.to_date(form, strict=False, cache=False).cast(pl.Datetime("us"))
    times = texts.str.to_datetime(form, strict=False, cache=False, time_unit="us")
    return times.dt.replace_time_zone(None)


def explain_missing(name: str, names: Sequence[str]) -> str:
    """Return what is said of a column that is not there: the nearest name, or all of them."""
    near = find_closest(name, names) or next((each for each in names if each.lower() == name.lower()), None)
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"has no column '{name}'; " + (f"did you mean '{near}'?" if near else f"its columns are: {shown}")
