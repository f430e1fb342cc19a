"""The report as one HTML file that works offline."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from hpo.report.content import Content
from hpo.report.plot import Figure
from hpo.report.words import finite

__all__ = ["page"]

FOLDER = Path(__file__).parent / "templates"


def page(told: Content, figures: Sequence[Figure], slices: Sequence[Figure]) -> str:
    """The text of `report.html`.

    Args:
        told: what the report says.
        figures: the large figures, in their order.
        slices: the small ones of the slices.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    scripts = [_plotly(), (FOLDER / "report.js").read_text(encoding="utf-8")]
    return environment.get_template("report.html.j2").render(
        told=told,
        figures={figure.key: figure for figure in figures},
        slices=slices,
        style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],  # ours, not a study's
        # Only these two scripts may run, whatever a study's texts hold, and nothing may be fetched.
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        specs=_json({f.key: f.spec for f in (*figures, *slices) if f.spec is not None}),
    )


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: Any) -> Markup:
    """JSON inside of a script element, which only `</` could end."""
    text = json.dumps(finite(_rounded(data)), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _rounded(data: Any) -> Any:
    """Six digits are more than a screen shows; all of them would double the file."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if abs(data) < 1e6 else data
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    return [_rounded(value) for value in data] if isinstance(data, list | tuple) else data
