"""Small pictures with their captions on one sheet, an SVG: a repository wants one file, not a hundred.

All pictures are one PNG: a hundred digits of MNIST take 22 kB so, and 36 kB as a hundred, each with a header and codes
of its own.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from hpo.report.chapters.blocks import Pictures
from hpo.report.figures.png import encode_palette_png, encode_png
from hpo.report.format import one_line

__all__ = ["contact_sheet"]

SIDE, GAP, LINE = 72, 12, 13  # pixels: of a picture, between two, and from one line of a caption to the next
LONGEST = 14  # characters that fit under a picture
FEWEST = 12  # pixels of a side: gaps are of whole pixels, so between pictures of fewer they would be too wide
WHITE = 255

Array = np.ndarray[Any, Any]


def contact_sheet(pictures: Pictures) -> str:
    """Write the sheet: pictures in rows, captions wrapped below, on a light ground of its own."""
    tiles = _reduce(_load(pictures.images))
    captions = [_wrap(one_line(caption)) for caption in pictures.captions]
    grid = _Grid(tiles, min(pictures.columns, len(tiles)), max(map(len, captions)))
    ground = grid.draw()
    size = f'width="{_number(grid.scale * ground.shape[1])}" height="{_number(grid.scale * ground.shape[0])}"'
    look = 'font-family="sans-serif" font-size="10" fill="#1c2430" text-anchor="middle"'
    data = base64.b64encode(_png(ground)).decode()
    image = f'<image {size} style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    texts = [_caption(lines, *grid.foot(i)) for i, lines in enumerate(captions)]
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>', image, *texts, "</svg>\n"])


def _png(image: Array) -> bytes:
    content = encode_palette_png(image) if image.ndim == 3 else None
    return encode_png(image) if content is None else content


class _Grid:
    """Places of pictures, in rows with gaps and room for captions.

    Attributes:
        tiles: (N, H, W) of grey or (N, H, W, 3).
        columns: pictures in a row.
        scale: pixels of the sheet to a pixel of a picture.
    """

    def __init__(self, tiles: Array, columns: int, lines: int) -> None:
        self.tiles, self.columns = tiles, columns
        self.scale = SIDE / max(tiles.shape[1:3])
        self.gap = max(1, round(GAP / self.scale))
        self.below = self.gap + round(LINE * lines / self.scale)

    def corner(self, place: int) -> tuple[int, int]:
        """Find the row and column of pixels at which a picture begins."""
        height, width = self.tiles.shape[1:3]
        row, column = divmod(place, self.columns)
        return self.gap + row * (height + self.below), self.gap + column * (width + self.gap)

    def foot(self, place: int) -> tuple[float, float]:
        """Find the middle of a picture's lower edge on the sheet, x and y."""
        (row, column), (height, width) = self.corner(place), self.tiles.shape[1:3]
        return self.scale * (column + width / 2), self.scale * (row + height)

    def draw(self) -> Array:
        """Draw all pictures on white, each pixel as it is."""
        height, width = self.tiles.shape[1:3]
        rows = -(-len(self.tiles) // self.columns)
        size = (self.gap + rows * (height + self.below), self.gap + self.columns * (width + self.gap))
        ground = np.full((*size, *self.tiles.shape[3:]), WHITE, np.uint8)
        for i, tile in enumerate(self.tiles):
            row, column = self.corner(i)
            ground[row : row + height, column : column + width] = tile
        return ground


def _load(images: Sequence[bytes]) -> Array:
    """Read PNG files as one array, (N, H, W) where all are grey, else (N, H, W, 3); centre smaller ones on white."""
    from PIL import Image

    opened = [Image.open(io.BytesIO(image), formats=("PNG",)) for image in images]
    mode = "L" if all(image.mode == "L" for image in opened) else "RGB"
    size = max(image.width for image in opened), max(image.height for image in opened)
    tiles = []
    for image in opened:
        tile = Image.new(mode, size, "white")
        tile.paste(image.convert(mode), ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
        tiles.append(np.asarray(tile))
    return np.stack(tiles)


def _reduce(tiles: Array) -> Array:
    """Keep one pixel of each block of equal ones, where all pictures consist of such blocks."""
    height, width = tiles.shape[1:3]
    for times in range(min(height, width) // FEWEST, 1, -1):
        small = tiles[:, ::times, ::times]
        if height % times == width % times == 0 and np.array_equal(small.repeat(times, 1).repeat(times, 2), tiles):
            return small
    return tiles


def _caption(lines: Sequence[str], x: float, y: float) -> str:
    places = (_number(y + LINE * (i + 1) - 2) for i in range(len(lines)))
    return "".join(
        f'<text x="{_number(x)}" y="{place}">{escape(line)}</text>' for line, place in zip(lines, places, strict=True)
    )


def _number(value: float) -> str:
    return f"{round(value, 1):g}"


def _wrap(caption: str) -> list[str]:
    return textwrap.wrap(caption, LONGEST, max_lines=3, placeholder="…")
