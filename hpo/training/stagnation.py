"""Stagnation: epochs without an improvement, which end a trial or lower its learning rate.

Both follow from the values of the epochs so far, so no checkpoint holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hpo.config.registry import Direction

__all__ = ["count_falls", "count_stagnant_epochs"]


def count_stagnant_epochs(values: Iterable[float], direction: Direction, min_delta: float = 0.0) -> int:
    """Return how many epochs there are after the last improvement.

    Args:
        values: of the metric, an epoch each.
        direction: in which it is better.
        min_delta: an improvement counts only if it is larger.
    """
    count = 0
    for improved in _find_improvements(values, direction, min_delta):
        count = 0 if improved else count + 1
    return count


def count_falls(values: Iterable[float], direction: Direction, min_delta: float, patience: int) -> int:
    """Return how often the learning rate has fallen, as `torch.optim.lr_scheduler.ReduceLROnPlateau` decides it.

    It falls after the first epoch without an improvement that follows on `patience` others, and counts anew from there.

    Args:
        values, direction, min_delta: see `count_stagnant_epochs`; torch calls the latter an absolute threshold.
        patience: epochs without an improvement that are allowed.
    """
    falls = count = 0
    for improved in _find_improvements(values, direction, min_delta):
        count = 0 if improved else count + 1
        if count > patience:
            falls, count = falls + 1, 0
    return falls


def _find_improvements(values: Iterable[float], direction: Direction, min_delta: float) -> Iterator[bool]:
    """Yield whether each value improves on the last one that did; the first one does."""
    best: float | None = None
    for value in values:
        if best is None:
            improved = True
        else:
            improved = value > best + min_delta if direction == "maximize" else value < best - min_delta
        best = value if improved else best
        yield improved
