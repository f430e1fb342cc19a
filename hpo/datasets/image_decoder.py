"""Decoder of pictures: a function, and a process that runs it on many files and writes into a memory-mapped array.

The process imports NumPy and Pillow alone, and so is ready in a fraction of a second. It reads a job per line from its
standard input and answers each with a line; it ends with its input.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["SUFFIXES", "Outcome", "decode_files", "decode_image", "read_header", "run_decoder"]

Array = np.ndarray[Any, Any]
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
# No others are tried, whatever a file's name says: some of Pillow's readers start programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
REAL = frozenset({"I", "F"})  # whose numbers have no range that could be brought to 0..255
LONGEST_REASON = 120


class Outcome(NamedTuple):
    """What was found in a file.

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


def decode_image(content: bytes, out: Array) -> tuple[tuple[int, int], bool, bool]:
    """Decode a picture into `out`, uint8 of shape (H, W) or (H, W, 3), to whose size and channels it is brought.

    Transparency is dropped, as torchvision's loader does. Returns its own height and width, and whether it has colours,
    and more than 8 bits a channel.

    Raises:
        Exception: it is no whole picture, or has numbers of no known range; Pillow may raise anything.
    """
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        mode, size = image.mode, (image.height, image.width)
        deep, colour = mode.startswith("I;16"), mode not in GREY
        if mode in REAL:
            raise ValueError(f"its pixels are numbers of 32 bits (mode {mode}): save such pictures as .npy")
        picture = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if deep else image
        wanted = "L" if out.ndim == 2 else "RGB"
        if picture.mode != wanted:
            picture = picture.convert(wanted)
        if size != out.shape[:2]:
            picture = picture.resize((out.shape[1], out.shape[0]), Image.Resampling.BILINEAR)
        out[...] = picture
    return size, colour, deep


def decode_files(files: Iterable[str], out: Array) -> list[Outcome]:
    """Decode files into the rows of `out`, (N, H, W) or (N, H, W, 3), and return what was found in each.

    The row of a file that is no picture keeps what it had.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that Pillow cannot make sense of
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [_decode_file(file, row) for file, row in zip(files, out, strict=True)]


def _decode_file(file: str, out: Array) -> Outcome:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        return Outcome("", f"cannot be read ({error.strerror})")
    sha256 = hashlib.sha256(content).hexdigest()
    if not content:
        return Outcome(sha256, "is empty")
    try:
        return Outcome(sha256, "", *decode_image(content, out))
    except Exception as error:  # a damaged file can make Pillow raise anything
        return Outcome(sha256, explain_fault(error))


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
    path, shape = arguments
    out = np.asarray(np.memmap(path, np.uint8, "r+", shape=tuple(map(int, shape.split(",")))))
    for line in sys.stdin:
        first, files = json.loads(line)
        print(json.dumps(decode_files(files, out[first : first + len(files)])), flush=True)  # noqa: T201


if __name__ == "__main__":
    run_decoder(sys.argv[1:])
