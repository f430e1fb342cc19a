"""Building blocks of all figures: Plotly's JSON as plain data, so that building it imports no plotly.

Colours are names of the page's palette (`@accent`), which the page replaces by those of its light or dark theme. Text
of unknown origin is escaped, for Plotly reads a subset of HTML.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.report.data.results import Results, TrialRow
from hpo.report.format import is_share, metric_text, one_line, state_text, value_text, values_text
from hpo.study import Objective

__all__ = [
    "COLOURS",
    "CROWD",
    "FEW",
    "HOVER",
    "LINES_LIMIT",
    "POINTS_LIMIT",
    "Figure",
    "Spec",
    "attach_spec",
    "build_spec",
    "clip",
    "count_note",
    "describe_trial",
    "escape_text",
    "find_limits",
    "jitter",
    "make_axis",
    "make_integer_axis",
    "make_markers",
    "make_value_axis",
    "mark_missing",
    "shorten",
    "sort_inside_first",
    "thin_out",
    "trials_with_finite_value",
]

Spec = dict[str, Any]
FEW = 8  # values up to which an axis names each one
LINES_LIMIT = 300
CROWD = 300  # trials from which dots and lines are drawn smaller
POINTS_LIMIT = 1500
HOVER = "%{text}<extra></extra>"
COLOURS = {"COMPLETE": "@accent", "PRUNED": "@pruned", "FAIL": "@fail", "RUNNING": "@running"}


@dataclass(frozen=True)
class Figure:
    """A figure with its words.

    Attributes:
        key: its place in the page.
        title: its heading.
        caption: how to read it.
        spec: Plotly's `data` and `layout`; None where there is nothing to show.
        reason: why there is nothing to show.
        width: pixels that it needs at least; narrower screens scroll.
    """

    key: str
    title: str
    caption: str = ""
    spec: Spec | None = None
    reason: str = ""
    width: int = 0


def attach_spec(figure: Figure, spec: Spec, caption: str, width: int = 0) -> Figure:
    """Return the figure with what Plotly draws; `width` is the pixels that it needs at least."""
    return Figure(figure.key, figure.title, caption, spec, "", width)


def mark_missing(figure: Figure, reason: str) -> Figure:
    """Return the figure without a picture, and with the reason."""
    return Figure(figure.key, figure.title, reason=reason)


def escape_text(text: object) -> str:
    """Escape text of unknown origin for Plotly."""
    return html.escape(one_line(str(text)), quote=False)


def shorten(text: str, limit: int) -> str:
    """Shorten to `limit` characters; the middle is left out, for names differ at their ends."""
    return text if len(text) <= limit else text[: limit // 2] + "…" + text[-(limit - limit // 2 - 1) :]


def make_axis(title: str = "", **more: Any) -> Spec:
    """Make an axis in the common look; `more` are further keys of Plotly."""
    return {
        "title": {"text": escape_text(title), "standoff": 8},
        "gridcolor": "@grid",
        "linecolor": "@line",
        "zeroline": False,
        "automargin": True,
        "ticks": "",
        **more,
    }


def make_integer_axis(title: str, high: float) -> Spec:
    """Make an axis of whole numbers up to `high`."""
    return make_axis(title, showgrid=False, tickformat="d", **({"dtick": 1} if high <= FEW else {}))


def build_spec(data: list[Spec], height: int, **layout: Any) -> Spec:
    """Build Plotly's data and layout in the common look; `height` in pixels."""
    base = {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": "@ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "@raised",
            "bordercolor": "@line",
            "font": {"color": "@ink", "size": 12},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "dragmode": False,
    }
    return {"data": data, "layout": {**base, **layout}}


def describe_trial(results: Results, row: TrialRow) -> str:
    """Describe a trial where the pointer is."""
    head = f"<b>trial {row.number}</b>{' (baseline)' if row.baseline else ''}"
    values = row.values or ()
    lines = [
        f"{escape_text(o.metric)} {values_text(o.metric, v)}" for o, v in zip(results.objectives, values, strict=False)
    ]
    if row.state != "COMPLETE":
        lines.append(state_text(row.state) + (f": {escape_text(row.known_failure)}" if row.known_failure else ""))
    settings = [
        f"{escape_text(name)} {escape_text(value_text(value))}" for name, value in results.settings(row).items()
    ]
    return "<br>".join([head, *lines, *settings])


def make_value_axis(objective: Objective, values: Sequence[float], title: str = "", **more: Any) -> Spec:
    """Make an objective's axis, in percent where it is a share; `values` say how fine its labels must be."""
    extra = {}
    if is_share(objective.metric):
        spread = max(values) - min(values) if values else 0.1
        extra = {"tickformat": ".0%" if spread > 0.2 else ".1%" if spread > 0.004 else ".2%"}
    return make_axis(title or metric_text(objective.metric), **extra, **more)


def find_limits(values: Iterable[float], maximize: bool) -> tuple[float, float] | None:
    """Find the range to draw: everything but far outliers on the worse side; None where nothing is there."""
    finite = np.array([value for value in values if math.isfinite(value)], dtype=float)
    if not finite.size:
        return None
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    reach = 3 * max(high - low, 1e-9, abs(middle) * 1e-3)
    bottom = max(finite.min(), low - reach) if maximize else finite.min()
    top = finite.max() if maximize else min(finite.max(), high + reach)
    margin = 0.06 * (top - bottom) or 0.05 * abs(top) or 0.05
    return float(bottom - margin), float(top + margin)


def clip(values: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Put values outside of the limits on the edge."""
    inside = 0.02 * (limits[1] - limits[0])
    return [min(max(value, limits[0] + inside), limits[1] - inside) for value in values]


def _symbols(values: Sequence[float], limits: tuple[float, float], symbol: str) -> list[str]:
    """Choose a triangle that points out of the picture for values that are outside."""
    return [
        "triangle-down" if value < limits[0] else "triangle-up" if value > limits[1] else symbol for value in values
    ]


def sort_inside_first(rows: Sequence[TrialRow], limits: tuple[float, float]) -> list[TrialRow]:
    """Sort rows so that the first point, whose symbol the legend shows, is no triangle."""
    return sorted(rows, key=lambda row: not limits[0] <= (row.value or 0.0) <= limits[1])


def thin_out(rows: Sequence[TrialRow], limit: int) -> list[TrialRow]:
    """Take at most about `limit` rows, evenly."""
    step = math.ceil(len(rows) / limit) if rows else 1
    return list(rows[::step])


def count_note(drawn: int, all_: int, what: str = "trials") -> str:
    """Say so where not all are drawn."""
    return f" {drawn} of {all_} {what} are drawn." if drawn < all_ else ""


def trials_with_finite_value(results: Results, state: str) -> list[TrialRow]:
    """Return the trials of a state that have a finite first objective."""
    return [row for row in results.trials if row.state == state and row.value is not None and math.isfinite(row.value)]


def make_markers(results: Results, rows: Sequence[TrialRow], state: str, limits: tuple[float, float]) -> Spec:
    """Draw trials of one state as dots at their first objective; the caller adds `x`."""
    values = [row.value or 0.0 for row in rows]
    pruned, crowded = state == "PRUNED", len(results.trials) > CROWD
    return {
        "type": "scatter",
        "mode": "markers",
        "name": state_text(state),
        "y": clip(values, limits),
        "text": [describe_trial(results, row) for row in rows],
        "hovertemplate": HOVER,
        "marker": {
            "color": COLOURS[state],
            "size": (6 if pruned else 8) - (2 if crowded else 0),
            "symbol": _symbols(values, limits, "circle-open" if pruned else "circle"),
            "opacity": 0.65 if crowded else 0.9,
        },
    }


def jitter(number: int) -> float:
    """Return an offset from -0.5 to 0.5, even over the trials' numbers: it sets apart what would lie on one spot."""
    return (number * 0.6180339887) % 1 - 0.5
