"""Cost of asking an adaptive sampler for several trials at once, and the number that pays all the same.

A sampler that is asked for a trial while others are in training knows less. The model: each trial in flight beyond
those that the sampler draws from one distribution anyway costs a study `DELAY` trials, once, because what it knows lags
behind by as many; learning with delayed feedback loses an additive term (Joulani, György and Szepesvári 2013). So a
study of B trials that are asked for k at a time is as good as one of B - cost(k) that are asked for one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["asking_cost", "choose_at_once", "most_at_once"]

# benchmarks/search.py, TPE, budgets of 60: 0.7 to 0.8 on learning curves of mixed networks, up to 1.7 on HPOLib's
# tables.
DELAY = 0.75
NEARLY_SOONEST = 0.95  # share of the time, as measurements of speeds are no more exact
MOST = 1 / 16  # of the budget that asking may cost: a budget of trials is often meant, not a time


def asking_cost(at_once: int, workers: int, free: int = 1) -> float:
    """Return how many trials a study loses where each worker asks for several at once, compared to one at a time.

    Args:
        at_once: trials that a worker asks for.
        workers: how many ask.
        free: trials that the sampler draws from one distribution anyway, as the population of a generation.
    """
    return DELAY * (max(at_once * workers, free) - max(workers, free))


def most_at_once(budget: int, workers: int, free: int = 1) -> int:
    """Return how many trials a worker may ask for at once, at least 1: it costs at most the share `MOST` of the budget.

    Args:
        budget: the study's trials.
        workers, free: see `asking_cost`.
    """
    in_flight = max(workers, free) + MOST * budget / DELAY
    return max(1, int(in_flight // workers))


def choose_at_once(speeds: Mapping[int, float], budget: int, workers: int, free: int = 1) -> int:
    """Return how many trials a worker should ask for at once: the fewest that reach the study's result about as soon as
    any.

    Args:
        speeds: how many times as fast as one at a time so many are trained, by their number; 1 is among them.
        budget: the study's trials.
        workers: how many ask.
        free: see `asking_cost`.
    """
    most = most_at_once(budget, workers, free)

    def duration(at_once: int) -> float:
        return (budget + asking_cost(at_once, workers, free)) / speeds[at_once]

    allowed = [at_once for at_once in speeds if at_once <= most]
    soonest = min(map(duration, allowed))
    return min(at_once for at_once in allowed if duration(at_once) * NEARLY_SOONEST <= soonest)
