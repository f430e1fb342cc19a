"""Chapters and their blocks: text, tables, code, pictures, the same for HTML and Markdown.

Whoever writes a chapter decides what it says; whoever renders one decides what it looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpo.report.checks.finding import Level
from hpo.report.figures.plotly_spec import Figure

__all__ = [
    "HIDDEN",
    "Block",
    "Chapter",
    "Code",
    "Column",
    "DataTable",
    "Kind",
    "Note",
    "Pictures",
    "Subtitle",
    "Table",
    "Text",
]


HIDDEN = "Rows of your own data are left out; the option `--show-data` of `hpo report` shows them."


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text; `quiet` is small print: how to read what stands above."""

    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Subtitle:
    """A heading inside of a chapter."""

    text: str


@dataclass(frozen=True)
class Note:
    """A sentence of evidence with a level, and what to do about it.

    Attributes:
        level: what the reader's eye must find first.
        title: a few words.
        text: the evidence with its numbers, a sentence.
        advice: what to do, a sentence, or nothing.
        code: lines that do it, or nothing.
        language: of the lines: TOML, or Python for an objective function.
    """

    level: Level
    title: str
    text: str
    advice: str = ""
    code: str = ""
    language: str = "toml"


@dataclass(frozen=True)
class Table:
    """Rows of texts under columns; those named in `numeric` are aligned to the right.

    `folded` tables are closed at first where the medium can close them.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[str] = ()
    folded: str = ""


@dataclass(frozen=True)
class Code:
    """Lines to be typed or copied; `folded` is the title under which they are closed at first, or nothing."""

    text: str
    language: str = "sh"
    caption: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Pictures:
    """Small pictures in a grid, each with a line under it.

    Attributes:
        images: each a PNG file's content.
        captions: one per image; plain text.
        columns: how many stand in a row where there is room.
        key: what the files are called beside a Markdown report.
    """

    key: str
    images: Sequence[bytes]
    captions: Sequence[str]
    columns: int = 8


Kind = Literal["text", "count", "number", "share", "seconds"]


@dataclass(frozen=True)
class Column:
    """A column of a `DataTable`; `kind` says how its values are written: a share is between 0 and 1."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True)
class DataTable:
    """Many rows of values, which the reader sorts and filters; where the medium cannot, its first rows.

    Attributes:
        key: its place in the page.
        columns: how many a row has.
        rows: texts, numbers, or None; the rows that matter most first.
        choose: the column whose values the reader chooses from, or nothing.
    """

    key: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | float | None]]
    choose: str = ""


Block = Text | Subtitle | Note | Table | Code | Pictures | DataTable | Figure


@dataclass(frozen=True)
class Chapter:
    """A chapter of a report.

    Attributes:
        key: its anchor, a word of letters.
        title: its heading.
        blocks: what it says, top to bottom; a chapter without any is left out.
    """

    key: str
    title: str
    blocks: Sequence[Block]
