"""Parallel coordinates: every trial as a line over its parameters to its value.

Drawn as plain lines: Plotly's own cannot show parameters that some trials do not have, needs WebGL, and does not print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpo.config.parameter import Value
from hpo.report.data.results import Results, TrialRow
from hpo.report.figures.axes import list_named_values, round_float
from hpo.report.figures.plotly_spec import (
    CROWD,
    HOVER,
    LINES_LIMIT,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    count_note,
    describe_trial,
    escape_text,
    find_limits,
    jitter,
    mark_missing,
    shorten,
    thin_out,
)
from hpo.report.format import value_text, values_text
from hpo.space.domains import Range

__all__ = ["parallel_coordinates_figure"]

AXES_LIMIT = 12
UNUSED = -0.13  # where a line passes an axis whose parameter its trial does not have
PIXELS = 92  # that an axis needs for its labels


@dataclass(frozen=True)
class Axis:
    """One axis: where a value stands (0 bottom, 1 top), the labelled values, and how far equals are spread."""

    title: str
    place: Callable[[Value], float]
    ticks: Sequence[tuple[float, str]]
    jitter: float = 0.0


@dataclass(frozen=True)
class Band:
    """Trials that are drawn alike."""

    name: str
    rows: Sequence[TrialRow]
    colour: str
    width: float


def parallel_coordinates_figure(results: Results, order: Sequence[str] = ()) -> Figure:
    """Draw parallel coordinates of the complete trials, in which the best tenth stands out.

    Args:
        results: the study.
        order: names of parameters, most important first; where there are too many, the first ones are shown.
    """
    figure = Figure("parallel", "Parallel coordinates")
    names = _axis_names(results, order)
    if len(results.ranked) < 2 or not names:
        reason = "This needs at least two complete trials." if results.varied else "The study varies no parameter."
        return mark_missing(figure, reason)
    drawn = names[:AXES_LIMIT]
    axes = [*(_parameter_axis(results, name) for name in drawn), _objective_axis(results)]
    bands = [band for band in _make_bands(results) if band.rows]
    gaps = any(name not in results.settings(row) for band in bands for row in band.rows for name in drawn)
    spec = build_spec(
        [_band_trace(results, axes, drawn, band) for band in bands],
        440 if gaps else 400,
        xaxis={"visible": False, "range": [-0.5, len(axes) - 0.5], "fixedrange": True},
        yaxis={"visible": False, "range": [UNUSED - 0.06 if gaps else -0.06, 1.24], "fixedrange": True},
        shapes=[_axis_line(i) for i in range(len(axes))],
        annotations=[label for i, axis in enumerate(axes) for label in _labels(i, axis)],
    )
    return attach_spec(figure, spec, _caption(results, names, bands, gaps), PIXELS * len(axes))


def _axis_names(results: Results, order: Sequence[str]) -> list[str]:
    """Return the varied parameters that any complete trial has, the important ones first."""
    names = [*(name for name in order if name in results.varied), *(n for n in results.varied if n not in order)]
    with_value = {name for row in results.ranked for name, value in results.settings(row).items() if value is not None}
    return [name for name in names if name in with_value]


def _caption(results: Results, names: Sequence[str], bands: Sequence[Band], gaps: bool) -> str:
    text = "Each line is a complete trial; the best tenth stands out."
    if gaps:
        text += " A line passes below the axis of a parameter that its trial does not have."
    if len(names) > AXES_LIMIT:
        text += f" The {AXES_LIMIT} most important of {len(names)} parameters are shown."
    return text + count_note(sum(len(band.rows) for band in bands), len(results.ranked))


def _make_bands(results: Results) -> list[Band]:
    """Split the trials into bands, the worst first, so that the best lie above."""
    ranked = results.ranked
    tenth, half = math.ceil(len(ranked) / 10), math.ceil(len(ranked) / 2)
    return [
        Band("lower half", thin_out(ranked[half:], LINES_LIMIT), "@faint", 1),
        Band("upper half", thin_out(ranked[tenth:half], LINES_LIMIT), "@soft", 1.4),
        Band("best tenth", thin_out(ranked[:tenth], LINES_LIMIT), "@second", 2.4),
    ]


def _band_trace(results: Results, axes: Sequence[Axis], names: Sequence[str], band: Band) -> Spec:
    """Draw a band as one trace, its lines parted by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    for row in band.rows:
        settings = results.settings(row)
        values = [*(settings.get(name) for name in names), row.value]
        x += [*range(len(axes)), None]
        y += [*(_height(axis, value, row.number) for axis, value in zip(axes, values, strict=True)), None]
        text += [*[describe_trial(results, row)] * len(axes), None]
    line = {"color": band.colour, "width": band.width / (2 if len(results.ranked) > CROWD else 1)}
    own = {"type": "scatter", "mode": "lines", "name": band.name, "text": text, "hovertemplate": HOVER}
    return {**own, "x": x, "y": y, "line": line}


def _height(axis: Axis, value: Value | None, number: int) -> float:
    return UNUSED if value is None else axis.place(value) + axis.jitter * jitter(number)


def _parameter_axis(results: Results, name: str) -> Axis:
    domains = [dimension.domain for dimension in results.space.varied if dimension.parameter.name == name]
    settings = [results.settings(row).get(name) for row in results.ranked]
    values = [value for value in settings if value is not None]
    named = list_named_values(domains, values)
    if named is not None:
        return _named_axis(name, named)
    log = any(isinstance(domain, Range) and domain.log for domain in domains)
    # A baseline may have a range's parameter off, as `embedding_factor`, which is `none` then.
    return _numeric_axis(name, [float(value) for value in values if not isinstance(value, str)], log)


def _named_axis(name: str, named: Sequence[Value]) -> Axis:
    places = {value: (i + 0.5) / len(named) for i, value in enumerate(named)}
    ticks = [(place, value_text(value)) for value, place in places.items()]
    return Axis(name, lambda value: places[round_float(value) or value], ticks, min(0.3 / len(named), 0.12))


def _numeric_axis(title: str, values: Sequence[float], log: bool = False) -> Axis:
    """Make an axis from the smallest value to the largest."""
    scale: Callable[[float], float] = math.log10 if log and min(values) > 0 else float
    low, high = min(values), max(values)
    span = scale(high) - scale(low)

    def place(value: Value) -> float:
        return UNUSED if isinstance(value, str) else (scale(float(value)) - scale(low)) / span if span else 0.5

    return Axis(title, place, [(place(value), value_text(value)) for value in dict.fromkeys((low, high))])


def _objective_axis(results: Results) -> Axis:
    """Make the axis of the first objective; far outliers on its worse side lie on the end, which says so."""
    objective = results.objective
    values = [row.value or 0.0 for row in results.ranked]
    low, high = find_limits(values, objective.direction == "maximize") or (0.0, 1.0)
    bottom, top = max(low, min(values)), min(high, max(values))
    inner = _numeric_axis(objective.metric, [bottom, top])
    signs = {bottom: "≤ " if min(values) < bottom else "", top: "≥ " if max(values) > top else ""}
    ticks = [(inner.place(value), sign + values_text(objective.metric, value)) for value, sign in signs.items()]
    return Axis(objective.metric, lambda value: inner.place(min(max(float(value), bottom), top)), ticks)


def _axis_line(index: int) -> Spec:
    line = {"color": "@line", "width": 1}
    return {"type": "line", "x0": index, "x1": index, "y0": 0, "y1": 1, "layer": "below", "line": line}


def _labels(index: int, axis: Axis) -> list[Spec]:
    """Return the axis's title above it and its values on it."""
    own = {"x": index, "showarrow": False, "borderpad": 1}
    title = {"yanchor": "bottom", "y": 1.06, "font": {"size": 12, "color": "@ink"}}
    label = {"font": {"size": 11, "color": "@ink"}, "bgcolor": "@veil"}
    ticks = [{**own, **label, "y": place, "text": escape_text(shorten(text, 14))} for place, text in axis.ticks]
    return [{**own, **title, "text": f"<b>{_wrap_name(axis.title)}</b>"}, *ticks]


def _wrap_name(name: str, limit: int = 13) -> str:
    """Break a parameter's name into lines after underscores."""
    lines = [""]
    for part in name.replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > limit:
            lines.append("")
        lines[-1] += part
    return "<br>".join(escape_text(shorten(line, limit + 5)) for line in lines)
