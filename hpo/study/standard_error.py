"""Standard errors of means over fits, that of a trial's value among them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hpo.config.resampling import Division, Fit

__all__ = ["mean_error", "standard_error"]


def standard_error(values: Sequence[tuple[Fit, float]], ratio: float) -> float | None:
    """Return the standard error of the mean over fits; None where it cannot be told from so few.

    Seeds on the same samples count as one measurement, their mean, unless there is nothing else. Repeated folds, and
    random splits, share training samples: see `mean_error`.

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
    return mean_error(means, ratio if overlap else 0.0)


def mean_error(values: Sequence[float], ratio: float = 0.0) -> float:
    """Return the standard error of a mean over splits, which may share training samples.

    As many more of such splits would not bring the error to zero: the variance of the mean of n values is taken as
    (1/n + ratio) of theirs, as Nadeau and Bengio do, "Inference for the Generalization Error" (Machine Learning 52,
    2003).

    Args:
        values: two or more, finite.
        ratio: samples that a split measures on, for each that it trains on; 0 where they share none.
    """
    return math.sqrt(statistics.variance(map(float, values)) * (1 / len(values) + ratio))
