"""Markdown rendering of the report for a repository, with figures and pictures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hpo.report.chapters.blocks import Block, Chapter, Code, DataTable, Note, Pictures, Subtitle, Table, Text
from hpo.report.figures.plotly_spec import Figure
from hpo.report.format import cell_text, one_line
from hpo.report.render.contact_sheet import contact_sheet
from hpo.report.render.svg import render_svg

__all__ = ["FIGURES", "render_brief", "render_markdown"]

FIGURES = "report_figures"  # the folder beside the report
ROWS = 10  # of a data table


def render_markdown(
    name: str, verdict: Sequence[str], facts: Sequence[str], chapters: Sequence[Chapter], written: str
) -> tuple[str, dict[str, bytes]]:
    """Render the text of `report.md`, and the files that it shows, by their names in the folder `report_figures`.

    Args: as for `hpo.report.render.html.render_html`.
    """
    files: dict[str, bytes] = {}
    parts = [
        f"# {_escape(name)}",
        f"**{_render_prose(verdict[0])}**",
        *(_render_prose(line) for line in verdict[1:]),
        "\n".join(f"- {_escape(fact)}" for fact in facts),
    ]
    parts += _render_chapters(chapters, files)
    parts.append(f"Read from the study at {written}. Every trial is in report.html, all numbers are in report.json.")
    return "\n\n".join(parts) + "\n", files


def render_brief(name: str, head: str, chapters: Sequence[Chapter]) -> str:
    """Render chapters without figures and pictures, under a title and a sentence."""
    return "\n\n".join([f"# {_escape(name)}", _render_prose(head), *_render_chapters(chapters, {})]) + "\n"


def _render_chapters(chapters: Sequence[Chapter], files: dict[str, bytes]) -> Iterator[str]:
    for chapter in chapters:
        yield f"## {_escape(chapter.title)}"
        for block in chapter.blocks:
            yield from _render_block(block, chapter, files)


def _render_block(block: Block, chapter: Chapter, files: dict[str, bytes]) -> Iterator[str]:
    match block:
        case Text():
            yield _render_prose(block.text)
        case Subtitle():
            yield f"### {_escape(block.text)}"
        case Note():
            yield from _render_note(block)
        case Table():
            yield from _fold(block.folded, _render_table(block.columns, block.rows, block.numeric))
        case Code():
            yield from [f"{_escape(block.caption)}:"] if block.caption else []
            yield from _fold(block.folded, _fence(block.language, block.text))
        case Pictures():
            yield _render_pictures(block, chapter.title, files)
        case DataTable():
            yield from _render_first_rows(block)
        case Figure():
            yield from _render_figure(block, chapter, files)


def _render_note(note: Note) -> Iterator[str]:
    advice = f" → {_render_prose(note.advice)}" if note.advice else ""
    yield f"**{note.level.upper()}: {_escape(note.title)}.** {_render_prose(note.text)}{advice}"
    if note.code:
        yield _fence(note.language, note.code)


def _fold(title: str, text: str) -> Iterator[str]:
    yield f"<details><summary>{_escape(title)}</summary>\n\n{text}\n\n</details>" if title else text


def _render_first_rows(table: DataTable) -> Iterator[str]:
    columns, first = [column.name for column in table.columns], table.rows[:ROWS]
    rows = [[cell_text(c.kind, v) for c, v in zip(table.columns, row, strict=True)] for row in first]
    yield _render_table(columns, rows, [column.name for column in table.columns if column.kind != "text"])
    if len(first) < len(table.rows):
        yield f"The first {len(first)} of {len(table.rows):,}."


def _render_figure(figure: Figure, chapter: Chapter, files: dict[str, bytes]) -> Iterator[str]:
    if figure.spec is None:
        yield _escape(figure.reason)
        return
    if figure.title != chapter.title:
        yield f"### {_escape(figure.title)}"
    if (svg := render_svg(figure)) is not None:
        files[f"{figure.key}.svg"] = svg.encode()
        yield f"![{_escape(figure.title)}]({FIGURES}/{figure.key}.svg)"
    if figure.caption:
        yield _escape(figure.caption)


def _render_pictures(pictures: Pictures, title: str, files: dict[str, bytes]) -> str:
    files[f"{pictures.key}.svg"] = contact_sheet(pictures).encode()
    return f"![{_escape(title)}]({FIGURES}/{pictures.key}.svg)"


def _fence(language: str, text: str) -> str:
    """Write a code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _render_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[str]) -> str:
    rule = ["--:" if column in numeric else "---" for column in columns]
    return "\n".join(
        [_render_row(map(_escape, columns)), _render_row(rule), *(_render_row(map(_escape, row)) for row in rows)]
    )


def _render_row(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _render_prose(text: str) -> str:
    """Escape text of unknown origin; what stands between single backticks is code, which holds no markup."""
    parts = re.split(r"(?<!`)`([^`]+)`(?!`)", one_line(text))
    return "".join(f"`{part}`" if i % 2 else _escape(part) for i, part in enumerate(parts))


def _escape(text: str) -> str:
    """Escape Markdown's and HTML's own characters in text of unknown origin, on one line."""
    escaped = re.sub(r"([\\`*\[\]|<>#~])", r"\\\1", one_line(text))
    # An underscore inside of a word means nothing to Markdown, and names are full of them.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped).replace("&", "&amp;")
