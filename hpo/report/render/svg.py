"""SVG renderer of the report's figures: the part of Plotly that they use, drawn by matplotlib for Markdown.

A picture has a light background of its own, so that it is readable on light and dark pages; its text stays text. The
same figure gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hpo.report.figures.plotly_spec import Figure, Spec
from hpo.report.render.svg_minifier import minify

__all__ = ["render_svg"]

PALETTE = {
    "surface": "#ffffff",
    "raised": "#f6f7f9",
    "ink": "#1c2430",
    "muted": "#5c6675",
    "line": "#c9cfd8",
    "grid": "#e9ecf0",
    "faint": "#c8cfd8",
    "soft": "#8fb8d8",
    "veil": "#ffffffd1",
    "on": "#ffffff",
    "accent": "#0067a6",
    "second": "#d55e00",
    "third": "#00805c",
    "fourth": "#a34a7f",
    "fifth": "#8a6d00",
    "pruned": "#858f9d",
    "fail": "#b3261e",
    "running": "#00805c",
}
SYMBOLS = {
    "circle": "o",
    "circle-open": "o",
    "triangle-up": "^",
    "triangle-down": "v",
    "x": "X",
    "diamond": "D",
    "square": "s",
    "star": "*",
    "cross": "P",
}
DASHES = {"dash": "--", "dot": ":", "dashdot": "-."}
TYPES = {"scatter", "scattergl", "bar", "heatmap", "contour"}
RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hpo",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # letters of one width; each file names them all
    "font.size": 9,
    "text.parse_math": False,
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["ink"],
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "axes.unicode_minus": False,
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "text.color": PALETTE["ink"],
}
WIDTH = 760  # pixels, of which 100 make an inch
CROWD = 2000  # points of a trace above which they are a picture, of 20 to 50 kB: drawn, each takes 11 bytes
CELLS = 200  # of a heatmap, above which they are a picture: drawn, each takes 50 bytes
DAY = 86_400_000  # milliseconds


def render_svg(figure: Figure) -> str | None:
    """Render a figure as the text of an SVG file.

    None where there is nothing to draw, or a kind of trace that has no static picture (parallel coordinates of
    Plotly's own).
    """
    spec = figure.spec
    if spec is None or any(trace.get("type", "scatter") not in TYPES for trace in spec["data"]):
        return None
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    layout = spec["layout"]
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that its own font lacks: the reader's has them
        size = (max(WIDTH, figure.width) / 100, max(layout.get("height", 360), 120) / 100)
        canvas = Canvas(figsize=size, layout="constrained", facecolor=PALETTE["surface"])
        FigureCanvasSVG(canvas)
        panels = _panels(canvas, spec)
        for suffix, panel in panels.items():
            _Panel(panel, spec, suffix, first=suffix == next(iter(panels))).draw()
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", dpi=90, metadata={"Date": None, "Creator": None})
    return minify(buffer.getvalue())


def _panels(canvas: Any, spec: Spec) -> dict[str, Any]:
    """Make the axes, by the suffix of their name in Plotly, from left to right."""
    suffixes = list(dict.fromkeys(str(trace.get("xaxis", "x"))[1:] for trace in spec["data"])) or [""]
    domains = [spec["layout"].get(f"xaxis{suffix}", {}).get("domain", [0, 1]) for suffix in suffixes]
    grid = canvas.add_gridspec(1, len(suffixes), width_ratios=[high - low for low, high in domains])
    return {suffix: canvas.add_subplot(grid[0, i]) for i, suffix in enumerate(suffixes)}


def _colour(given: Any, fallback: str = PALETTE["accent"]) -> Any:
    """Convert a name of the palette, or a colour of CSS, to a colour of matplotlib."""
    text = str(given or fallback)
    numbers = re.fullmatch(r"rgba?\(([^)]*)\)", text)
    if numbers:
        parts = [float(part) for part in numbers[1].split(",")]
        return (*(part / 255 for part in parts[:3]), *parts[3:])
    return PALETTE.get(text[1:], fallback) if text.startswith("@") else text


def _plain(text: object) -> str:
    """Convert Plotly's subset of HTML to plain text."""
    return html.unescape(re.sub(r"</?[bi]>", "", str(text).replace("<br>", "\n")))


class _Panel:
    """One pair of axes with its traces."""

    def __init__(self, panel: Any, spec: Spec, suffix: str, *, first: bool) -> None:
        layout = spec["layout"]
        self.panel, self.layout, self.first, self.suffix = panel, layout, first, suffix
        self.traces = [
            t for t in spec["data"] if str(t.get("xaxis", "x"))[1:] == suffix and t.get("visible", True) is True
        ]
        self.axes = {side: layout.get(f"{side}axis{suffix}", {}) for side in "xy"}
        self.categories = {side: self._categories(side) for side in "xy"}
        self.bars = [trace for trace in self.traces if trace["type"] == "bar"]
        self.legend: dict[str, Any] = {}

    def draw(self) -> None:
        """Draw the axes, the traces and the legend."""
        kinds: dict[str, Callable[[Spec], None]] = {
            "bar": self._bar,
            "heatmap": self._heatmap,
            "contour": self._contour,
            "scatter": self._scatter,
            "scattergl": self._scatter,
        }
        for side in "xy":
            self._scale(side)
        for trace in self.traces:
            kinds[trace.get("type", "scatter")](trace)
        for side in "xy":
            self._finish(side)
        self.panel.spines[["top", "right"]].set_visible(False)
        self.panel.set_axisbelow(True)
        if self.first:
            for shape in self.layout.get("shapes") or ():
                self._shape(shape)
            for note in self.layout.get("annotations") or ():
                self._annotation(note)
        self._legend()

    # Where things stand.

    def _categories(self, side: str) -> list[str] | None:
        """Return the names along an axis, in order; None for an axis of numbers or dates."""
        values = [v for trace in self.traces for v in self._raw(trace, side) if v is not None]
        texts = any(isinstance(value, str) for value in values)
        given = self.axes[side]
        if given.get("type") == "date" or not (given.get("type") == "category" or texts):
            return None
        return list(dict.fromkeys(map(str, [*given.get("categoryarray", ()), *values])))

    @staticmethod
    def _raw(trace: Spec, side: str) -> Sequence[Any]:
        values = trace.get(side)
        return [] if values is None else list(values)

    def _numbers(self, values: Sequence[Any], side: str) -> np.ndarray[Any, Any]:
        """Convert values to positions on an axis; NaN where a value is missing."""
        names = self.categories[side]
        if names is not None:
            return np.array([np.nan if v is None else names.index(v) if v in names else v for v in values], dtype=float)
        if self.axes[side].get("type") == "date":
            return np.array([np.nan if v is None else _day(v) for v in values], dtype=float)
        return np.array([np.nan if v is None else v for v in values], dtype=float)

    def _points(self, trace: Spec) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        x, y = (self._raw(trace, side) for side in "xy")
        return self._numbers(x or range(len(y)), "x"), self._numbers(y or range(len(x)), "y")

    # Axes.

    def _scale(self, side: str) -> None:
        if self.axes[side].get("type") == "log":
            getattr(self.panel, f"set_{side}scale")("log")

    def _finish(self, side: str) -> None:
        """Set the title, grid, range and ticks of an axis."""
        given, line = self.axes[side], getattr(self.panel, f"{side}axis")
        if given.get("visible") is False:
            line.set_visible(False)
            self.panel.spines["bottom" if side == "x" else "left"].set_visible(False)
        title = given.get("title") or {}
        line.set_label_text(_plain(title.get("text", "") if isinstance(title, dict) else title).strip())
        line.grid(bool(given.get("showgrid", True)), which="major", color=PALETTE["grid"], linewidth=0.8)
        line.set_tick_params(which="both", length=0)
        self._range(side, given)
        self._ticks(side, given, line)

    def _range(self, side: str, given: Spec) -> None:
        set_range = getattr(self.panel, f"set_{side}lim")
        if given.get("range"):
            bounds = [10**bound for bound in given["range"]] if given.get("type") == "log" else given["range"]
            low, high = self._numbers(bounds, side)
            set_range(low, high)
        elif self.categories[side]:
            set_range(-0.5, len(self.categories[side] or ()) - 0.5)
        if given.get("autorange") == "reversed":
            getattr(self.panel, f"invert_{side}axis")()

    def _ticks(self, side: str, given: Spec, line: Any) -> None:
        from matplotlib import dates, ticker

        names, form = self.categories[side], str(given.get("tickformat", ""))
        if given.get("showticklabels") is False:
            line.set_major_formatter(ticker.NullFormatter())
        elif given.get("tickvals") is not None:
            values = self._numbers(given["tickvals"], side)
            line.set_ticks(values, [_plain(text) for text in given.get("ticktext") or given["tickvals"]])
        elif names is not None:
            line.set_ticks(range(len(names)), [_plain(name) for name in names])
        elif given.get("type") == "date":
            build: Any = dates  # its locators have no types
            locator = build.AutoDateLocator()
            line.set_major_locator(locator)
            line.set_major_formatter(build.ConciseDateFormatter(locator))
        elif form.endswith("%"):
            line.set_major_formatter(ticker.PercentFormatter(1, decimals=int(re.sub(r"\D", "", form) or 0)))
        elif form == "d":
            line.set_major_locator(ticker.MaxNLocator(integer=True))
        if given.get("type") == "log":
            self._log_ticks(side, line, named=given.get("tickvals") is not None)

    def _log_ticks(self, side: str, line: Any, *, named: bool) -> None:
        """Label powers of ten as plain numbers, and 2 and 5 of each where there are few powers."""
        from matplotlib import ticker

        line.set_minor_locator(ticker.NullLocator())
        if not named:
            low, high = sorted(getattr(self.panel, f"get_{side}lim")())
            line.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
            line.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))

    # Traces.

    def _scatter(self, trace: Spec) -> None:
        x, y = self._points(trace)
        mode, line, mark = trace.get("mode", "lines+markers"), trace.get("line") or {}, trace.get("marker") or {}
        drawn: list[Any] = []
        if "lines" in mode:
            drawn += self._line(x, y, line)
        if "markers" in mode and len(x):
            drawn += self._markers(x, y, mark)
        if "text" in mode:
            self._texts(x, y, trace)
        if trace.get("error_y") or trace.get("error_x"):
            self._errors(trace, x, y, _colour(mark.get("color")))
        if trace.get("fill") == "toself":
            self.panel.fill(x, y, color=_colour(trace.get("fillcolor")), linewidth=0)
        self._name(trace, drawn[0] if drawn else None)

    def _line(self, x: Any, y: Any, line: Spec) -> list[Any]:
        steps = "steps-post" if line.get("shape") == "hv" else "default"
        style, width = DASHES.get(line.get("dash", ""), "-"), 0.75 * line.get("width", 2)
        look = {"color": _colour(line.get("color")), "linewidth": width, "linestyle": style, "drawstyle": steps}
        drawn: list[Any] = self.panel.plot(x, y, **look, rasterized=len(x) > CROWD)
        return drawn

    def _markers(self, x: Any, y: Any, mark: Spec) -> list[Any]:
        """Draw markers, with a call per symbol and colour, which is as much as matplotlib draws at once."""
        count = len(x)
        symbols, colours, sizes = (
            list(given) if isinstance(given, list | tuple) else [given] * count
            for given in (mark.get("symbol", "circle"), mark.get("color", "@accent"), mark.get("size", 6))
        )
        drawn = []
        for look in dict.fromkeys(zip(symbols, map(str, colours), strict=True)):
            here = [i for i in range(count) if (symbols[i], str(colours[i])) == look]
            colour = _colour(look[1])
            hollow = str(look[0]).endswith("-open")
            drawn.append(
                self.panel.scatter(
                    x[here],
                    y[here],
                    s=[(0.72 * float(sizes[i])) ** 2 for i in here],
                    marker=SYMBOLS.get(look[0], "o"),
                    facecolors="none" if hollow else [colour],
                    edgecolors=[colour] if hollow else "none",
                    linewidths=0.72 * (mark.get("line") or {}).get("width", 1.2) if hollow else 0,
                    alpha=mark.get("opacity"),
                    rasterized=count > CROWD,
                    zorder=2.5,
                )
            )
        return drawn[:1]

    def _texts(self, x: Any, y: Any, trace: Spec) -> None:
        font = trace.get("textfont") or {}
        look = {"color": _colour(font.get("color"), PALETTE["ink"]), "fontsize": 0.72 * font.get("size", 12)}
        place = str(trace.get("textposition", "middle center")).split()
        level = {"top": "bottom", "bottom": "top"}.get(place[0], "center")
        side = {"right": "left", "left": "right"}.get(place[-1], "center")
        for a, b, text in zip(x, y, trace.get("text") or (), strict=False):
            if text and np.isfinite(a) and np.isfinite(b):
                self.panel.text(a, b, _plain(text), ha=side, va=level, clip_on=True, **look)

    def _errors(self, trace: Spec, x: Any, y: Any, colour: Any) -> None:
        bars = {f"{side}err": _error(trace[f"error_{side}"]) for side in "xy" if trace.get(f"error_{side}")}
        given = trace.get("error_y") or trace.get("error_x") or {}
        look = {"ecolor": _colour(given.get("color"), colour), "elinewidth": 1, "capsize": 2.5}
        self.panel.errorbar(x, y, **bars, fmt="none", **look)

    def _bar(self, trace: Spec) -> None:
        flat = trace.get("orientation") == "h"
        along, length = ("y", "x") if flat else ("x", "y")
        places = self._numbers(self._raw(trace, along), along)
        date = self.axes[length].get("type") == "date"
        sizes = np.array([v or 0 for v in self._raw(trace, length)], dtype=float) / (DAY if date else 1)
        base = self._numbers(trace["base"], length) if isinstance(trace.get("base"), list) else np.zeros(len(sizes))
        width, shift = self._bar_width(trace)
        colours = (trace.get("marker") or {}).get("color", "@accent")
        fill = [_colour(c) for c in colours] if isinstance(colours, list) else _colour(colours)
        places = places + shift
        look = {"color": fill, "edgecolor": PALETTE["surface"], "linewidth": 0.5}
        if flat:
            drawn = self.panel.barh(places, sizes, width, left=base, **look)
        else:
            drawn = self.panel.bar(places, sizes, width, bottom=base, **look)
        ends = base + sizes
        if trace.get("error_x") or trace.get("error_y"):
            self._errors(trace, *((ends, places) if flat else (places, ends)), PALETTE["ink"])
        if trace.get("text") and trace.get("textposition", "auto") != "none":
            self._bar_texts(drawn, trace)
        self._name(trace, drawn)

    def _bar_width(self, trace: Spec) -> tuple[float, float]:
        """Return the width of a bar, and its offset beside other bars."""
        room = 1 - float(self.layout.get("bargap", 0.2))
        beside = len(self.bars) if self.layout.get("barmode", "group") == "group" else 1
        index = next(i for i, each in enumerate(self.bars) if each is trace) if beside > 1 else 0
        return room / beside, room * ((index + 0.5) / beside - 0.5)

    def _bar_texts(self, drawn: Any, trace: Spec) -> None:
        outside = trace.get("textposition") == "outside"
        font = trace.get("textfont") or {}
        colour = _colour(font.get("color"), PALETTE["ink" if outside else "on"])
        labels = [_plain(text) for text in trace["text"]]
        look = {"label_type": "edge" if outside else "center", "padding": 3 if outside else 0}
        self.panel.bar_label(drawn, labels=labels, color=colour, fontsize=8, **look)

    def _heatmap(self, trace: Spec) -> None:
        x, y, z = self._surface(trace)
        gap = 1 if trace.get("xgap") else 0
        limits = {"vmin": trace.get("zmin"), "vmax": trace.get("zmax")}
        look = {"cmap": _scale_of(trace), "edgecolors": PALETTE["grid"] if gap else "none", "linewidth": 0.5 * gap}
        small = np.size(z) <= CELLS
        mesh = self.panel.pcolormesh(x, y, z, shading="nearest", rasterized=not small, **limits, **look)
        self._bar_of_colours(trace, mesh)

    def _contour(self, trace: Spec) -> None:
        x, y, z = self._surface(trace)
        filled = self.panel.contourf(x, y, z, levels=int(trace.get("ncontours", 15)), cmap=_scale_of(trace))
        self._bar_of_colours(trace, filled)

    def _surface(self, trace: Spec) -> tuple[Any, Any, Any]:
        rows = [[np.nan if value is None else value for value in row] for row in trace["z"]]
        z = np.ma.masked_invalid(np.array(rows, dtype=float))
        sides = [self._raw(trace, "x") or range(z.shape[1]), self._raw(trace, "y") or range(z.shape[0])]
        return self._numbers(sides[0], "x"), self._numbers(sides[1], "y"), z

    def _bar_of_colours(self, trace: Spec, drawn: Any) -> None:
        if trace.get("showscale", True):
            bar = self.panel.figure.colorbar(drawn, ax=self.panel, pad=0.02)
            bar.outline.set_visible(False)
            title = (trace.get("colorbar") or {}).get("title") or ""
            bar.set_label(_plain(title.get("text", "") if isinstance(title, dict) else title))

    # What lies above.

    def _transform(self, item: Spec) -> Any:
        from matplotlib.transforms import blended_transform_factory

        sides = [
            self.panel.transAxes
            if "paper" in str(item.get(f"{s}ref")) or "domain" in str(item.get(f"{s}ref"))
            else None
            for s in "xy"
        ]
        return blended_transform_factory(*(side or self.panel.transData for side in sides))

    def _place(self, item: Spec, key: str, default: float = 0.0) -> Any:
        side, value = key[0], item.get(key, default)
        paper = "paper" in str(item.get(f"{side}ref")) or "domain" in str(item.get(f"{side}ref"))
        return value if paper else self._numbers([value], side)[0]

    def _shape(self, shape: Spec) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        (x0, x1), (y0, y1) = ([self._place(shape, f"{side}{end}", end) for end in (0, 1)] for side in "xy")
        line, below = shape.get("line") or {}, 0.9 if shape.get("layer") == "below" else 2.2
        look = {"transform": self._transform(shape), "zorder": below, "alpha": shape.get("opacity")}
        style = {"linewidth": 0.75 * line.get("width", 2), "linestyle": DASHES.get(line.get("dash", ""), "-")}
        colour = _colour(line.get("color"), PALETTE["line"])
        if shape.get("type") == "rect":
            fill = _colour(shape.get("fillcolor"), "#00000000")
            box = Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=fill, edgecolor=colour, **style, **look)
            self.panel.add_patch(box)
        else:
            self.panel.add_line(Line2D([x0, x1], [y0, y1], color=colour, **style, **look))

    def _annotation(self, note: Spec) -> None:
        font = note.get("font") or {}
        log = [
            side for side in "xy" if self.axes[side].get("type") == "log" and "paper" not in str(note.get(f"{side}ref"))
        ]
        x, y = (10 ** note[side] if side in log else self._place(note, side) for side in "xy")
        level = {"top": "top", "bottom": "bottom"}.get(note.get("yanchor", ""), "center")
        side = {"left": "left", "right": "right"}.get(note.get("xanchor", ""), "center")
        look = {"color": _colour(font.get("color"), PALETTE["ink"]), "fontsize": 0.72 * font.get("size", 12)}
        back = {"facecolor": _colour(note["bgcolor"]), "linewidth": 0, "pad": 1} if note.get("bgcolor") else None
        self.panel.text(
            x, y, _plain(note["text"]), transform=self._transform(note), ha=side, va=level, bbox=back, **look
        )

    def _name(self, trace: Spec, drawn: Any) -> None:
        if drawn is not None and trace.get("name") and trace.get("showlegend", True):
            self.legend.setdefault(_plain(trace["name"]), drawn)

    def _columns(self, names: Sequence[str]) -> int:
        """Return the number of legend entries in a row."""
        letters = 11 * self.panel.figure.get_figwidth()
        return max(1, min(len(names), int(letters / (max(map(len, names)) + 6))))

    def _legend(self) -> None:
        """Draw the legend above the first panel, as Plotly does, only where there are several traces."""
        wanted = self.layout.get("showlegend", len(self.traces) > 1)
        if self.legend and wanted:
            names = list(self.legend)
            if "reversed" in str((self.layout.get("legend") or {}).get("traceorder")):
                names.reverse()
            handles = [self.legend[name] for name in names]
            place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": self._columns(names)}
            self.panel.legend(handles, names, frameon=False, borderaxespad=0.2, handlelength=1.4, **place)


def _day(value: Any) -> float:
    """Convert a date as text, or milliseconds since 1970, to matplotlib's days."""
    moment = np.datetime64(str(value).replace(" ", "T")) if isinstance(value, str) else np.datetime64(int(value), "ms")
    return float((moment - np.datetime64("1970-01-01T00:00:00")) / np.timedelta64(1, "us") / (1000 * DAY))


def _error(given: Spec) -> Any:
    """Return the lengths of error bars below and above."""
    even = given.get("symmetric", "arrayminus" not in given)
    sides = [given["array" if even else "arrayminus"], given["array"]]
    return np.maximum(np.array([[value or 0 for value in side] for side in sides], dtype=float), 0)


def _scale_of(trace: Spec) -> Any:
    """Convert a colour scale of Plotly, pairs of position and colour or a name, to a colour map of matplotlib."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = trace.get("colorscale", "viridis")
    if isinstance(scale, str):
        return scale.lower()
    return LinearSegmentedColormap.from_list("scale", [(float(place), _colour(colour)) for place, colour in scale])
