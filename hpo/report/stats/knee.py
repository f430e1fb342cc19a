"""Knee of a falling curve: the point from which more of x pays little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["find_knee"]

LEAST = 0.1  # of the range: a curve that bends less has no knee


def find_knee(x: Sequence[float], y: Sequence[float]) -> int | None:
    """Find the index of the knee; None where there is none: fewer than four points, not falling, or hardly bent.

    Both axes are brought to 0..1; the knee is the point farthest below the straight line from the first to the last one
    (Satopää et al., "Finding a Kneedle in a Haystack", 2011). On logarithmic axes give logarithms.

    Args:
        x: rising.
        y: as many.
    """
    if len(x) < 4 or y[-1] >= y[0]:
        return None
    across, down = (np.asarray(each, dtype=float) for each in (x, y))
    places = (across - across[0]) / (across[-1] - across[0])
    below = (down[0] - down) / (down[0] - down[-1]) - places
    index = int(np.argmax(below))
    return index if below[index] >= LEAST else None
