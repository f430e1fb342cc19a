"""Prediction intervals by split conformal prediction (Lei et al., "Distribution-Free Predictive Inference", 2018).

Of n exchangeable validation samples, the ceil((n + 1) level)-th smallest score bounds that of a new sample with a
probability of at least `level`, whatever the model and the data; and of at most level + 1 / (n + 1) without ties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ConformalInterval", "calibrate_interval", "expected_coverage"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ConformalInterval:
    """Interval around a prediction: the prediction plus and minus a factor times its scale.

    Attributes:
        level: the coverage that is asked for.
        factor: the score that bounds it, in units of the scale.
        samples: calibration samples.
    """

    level: float
    factor: float
    samples: int

    def covers(self, residuals: Array, scales: Array | None = None) -> Array:
        """Return which of the residuals (m,) are inside, given the scales of their samples."""
        inside: Array = np.abs(residuals) <= self.factor * (1.0 if scales is None else scales)
        return inside


def calibrate_interval(residuals: Array, level: float, scales: Array | None = None) -> ConformalInterval | None:
    """Calibrate an interval on residuals (n,); None where n is too small for the level: the interval would be infinite.

    Args:
        residuals: targets less predictions, of samples that the model was not trained on.
        level: of coverage, between 0 and 1.
        scales: (n,), above 0, which the residuals are divided by; the interval is then wider where they are larger.
    """
    scores = np.abs(residuals) if scales is None else np.abs(residuals) / scales
    rank = math.ceil((len(scores) + 1) * level - 1e-9)  # 0.95 * 100 is more than 95 in floating point
    if rank > len(scores):
        return None
    return ConformalInterval(level, float(np.partition(scores, rank - 1)[rank - 1]), len(scores))


def expected_coverage(level: float, calibration: int, tested: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the range of the share of `tested` new samples that are inside, by chance alone.

    The share is beta-binomial: the calibration samples are a draw, and so are the tested ones.
    """
    from scipy.stats import betabinom  # half a second to import

    rank = math.ceil((calibration + 1) * level - 1e-9)
    inside = betabinom(tested, rank, calibration + 1 - rank)
    low, high = (inside.ppf(q) / tested for q in ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)
