"""Removing from `HPO_HOME` what no trial needs any more: for `hpo gc` and `hpo delete`.

A folder's `study.json` says which study of which storage it belongs to. Swept is what belongs to the storage that is
given: to a study that it holds, or to one that it held. What belongs to another storage is never touched; of a folder
that does not say whose it is, nothing is removed unless that is asked for.

Files are looked at first and the database after, so that a file of a trial that began meanwhile is not among them.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.errors import RunError
from hpo.storage.study_storage import StudyStorage
from hpo.storage.tables import TRIALS
from hpo.study.files.artifacts import list_artifact_ids
from hpo.study.files.study_files import KEY, KINDS, MARKER, rank_trials, storage_place, study_folder
from hpo.study.study import Study
from hpo.utils.home import home

__all__ = ["UnneededFile", "find_study_folders", "find_unneeded_files", "remove_files"]

TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")  # see `hpo.utils.files.write_atomically`
# Seconds. Its name has the writer's process, but that may be one of another machine: only its age tells.
TEMPORARY_LIVES = 3600
OWN = re.compile(r"(\d+)\.(pt|safetensors)")


@dataclass(frozen=True)
class UnneededFile:
    """A file or a folder that is not needed.

    Attributes:
        path: where.
        size: in bytes, with all that it holds.
        why: why it is not needed, or may be needed.
        stays: whether it is not to be removed.
    """

    path: Path
    size: int
    why: str
    stays: bool = False


@dataclass(frozen=True)
class _Folder:
    """A folder of checkpoints or weights, as it was found. `marker` is what its `study.json` says, if it does."""

    path: Path
    kind: str
    marker: dict[str, Any] | None
    files: list[Path]


def find_unneeded_files(storage: StudyStorage, name: str | None = None, *, unknown: bool = False) -> list[UnneededFile]:
    """What is in `HPO_HOME` and not needed, and the folders that stay because they are not known to be ours.

    Args:
        storage: the one whose studies' files are looked at.
        name: of the one study to look at; by default all of them.
        unknown: name the folders that do not say whose they are as not needed.

    Raises:
        StudyNotFoundError: there is neither a study of that name nor anything that one has left.
    """
    folders = _folders()
    if name is not None and not any((each.marker or {}).get("study") == name for each in folders):
        Study(storage, name)  # it has kept nothing, if there is one
        return []
    studies = {(each.study_name, each.user_attrs.get(KEY)) for each in storage.get_all_studies()}
    here = storage_place(storage.url)
    found: list[UnneededFile] = []
    for each in folders:
        marker = each.marker or {}
        if name is not None and marker.get("study") != name:
            continue
        if marker and (marker["study"], marker["key"]) in studies:
            found += _of_study(each, Study(storage, marker["study"]))
        elif each.marker is None:
            why = "unknown: it does not say whose it is"
            found.append(UnneededFile(each.path, _size(each.path), why, stays=not unknown))
        elif marker["storage"] == here:
            found.append(UnneededFile(each.path, _size(each.path), f"study {marker['study']} is deleted"))
        else:
            found.append(
                UnneededFile(each.path, _size(each.path), f"of another storage, {marker['storage']}", stays=True)
            )
    return found


def find_study_folders(study: Study) -> list[UnneededFile]:
    """The study's folders in this `HPO_HOME`, as it leaves them when it is deleted; to be asked for before."""
    paths = [path for kind in KINDS if (path := study_folder(kind, study)) is not None and path.is_dir()]
    return [UnneededFile(path, _size(path), f"study {study.name} is deleted") for path in paths]


def remove_files(path: Path) -> None:
    """Delete a file, or a folder with all that it holds; nothing where it is gone already.

    Raises:
        RunError: it cannot be deleted.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # somebody else is removing it as well
    except OSError as error:
        raise RunError(f"{error.filename or path}: cannot be removed ({error.strerror})") from error


def _folders() -> list[_Folder]:
    """The folders that studies keep something in, with their files."""
    paths = [(kind, path) for kind in KINDS for path in sorted((home() / kind).glob("*")) if path.is_dir()]
    return [_Folder(path, kind, _marker(path), sorted(path.iterdir())) for kind, path in paths]


def _marker(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and {"study", "key", "storage"} <= found.keys()
    return found if known else None


def _states(study: Study) -> dict[int, TrialState]:
    """The state of each trial, by number."""
    query = sa.select(TRIALS.c.number, TRIALS.c.state).where(TRIALS.c.study_id == study.id)
    return {row.number: row.state for row in study.storage.read(lambda connection: connection.execute(query).all())}


def _of_study(found: _Folder, study: Study) -> Iterator[UnneededFile]:
    """What is not needed of a study that is there."""
    states = _states(study)
    kept = {number for _, number in rank_trials(study)[0]} if found.kind == "weights" else set()
    named = list_artifact_ids(study) if found.kind == "artifacts" else set()
    for path in found.files:
        size, age = _size(path), time.time() - _written(path)
        if TEMPORARY.fullmatch(path.name):
            if age > TEMPORARY_LIVES:
                yield UnneededFile(path, size, "a writer was killed")
        elif (match := OWN.fullmatch(path.name)) is not None:
            number = int(match[1])
            state = states.get(number)
            if (state is None or state.is_finished()) and number not in kept:
                yield UnneededFile(path, size, _why(number, state, found.kind))
        elif found.kind == "artifacts" and path.name != MARKER and path.name not in named and age > TEMPORARY_LIVES:
            yield UnneededFile(path, size, "neither the study nor a trial names it")  # its writer was killed


def _why(number: int, state: TrialState | None, kind: str) -> str:
    if state is None:
        return f"there is no trial {number}"
    beaten = kind == "weights" and state == TrialState.COMPLETE
    return f"trial {number} is {state.name}" + (", and not among the best" if beaten else "")


def _written(path: Path) -> float:
    """When, in seconds since 1970; of a file that is gone just now."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where it is gone."""
    try:
        if path.is_dir():
            return sum(_size(below) for below in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0
