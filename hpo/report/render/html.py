"""HTML rendering of the report: one file that works offline."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hpo.report.chapters.blocks import Block, Chapter, Column, DataTable
from hpo.report.figures.plotly_spec import Figure
from hpo.report.format import cell_text, finite

__all__ = ["render_html"]

FOLDER = Path(__file__).parent / "templates"
SMALL = 260  # pixels of height up to which figures stand side by side
PRINTED = 50  # rows of a data table on paper, and where no script runs


def render_html(
    name: str, verdict: Sequence[str], facts: Sequence[str], chapters: Sequence[Chapter], written: str
) -> str:
    """Render the text of `report.html`.

    Args:
        name: the study's.
        verdict: the report in three lines; commands stand between backticks.
        facts: a few words on the study.
        chapters: top to bottom.
        written: when the study was read.
    """
    blocks = [block for chapter in chapters for block in chapter.blocks]
    texts = TextTable()
    with_spec = (block for block in blocks if isinstance(block, Figure) and block.spec is not None)
    figures = {figure.key: texts.refer(figure.spec) for figure in with_spec}
    tables = {block.key: _table_json(block) for block in blocks if isinstance(block, DataTable)}
    scripts = [_plotly_script(), *((FOLDER / file).read_text(encoding="utf-8") for file in ("report.js", "table.js"))]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            name=name,
            verdict=verdict,
            facts=facts,
            chapters=chapters,
            written=written,
            style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
            scripts=[Markup(script) for script in scripts],  # ours, not a study's
            # Only these scripts may run, whatever a study's texts hold, and nothing may be fetched.
            policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
            figures=_script_json({"specs": figures, "texts": texts.kept}),
            tables=_script_json(tables),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "prose": _render_prose,
        "rows": _group_blocks,
        "printed": _printed_rows,
        "picture": _data_uri,
    }
    return environment


def _render_prose(text: str) -> Markup:
    """Render text with what stands between backticks as code."""
    parts = re.split(r"`([^`\n]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def _group_blocks(blocks: Sequence[Block]) -> list[tuple[str, Any]]:
    """Return blocks with the names of their kinds; small figures that follow each other are one row of them."""
    rows: list[tuple[str, Any]] = []
    for small, group in itertools.groupby(blocks, _is_small):
        group_blocks = list(group)
        rows += (
            [("Figures", group_blocks)]
            if small and len(group_blocks) > 1
            else [(type(each).__name__, each) for each in group_blocks]
        )
    return rows


def _is_small(block: Block) -> bool:
    return (
        isinstance(block, Figure) and block.spec is not None and block.spec["layout"].get("height", SMALL + 1) <= SMALL
    )


def _printed_rows(table: DataTable) -> list[list[str]]:
    return [[cell_text(c.kind, v) for c, v in zip(table.columns, row, strict=True)] for row in table.rows[:PRINTED]]


def _data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _table_json(table: DataTable) -> dict[str, Any]:
    def column(each: Column) -> dict[str, str]:
        return {"name": each.name, "kind": each.kind}

    return {"columns": [column(each) for each in table.columns], "rows": table.rows, "choose": table.choose}


@cache
def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script_json(data: Any) -> Markup:
    """Write JSON inside of a script element, which only `</` could end."""
    text = json.dumps(finite(_round_floats(data)), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


class TextTable:
    """Long texts kept once: what the pointer shows of a trial is the same in every figure.

    In the figures a text that begins with `~` is the place of the one that is meant.
    """

    LONG = 32  # longer than a time, which no two share

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def kept(self) -> list[str]:
        return list(self._places)

    def refer(self, data: Any) -> Any:
        """Replace long texts by references."""
        if isinstance(data, str):
            kept = len(data) > self.LONG or data.startswith("~")
            return f"~{self._places.setdefault(data, len(self._places))}" if kept else data
        if isinstance(data, dict):
            return {key: self.refer(value) for key, value in data.items()}
        return [self.refer(value) for value in data] if isinstance(data, list | tuple) else data


def _round_floats(data: Any) -> Any:
    """Round to six digits, more than a screen shows; all of them would double the file."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if abs(data) < 1e6 else data
    if isinstance(data, dict):
        return {key: _round_floats(value) for key, value in data.items()}
    return [_round_floats(value) for value in data] if isinstance(data, list | tuple) else data
