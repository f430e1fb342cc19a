"""Timeline of workers and their trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from hpo.report.data.results import Results, TrialRow
from hpo.report.figures.plotly_spec import (
    COLOURS,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    count_note,
    escape_text,
    make_axis,
    mark_missing,
    shorten,
    thin_out,
)
from hpo.report.format import duration_text, state_text

__all__ = ["timeline_figure"]

BARS_LIMIT = 2000


def timeline_figure(results: Results, now: datetime) -> Figure:
    """Draw when each worker trained which trial.

    Args:
        results: the study.
        now: until when running trials are drawn; naive local time.
    """
    figure = Figure("timeline", "Timeline")
    rows = [row for row in results.trials if row.started]
    if not rows:
        return mark_missing(figure, "No trial has begun yet.")
    workers = list(dict.fromkeys(row.worker or "others" for row in sorted(rows, key=lambda r: r.started or now)))
    lanes = {worker: i for i, worker in enumerate(workers)}
    drawn = thin_out(rows, BARS_LIMIT)
    data = [
        _bars([row for row in drawn if row.state == state], state, lanes, now, numbered=len(rows) <= 40)
        for state in COLOURS
        if any(row.state == state for row in drawn)
    ]
    spec = build_spec(
        data,
        90 + 34 * min(len(lanes), 24),
        barmode="overlay",
        bargap=0.25,
        xaxis=make_axis(type="date", showgrid=True),
        yaxis=make_axis(**_lane_ticks(workers)),
    )
    caption = f"{_lane_text(len(workers))}, from {min(r.started for r in rows if r.started):%Y-%m-%d %H:%M}."
    return attach_spec(figure, spec, caption + count_note(len(drawn), len(rows)))


def _lane_text(count: int) -> str:
    return "One worker" if count == 1 else f"{count} workers, one row each"


def _common_prefix_length(names: Sequence[str]) -> int:
    """Count the characters that all names begin with."""
    return sum(1 for _ in itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def _lane_ticks(workers: Sequence[str]) -> Spec:
    """Label workers by the part of their names that tells them apart."""
    common = _common_prefix_length(workers) if len(workers) > 1 else 0
    labels = [escape_text(shorten(worker[common:] if len(worker) - common > 1 else worker, 14)) for worker in workers]
    step = math.ceil(len(workers) / 24)
    ticks = {"tickvals": list(range(0, len(workers), step)), "ticktext": labels[::step]}
    return {**ticks, "autorange": "reversed", "showgrid": False, "ticksuffix": " "}


def _bars(rows: Sequence[TrialRow], state: str, lanes: Mapping[str, int], now: datetime, *, numbered: bool) -> Spec:
    spans = [max(((row.finished or now) - row.started).total_seconds(), 0.0) for row in rows if row.started]
    times = [
        f"{duration_text(span)}, {escape_text(row.worker or 'others')}" for row, span in zip(rows, spans, strict=True)
    ]
    return {
        "type": "bar",
        "orientation": "h",
        "name": state_text(state),
        "base": [f"{row.started:%Y-%m-%d %H:%M:%S.%f}" for row in rows],
        "x": [1000 * span for span in spans],
        "y": [lanes[row.worker or "others"] for row in rows],
        "text": [str(row.number) for row in rows] if numbered else None,
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "textfont": {"color": "@on"},
        "hovertext": [f"trial {row.number}, {time}" for row, time in zip(rows, times, strict=True)],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"color": COLOURS[state], "line": {"width": 1, "color": "@surface"}},
    }
