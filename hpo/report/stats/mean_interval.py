"""Interval of a mean by Student's t."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.stats.evaluation_stats import LEVEL
from hpo.study.standard_error import mean_error

__all__ = ["mean_reach"]


def mean_reach(values: Sequence[float], ratio: float = 0.0, level: float = LEVEL) -> float:
    """Return half the interval of the mean of values, two or more.

    Args:
        values: of seeds, folds or splits.
        ratio: of splits that share training samples, which widens it: see `hpo.study.standard_error.mean_error`.
        level: of confidence.
    """
    from scipy.stats import t  # half a second to import

    return float(t.isf((1 - level) / 2, len(values) - 1)) * mean_error(values, ratio)
