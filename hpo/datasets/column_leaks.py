"""Columns of a table that tell the label in a way that new samples will not have.

Samples are put in the order of a column's values, and the label of each is predicted by that of its neighbour. A column
that does this without error tells the label, whatever the relation is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.datasets.data_facts import ColumnFact, ColumnKind
from hpo.datasets.dataset import Dataset
from hpo.datasets.features import Feature
from hpo.utils.text import shorten

__all__ = ["MOST_LABELS", "NamedLabels", "count_distinct", "find_columns", "shorten_name"]

Array = np.ndarray[Any, Any]
SAMPLE = 20_000  # samples in which a column is looked at
FEWEST = 30  # samples, of which less can be said by chance
FEWEST_ROWS, CELLS = 2000, 2_000_000  # of very many columns it is looked at fewer samples
MOST_COLUMNS = 5000
MIXER = np.int64(0x1E3779B97F4A7C15)  # odd, of no pattern
MOST_LABELS = 20  # of several
TOLD, GROUPED = 0.99, 0.9  # share of the label's uncertainty that a column explains, from which it is named
CORRELATED = 0.998  # of squared correlations, which are above 0.999² then
SURE = 0.999  # area under the ROC curve
MANY_VALUES = 20  # from which a column may name groups
PER_VALUE = 2  # samples, on average
LATEST = 0.2  # share of the samples that are called the latest
DRIFT = 0.1, 0.3  # of the classes' shares, in all; of the mean target, in standard deviations
CERTAIN = 6.0  # standard errors
TIME_NAME = re.compile(r"(?:^|[_ .-])(?:date|datetime|day|month|time|timestamp|year)(?:$|[_ .-])|(?:Date|Time)$", re.I)
LONGEST = 100  # characters of a name


@dataclass(frozen=True)
class NamedLabels:
    """Labels as training has them, with what they are called."""

    values: Array
    task: Task
    names: Sequence[str]

    def columns(self) -> Iterator[tuple[str, Array]]:
        """Yield each label or target with its name, empty where there is one alone."""
        if self.task == "classification":
            yield "", self.values
            return
        for column in range(min(self.values.shape[1], MOST_LABELS)):
            name = self.name(column) if self.values.shape[1] > 1 else ""
            yield name, self.values[:, column]

    def name(self, number: int) -> str:
        """Return the name of a class, label or target."""
        return shorten_name(str(self.names[number]) if number < len(self.names) else str(number))


def shorten_name(name: str) -> str:
    """Return a name of a column or class as facts have it."""
    return shorten(name, LONGEST, quote=False)


def count_distinct(values: Array) -> int:
    """Count the different values, (N,); by sorting, which is faster than `np.unique` of a million."""
    ordered = np.sort(values[values == values])  # not those that are missing
    return int((np.diff(ordered) != 0).sum()) + (len(ordered) > 0)


def find_columns(dataset: Dataset, x: Array, labels: NamedLabels) -> Iterator[ColumnFact]:
    """Yield the columns of a data set's training samples that are to be named.

    Args:
        dataset: whose features say what the columns are called, and which are categories.
        x: the samples, (N, columns).
        labels: of the samples.
    """
    if len(x) < FEWEST:
        return
    columns = min(x.shape[1], MOST_COLUMNS)
    rows = _draw_rows(len(x), min(SAMPLE, max(FEWEST_ROWS, CELLS // columns)))
    sampled = np.ascontiguousarray(x[rows, :columns].T)
    told: set[tuple[str, str]] = set()  # of a date each part would say it again
    for number, values in enumerate(sampled):
        column = _Column(dataset, number, x[:, number], values.astype(np.float64), rows)
        if dataset.times is None and column.is_time:
            yield from _find_drift(column, labels)
        found = _look_at(column, labels)
        if found is not None and (found.column, found.kind) not in told:
            told.add((found.column, found.kind))
            yield found


def _draw_rows(size: int, count: int) -> Array:
    if size <= count:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).choice(size, count, replace=False))


@dataclass(frozen=True)
class _Column:
    """Column of a data set.

    Attributes:
        dataset, number: whose, and which.
        all: its values, (N,).
        values: those of the rows that it is looked at in.
        rows: these.
    """

    dataset: Dataset
    number: int
    all: Array
    values: Array
    rows: Array

    @property
    def feature(self) -> Feature | None:
        """The meaning, if that is known."""
        features = self.dataset.features
        return features[self.number] if self.number < len(features) else None

    @property
    def is_category(self) -> bool:
        """True if its values are codes."""
        return self.feature is not None and self.feature.kind == "category"

    @property
    def is_time(self) -> bool:
        """True if it is a date, or is called so and the samples are in its order."""
        feature = self.feature
        if feature is None or feature.kind != "number" or feature.name != feature.column:
            return False
        if any(each.column == feature.column and each.name != feature.name for each in self.dataset.features):
            return True  # of a date there are other features as well: its month, its weekday
        named = TIME_NAME.search(feature.name) is not None
        return named and self.is_ordered and count_distinct(self.values) >= MANY_VALUES

    @property
    def is_ordered(self) -> bool:
        """True if the samples are in its order."""
        return bool(np.isfinite(self.values).all() and (np.diff(self.values) >= 0).mean() > 0.99)

    @property
    def is_whole(self) -> bool:
        """True if its values are whole numbers, or codes."""
        return self.is_category or bool((np.mod(self.values[np.isfinite(self.values)], 1) == 0).all())

    @property
    def numbers_rows(self) -> bool:
        """True if whole numbers all differ and leave out few between the first and the last."""
        values = self.all
        return bool(
            np.isfinite(values).all() and np.ptp(values) < 2 * len(values) and count_distinct(values) == len(values)
        )

    def complete(self) -> _Column:
        """Return the column in other rows: all that have one of some values, if there are many values."""
        if len(self.all) == len(self.rows) or count_distinct(self.values) < 10 * MANY_VALUES:
            return self
        mixed = np.nan_to_num(self.all.astype(np.float64)).astype(np.int64) * MIXER  # at random, by value
        rows = np.flatnonzero((mixed >> 32) % (len(self.all) // len(self.rows)) == 0)[: 2 * SAMPLE]
        return replace(self, values=self.all[rows].astype(np.float64), rows=rows)

    def fact(self, kind: ColumnKind, score: float, values: int, label: str = "") -> ColumnFact:
        """Return what is to be said of it."""
        feature = self.feature
        name = shorten_name(str(self.number) if feature is None else feature.column)
        ordered = kind == "time" and self.is_ordered
        return ColumnFact(
            column=name,
            named=feature is not None,
            kind=kind,
            score=score,
            values=values,
            label=label,
            ordered=ordered,
        )


def _look_at(column: _Column, labels: NamedLabels) -> ColumnFact | None:
    """Return what a column tells of the labels that it should not, if it does."""
    whole = column.is_whole
    column = column.complete() if whole else column
    known = column.values > 0 if column.is_category else np.ones(len(column.rows), bool)  # 0 is any rare value
    values, rows = _fill_missing(column.values[known]), column.rows[known]
    distinct = count_distinct(values)
    if distinct < 2 or len(rows) < FEWEST:
        return None
    names_groups = whole and distinct >= MANY_VALUES and len(rows) >= PER_VALUE * distinct
    for label, y in labels.columns():
        neighbours = _Neighbours.of(values, y[rows], labels.task)
        if neighbours is None:
            continue
        grouped = names_groups and (column.is_category or neighbours.skill_of_others < 0.5)
        if grouped and neighbours.skill >= GROUPED:
            return column.fact("group", neighbours.skill, count_distinct(column.all), label)
        if not grouped and (score := neighbours.score()) is not None:
            return column.fact("determines", score, count_distinct(column.all), label)
    if whole and not column.is_category and distinct == len(rows) and column.numbers_rows:
        return column.fact("identifier", 1.0, len(column.all))
    return None


def _fill_missing(values: Array) -> Array:
    """Return values with those that are missing as one more value, far from the others."""
    missing = ~np.isfinite(values)
    if not missing.any():
        return values
    present = values[~missing]
    far = 2 * np.abs(present).max() + 1 if len(present) else 0.0
    return np.where(missing, far, values)


@dataclass(frozen=True)
class _Neighbours:
    """Agreement of each sample's label with that of the sample of the nearest value of a column.

    Attributes:
        values, labels: of the samples, in the order of the values.
        task: what labels mean.
        skill: share of the label's uncertainty that the nearest sample takes away, at most 1.
        skill_of_others: likewise, by the nearest sample of another value.
    """

    values: Array
    labels: Array
    task: Task
    skill: float
    skill_of_others: float

    @classmethod
    def of(cls, values: Array, labels: Array, task: Task) -> _Neighbours | None:
        """Return them, or None where all samples have one label."""
        order = np.argsort(values, kind="stable")
        values, labels = values[order], labels[order].astype(np.float64)
        if labels.min() == labels.max():
            return None
        firsts = np.flatnonzero(np.r_[True, np.diff(values) > 0])  # of each value
        block = np.cumsum(np.r_[False, np.diff(values) > 0])
        before, after = firsts[block] - 1, np.r_[firsts, len(values)][block + 1]
        positions = np.arange(len(values))
        nearest = _choose_nearer(values, positions - 1, positions + 1)
        others = _choose_nearer(values, before, after)
        return cls(values, labels, task, _measure_skill(labels, nearest, task), _measure_skill(labels, others, task))

    def score(self) -> float | None:
        """Return how much of the label the column tells, if that is nearly all."""
        if self.task == "regression":
            found = max(self.skill, *(np.corrcoef(a, b)[0, 1] ** 2 for a, b in self._pairs()))
            return float(found) if found >= CORRELATED else None
        if self.skill >= TOLD:
            return self.skill
        if count_distinct(self.labels) == 2 and (area := self._area()) >= SURE:
            return area
        return None

    def _pairs(self) -> Iterator[tuple[Array, Array]]:
        """Yield values and labels, and their ranks."""
        yield self.values, self.labels
        yield _rank(self.values), _rank(self.labels)

    def _area(self) -> float:
        """Return the area under the ROC curve of the values, of the direction that is better."""
        high = self.labels == self.labels.max()
        area = (_rank(self.values)[high].sum() - high.sum() * (high.sum() - 1) / 2) / (high.sum() * (~high).sum())
        return float(max(area, 1 - area))


def _choose_nearer(values: Array, before: Array, after: Array) -> Array:
    """Return of two positions for each value the one of the nearer value; positions outside are far."""
    inside = np.clip(before, 0, None), np.clip(after, None, len(values) - 1)
    left = np.where(before >= 0, np.abs(values - values[inside[0]]), np.inf)
    right = np.where(after < len(values), np.abs(values - values[inside[1]]), np.inf)
    nearer: Array = np.where(left <= right, inside[0], inside[1])
    return nearer


def _measure_skill(labels: Array, nearest: Array, task: Task) -> float:
    told = labels[nearest]
    if task == "regression":
        return float(1 - ((labels - told) ** 2).sum() / ((labels - labels.mean()) ** 2).sum())
    _, counts = np.unique(labels, return_counts=True)
    base = counts.max() / len(labels)
    return float(((labels == told).mean() - base) / (1 - base))


def _rank(values: Array) -> Array:
    """Return ranks from 0, (N,); equal values have the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = ((ends - counts + ends - 1) / 2)[inverse]
    return ranks


# Times


def _find_drift(column: _Column, labels: NamedLabels) -> Iterator[ColumnFact]:
    """Yield that the labels of the latest fifth differ from those of the rest, if they do."""
    values, known = column.values, np.isfinite(column.values)
    late = values > np.quantile(values[known], 1 - LATEST) if known.any() else known
    if min(late.sum(), (known & ~late).sum()) < FEWEST:
        return
    for label, y in labels.columns():
        drift = _measure_drift(y[column.rows[late]], y[column.rows[known & ~late]], labels.task)
        if drift is not None:
            yield column.fact("time", drift, count_distinct(values[known]), label)
            return


def _measure_drift(late: Array, rest: Array, task: Task) -> float | None:
    """Return how far apart two parts are: the sum of differences of the classes' shares over 2, or that of the means.

    None where it is small, or may be chance.
    """
    if task == "regression":
        spread = float(np.concatenate([late, rest]).std()) or 1.0
        drift = abs(float(late.mean()) - float(rest.mean())) / spread
        certain = drift > CERTAIN * (1 / len(late) + 1 / len(rest)) ** 0.5
        return drift if certain and drift >= DRIFT[1] else None
    counts = np.array(
        [np.bincount(y.astype(np.int64), minlength=int(max(late.max(), rest.max())) + 1) for y in (late, rest)]
    )
    counts = counts[:, counts.sum(0) > 0]
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    freedom = counts.shape[1] - 1
    certain = ((counts - expected) ** 2 / expected).sum() > freedom + CERTAIN * (2 * max(freedom, 1)) ** 0.5
    shares = counts / counts.sum(1, keepdims=True)
    drift = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return drift if certain and drift >= DRIFT[0] else None
