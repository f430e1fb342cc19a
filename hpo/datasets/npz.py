"""Data sets in .npz files of the Keras layout: x_train, y_train, x_test and y_test."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hpo.datasets.dataset import Dataset, Split, check_split, flat_labels
from hpo.errors import DataError
from hpo.utils.digest import DigestCache, file_state
from hpo.utils.home import data_folder
from hpo.utils.text import first_line

__all__ = ["digest_npz", "find_npz", "load_npz"]

NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_digests = DigestCache()


def find_npz(path: Path) -> Path:
    """Return the file at this absolute path, or the one of its name in the folder HPO_DATA.

    Raises:
        DataError: there is neither.
    """
    folder = data_folder()
    for candidate in (path, *([folder / path.name] if folder else [])):
        if candidate.is_file():
            return candidate.absolute()
    also = f", nor in HPO_DATA ({folder})" if folder else ""
    raise DataError(f"{path}: not found{also}; correct the path, or put the file into the folder that HPO_DATA names")


def digest_npz(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits.

    Raises:
        DataError: it cannot be read.
    """
    with _open_file(path) as file:
        return _digests.get(file_state(file), lambda: hashlib.file_digest(file, "sha256").hexdigest())


def _open_file(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


def load_npz(path: Path, expected: Mapping[str, str] = MappingProxyType({})) -> Dataset:
    """Read the training data of a file; the test data are read and checked when `test` is called.

    Args:
        path: of an .npz file.
        expected: the SHA-256 that the file must have, by its name.

    Raises:
        DataError: the file is damaged, is another one than expected, or holds data that cannot be used.
    """
    _verify_npz(path, expected)
    with _open_archive(path) as arrays:
        classes = _count_classes(path, arrays)
        train = _read_split(path, arrays, "train", classes)

    def test() -> Split:
        _verify_npz(path, expected)
        with _open_archive(path) as arrays:
            return _read_split(path, arrays, "test", classes)

    return Dataset(train=train, test=test, classes=classes)


def _verify_npz(path: Path, expected: Mapping[str, str]) -> None:
    sha256 = expected.get(path.name)
    if sha256 is not None and digest_npz(path) != sha256:
        raise DataError(
            f"{path}: is not the file that the study was made with (its SHA-256 is not {sha256[:12]}…); "
            "restore that file, or launch a new study"
        )


def _open_archive(path: Path) -> Any:
    try:
        with _open_file(path):
            archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: is not a complete .npz file ({first_line(error)}); save it again with numpy.savez"
        ) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: holds a single array; save {', '.join(NPZ_KEYS)} with numpy.savez")
    return archive


def _count_classes(path: Path, arrays: Any) -> int:
    """Return the largest training label + 1."""
    missing = [key for key in NPZ_KEYS if key not in arrays]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)}; it must hold {', '.join(NPZ_KEYS)}")
    labels = flat_labels(_read_array(path, arrays, "y_train"), f"{path}, train")
    if not len(labels):
        raise DataError(f"{path}, train: no samples; give at least one")
    return int(labels.max()) + 1


def _read_split(path: Path, arrays: Any, part: str, classes: int) -> Split:
    x, y = _read_array(path, arrays, f"x_{part}"), _read_array(path, arrays, f"y_{part}")
    check_split(x, y, f"{path}, {part}", classes)
    shape = _read_sample_shape(path, arrays)
    if x.shape[1:] != shape:
        raise DataError(f"{path}, {part}: samples of shape {x.shape[1:]}, not {shape} as in x_train; make them equal")
    return x, y


def _read_sample_shape(path: Path, arrays: Any) -> tuple[int, ...]:
    """Return the shape of a training sample, from the array's header alone."""
    try:
        with arrays.zip.open("x_train.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape: tuple[int, ...] = read(file)[0]
            return shape[1:]
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: x_train cannot be read ({first_line(error)}); save the file again") from error


def _read_array(path: Path, arrays: Any, key: str) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = arrays[key]
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {key} cannot be read ({first_line(error)}); save the file again") from error
    return array
