"""Contact sheets: small pictures with captions in one SVG, for a repository wants one file, not a hundred."""

from __future__ import annotations

import base64
import textwrap
from html import escape

from hpo.report.chapters.blocks import Pictures
from hpo.report.format import one_line

__all__ = ["contact_sheet"]

SIDE, GAP, LINE = 72, 12, 13  # pixels: of a picture, between two, and from one line of a caption to the next
LONGEST = 14  # characters that fit under a picture


def contact_sheet(pictures: Pictures) -> str:
    """Render the sheet: pictures in rows, captions wrapped below, on a light ground of its own."""
    captions = [_wrap_caption(one_line(caption)) for caption in pictures.captions]
    columns = min(pictures.columns, len(captions)) or 1
    height = SIDE + LINE * max((len(lines) for lines in captions), default=0) + GAP
    rows = -(-len(captions) // columns)
    size = (columns * (SIDE + GAP) + GAP, rows * height + GAP)
    cells = [
        _render_cell(image, lines, GAP + i % columns * (SIDE + GAP), GAP + i // columns * height)
        for i, (image, lines) in enumerate(zip(pictures.images, captions, strict=True))
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}"'
    look = 'font-family="sans-serif" font-size="10" fill="#1c2430" text-anchor="middle"'
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([f'{head} height="{size[1]}" {look}>', ground, *cells, "</svg>\n"])


def _render_cell(image: bytes, lines: list[str], x: int, y: int) -> str:
    data = base64.b64encode(image).decode()
    place = f'x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" style="image-rendering:pixelated"'
    middle = x + SIDE // 2
    text = "".join(
        f'<text x="{middle}" y="{y + SIDE + LINE * (i + 1) - 2}">{escape(line)}</text>' for i, line in enumerate(lines)
    )
    return f'<image {place} href="data:image/png;base64,{data}"/>{text}'


def _wrap_caption(caption: str) -> list[str]:
    return textwrap.wrap(caption, LONGEST, max_lines=3, placeholder="…")
