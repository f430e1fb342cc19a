"""Figures of the whole study: history, Pareto front, learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.report.data.results import Results, TrialRow
from hpo.report.figures.axes import choose_round_ticks
from hpo.report.figures.plotly_spec import (
    HOVER,
    LINES_LIMIT,
    POINTS_LIMIT,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    clip,
    count_note,
    describe_trial,
    find_limits,
    make_axis,
    make_integer_axis,
    make_markers,
    make_value_axis,
    mark_missing,
    sort_inside_first,
    thin_out,
    trials_with_finite_value,
)
from hpo.report.format import metric_text, number_text, values_text
from hpo.report.stats.trial_stats import choose_curve_objective, standard_error

__all__ = ["curves_figure", "history_figure", "pareto_figure"]

HIGHLIGHTS = 5
WIDE = 20  # times the least: an axis on which most values would be at one end
SERIES = ("@accent", "@second", "@third", "@fourth", "@fifth")


def history_figure(results: Results) -> Figure:
    """Draw the first objective of every trial by number, with the best so far and the baseline."""
    figure = Figure("history", "Optimization history")
    done, pruned = list(results.ranked), trials_with_finite_value(results, "PRUNED")
    done.sort(key=lambda row: row.number)
    maximize = results.objective.direction == "maximize"
    limits = find_limits([row.value or 0.0 for row in done or pruned], maximize)
    if limits is None:
        return mark_missing(figure, "No trial has a value yet.")
    drawn = (
        sort_inside_first(thin_out(done, POINTS_LIMIT), limits),
        sort_inside_first(thin_out(pruned, POINTS_LIMIT), limits),
    )
    data = [
        make_markers(results, rows, state, limits) | {"x": [row.number for row in rows]}
        for rows, state in zip(reversed(drawn), ("PRUNED", "COMPLETE"), strict=True)
        if rows
    ]
    data += [_best_so_far_trace(results, done, limits)] if done else []
    shapes, annotations = _baseline_line(results, limits)
    spec = build_spec(
        data,
        360,
        xaxis=make_integer_axis("trial", len(results.trials)),
        yaxis=make_value_axis(results.objective, limits, range=list(limits)),
        shapes=shapes,
        annotations=annotations,
    )
    outside = sum(not limits[0] <= (row.value or 0.0) <= limits[1] for row in (*done, *pruned))
    caption = "Each dot is a trial; the line is the best so far."
    thin = count_note(sum(map(len, drawn)), len(done) + len(pruned))
    return attach_spec(figure, spec, caption + _outside_note(outside) + thin)


def _outside_note(count: int) -> str:
    if not count:
        return ""
    return f" {count} {'trial lies' if count == 1 else 'trials lie'} outside the plotted range: triangles at its edge."


def _best_so_far_trace(results: Results, done: Sequence[TrialRow], limits: tuple[float, float]) -> Spec:
    pick = np.maximum if results.objective.direction == "maximize" else np.minimum
    best = pick.accumulate([row.value or 0.0 for row in done]).tolist()
    # The corners alone: thousands of equal points would only make the file large.
    corners = [i for i in range(len(done)) if i in (0, len(done) - 1) or best[i] != best[i - 1]]
    end = max(row.number for row in results.trials)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [done[i].number for i in corners] + [end],
        "y": clip([best[i] for i in corners] + [best[-1]], limits),
        "line": {"shape": "hv", "color": "@second", "width": 2},
        "hoverinfo": "skip",
    }


def _baseline_line(results: Results, limits: tuple[float, float]) -> tuple[list[Spec], list[Spec]]:
    row = results.baseline
    if row is None or not row.comparable or row.value is None or not limits[0] <= row.value <= limits[1]:
        return [], []
    line = {"color": "@muted", "width": 1, "dash": "dash"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": row.value, "y1": row.value, "line": line}
    label = {"xref": "paper", "x": 1, "xanchor": "right", "y": row.value, "yanchor": "bottom", "showarrow": False}
    return [shape], [{**label, "text": "baseline", "font": {"color": "@muted", "size": 12}}]


def pareto_figure(results: Results) -> Figure:
    """Draw every pair of the first objective with another one, the Pareto front marked."""
    figure = Figure("pareto", "Trade-off between objectives")
    if not results.front:
        return mark_missing(figure, "No trial is complete yet.")
    others = range(1, len(results.objectives))
    front = {row.number for row in results.front}
    rest = [row for row in results.ranked if row.number not in front]
    drawn = thin_out(rest, POINTS_LIMIT)
    data: list[Spec] = []
    layout: dict[str, Any] = {}
    for panel, other in enumerate(others, start=1):
        suffix = "" if panel == 1 else str(panel)
        data += [
            _pair_trace(results, rows, other, suffix, style)
            for rows, style in ((drawn, "rest"), (results.front, "front"))
        ]
        gap = 0.12 / max(len(others), 1)
        domain = [(panel - 1) / len(others) + (gap if panel > 1 else 0), panel / len(others)]
        layout[f"xaxis{suffix}"] = make_axis(
            metric_text(results.objectives[other].metric), domain=domain, **_log_axis(results, other)
        )
        layout[f"yaxis{suffix}"] = make_value_axis(
            results.objective, [], "" if panel == 1 else " ", anchor=f"x{suffix}"
        )
    caption = "A trial on the Pareto front is beaten by no other in every objective at once; the others are grey."
    error, best = standard_error(results), results.best
    if error is not None and best is not None and best.value is not None:
        edge = best.value + results.signs[0] * error
        line = {"color": "@muted", "width": 1, "dash": "dash"}
        layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": edge, "y1": edge, "line": line}]
        caption += " Those beyond the dashed line are within one standard error of the best."
    return attach_spec(
        figure, build_spec(data, 400, **layout), caption + count_note(len(drawn), len(rest)), 340 * len(others)
    )


def _log_axis(results: Results, other: int) -> Spec:
    """Return the keys of a logarithmic axis, where values of an objective lie far apart."""
    values = [row.values[other] for row in results.ranked if row.values]
    if min(values) <= 0 or max(values) < WIDE * min(values):
        return {}
    ticks = choose_round_ticks(min(values), max(values))
    return {"type": "log", "tickvals": ticks, "ticktext": [number_text(tick) for tick in ticks]}


def _pair_trace(results: Results, rows: Sequence[TrialRow], other: int, suffix: str, style: str) -> Spec:
    front = style == "front"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "Pareto front" if front else "other trials",
        "legendgroup": style,
        "showlegend": not suffix,
        "x": [row.values[other] for row in rows if row.values],
        "y": [row.values[0] for row in rows if row.values],
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "text": [describe_trial(results, row) for row in rows],
        "hovertemplate": HOVER,
        "marker": {"color": "@second" if front else "@pruned", "size": 10 if front else 7},
    }


def curves_title(results: Results) -> str:
    """Return what the curves are called; what an objective function reports need not be of learning."""
    return "Learning curves" if results.definition.configured else "Intermediate values"


def curves_figure(results: Results) -> Figure:
    """Draw the monitored metric by epoch or step: the best trials in colour, on validation and training data; others
    grey.
    """
    figure = Figure("curves", curves_title(results))
    objective = choose_curve_objective(results)
    if objective is None:
        return mark_missing(figure, f"No {results.step_name} has been recorded yet.")
    metric = objective.metric
    best = [row for row in results.top(HIGHLIGHTS) if any(metric in epoch for epoch in row.epochs)]
    highlighted = {row.number for row in best}
    rest = [row for row in results.trials if row.number not in highlighted and row.epochs]
    drawn = thin_out(rest, LINES_LIMIT)
    data = [_grey_traces(drawn, metric)] if drawn else []
    training = metric.replace("val_", "train_", 1)
    for colour, row in reversed(list(zip(SERIES, best, strict=False))):
        data += _coloured_traces(row, metric, training, colour, results.step_name)
    values = [epoch[metric] for row in results.trials for epoch in row.epochs if metric in epoch]
    values += [epoch[training] for row in best for epoch in row.epochs if training in epoch]
    limits = find_limits(values, objective.direction == "maximize")
    axis: Spec = {"range": list(limits)} if limits else {}
    spec = build_spec(
        data,
        400,
        xaxis=make_integer_axis(
            results.step_name, max(max(_points(row, metric)[0], default=0) for row in results.trials)
        ),
        yaxis=make_value_axis(objective, limits or [], **axis),
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "reversed"},
    )
    trained = training != metric and any(training in epoch for row in best for epoch in row.epochs)
    dotted = ", dotted on training data" if trained else ""
    caption = f"{_best_text(len(best))} in colour{dotted}; the others are grey." if best else "All trials."
    return attach_spec(figure, spec, caption + count_note(len(drawn), len(rest), "grey curves"))


def _best_text(count: int) -> str:
    return "The best trial is" if count == 1 else f"The {count} best trials are"


def _points(row: TrialRow, metric: str) -> tuple[list[float], list[float | None]]:
    """Return epochs and values; one that is not finite breaks the line."""
    epochs = [epoch.get("epoch", i) for i, epoch in enumerate(row.epochs, start=1)]
    values = [epoch.get(metric, math.nan) for epoch in row.epochs]
    return epochs, [value if math.isfinite(value) else None for value in values]


def _grey_traces(rows: Sequence[TrialRow], metric: str) -> Spec:
    """Draw many curves as one trace, which a browser draws many times faster."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row in rows:
        epochs, values = _points(row, metric)
        x += [*epochs, None]
        y += [*values, None]
    alone = all(len(row.epochs) < 2 for row in rows)
    return {
        "type": "scatter",
        "mode": "markers" if alone else "lines",
        "name": "other trials",
        "x": x,
        "y": y,
        "line": {"color": "@faint", "width": 1},
        "marker": {"color": "@faint", "size": 5},
        "hoverinfo": "skip",
    }


def _coloured_traces(row: TrialRow, metric: str, training: str, colour: str, step_name: str) -> list[Spec]:
    group = {"type": "scatter", "legendgroup": f"trial {row.number}"}
    x, y = _points(row, metric)
    data: list[Spec] = []
    if training != metric and any(training in epoch for epoch in row.epochs):
        line = {"color": colour, "width": 1.3, "dash": "dot"}
        own = {"mode": "lines", "showlegend": False, "line": line, "hoverinfo": "skip"}
        data.append({**group, **own, "x": x, "y": _points(row, training)[1]})
    head = f"<b>trial {row.number}</b>, {step_name}"
    texts = [f"{head} {e:g}: {values_text(metric, v)}" for e, v in zip(x, y, strict=True)]
    line = {"color": colour, "width": 2.2}
    shown = {"mode": "lines+markers", "marker": {"size": 5, "color": colour}, "text": texts, "hovertemplate": HOVER}
    data.append({**group, **shown, "name": f"trial {row.number}", "x": x, "y": y, "line": line})
    return data
