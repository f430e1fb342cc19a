"""Rule by which a study has settled: what going on is expected to gain is below the noise of its values.

As n draws from one distribution become m, the largest of them grows by about a ln(m / n), where a is the scale of the
upper tail: exactly so of an exponential tail; the shorter one of a score that is near its limit gains less, and none
gains more than its metric leaves room for. The scale is estimated from the spacings between the largest draws, each
times its rank, which are independent and exponential of mean a (Rényi, "On the theory of order statistics", 1953). The
largest of them is left out, for it may be the gap between configurations that work and those that do not. The
parameters do not matter, so it makes no difference whether they are conditional, categorical or few.
`benchmarks/settled.py` compares the rule with others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from hpo.utils.text import format_rough

__all__ = [
    "FEWEST",
    "LEADERS",
    "Outlook",
    "Search",
    "chance_lead",
    "expect_gain",
    "foresee",
    "pool_noise",
    "tail_scale",
]

Array = np.ndarray[Any, Any]
FEWEST = 20  # trials before anything is said
TOP = 10  # spacings
LONGEST = 10  # times as many trials: nobody goes on for longer, and an extrapolation says nothing of it
LEADERS = 5  # trials whose standard errors count, for that of the best alone may be small by chance
LEVEL = 0.95


@dataclass(frozen=True)
class Search:
    """Plan of a study that its trials are judged by.

    Attributes:
        trials: how many can end with a value: the budget without those that have failed.
        startup: how many trials an adaptive sampler draws before it learns; None if no trial depends on others.
        limit: the largest score that there can be, such as 1 of an accuracy.
    """

    trials: int
    startup: int | None = None
    limit: float = math.inf

    @property
    def fewest(self) -> int:
        """The number of trials that must have ended."""
        return FEWEST if self.startup is None else max(FEWEST, self.startup + FEWEST // 2)


@dataclass(frozen=True)
class Outlook:
    """Outlook of a study after some of its trials.

    Attributes:
        trials: how many had ended.
        best: the largest score among them.
        gain: what the rest of the budget is expected to add to it, in units of the objective; 0 or more.
        noise: standard error of a score; NaN if it is not known.
        left: how many trials are yet to end.
    """

    trials: int
    best: float
    gain: float
    noise: float
    left: int = 0

    @property
    def settled(self) -> bool:
        """True if going on is expected to gain less than the noise."""
        return self.gain < self.noise

    def describe(self) -> str:
        """Return the outlook in words."""
        rest = "the last trial" if self.left == 1 else f"the other {self.left} trials"
        verb = "is" if self.left == 1 else "are"
        if not self.left:
            gain = "none is left"
        elif math.isinf(self.gain):
            gain = f"what {rest} will gain cannot be told"
        else:
            gain = f"{rest} {verb} expected to gain {format_rough(self.gain)}"
        return f"after {self.trials} trials {gain}, and the noise of its values is {format_rough(self.noise)}"


def foresee(scores: Array, drawn: Array, noise: float, search: Search) -> Outlook:
    """Return the outlook after these trials.

    Args:
        scores: (N,) of the trials in the order in which they ended; larger is better, and at least one is finite.
        drawn: (N,) bool, those that a sampler chose; the others are a baseline and warm starts.
        noise: standard error of a score.
        search: the plan of the study.
    """
    best = float(scores.max())
    left = max(search.trials - len(scores), 0)
    return Outlook(len(scores), best, expect_gain(scores, drawn, search), noise, left)


def expect_gain(scores: Array, drawn: Array, search: Search) -> float:
    """Return what the rest of the budget is expected to add to the best score.

    Of an adaptive sampler the recent trials alone count, for it has left the distribution of the earlier ones: the
    later half of them, as far as it is after the start-up trials.

    Args:
        scores, drawn, search: see `foresee`.
    """
    count = len(scores)
    more = min(search.trials, LONGEST * count) - count
    if more <= 0:
        return 0.0
    recent = 0 if search.startup is None else max(count // 2, search.startup)
    draws = scores[recent:][drawn[recent:]]
    known = np.isfinite(draws)
    if known.sum() < 2:
        return math.inf
    draws = np.where(known, draws, draws[known].min())
    best = float(scores.max())
    reach = float(draws.max()) + tail_scale(draws) * math.log((len(draws) + more) / len(draws))
    if best <= search.limit:  # else it is another metric of that name, such as an accuracy in percent
        reach = min(reach, search.limit)
    return max(reach - best, 0.0)


def tail_scale(draws: Array) -> float:
    """Return the scale of the upper tail of some draws, at least two, in their units."""
    ordered = np.sort(draws)[::-1]
    count = min(TOP, len(ordered) - 1)
    ranks = np.arange(1, count + 1)
    spacings = ranks * (ordered[:count] - ordered[1 : count + 1])
    if count == 1:
        return float(spacings[0])
    return float(spacings.sum() - spacings.max()) / (count - float((1 / ranks).sum()))  # which is without bias


def pool_noise(scores: Array, errors: Array, repeats: Array) -> float:
    """Return the noise of the best scores: their standard error, and what training again changes, where it is known.

    Args:
        scores: (N,) larger is better; those that are not finite do not count.
        errors: (N,) standard errors of the scores; NaN where unknown.
        repeats: (N,) of trials that repeat a configuration with another seed a number of their own; -1 of the others.
    """
    leaders = np.argsort(-scores, kind="stable")[:LEADERS]
    leaders = leaders[np.isfinite(scores[leaders])]
    known = errors[leaders][np.isfinite(errors[leaders])]
    squares = [float(np.median(known)) ** 2] if len(known) else []
    groups = [scores[repeats == group] for group in np.unique(repeats[repeats >= 0])]
    groups = [finite for group in groups if len(finite := group[np.isfinite(group)]) > 1]
    if groups:
        freedom = sum(len(group) - 1 for group in groups)
        squares.append(sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom)
    return math.sqrt(sum(squares)) if squares else math.nan


def chance_lead(count: int, noise: float) -> float:
    """Return how far the best of some equal configurations is above them by chance, at most (95 %).

    Args:
        count: how many there are.
        noise: standard error of their scores, which are taken as normal.
    """
    return NormalDist().inv_cdf(LEVEL ** (1 / max(count, 1))) * noise
