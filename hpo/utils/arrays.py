"""Reader of NumPy's .npy and .npz files, the only one, which takes no more memory than the file can account for.

A header can declare any shape, and a compressed archive any size; both are compared with what is there, and with a
limit, before memory is taken. Arrays of objects, which would run code, are refused.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from hpo.errors import DataError
from hpo.utils.text import first_line, shorten

__all__ = ["ArrayArchive", "machine_memory", "open_npz", "read_npy"]

Array = np.ndarray[Any, Any]
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, whether in Fortran's order, type
MAGIC = b"\x93NUMPY"
SAVE_AGAIN = "save it again with numpy.savez"
HEADER_LIMIT = 10_000  # bytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # that NumPy writes; others can ask for any amount of memory


def machine_memory() -> int:
    """Return the memory of this machine in bytes, more than which no array can have."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_npy(path: Path) -> Array:
    """Read the array in an .npy file.

    Raises:
        DataError: the file cannot be read, is no whole .npy file, or holds objects.
    """
    with _one_line(path, "is no complete .npy file", "save it again with numpy.save"), path.open("rb") as file:
        if zipfile.is_zipfile(file):
            raise DataError(f"{path}: is an archive of arrays under another name; save one of them with numpy.save")
        file.seek(0)
        shape, _, dtype = _read_header(file)
        _check_size(shape, dtype, os.fstat(file.fileno()).st_size - file.tell())
        file.seek(0)
        return _read_array(file)


class ArrayArchive:
    """Open .npz file; see `open_npz`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, limit: int, advice: str) -> None:
        self.path = path
        self.advice = advice
        self.limit = limit
        self._archive = archive
        self._members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}

    @property
    def names(self) -> set[str]:
        """Names of the arrays."""
        return set(self._members)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, from its header alone.

        Raises:
            DataError: it is not there, damaged, or beyond the limit.
        """
        with self._open(name) as file:
            return self._checked_header(name, file)[0]

    def read(self, name: str) -> Array:
        """Read an array.

        Raises:
            DataError: it is not there, damaged, or beyond the limit.
        """
        with self._open(name) as file:
            self._checked_header(name, file)
        with self._open(name) as file:
            return _read_array(file)

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        if name not in self._members:
            raise DataError(f"{self.path}: has no {name}; {self.advice}")
        with _one_line(self.path, f"{name} cannot be read", self.advice):
            member = self._members[name]
            if member.compress_type not in METHODS:
                raise ValueError("it is compressed by another method than NumPy's")
            with self._archive.open(member) as file:
                yield file

    def _checked_header(self, name: str, file: IO[bytes]) -> Header:
        header = _read_header(file)
        size = self._members[name].file_size
        if size > self.limit:
            raise DataError(
                f"{self.path}: {name} has {size:,} bytes, more than the {self.limit:,} that it can have here"
            )
        _check_size(header[0], header[2], size - file.tell())
        return header


@contextmanager
def open_npz(path: Path, limit: int | None = None, advice: str = SAVE_AGAIN) -> Iterator[ArrayArchive]:
    """Open an .npz file, whose arrays are read one by one.

    Args:
        path: of the file.
        limit: bytes that an array may have; by default, this machine's memory.
        advice: what to do with a file that cannot be read.

    Raises:
        DataError: it cannot be read, or is no whole .npz file.
    """
    with _one_line(path, "is not a complete .npz file", advice):
        file = path.open("rb")
    with file:
        with _one_line(path, "is not a complete .npz file", advice):
            if file.read(len(MAGIC)) == MAGIC:
                raise DataError(f"{path}: holds a single array; save those of a data set with numpy.savez")
            archive = ArrayArchive(path, zipfile.ZipFile(file), limit or machine_memory(), advice)
        yield archive


def _read_header(file: IO[bytes]) -> Header:
    """Read the magic number and the header.

    Raises:
        ValueError: they are damaged, or of a version that plain numbers do not need.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file, max_header_size=HEADER_LIMIT)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file, max_header_size=HEADER_LIMIT)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
        raise
    except Exception as error:  # of NumPy, and of Python's tokenizer and parser, which it hands the header to
        raise ValueError("its header is damaged") from error
    raise ValueError(f"it is of version {version[0]}.{version[1]}, which plain numbers do not need")


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
    """Refuse a shape that the bytes after the header do not fill, and objects."""
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shorten(shape)}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != size:
        raise ValueError(f"its shape {shorten(shape)} needs {shorten(needed)} bytes, but it has {size}")


def _read_array(file: IO[bytes]) -> Array:
    array: Array = np.lib.format.read_array(file, allow_pickle=False, max_header_size=HEADER_LIMIT)
    return array


@contextmanager
def _one_line(path: Path, problem: str, advice: str) -> Iterator[None]:
    """Turn any error into a DataError, for a damaged file can make NumPy and zipfile raise anything."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check its path and permissions"
        ) from error
    except Exception as error:
        raise DataError(f"{path}: {problem} ({_reason(error)}); {advice}") from error


def _reason(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError | SyntaxError) and error.args else first_line(error)
    return shorten(str(text), 200, quote=False)
