"""Split of rows into two parts: stratified, by group, or by time. NumPy alone.

A part that is taken is as like the rest as can be: of classes each gives its share, of several labels each (Sechidis,
Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011), and of real targets each tenth of their
range by rank. Rows of one group are never on both sides. Where rows have times, the latest are taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.errors import ConfigError, DataError
from hpo.utils.text import quantity

__all__ = [
    "begin_groups",
    "check_times",
    "count_by_group",
    "number_groups",
    "number_strata",
    "order_by_combination",
    "split_rows",
]

Array = np.ndarray[Any, Any]
FEW = 10  # samples, of which a usual fraction may be none
QUANTILES = 10  # strata of real targets
ORDERS = 20  # in which groups are tried; the best is taken
MOST_GROUPS = 20_000  # tried in all orders together: half a second


def split_rows(
    labels: Array,
    share: float,
    seed: int,
    task: Task,
    groups: Array | None = None,
    times: Array | None = None,
    *,
    name: str = "validation",
) -> tuple[Array, Array]:
    """Split rows in two, and return the indices of the rest and of those that are taken, both ascending.

    The number taken is exact where rows are free, and as near as whole groups and equal times allow otherwise. Of
    rows with times the latest are taken, whatever the seed; of groups with times those that begin last, whole, so
    that nothing that is taken is earlier than they begin, but an older group that goes on stays in the rest.

    Args:
        labels: as `hpo.datasets.read_labels` returns them: classes (N,), labels (N, L) of 0 and 1, or targets (N, T).
        share: how many rows are taken, or below 1 their fraction of N.
        seed: decides which rows are taken.
        task: what labels mean.
        groups: of each row, (N,).
        times: of each row, (N,): numbers or datetime64.
        name: what error lines call the share.

    Raises:
        ConfigError: the share is not a whole number, or leaves either side without rows.
        DataError: there are too few rows for a fraction, or too few groups or times to split by.
    """
    free = groups is None and times is None
    keeps = len(np.unique(labels)) if free and task == "classification" else 1  # rows that must stay
    total = _count_taken(share, len(labels), keeps, name)
    rng = np.random.default_rng([seed, 0])
    if times is not None:
        mask = _take_latest(times, groups, total, name)
    elif groups is not None:
        mask = _take_groups(labels, task, number_groups(groups, name), total, rng)
    elif task == "multilabel":
        mask = _take_of_labels(labels > 0, total, rng)
    else:
        mask = _take_of_strata(number_strata(labels, task, total), total, rng)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _count_taken(share: float, samples: int, keeps: int, name: str) -> int:
    if share >= 1 and share != int(share):
        raise ConfigError(f"{name} = {share:g}: from 1 on it is a count, and must be a whole number")
    total = int(share) if share >= 1 else round(share * samples)
    most = samples - keeps
    classes = f" of {keeps:,} classes" if keeps > 1 else ""
    if most < 1 or (total < 1 and samples < FEW):
        taken = "any" if most < 1 else f"{share:.3g} of them"
        are = "is" if samples == 1 else "are"
        raise ConfigError(
            f"{quantity(samples, 'sample')}{classes} {are} too few to hold out {taken} for {name}; add more"
        )
    if not 1 <= total <= most:
        reason = ", so that each class keeps one" if keeps > 1 else ""
        raise ConfigError(f"{name} = {share:.4g}: takes {total} of {samples} samples; it must take 1 to {most}{reason}")
    return total


# Strata: rows that are alike


def number_strata(labels: Array, task: Task, total: int) -> Array:
    """Return each row's stratum (N,): its class, or the quantile of its target."""
    if task == "classification":
        return labels
    targets = labels.reshape(len(labels), -1).astype(np.float64)
    if targets.shape[1] > 1:
        spread = targets.std(0)
        targets = (targets - targets.mean(0)) / np.where(spread > 0, spread, 1)
    # No more strata than rows that stay, for each keeps one, nor than rows that are taken, for each should give one.
    strata = min(QUANTILES, total, len(targets) - total)
    ranks = np.empty(len(targets), np.int64)
    order = _order(labels) if targets.shape[1] == 1 else np.argsort(targets.sum(1), kind="stable")
    ranks[order] = np.arange(len(targets))
    numbers: Array = ranks * strata // len(targets)
    return numbers


def _order(labels: Array) -> Array:
    """Return the stable order (N,) of finite numbers (N, 1), as float32 has them.

    A sort of whole numbers, of which the upper half is the number and the lower half its place, takes a tenth of the
    time of a stable `np.argsort`.
    """
    bits = (labels.reshape(-1).astype(np.float32) + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    ascending = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64)
    order: Array = np.sort(ascending << 32 | np.arange(len(bits))) & 0xFFFFFFFF
    return order


def _take_of_strata(strata: Array, total: int, rng: np.random.Generator) -> Array:
    """Take rows so that each stratum gives its share, by the largest remainder, and keeps at least one row."""
    taken = _apportion(np.bincount(strata), total)
    chosen = [rng.permutation(np.flatnonzero(strata == stratum))[:count] for stratum, count in enumerate(taken)]
    return _mask(np.concatenate(chosen), len(strata))


def _mask(rows: Array, size: int) -> Array:
    mask = np.zeros(size, dtype=bool)
    mask[rows] = True
    return mask


def _apportion(counts: Array, total: int) -> Array:
    """Return how many of `total` each stratum gives: by largest remainders, and never a stratum's last row."""
    quota = counts * total / counts.sum()
    room = np.maximum(counts - 1, 0)
    taken: Array = np.minimum(np.floor(quota).astype(np.int64), room)
    order = np.argsort(-(quota - np.floor(quota)), kind="stable")
    while taken.sum() < total:
        open_strata = [stratum for stratum in order if taken[stratum] < room[stratum]]
        for stratum in open_strata[: total - int(taken.sum())]:
            taken[stratum] += 1
    return taken


# Several labels


def _take_of_labels(labels: Array, total: int, rng: np.random.Generator) -> Array:
    """Take rows by iterative stratification: label by label, the rarest first, as many rows as it still lacks.

    Sechidis et al. send one row at a time to the side that lacks the label most; all rows of a label at once give each
    side the same number. Among them rows are taken evenly over the combinations of labels.
    """
    size = len(labels)
    wanted = labels.sum(0) * total / size
    mask, free = np.zeros(size, dtype=bool), np.ones(size, dtype=bool)
    order = order_by_combination(labels, rng)
    while (counts := labels[free].sum(0)).any():
        label = int(np.argmin(np.where(counts > 0, counts, size + 1)))
        rows = order[labels[order, label] & free[order]]
        kept = labels[~mask & ~free, label].any()  # the last row of a label stays
        lacking = round(wanted[label] - labels[mask, label].sum())
        mask[_spread(rows, min(max(lacking, 0), len(rows) - (not kept), total - int(mask.sum())), rng)] = True
        free[rows] = False
    rows = order[free[order]]
    mask[_spread(rows, min(total - int(mask.sum()), len(rows)), rng)] = True
    return _fill(mask, labels, wanted, total)


def order_by_combination(labels: Array, rng: np.random.Generator) -> Array:
    """Return rows in random order, but with those of equal labels together."""
    shuffled = rng.permutation(len(labels))
    rows = np.packbits(labels[shuffled], axis=1)
    return shuffled[np.lexsort(rows.T[::-1])]


def _spread(rows: Array, count: int, rng: np.random.Generator) -> Array:
    """Return `count` of the rows at equal distances, from a random start."""
    if count <= 0:
        return rows[:0]
    places = (np.arange(count) + rng.random()) * len(rows) / count
    chosen: Array = rows[np.minimum(places.astype(np.int64), len(rows) - 1)]
    return chosen


def _fill(mask: Array, labels: Array, wanted: Array, total: int) -> Array:
    """Take the few rows that are missing from the total: each time the row that the labels lack most."""
    while mask.sum() < total:
        lacking = wanted - labels[mask].sum(0)
        gain = np.where(mask, -np.inf, labels @ (2 * lacking - 1))  # of the sum of squares of what is lacking
        mask[np.argmax(gain)] = True
    return mask


# Groups and times


def number_groups(groups: Array, name: str) -> Array:
    """Return each row's group as a number from 0."""
    _, numbers = np.unique(groups, return_inverse=True)
    if numbers.max() == 0:
        raise DataError(
            f"{name}: all {len(groups)} samples are of one group, which cannot be split; name another, or leave it out"
        )
    flat: Array = numbers.reshape(-1)
    return flat


def _take_groups(labels: Array, task: Task, groups: Array, total: int, rng: np.random.Generator) -> Array:
    """Take whole groups, so that the number of rows of each stratum is as near to its share as they allow.

    They are chosen in a random order; of several orders the one that comes nearest is kept.
    """
    sizes = count_by_group(labels, task, groups, total)
    whole = sizes.sum(0)
    wanted = whole * total / len(groups)
    orders = max(1, min(ORDERS, MOST_GROUPS // len(sizes)))
    found = [_choose_groups(sizes, wanted, 1 / whole, rng.permutation(len(sizes))) for _ in range(orders)]
    chosen = _mask(np.array(min(found, key=lambda choice: choice[0])[1]), len(sizes))
    mask: Array = chosen[groups]
    return mask


def count_by_group(labels: Array, task: Task, groups: Array, total: int) -> Array:
    """Return what is to be balanced, float64: for each group its rows of each class, label or quantile, and its
    rows.
    """
    count = int(groups.max()) + 1
    rows = np.bincount(groups).astype(np.float64)
    if task == "multilabel":
        columns = [np.bincount(groups, weights=column) for column in labels.T if column.any()]
        return np.stack([*columns, rows], axis=1)
    values, strata = np.unique(number_strata(labels, task, total), return_inverse=True)
    cells = np.bincount(groups * len(values) + strata, minlength=count * len(values))
    return np.column_stack([cells.reshape(count, -1), rows])


def _choose_groups(sizes: Array, wanted: Array, weight: Array, order: Array) -> tuple[float, list[int]]:
    """Return how far the groups chosen in that order are from what is wanted, and the groups.

    The distance of the taken v from the wanted w is the sum of (v - w)² * weight over the columns of `sizes`. Groups
    that fit come first; others may then take more of one column than is wanted where that brings v nearer.
    """
    lacking, left = wanted.copy(), sizes.sum(0)
    chosen: list[int] = []
    for may_exceed in (False, True):
        others = []
        for group in order.tolist():
            size = sizes[group]
            fits = ((2 * lacking - size) * weight) @ size > 0 if may_exceed else (size <= lacking).all()
            if fits and (size[left <= size] == 0).all():  # no stratum loses its last row
                chosen.append(group)
                lacking, left = lacking - size, left - size
            else:
                others.append(group)
        order = np.array(others, dtype=np.int64)
    if not chosen:  # each is too large: the smallest is the nearest
        chosen = [int(order[np.argmin(sizes[order, -1])])]
        lacking = wanted - sizes[chosen[0]]
    return float(lacking**2 @ weight), chosen


def _take_latest(times: Array, groups: Array | None, total: int, name: str) -> Array:
    """Take the latest rows, or the groups that begin last; those of one time stay on one side."""
    times = check_times(times, name)
    if groups is not None:
        times = begin_groups(times, number_groups(groups, name))
    values, counts = np.unique(times, return_counts=True)
    if len(values) < 2:
        what = "samples have one time" if groups is None else "groups begin at one time"
        raise DataError(f"{name}: all {what}, {values[0]}, so none is the latest; name another, or leave it out")
    taken = np.cumsum(counts[::-1])[:-1]  # rows from each time on, the last first; the first time always stays
    cut = values[len(values) - 1 - int(np.argmin(np.abs(taken - total)))]
    latest: Array = times >= cut
    return latest


def check_times(times: Array, name: str) -> Array:
    """Return times as an array, after a check that they are numbers or dates and that none is missing."""
    times = np.asarray(times)
    if times.dtype.kind not in "buifmM":
        raise DataError(f"{name}: its times are of type {times.dtype}; give numbers, or dates as datetime64")
    missing = np.flatnonzero(np.isnat(times) if times.dtype.kind in "mM" else np.isnan(times.astype(np.float64)))
    if len(missing):
        raise DataError(
            f"{name}: sample {missing[0]} has no time, so it is not known on which side it belongs; remove it"
        )
    return times


def begin_groups(times: Array, groups: Array) -> Array:
    """Return for each row the first time of its group."""
    order = np.lexsort((times, groups))
    firsts = np.r_[True, np.diff(groups[order]) > 0]
    begins: Array = times[order][firsts][groups]
    return begins
