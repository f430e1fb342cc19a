"""Split of rows into two sides: stratified by class, by group, by time, or by quantiles of a target. NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["split_rows"]

Array = np.ndarray[Any, Any]
STRATA = 10  # quantiles of a target, each of which gives its share


def split_rows(
    labels: Array, share: float, seed: int, task: str, groups: Array | None = None, times: Array | None = None
) -> tuple[Array, Array]:
    """Return the indices of the rows that stay and of those that are taken, both ascending.

    Args:
        labels: classes (N,), or labels or targets (N, columns).
        share: the fraction of the rows that is taken.
        seed: decides which.
        task: `classification`, `multilabel` or `regression`.
        groups: of each row, (N,): those of one group stay on one side.
        times: of each row, (N,): the latest are taken.
    """
    rng = np.random.default_rng([seed, 1])
    count = len(labels)
    total = min(max(1, round(share * count)), count - 1)
    if times is not None:
        taken = np.argsort(times, kind="stable")[count - total :]
    elif groups is not None:
        _, index = np.unique(groups, return_inverse=True)
        order = rng.permutation(index.max() + 1)
        ends = np.cumsum(np.bincount(index)[order])
        taken = np.flatnonzero(np.isin(index, order[: max(1, int(np.searchsorted(ends, total)))]))
    else:
        taken = _take_strata(_make_strata(labels, task), total, rng)
    mask = np.zeros(count, bool)
    mask[taken] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _make_strata(labels: Array, task: str) -> Array:
    if task == "classification":
        return np.unique(labels, return_inverse=True)[1]
    if task == "multilabel":
        return np.zeros(len(labels), np.int64)
    ranks = np.argsort(np.argsort(labels.reshape(len(labels), -1)[:, 0], kind="stable"), kind="stable")
    return ranks * STRATA // len(labels)


def _take_strata(strata: Array, total: int, rng: np.random.Generator) -> Array:
    """Take evenly from each stratum, by largest remainders, never a stratum's last row."""
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    counts = np.bincount(strata)
    quota = counts * total / counts.sum()
    taken = np.minimum(np.floor(quota).astype(np.int64), np.maximum(counts - 1, 0))
    for stratum in np.argsort(taken - quota, kind="stable"):
        if taken.sum() < total and taken[stratum] < counts[stratum] - 1:
            taken[stratum] += 1
    starts = np.cumsum(counts) - counts
    return np.concatenate([order[start : start + size] for start, size in zip(starts, taken, strict=True)])
