"""Removal of files in `HPO_HOME` that no trial needs any more, for `hpo gc` and `hpo delete`.

A folder's `study.json` says which study of which storage it belongs to. Files are removed only if they belong to the
given storage: to a study that it holds, or to one that it once held. Folders of other storages are never touched, and
folders that do not say whose they are stay unless their removal is requested.

Files are listed before the database is read, so that files of a trial that begins meanwhile are not among them.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from hpo.errors import RequestError, RunError
from hpo.storage.study_storage import StudyStorage
from hpo.storage.tables import TRIALS
from hpo.study.files.artifacts import list_artifact_ids
from hpo.study.files.marker import MARKER, Marker, leads_out, read_marker
from hpo.study.files.study_files import KEY, KINDS, rank_trials, study_folder
from hpo.study.study import Study
from hpo.utils.home import home

__all__ = ["UnneededFile", "find_study_folders", "find_unneeded_files", "remove_files"]

TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")  # see `hpo.utils.files.write_atomically`
# Seconds. Its name has the writer's process, which may run on another machine: only the age shows that it is abandoned.
TEMPORARY_LIFETIME = 3600
UNKNOWN = "unknown: it does not say whose it is"
LEADS_OUT = "a link that leads out of HPO_HOME"
TRIAL_FILE = re.compile(r"(\d+)\.(pt|safetensors)")


@dataclass(frozen=True)
class UnneededFile:
    """File or folder that no trial needs.

    Attributes:
        path: its path.
        size: its bytes, with everything inside.
        why: why it is not needed, or why it stays.
        stays: whether it must not be removed.
    """

    path: Path
    size: int
    why: str
    stays: bool = False


@dataclass(frozen=True)
class _Folder:
    """Folder of a study's files of one kind. `marker` is the content of its own `study.json`, or None."""

    path: Path
    kind: str
    marker: Marker | None
    files: list[Path]


def find_unneeded_files(storage: StudyStorage, name: str | None = None, *, unknown: bool = False) -> list[UnneededFile]:
    """Find files in `HPO_HOME` that are not needed, and the folders that stay because they may not be ours.

    Args:
        storage: the storage whose studies' files are examined.
        name: the study to examine; by default all of them.
        unknown: report folders that do not say whose they are as not needed.

    Raises:
        StudyNotFoundError: there is neither a study of that name nor a folder of one.
    """
    folders = _list_folders()
    if name is not None and not any(each.marker is not None and each.marker.study == name for each in folders):
        Study(storage, name)  # raises if there is none; if there is, it has no files
        return []
    keys = {each.study_name: each.user_attrs.get(KEY) for each in storage.get_all_studies()}
    unneeded: list[UnneededFile] = []
    for each in folders:
        marker = each.marker
        if name is not None and (marker is None or marker.study != name):
            continue
        if marker is not None and marker.is_in(storage.url) and keys.get(marker.study) == marker.key:
            unneeded += _unneeded_in_folder(each, Study(storage, marker.study))
        else:
            unneeded.append(_unneeded_folder(each, storage.url, unknown=unknown))
    return unneeded


def _unneeded_folder(each: _Folder, url: URL, *, unknown: bool) -> UnneededFile:
    """Judge a folder that belongs to no study of the storage."""
    size = _size(each.path)
    if leads_out(each.path):
        return UnneededFile(each.path, size, LEADS_OUT, stays=True)
    if each.marker is None:
        return UnneededFile(each.path, size, UNKNOWN, stays=not unknown)
    if each.marker.is_in(url):
        return UnneededFile(each.path, size, f"study {each.marker.study} is deleted")
    return UnneededFile(each.path, size, f"of another storage, {each.marker.storage}", stays=True)


def find_study_folders(study: Study) -> list[UnneededFile]:
    """List the study's folders in this `HPO_HOME`, which its deletion leaves; call this before deleting it.

    Those that do not say that they are this study's, in this storage, are to stay.
    """
    try:
        paths = [path for kind in KINDS if (path := study_folder(kind, study)) is not None and path.is_dir()]
    except RequestError as error:
        why = str(error).partition("; a copy gets")[0]  # which is no advice for a study that is to be deleted
        return [UnneededFile(home(), 0, why, stays=True)]
    return [_judge_study_folder(path, study) for path in paths]


def _judge_study_folder(path: Path, study: Study) -> UnneededFile:
    """Judge a folder of the study's name and key; the name and the key alone may have been copied."""
    size, marker = _size(path), read_marker(path)
    if marker is None:
        return UnneededFile(path, size, UNKNOWN, stays=True)
    if not marker.is_in(study.storage.url):
        return UnneededFile(path, size, f"of another storage, {marker.storage}", stays=True)
    return UnneededFile(path, size, f"study {study.name} is deleted")


def remove_files(path: Path) -> None:
    """Delete a file, or a folder with everything inside; do nothing if it is gone already.

    Raises:
        RunError: it cannot be deleted.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # somebody else is removing it, too
    except OSError as error:
        raise RunError(f"{error.filename or path}: cannot be removed ({error.strerror})") from error


def _list_folders() -> list[_Folder]:
    """List the folders that hold studies' files; a folder to which a link leads has no marker of ours."""
    paths = [(kind, path) for kind in KINDS for path in sorted((home() / kind).glob("*")) if path.is_dir()]
    return [
        _Folder(path, kind, None if leads_out(path) else read_marker(path), sorted(path.iterdir()))
        for kind, path in paths
    ]


def _read_states(study: Study) -> dict[int, TrialState]:
    """Read the state of each trial, by number."""
    query = sa.select(TRIALS.c.number, TRIALS.c.state).where(TRIALS.c.study_id == study.id)
    return {row.number: row.state for row in study.storage.read(lambda connection: connection.execute(query).all())}


def _unneeded_in_folder(folder: _Folder, study: Study) -> Iterator[UnneededFile]:
    """Yield the unneeded files in a folder of an existing study."""
    states = _read_states(study)
    kept = {number for _, number in rank_trials(study)[0]} if folder.kind == "weights" else set()
    named = list_artifact_ids(study) if folder.kind == "artifacts" else set()
    for path in folder.files:
        size, age = _size(path), time.time() - _modified_at(path)
        if TEMPORARY.fullmatch(path.name):
            if age > TEMPORARY_LIFETIME:
                yield UnneededFile(path, size, "a writer was killed")
        elif (match := TRIAL_FILE.fullmatch(path.name)) is not None:
            number = int(match[1])
            state = states.get(number)
            if (state is None or state.is_finished()) and number not in kept:
                yield UnneededFile(path, size, _explain(number, state, folder.kind))
        elif folder.kind == "artifacts" and path.name != MARKER and path.name not in named and age > TEMPORARY_LIFETIME:
            yield UnneededFile(path, size, "neither the study nor a trial refers to it")  # its writer was killed


def _explain(number: int, state: TrialState | None, kind: str) -> str:
    if state is None:
        return f"there is no trial {number}"
    beaten = kind == "weights" and state == TrialState.COMPLETE
    return f"trial {number} is {state.name}" + (", and not among the best" if beaten else "")


def _modified_at(path: Path) -> float:
    """Return a file's modification time, in seconds since 1970; the present if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 if it is gone."""
    try:
        if path.is_dir():
            return sum(_size(below) for below in path.iterdir())
        return path.stat().st_size
    except OSError:
        return 0
