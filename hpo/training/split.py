"""Split of the training data into a training and a validation part."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo.errors import ConfigError

__all__ = ["split"]

Array = np.ndarray[Any, Any]


def split(y: Array, validation: float, seed: int) -> tuple[Array, Array]:
    """Return the indices of the training and of the validation samples, both ascending: stratified, by seed.

    Each class gives its share of the validation samples, rounded by the largest remainder so that the total is
    exact; at least one sample of each class stays in training.

    Args:
        y: labels, shape (N,).
        validation: the number of validation samples, or below 1 their fraction of N.
        seed: decides which samples are taken.

    Raises:
        ConfigError: `validation` is not a whole number, or leaves either side without samples.
    """
    counts = np.bincount(y)
    total = _validation_count(validation, len(y), int(np.maximum(counts - 1, 0).sum()))
    taken = _apportion(counts, total)
    rng = np.random.default_rng([seed, 0])
    validation_indices = [rng.permutation(np.flatnonzero(y == label))[: taken[label]] for label in range(len(counts))]
    mask = np.zeros(len(y), dtype=bool)
    mask[np.concatenate(validation_indices)] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _validation_count(validation: float, samples: int, most: int) -> int:
    if validation >= 1 and validation != int(validation):
        raise ConfigError(f"validation = {validation:g}: from 1 on it is a count, and must be a whole number")
    total = int(validation) if validation >= 1 else round(validation * samples)
    if not 1 <= total <= most:
        raise ConfigError(
            f"validation = {validation:g}: takes {total} of {samples} training samples; it must take 1 to {most}, "
            "so that each class keeps one"
        )
    return total


def _apportion(counts: Array, total: int) -> Array:
    """Return how many of `total` each class gives: by largest remainders, and never a class's last sample."""
    quota = counts * total / counts.sum()
    room = np.maximum(counts - 1, 0)
    taken: Array = np.minimum(np.floor(quota).astype(np.int64), room)
    order = np.argsort(-(quota - np.floor(quota)), kind="stable")
    while taken.sum() < total:
        open_classes = [label for label in order if taken[label] < room[label]]
        for label in open_classes[: total - int(taken.sum())]:
            taken[label] += 1
    return taken
