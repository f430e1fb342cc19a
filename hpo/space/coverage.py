"""Coverage of a space: a few configurations that together have every model, choice and bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hpo.space.domains import Choices, Domain
from hpo.space.space import Dimension, Space, Values

__all__ = ["cover"]

DRAWS = 256  # for what has an effect under some values of others only
LAST = 1 - 1e-12  # where the upper bound of a range is


def cover(space: Space) -> list[Values]:
    """Return configurations in which each model occurs with each of its choices and both bounds of its ranges.

    Many values are new in one configuration, so that there are few (each-choice coverage, as testers call it). The
    first one of a model has the lower bounds and the first choices. Of choices that are numbers only the smallest and
    the largest are bounds.
    """
    seen: set[tuple[object, ...]] = set()
    covering = []
    for units in _candidates(space):
        values = space.values(space.draw(units))
        model = values.get("model")
        new = {(model, name, type(value), value) for name, value in values.items()} - seen
        if new:
            seen |= new
            covering.append(values)
    return covering


def _candidates(space: Space) -> Iterator[list[float]]:
    """Yield points of the unit cube at the edges of the domains: those of one place, model by model, then any."""
    edges = [_edges(dimension.domain) for dimension in space.varied]
    models = [place for place, dimension in enumerate(space.varied) if _is_model(dimension)]
    for place in range(max(map(len, edges), default=1)):
        point = [each[place % len(each)] for each in edges]
        yield from _with_each_model(point, models, edges)
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield [each[rng.integers(len(each))] for each in edges]


def _with_each_model(point: list[float], models: Sequence[int], edges: Sequence[list[float]]) -> Iterator[list[float]]:
    if not models:
        yield point
    for index in models:
        for unit in edges[index]:
            yield [*point[:index], unit, *point[index + 1 :]]


def _is_model(dimension: Dimension) -> bool:
    return dimension.parameter.name == "model"


def _edges(domain: Domain) -> list[float]:
    """Return the coordinates of a domain's choices or bounds."""
    if not isinstance(domain, Choices):
        return [0.0, LAST]
    count = len(domain.values)
    places: Sequence[int] = range(count)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in domain.values):
        ordered = sorted(places, key=lambda place: float(domain.values[place]))
        places = [ordered[0], ordered[-1]]
    return [(place + 0.5) / count for place in dict.fromkeys(places)]
