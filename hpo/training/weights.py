"""Weights of training samples: their own, times those that make rare classes or labels count as much as others."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.errors import DataError

__all__ = ["make_weights", "read_weights"]

Array = np.ndarray[Any, Any]


def read_weights(weights: Any, samples: int, where: str) -> Array:
    """Return the weights of a data set's training samples as float64, (N,).

    Raises:
        DataError: their number is wrong, or they are not finite, negative, or all 0.
    """
    array = np.asarray(weights.detach().cpu() if hasattr(weights, "detach") else weights)
    if array.shape != (samples,) or array.dtype.kind not in "buif":
        raise DataError(
            f"{where}: weights of type {array.dtype} and shape {array.shape}; they must be one number per training "
            f"sample, ({samples},)"
        )
    values: Array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if len(bad):
        raise DataError(f"{where}: the weight of sample {bad[0]} is {values[bad[0]]:g}; weights are numbers from 0 on")
    if not values.any():
        raise DataError(f"{where}: all weights are 0; some samples must count")
    return values


def make_weights(labels: Array, task: Task, class_weight: str | None, own: Array | None = None) -> Array | None:
    """Return weights of training samples in float32, (N,), or of several labels (N, L), with mean 1.

    `balanced` weighs a sample of class k by N / (K n_k), where n_k of the N samples are of it and K classes occur, as
    scikit-learn does; and a label by N / (2 n_1) where it is 1, by N / (2 n_0) where it is 0.

    Args:
        labels: classes (N,), labels (N, L) or targets (N, T) of the training part.
        task: what they mean.
        class_weight: `balanced`, or None; without effect on targets.
        own: of each sample, (N,), not negative; None where all weigh the same.

    Returns:
        None where all weigh the same.
    """
    balanced = class_weight == "balanced" and task != "regression"
    if own is None and not balanced:
        return None
    weights = np.ones(len(labels)) if own is None else np.asarray(own, np.float64)
    if balanced and task == "classification":
        weights = weights * _balance(labels)
    elif balanced:
        weights = weights[:, None] * np.stack([_balance(column) for column in labels.T], 1)
    scaled: Array = (weights / weights.mean()).astype(np.float32)
    return scaled


def _balance(classes: Array) -> Array:
    """Return the weight N / (K n_k) of each sample; the classes that do not occur do not count."""
    _, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
    share: Array = len(classes) / (len(counts) * counts)
    return share[place]
