"""Decoder of pictures: a function, and a process that runs it on many files and writes into one file of pixels.

The process imports Pillow alone, and so is ready in a tenth of a second. It reads a job per line from its
standard input and answers each with a line; it ends with its input.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

__all__ = ["SUFFIXES", "Outcome", "convert_picture", "decode_files", "is_deep", "read_header", "run_decoder"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
# No others are tried, whatever a file's name says: some of Pillow's readers start programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
REAL = frozenset({"I", "F"})  # whose numbers have no range that could be brought to 0..255
LONGEST_REASON = 120
STRIP = 1 << 20  # bytes of pictures that are decoded together


class Outcome(NamedTuple):
    """Finding in an image file.

    Attributes:
        sha256: of its content, in hex digits; empty if it could not be read.
        problem: why it is no picture, or empty.
        size: its height and width.
        colour: whether it has colours.
        deep: whether it has more than 8 bits a channel, of which 8 are kept.
    """

    sha256: str
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    colour: bool = False
    deep: bool = False


def read_header(file: str) -> tuple[tuple[int, int], bool]:
    """Return height and width of the picture in a file, and whether it has colours, from its header.

    Raises:
        Exception: it is no picture; Pillow may raise anything.
    """
    with Image.open(file, formats=FORMATS) as image:
        return (image.height, image.width), image.mode not in GREY


def decode_files(files: Sequence[str], pixels: int, shape: Sequence[int], first: int) -> list[Outcome]:
    """Decode files into rows of an array that is a file, and return what was found in each.

    Pictures are brought to its size and channels, see `convert_picture`. The row of a file that is no picture is black.

    Args:
        files: their paths.
        pixels: descriptor of the open file of the array, which is uint8.
        shape: of the array, (N, H, W) or (N, H, W, 3).
        first: the row of the first file; the others follow.
    """
    size = math.prod(shape[1:])
    rows = max(1, STRIP // size)
    outcomes: list[Outcome] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that Pillow cannot make sense of
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for i in range(0, len(files), rows):
            strip, found = _decode_strip(files[i : i + rows], shape)
            os.pwrite(pixels, strip.tobytes(), (first + i) * size)
            outcomes += found
    return outcomes


def _decode_strip(files: Sequence[str], shape: Sequence[int]) -> tuple[Image.Image, list[Outcome]]:
    """Decode files into one tall picture: a copy of its pixels is cheaper than one of each small picture's."""
    height, width = shape[1:3]
    strip = Image.new("L" if len(shape) == 3 else "RGB", (width, len(files) * height))
    return strip, [_decode_file(file, strip, (width, height), row * height) for row, file in enumerate(files)]


def _decode_file(file: str, strip: Image.Image, size: tuple[int, int], top: int) -> Outcome:
    try:
        with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 - a Path for each takes as long as reading it
            content = opened.read()
    except OSError as error:
        return Outcome("", f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(content).hexdigest()
    if not content:
        return Outcome(sha256, "is empty")
    try:
        return Outcome(sha256, "", *_decode(content, strip, size, top))
    except Exception as error:  # a damaged file can make Pillow raise anything
        return Outcome(sha256, explain_fault(error))


def _decode(content: bytes, strip: Image.Image, size: tuple[int, int], top: int) -> tuple[tuple[int, int], bool, bool]:
    """Decode a picture into a strip; return its height and width, and whether it has colours, and over 8 bits."""
    picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    found = (picture.height, picture.width), picture.mode not in GREY, is_deep(picture)  # before it is unpacked
    strip.paste(convert_picture(picture, strip.mode, size), (0, top))
    return found


def is_deep(picture: Image.Image) -> bool:
    """Return whether a picture has 16 bits a pixel, of which `convert_picture` keeps the upper 8."""
    return picture.mode.startswith("I;16")


def convert_picture(picture: Image.Image, mode: str, size: tuple[int, int]) -> Image.Image:
    """Bring a picture to the mode `L` or `RGB`, and to a width and a height.

    Transparency is dropped, as torchvision's loader does, and the orientation that a camera noted is not heeded.

    Raises:
        ValueError: its pixels have no range that could be brought to bytes.
        Exception: it is damaged; Pillow may raise anything.
    """
    if picture.mode in REAL:
        raise ValueError(f"its pixels are numbers of 32 bits (mode {picture.mode}): save such pictures as .npy")
    if is_deep(picture):
        import numpy as np  # which takes longer to import than most folders need

        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode != mode:
        picture = picture.convert(mode)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def explain_fault(error: Exception) -> str:
    """Return in a few words why a picture cannot be decoded."""
    if isinstance(error, UnidentifiedImageError):
        return "is no picture of a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return (text or type(error).__name__)[:LONGEST_REASON]


def run_decoder(arguments: Sequence[str]) -> None:
    """Decode what standard input asks for: lines of JSON, a first row and the files of the rows from there on.

    Args:
        arguments: the path of the array, and its shape, comma-separated.
    """
    path, sizes = arguments
    shape = [int(size) for size in sizes.split(",")]
    with open(path, "r+b", buffering=0) as pixels:  # noqa: PTH123 - pathlib is not imported here
        for line in sys.stdin:
            first, files = json.loads(line)
            print(json.dumps(decode_files(files, pixels.fileno(), shape, first)), flush=True)  # noqa: T201


if __name__ == "__main__":
    run_decoder(sys.argv[1:])
