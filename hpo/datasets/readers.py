"""Readers of data files and folders: which one a path is for, and what they share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from hpo.config import registry
from hpo.datasets.dataset import Dataset
from hpo.datasets.resize import resize_dataset
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError
from hpo.utils.files import absolute_path
from hpo.utils.home import data_folder

__all__ = ["Reader", "check_digest", "find_path", "find_reader", "read_dataset", "resolve_name"]

# In the order in which they are asked; imported when they are, for some take a tenth of a second.
MODULES = ("sklearn_sets", "orange_corpora", "hf_folder", "cifar", "images", "arrays", "table")
PREFIXES = ("sklearn:", "orange:")  # of names that are no paths


class Reader(Protocol):
    """Module that reads one kind of file or folder."""

    def can_read(self, path: Path) -> bool:
        """Return whether a path is of this kind."""

    def read_source(self, path: Path, source: DatasetSource) -> Dataset:
        """Read training and validation data, and prepare the test data. Images may have another size than is asked for.

        Raises:
            DataError: something is wrong; one line names the file, the place, the value and what to do.
        """

    def digest(self, path: Path) -> dict[str, str]:
        """Return the SHA-256 of the content, by file name."""


def find_reader(path: Path) -> Reader:
    """Return the reader of a path.

    Raises:
        DataError: there is none, and the line lists what can be read; or a folder cannot be looked into.
    """
    for name in MODULES:
        module = cast(Reader, importlib.import_module(f"hpo.datasets.{name}"))
        try:
            if module.can_read(path):
                return module
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    raise DataError(
        f"{path}: is no data file that can be read; give a table (.csv, .tsv, .parquet, .feather, .jsonl), arrays "
        "(.npz, .npy, .safetensors, .pt), a folder of images by class, CIFAR's batches, or a saved data set "
        "of Hugging Face"
    )


def read_dataset(path: Path, source: DatasetSource) -> Dataset:
    """Read a file or a folder: training and validation data; the test data when they are asked for.

    Raises:
        DataError: something is wrong; one line names the file, the place, the value and what to do.
    """
    return resize_dataset(find_reader(path).read_source(path, source), source.resize, str(path))


def find_path(path: Path) -> Path:
    """Return this path, or the one of its name in the folder HPO_DATA.

    Raises:
        DataError: there is neither.
    """
    if str(path).startswith(PREFIXES):
        return path
    folder = data_folder()
    for candidate in (path, *([folder / path.name] if folder else [])):
        if _exists(candidate):
            return absolute_path(candidate)
    also = f", nor in HPO_DATA ({folder})" if folder else ""
    raise DataError(f"{path}: not found{also}; correct the path, or put the file into the folder that HPO_DATA names")


def _exists(path: Path) -> bool:
    """Return whether there is something of that name, which may be one that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def resolve_name(name: str) -> str:
    """Return the path that a data set's name stands for, or the name itself.

    Raises:
        DataError: it is the name of a data set that is not on this machine.
    """
    from hpo.datasets.cifar import NAMES, locate_cifar

    return str(locate_cifar(name)) if name in NAMES and not registry.datasets.has(name) else name


def check_digest(path: Path, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Refuse a file or folder that is not the one of a study.

    Raises:
        DataError: names it.
    """
    for name, sha256 in found.items():
        if name in expected and expected[name] != sha256:
            raise DataError(
                f"{path}: is not the file that the study was made with (its SHA-256 is not {expected[name][:12]}…); "
                "restore that file, or launch a new study"
            )
