"""Standard error of a trial's value, the mean over its fits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hpo.config.resampling import Division, Fit

__all__ = ["standard_error"]


def standard_error(values: Sequence[tuple[Fit, float]], ratio: float) -> float | None:
    """Return the standard error of the mean over fits; None where it cannot be told from so few.

    Seeds on the same samples count as one measurement, their mean, unless there is nothing else. Repeated folds, and
    random splits, share training samples, and as many more of them would not bring the error to zero: their variance is
    corrected as Nadeau and Bengio do, "Inference for the Generalization Error" (Machine Learning 52, 2003), by the
    ratio of validation to training samples.

    Args:
        values: each fit's.
        ratio: validation samples of a fit for each of its training samples.
    """
    groups: dict[Division | None, list[float]] = {}
    for fit, value in values:
        groups.setdefault(fit.division, []).append(value)
    means = [math.fsum(group) / len(group) for group in groups.values()]
    if len(means) == 1:
        means, overlap = [value for _, value in values], False
    else:
        overlap = any(fit.repeats > 1 or (fit.division and fit.division.kind == "holdout") for fit, _ in values)
    if len(means) < 2 or not all(map(math.isfinite, means)):
        return None
    return math.sqrt(statistics.variance(means) * (1 / len(means) + (ratio if overlap else 0.0)))
