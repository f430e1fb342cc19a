"""Samples of files: tables of new rows, images and arrays, as an exported model takes them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets.array_files import SUFFIXES, open_arrays
from hpo.datasets.array_names import find_samples
from hpo.datasets.table_file import TABLE_SUFFIXES, is_table, read_table
from hpo.datasets.table_schema import TableSchema
from hpo.errors import DataError, RequestError
from hpo.export.format import Array, Preprocessing
from hpo.utils.arrays import read_npy
from hpo.utils.text import first_line, quantity, shorten

__all__ = ["FileSamples", "read_samples"]

LIGHT, DARK = 160.0, 85.0  # mean bytes of an image on a light background, and of training data on a dark one
IMAGE_FORMATS = ("PNG", "JPEG")
COLUMNS_LIMIT = 20  # of which something is said
PIXELS_LIMIT = 25_000_000  # of an image, each of which takes up to 16 bytes here


@dataclass(frozen=True)
class FileSamples:
    """Samples of a file.

    Attributes:
        path: of the file.
        x: (N, *sample_shape).
        rows: whether they are the rows of a table.
        notes: remarks on them, a line each.
    """

    path: Path
    x: Array
    rows: bool = False
    notes: Sequence[str] = ()

    def place(self, number: int) -> dict[str, Any]:
        """Return the file and, of a table, the row of sample `number`."""
        if self.rows:
            return {"file": str(self.path), "row": number + 1}
        return {"file": f"{self.path}[{number}]" if len(self.x) > 1 else str(self.path)}


def read_samples(path: Path, inputs: Preprocessing, *, invert: bool = False) -> FileSamples:
    """Read the samples of a file.

    Args:
        path: a table, a PNG or JPEG image, or a file of arrays with one sample or many.
        inputs: what the model takes.
        invert: turn dark images on a light background into light ones on a dark background; bytes only.

    Raises:
        RequestError: the file cannot be read or does not fit; the line names it, and of a table the column and row.
    """
    if is_table(path):
        return _read_rows(path, inputs, invert)
    try:
        if path.suffix.lower() in SUFFIXES:
            return _read_array(path, inputs, invert)
        return _image(path, inputs, invert)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from error


def _read_array(path: Path, inputs: Preprocessing, invert: bool) -> FileSamples:
    if path.suffix.lower() == ".npy":
        return FileSamples(path, _invert(inputs.samples(read_npy(path)), invert))
    try:
        with open_arrays(path) as arrays:
            name = find_samples(arrays.names, str(path))
            x = _invert(inputs.samples(arrays.read(name)), invert)
    except DataError as error:
        raise RequestError(str(error)) from error
    others = [each for each in arrays.names if each != name]
    notes = [f"{path}: predicts {name}; the file also holds {shorten(', '.join(others), quote=False)}"]
    return FileSamples(path, x, notes=notes if others else ())


def _read_rows(path: Path, inputs: Preprocessing, invert: bool) -> FileSamples:
    if inputs.texts is not None and not invert:
        frame = read_table(path, texts=inputs.texts.columns)
        return FileSamples(path, inputs.texts.read(frame, str(path)), rows=True)
    if inputs.table is None:
        raise RequestError(
            f"{path}: the model takes samples of shape {inputs.sample_shape}, and no rows of files; give a file of "
            "arrays, such as .npy"
        )
    if invert:
        raise RequestError(f"{path}: holds rows of a table; --invert is for bytes")
    x = inputs.table.read(read_table(path, texts=inputs.table.texts), str(path))
    return FileSamples(path, x, rows=True, notes=_describe_gaps(path, x, inputs.table))


def _describe_gaps(path: Path, x: Array, table: TableSchema) -> list[str]:
    """Say of each column how many of its values are missing, and how many training did not know."""
    found: dict[str, str] = {}
    for number, feature in enumerate(table.features):
        missing = int(np.isnan(x[:, number]).sum())
        unseen = int((x[:, number] == 0).sum()) if feature.kind == "category" else 0
        parts = [f"{missing:,} missing"] if missing else []
        parts += [f"{unseen:,} not among the values that training had at least twice"] if unseen else []
        if parts and feature.column not in found:  # a date has several features
            name = shorten(feature.column, 60, quote=False)
            found[feature.column] = f"{path}, column '{name}': of {quantity(len(x), 'value')}, {' and '.join(parts)}"
    notes = list(found.values())
    more = len(notes) - COLUMNS_LIMIT
    return [*notes[:COLUMNS_LIMIT], *([f"{path}: and {quantity(more, 'more column')} likewise"] if more > 0 else [])]


def _invert(samples: Array, invert: bool) -> Array:
    if invert and samples.dtype != np.uint8:
        raise ValueError(f"holds {samples.dtype}; --invert is for bytes")
    return 255 - samples if invert else samples


def _image(path: Path, inputs: Preprocessing, invert: bool) -> FileSamples:
    """Read an image as one sample of bytes, in the colours and the size that the model takes."""
    if inputs.table is not None:
        raise ValueError(f"the model takes rows of a table; give one of {', '.join(TABLE_SUFFIXES)}")
    if len(inputs.shape) != 3 or inputs.shape[0] not in (1, 3) or inputs.values != "uint8":
        raise ValueError(
            f"the model takes {inputs.values} samples of shape {inputs.shape}, which no image is; give a file of "
            "arrays, such as .npy"
        )
    channels, height, width = inputs.shape
    image, notes = _open_image(path, "L" if channels == 1 else "RGB", (width, height))
    array = _invert(np.asarray(image), invert)
    if not invert and array.mean() > LIGHT and np.mean(inputs.shift) < DARK:
        notes.append(f"{path}: has a light background, the training data mostly a dark one; --invert inverts it")
    return FileSamples(path, inputs.samples(array), notes=notes)


def _open_image(path: Path, mode: str, size: tuple[int, int]) -> tuple[Any, list[str]]:
    """Read an image of a documented format and of a usual size, as training reads pictures; with remarks on it.

    Pillow would also open what other programs of the machine draw, and images that unpack to any size.
    """
    from PIL import Image, UnidentifiedImageError

    from hpo.datasets.image_decoder import convert_picture, is_deep  # Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is checked here, or of no consequence
            with Image.open(path, formats=IMAGE_FORMATS) as file:
                _check_pixels(file.width, file.height)
                notes = [f"{path}: has 16 bits a pixel, of which the upper 8 are kept"] if is_deep(file) else []
                if file.size != size:
                    new = f"{size[0]} x {size[1]} pixels"
                    notes.append(f"{path}: resized from {file.width} x {file.height} to {new}")
                file.load()
                return convert_picture(file, mode, size), notes
    except UnidentifiedImageError:
        raise ValueError(f"is no {' or '.join(IMAGE_FORMATS)} image, whatever its name says; convert it") from None
    except ValueError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"cannot be read: {shorten(reason, 200, quote=False)}") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > PIXELS_LIMIT:
        raise ValueError(f"has {width} x {height} pixels; at most {PIXELS_LIMIT:,} are read, make it smaller")
