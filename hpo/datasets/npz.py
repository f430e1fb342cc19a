"""Data sets in .npz files of the Keras layout: x_train, y_train, x_test and y_test."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hpo.datasets.dataset import Dataset, Split, check_split, flat_labels
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError
from hpo.utils.arrays import ArrayArchive, open_npz
from hpo.utils.digest import DigestCache, file_state
from hpo.utils.home import data_folder

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
        if _is_file(candidate):
            return candidate.absolute()
    also = f", nor in HPO_DATA ({folder})" if folder else ""
    raise DataError(f"{path}: not found{also}; correct the path, or put the file into the folder that HPO_DATA names")


def _is_file(path: Path) -> bool:
    """Return whether there is a file of that name, which may be one that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def can_read(path: Path) -> bool:
    return path.suffix == ".npz"


def read_source(path: Path, source: DatasetSource) -> Dataset:
    return load_npz(path)


def digest(path: Path) -> dict[str, str]:
    return {path.name: digest_npz(path)}


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
    with open_npz(path) as arrays:
        classes = _count_classes(path, arrays)
        train = _read_split(path, arrays, "train", classes)

    def test() -> Split:
        _verify_npz(path, expected)
        with open_npz(path) as arrays:
            return _read_split(path, arrays, "test", classes)

    return Dataset(train=train, test=test, classes=classes)


def _verify_npz(path: Path, expected: Mapping[str, str]) -> None:
    sha256 = expected.get(path.name)
    if sha256 is not None and digest_npz(path) != sha256:
        raise DataError(
            f"{path}: is not the file that the study was made with (its SHA-256 is not {sha256[:12]}…); "
            "restore that file, or launch a new study"
        )


def _count_classes(path: Path, arrays: ArrayArchive) -> int:
    """Return the largest training label + 1."""
    missing = [key for key in NPZ_KEYS if key not in arrays.names]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)}; it must hold {', '.join(NPZ_KEYS)}")
    labels = flat_labels(arrays.read("y_train"), f"{path}, train")
    if not len(labels):
        raise DataError(f"{path}, train: no samples; give at least one")
    return int(labels.max()) + 1


def _read_split(path: Path, arrays: ArrayArchive, part: str, classes: int) -> Split:
    x, y = arrays.read(f"x_{part}"), arrays.read(f"y_{part}")
    check_split(x, y, f"{path}, {part}", classes)
    shape = arrays.shape("x_train")[1:]
    if x.shape[1:] != shape:
        raise DataError(f"{path}, {part}: samples of shape {x.shape[1:]}, not {shape} as in x_train; make them equal")
    return x, y
