"""Data sets in .npz files: found here or in HPO_DATA, and verified; see `hpo.datasets.arrays`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpo.datasets.arrays import digest_file as digest_npz
from hpo.datasets.arrays import read_source
from hpo.datasets.dataset import Dataset
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError
from hpo.utils.home import data_folder

__all__ = ["digest_npz", "find_npz", "load_npz"]


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


def load_npz(path: Path, expected: Mapping[str, str] = MappingProxyType({})) -> Dataset:
    """Read the training data of a file; the test data are read and checked when `test` is called.

    Args:
        path: of an .npz file.
        expected: the SHA-256 that the file must have, by its name.

    Raises:
        DataError: the file is damaged, is another one than expected, or holds data that cannot be used.
    """
    _verify_npz(path, expected)
    dataset = read_source(path, DatasetSource())

    def test() -> Any:
        _verify_npz(path, expected)
        return dataset.test() if callable(dataset.test) else dataset.test

    return replace(dataset, test=test)


def _verify_npz(path: Path, expected: Mapping[str, str]) -> None:
    sha256 = expected.get(path.name)
    if sha256 is not None and digest_npz(path) != sha256:
        raise DataError(
            f"{path}: is not the file that the study was made with (its SHA-256 is not {sha256[:12]}…); "
            "restore that file, or launch a new study"
        )
