"""Columns of a table on the card of an exported model: what they hold, and what stands for missing values."""

from __future__ import annotations

from datetime import date, timedelta

from hpo.datasets.features import Feature
from hpo.datasets.table_encoder import CategoryColumn, NumberColumn
from hpo.export.format import Preprocessing
from hpo.utils.text import shorten

__all__ = ["describe_columns"]

CATEGORIES = 20  # that are listed
LONGEST = 40  # characters of a category
FIRST_DATE = date(2000, 1, 1)  # from which days are counted
OTHER = "as any value that is not listed"


def describe_columns(inputs: Preprocessing) -> list[list[str]]:
    """Return a row per column of the raw matrix: number, name, what it holds, and what stands for it if missing.

    Args:
        inputs: of a table, with an encoder.
    """
    assert inputs.encoder is not None
    features = dict(enumerate(inputs.table.features)) if inputs.table is not None else {}
    dates = set(inputs.table.dates) if inputs.table is not None else set()
    return [
        [str(number), column.name, *_describe(column, features.get(number), dates)]
        for number, column in enumerate(inputs.encoder.columns)
    ]


def _describe(column: NumberColumn | CategoryColumn, feature: Feature | None, dates: set[str]) -> tuple[str, str]:
    if isinstance(column, CategoryColumn):
        return _describe_category(column, feature)
    if feature is None or feature.column not in dates:
        return "number", f"{_number_text(column.median)}, the median"
    if feature.name == feature.column:
        day = FIRST_DATE + timedelta(days=round(column.median))
        return "date, in days since 2000-01-01", f"{day.isoformat()}, the median"
    part, _, wave = feature.name.removeprefix(f"{feature.column}.").rpartition("_")
    what = f"{'cosine' if wave == 'cos' else 'sine'} of the {part} of {feature.column}, from -1 to 1"
    return what, f"{_number_text(round(column.median, 4))}, the median"


def _describe_category(column: CategoryColumn, feature: Feature | None) -> tuple[str, str]:
    count = len(column.codes) - 2
    names = () if feature is None else feature.categories[:CATEGORIES]
    listed = ", ".join(f"{code} {shorten(name, LONGEST, quote=False)}" for code, name in enumerate(names, 1))
    more = f", … up to {count}" if names and count > len(names) else ""
    codes = f": 0 any other value, {listed}{more}" if names else f" from 0 (any other value) to {count}"
    return f"category, by code{codes}", "a code of its own" if column.missing else OTHER


def _number_text(value: float) -> str:
    """Format a number as people write it: 1961, 0.25, 12,500,000."""
    text = f"{value:.6g}"
    return f"{value:,.0f}" if "e+" in text and abs(value) < 1e15 else text.replace("-0", "0") if value == 0 else text
