"""Division of rows for one fit: into folds that are stratified, by group or by time, or at random. NumPy alone.

A fold is as like the others as can be, as a validation split is like the rest; see `hpo.datasets.row_split`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.config.resampling import Division
from hpo.datasets.row_split import (
    begin_groups,
    check_times,
    count_by_group,
    number_groups,
    number_strata,
    order_by_combination,
    split_rows,
)
from hpo.errors import ConfigError, DataError
from hpo.utils.text import quantity

__all__ = ["divide_rows", "goes_by_time"]

Array = np.ndarray[Any, Any]
FOLDS, HOLDOUT = 1, 2  # purposes of a random stream


def divide_rows(
    labels: Array,
    division: Division,
    seed: int,
    task: Task,
    groups: Array | None = None,
    times: Array | None = None,
    *,
    share: float = 1 / 6,
) -> tuple[Array, Array]:
    """Divide rows for one fit, and return the indices of the training and of the validation part, both ascending.

    Over the folds of one repeat every row is validated once. Of folds by time each is later than the rows that it is
    trained on, which are all earlier ones; the first rows are validated in none.

    Args:
        labels: as `hpo.datasets.read_labels` returns them: classes (N,), labels (N, L) of 0 and 1, or targets (N, T).
        division: which fold, or which random split. Without a `by` it goes by time where rows have times, else by
            group where they have groups.
        seed: of the split; with the division's repeat, or its index if it is a random split, it decides.
        task: what labels mean.
        groups: of each row, (N,); rows of one are never on both sides.
        times: of each row, (N,): numbers or datetime64.
        share: how many rows a random split takes, or below 1 their fraction of N.

    Raises:
        ConfigError: there are too few rows, or too few of a class, for so many folds; or the share does not fit.
        DataError: there are too few groups or times, or none although the division goes by them.
    """
    if division.kind == "holdout":
        return _hold_out(labels, division, seed, task, groups, times, share)
    name = f"folds = {division.count}"
    if len(labels) < division.count:
        raise ConfigError(f"{name}: there are only {quantity(len(labels), 'sample')}; take fewer folds")
    if goes_by_time(division, times):
        if times is None:
            raise DataError(f"{name} by time: the samples have no times; give `times`, or leave `by` out")
        return _divide_by_time(times, groups, division, name)
    if division.by == "group" and groups is None:
        raise DataError(f"{name} by group: the samples have no groups; give `groups`, or leave `by` out")
    rng = np.random.default_rng([seed, division.repeat, FOLDS])
    if groups is not None:
        folds = _fold_groups(labels, task, number_groups(groups, name), division.count, rng, name)
    elif task == "multilabel":
        folds = _fold_labels(labels > 0, division.count, rng)
    else:
        folds = _fold_strata(labels, task, division.count, rng, name)
    return np.flatnonzero(folds != division.index), np.flatnonzero(folds == division.index)


def goes_by_time(division: Division, times: Array | None) -> bool:
    """Tell whether the folds of samples with these times, or without any, go by time."""
    return division.kind == "fold" and (division.by == "time" or (division.by is None and times is not None))


def _hold_out(
    labels: Array, division: Division, seed: int, task: Task, groups: Array | None, times: Array | None, share: float
) -> tuple[Array, Array]:
    """Split rows at random; the first of the splits is that of a configuration without a division."""
    if times is not None:
        raise ConfigError(
            f"holdout = {division.count}: the samples have times, of which a split always takes the latest; "
            "divide into folds, or leave the times out"
        )
    if division.index:
        seed = int(np.random.SeedSequence([seed, division.index, HOLDOUT]).generate_state(1)[0])
    return split_rows(labels, share, seed, task, groups)


# Strata


def _fold_strata(labels: Array, task: Task, count: int, rng: np.random.Generator, name: str) -> Array:
    """Return each row's fold (N,): of the rows of each stratum, and of all rows, folds have equally many within one."""
    if task == "classification":
        classes, sizes = np.unique(labels, return_counts=True)
        if sizes.min() < count:
            rarest = classes[np.argmin(sizes)]
            raise ConfigError(
                f"{name}: class {rarest} has only {quantity(int(sizes.min()), 'sample')}, and each fold validates at "
                "least one; take fewer folds"
            )
    strata = number_strata(labels, task, len(labels) // count)
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    return _deal(order, count, rng)


def _deal(order: Array, count: int, rng: np.random.Generator) -> Array:
    """Deal rows in that order to the folds in turn, and return each row's fold."""
    folds = np.empty(len(order), np.int64)
    folds[order] = rng.permutation(count)[np.arange(len(order)) % count]
    return folds


def _fold_labels(labels: Array, count: int, rng: np.random.Generator) -> Array:
    """Return each row's fold by iterative stratification: label by label, the rarest first, to the folds that lack it.

    Rows of equal labels follow each other, so that combinations of labels are spread too.
    """
    folds = np.full(len(labels), -1)
    order = order_by_combination(labels, rng)
    while (counts := labels[folds < 0].sum(0)).any():
        label = int(np.argmin(np.where(counts > 0, counts, len(labels) + 1)))
        rows = order[labels[order, label] & (folds[order] < 0)]
        folds[rows] = _fill_evenly(_count_rows(folds, count, labels[:, label]), _count_rows(folds, count), len(rows))
    rows = order[folds[order] < 0]
    sizes = _count_rows(folds, count)
    folds[rows] = _fill_evenly(sizes, sizes, len(rows))
    return folds


def _count_rows(folds: Array, count: int, among: Array | None = None) -> Array:
    """Return how many rows each fold has, or how many of those in a mask."""
    given = folds >= 0 if among is None else among & (folds >= 0)
    return np.bincount(folds[given], minlength=count)


def _fill_evenly(have: Array, sizes: Array, rows: int) -> Array:
    """Return the folds (rows,) that rows go to, one after the other: each to the fold that has least, then the
    smallest.
    """
    more = np.arange(rows)[:, None]
    order = np.lexsort(((sizes + more).ravel(), (have + more).ravel()))[:rows]
    folds: Array = order % len(have)
    return folds


# Groups and times


def _fold_groups(labels: Array, task: Task, groups: Array, count: int, rng: np.random.Generator, name: str) -> Array:
    """Return each row's fold, groups whole: from the largest on, each goes where it brings the folds nearest to equal.

    What is equal is the number of rows of each stratum, and of all.
    """
    sizes = count_by_group(labels, task, groups, len(labels) // count)
    if len(sizes) < count:
        raise DataError(f"{name}: there are only {quantity(len(sizes), 'group')}; take fewer folds")
    whole = sizes.sum(0)
    weight, wanted = 1 / whole, whole / count
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled, -1], kind="stable")]
    have, folds = np.zeros((count, len(whole))), np.empty(len(sizes), np.int64)
    empty = np.ones(count, bool)
    for place, group in enumerate(order.tolist()):
        cost = ((2 * (have - wanted) + sizes[group]) * weight) @ sizes[group]
        if len(order) - place <= empty.sum():  # each fold gets one
            cost = np.where(empty, cost, np.inf)
        fold = int(np.argmin(cost))
        folds[group], empty[fold] = fold, False
        have[fold] += sizes[group]
    if task == "classification" and (have == whole).any():
        raise DataError(
            f"{name}: all samples of a class are of groups in one fold, so that none is left to train on; take other "
            "groups, or fewer folds"
        )
    by_row: Array = folds[groups]
    return by_row


def _divide_by_time(times: Array, groups: Array | None, division: Division, name: str) -> tuple[Array, Array]:
    """Divide by time: the rows are cut into one more part than there are folds, at equal distances.

    Fold i is validated on part i + 1 and trained on all earlier ones. Rows of one time, and groups, stay whole.
    """
    times = check_times(times, name)
    if groups is not None:
        times = begin_groups(times, number_groups(groups, name))
    values, counts = np.unique(times, return_counts=True)
    parts = division.count + 1
    if len(values) < parts:
        what = "different times" if groups is None else "times at which groups begin"
        raise DataError(f"{name}: there are only {len(values)} {what}, and {parts} are needed; take fewer folds")
    before = np.r_[0, np.cumsum(counts)[:-1]]  # rows earlier than each time
    size = len(times) // parts
    starts: list[int] = []
    for part in range(1, parts):
        first, last = (starts[-1] if starts else 0) + 1, len(values) - (parts - part)
        wanted = len(times) - (parts - part) * size
        starts.append(first + int(np.argmin(np.abs(before[first : last + 1] - wanted))))
    begin = values[starts[division.index]]
    later = times >= begin
    if division.index + 1 < division.count:
        end = values[starts[division.index + 1]]
        return np.flatnonzero(~later), np.flatnonzero(later & (times < end))
    return np.flatnonzero(~later), np.flatnonzero(later)
