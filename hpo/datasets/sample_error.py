"""Standard error of a metric over validation samples, from what a trial keeps of each."""

from __future__ import annotations

import math

import numpy as np

from hpo.datasets.sample_metrics import measure
from hpo.datasets.sample_scores import SampleScores, ValidationSplit

__all__ = ["sampling_error"]

BLOCKS = 30


def sampling_error(scores: SampleScores, split: ValidationSplit) -> float | None:
    """Return the standard error of the metric of a fit's best epoch; None where it cannot be told.

    By the jackknife over blocks of samples, or of whole groups, each left out once (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993), which needs a small part of a bootstrap's work and holds for every smooth
    metric.
    """
    count = len(split.labels)
    units, unit = count, np.arange(count)
    if split.groups is not None:  # which are in a block whole
        numbers, unit = np.unique(split.groups, return_inverse=True)
        units = len(numbers)
    blocks = min(BLOCKS, units)
    if blocks < 2:
        return None
    member = np.random.default_rng(0).permutation(np.arange(units) % blocks)[unit]
    weights = (member != np.arange(blocks)[:, None]).astype(np.float64)
    values = measure(scores.metric, scores.scores[scores.best][None], split, weights)
    if values is None or not np.isfinite(values).all():
        return None
    spread = float(((values[0] - values[0].mean()) ** 2).sum())
    kept = count / max(split.count, count)  # of large splits a part is kept, and the metric is of all
    return math.sqrt((blocks - 1) / blocks * spread * kept)
