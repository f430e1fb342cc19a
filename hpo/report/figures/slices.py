"""Slices: a small figure per dimension, the first objective over the parameter's values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hpo.config.parameter import Value
from hpo.report.data.results import Results, TrialRow
from hpo.report.figures.axes import choose_round_ticks, list_named_values, round_float
from hpo.report.figures.plotly_spec import (
    POINTS_LIMIT,
    Figure,
    Spec,
    build_spec,
    clip,
    escape_text,
    find_limits,
    jitter,
    make_axis,
    make_markers,
    make_value_axis,
    shorten,
    thin_out,
    trials_with_finite_value,
)
from hpo.report.format import dimension_text, value_text
from hpo.space import Dimension
from hpo.space.domains import Domain, Range

__all__ = ["slice_figures"]

Place = Callable[[Value, int], float]


def slice_figures(results: Results, order: Sequence[str] = ()) -> list[Figure]:
    """Draw a figure per dimension that any trial with a value has.

    Args:
        results: the study.
        order: keys of dimensions, most important first.
    """
    rows = [*results.ranked, *trials_with_finite_value(results, "PRUNED")]
    limits = find_limits([r.value or 0.0 for r in results.ranked or rows], results.objective.direction == "maximize")
    if limits is None:
        return []
    place = {key: i for i, key in enumerate(order)}
    dimensions = sorted(results.space.varied, key=lambda dimension: place.get(dimension.key, len(place)))
    with_value = [dimension for dimension in dimensions if any(_has_value(row, dimension) for row in rows)]
    return [_slice(results, dimension, i, limits) for i, dimension in enumerate(with_value)]


def _has_value(row: TrialRow, dimension: Dimension) -> bool:
    return row.params.get(dimension.key) is not None


def _slice(results: Results, dimension: Dimension, index: int, limits: tuple[float, float]) -> Figure:
    groups = {"PRUNED": trials_with_finite_value(results, "PRUNED"), "COMPLETE": list(results.ranked)}
    drawn = {
        state: thin_out([r for r in rows if _has_value(r, dimension)], POINTS_LIMIT) for state, rows in groups.items()
    }
    values = [row.params[dimension.key] for rows in drawn.values() for row in rows]
    xaxis, place = _axis(dimension.domain, values)

    def x(row: TrialRow) -> float:
        return place(row.params[dimension.key], row.number)

    data = [
        make_markers(results, rows, state, limits) | {"x": [x(row) for row in rows], "showlegend": False}
        for state, rows in drawn.items()
        if rows
    ]
    if results.best is not None and _has_value(results.best, dimension):
        data.append(_best_mark(x(results.best), results.best.value or 0.0, limits))
    yaxis = make_value_axis(results.objective, limits, " ", range=list(limits), nticks=5)
    return Figure(f"slice-{index}", dimension_text(dimension), "", build_spec(data, 230, xaxis=xaxis, yaxis=yaxis))


def _best_mark(x: float, value: float, limits: tuple[float, float]) -> Spec:
    """Mark the best trial."""
    line = {"width": 2.5, "color": "@second"}
    look = {"size": 13, "color": "@second", "symbol": "circle-open", "line": line}
    place = {"x": [x], "y": clip([value], limits)}
    return {"type": "scatter", "mode": "markers", "hoverinfo": "skip", "showlegend": False, "marker": look, **place}


def _axis(domain: Domain, values: Sequence[Value]) -> tuple[Spec, Place]:
    """Return the axis over the whole domain, and a function that places a trial's value on it."""
    named = list_named_values([domain], values)
    if named is not None:
        return _named_axis(named)
    assert isinstance(domain, Range)
    numbers = [float(value) for value in values]
    low, high = min(domain.low, *numbers), max(domain.high, *numbers)
    if domain.log and low > 0:
        margin = 0.05 * math.log10(high / low)
        ticks = choose_round_ticks(low, high)
        texts = {"tickvals": ticks, "ticktext": [value_text(tick) for tick in ticks]}
        span = [math.log10(low) - margin, math.log10(high) + margin]
        return make_axis(" ", type="log", showgrid=False, range=span, **texts), lambda value, _number: float(value)
    margin = 0.05 * (high - low)
    span = [low - margin, high + margin]
    return make_axis(" ", showgrid=False, nticks=6, range=span), lambda value, _number: float(value)


def _named_axis(named: Sequence[Value]) -> tuple[Spec, Place]:
    """Make an axis that names every value; trials with the same one are spread a little."""
    places = {value: i for i, value in enumerate(named)}
    texts = [escape_text(shorten(value_text(value), 14)) for value in named]
    ticks = {
        "tickvals": list(range(len(named))),
        "ticktext": texts,
        "range": [-0.5, len(named) - 0.5],
        "ticklabeloverflow": "allow",
    }

    def place(value: Value, number: int) -> float:
        return places[round_float(value) or value] + 0.36 * jitter(number)

    return make_axis(" ", showgrid=False, **ticks), place
