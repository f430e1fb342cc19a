"""Arithmetic of the results: curves of the best score, medians with their bootstrap intervals, and ties."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4000
Curve = list[tuple[float, float]]  # (seconds since the start, best score so far), ascending


def best_so_far(points: Iterable[tuple[float, float]]) -> Curve:
    """Return the points at which the best score rises."""
    curve: Curve = []
    for seconds, score in sorted(points):
        if math.isfinite(score) and (not curve or score > curve[-1][1]):
            curve.append((seconds, score))
    return curve


def seconds_to(curve: Curve, score: float) -> float:
    """Return when a score is reached; infinity if never."""
    return next((seconds for seconds, best in curve if best >= score), math.inf)


def best_at(curve: Curve, seconds: float) -> float:
    """Return the best score at a time; NaN if there is none yet."""
    return max((best for reached, best in curve if reached <= seconds), default=math.nan)


@dataclass(frozen=True)
class Summary:
    """Median over seeds, with the least and the most, and the 95 % interval of a bootstrap of the median."""

    median: float
    least: float
    most: float
    low: float
    high: float
    seeds: int

    def ties(self, other: Summary) -> bool:
        """Tell whether the intervals overlap."""
        return self.low <= other.high and other.low <= self.high


def summarize(values: Sequence[float]) -> Summary:
    """Summarize the figures of all seeds; those that are infinite, never reached, count as the largest.

    A NaN, no score yet, counts as the smallest.
    """
    clean = np.array([-math.inf if math.isnan(value) else value for value in values])
    picks = np.random.default_rng(0).integers(len(clean), size=(DRAWS, len(clean)))
    # The middle one of a sorted row, not a mean of two: infinities have none.
    medians = np.sort(np.sort(clean[picks], axis=1)[:, len(clean) // 2])
    low, high = medians[int(0.025 * DRAWS)], medians[int(0.975 * DRAWS) - 1]
    middle = statistics.median_high(clean.tolist())
    return Summary(middle, float(clean.min()), float(clean.max()), float(low), float(high), len(clean))


def find_ties(summaries: Sequence[Summary], *, largest: bool) -> list[bool]:
    """Tell of each whether it ties with the best median; the best one itself does if another does."""
    best = (max if largest else min)(summaries, key=lambda each: each.median)
    if not math.isfinite(best.median):
        return [False] * len(summaries)
    ties = [each is not best and each.ties(best) for each in summaries]
    return [tie or (each is best and any(ties)) for each, tie in zip(summaries, ties, strict=True)]
