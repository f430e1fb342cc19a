"""Names of studies to which their users have given none."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from hpo.datasets import DatasetReference
from hpo.errors import StorageMissingError, StudyNotFoundError
from hpo.study import Definition, Study, StudyStorage, study_names
from hpo.study.input.adapted_study import FIRST
from hpo.utils.home import default_storage, home
from hpo.utils.paths import ROOM, is_name

__all__ = ["choose_free_name", "choose_name_by_data", "find_study", "name_after"]


def name_after(dataset: DatasetReference) -> str:
    """Name a study after its file or data set; data that lay in memory have no name of their own."""
    path = Path(dataset.name)
    if path.parent == home() / "datasets":
        return FIRST
    stem = re.sub(r"[^\w .+@=,-]", "-", path.stem).strip(" .+@=,-")
    return stem if is_name(stem, ROOM) else FIRST


def choose_free_name(stem: str, storage: str | None) -> str:
    """Return the first of `stem`, `stem-2`, … that no study has."""
    try:
        taken = set(study_names(StudyStorage(storage or default_storage(), create=False)))
    except StorageMissingError:
        return stem
    return next(name for name in _list_names(stem) if name not in taken)


def choose_name_by_data(stem: str, definition: Definition, storage: str | None) -> str:
    """Return the first of `stem`, `stem-2`, … that no study of other data has."""
    for name in _list_names(stem):
        stored = find_study(name, storage)
        if stored is None or not stored.definition.has_other_data(definition):
            return name
    raise AssertionError("numbers do not end")


def _list_names(stem: str) -> Iterator[str]:
    return (stem if count == 1 else f"{stem}-{count}" for count in itertools.count(1))


def find_study(name: str, storage: str | None) -> Study | None:
    """Return the stored study of that name, if there is one."""
    try:
        return Study(StudyStorage(storage or default_storage(), create=False), name)
    except (StorageMissingError, StudyNotFoundError):
        return None
