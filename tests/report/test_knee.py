"""The knee of curves whose knee is known."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.report.stats.knee import find_knee


def test_two_lines_meet_at_the_knee() -> None:
    assert find_knee([0, 1, 2, 3, 4, 5], [10, 7, 4, 1, 0.8, 0.6]) == 3


def test_of_a_hyperbola() -> None:
    """Of 1 / x from 1 to n it is where the slope is that of the line between the ends: at the square root of n."""
    x = np.linspace(1, 25, 241)
    assert x[find_knee(x.tolist(), (1 / x).tolist()) or 0] == pytest.approx(5, abs=0.1)


def test_units_do_not_matter() -> None:
    x, y = [1, 2, 4, 8, 16, 32], [9, 5, 2, 1.2, 1.1, 1]
    assert find_knee(x, y) == find_knee([1000 * each for each in x], [each / 7 + 100 for each in y]) is not None


@pytest.mark.parametrize("y", [[4, 3, 2, 1], [1, 2, 3, 9], [1, 1, 1, 1], [4, 3.9, 3.5, 0], [2, 1, 0.9]], ids=str)
def test_others_have_none(y: list[float]) -> None:
    assert find_knee(list(range(len(y))), y) is None
