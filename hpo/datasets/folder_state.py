"""State of a folder of data: which files it holds, and the digest of their contents.

The digest is kept in HPO_HOME, and not computed again as long as no file has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hpo.datasets.image_decoder import SUFFIXES
from hpo.errors import DataError
from hpo.utils.digest import SETTLED_NS
from hpo.utils.files import write_atomically
from hpo.utils.home import cores, home, make_folder

__all__ = [
    "LABELS",
    "FolderState",
    "cache_folder",
    "digest_folder",
    "has_images",
    "is_image",
    "known_digest",
    "list_folders",
    "read_state",
]

LABELS = "labels.csv"
GLANCE = 2000  # entries by which a folder is told to be one of images


@dataclass(frozen=True)
class FolderState:
    """State of a folder, which differs once a file has been added, changed, renamed or deleted.

    Attributes:
        path: of the folder.
        names: of its images and label files, relative to it, ascending.
        key: hex digest of their names, sizes and times.
        newest: time in ns of the latest change.
        others: names of other files.
    """

    path: Path
    names: tuple[str, ...]
    key: str
    newest: int
    others: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Return the folder in HPO_HOME for what is made of data sets once; it can be deleted at any time.

    Raises:
        RequestError: it cannot be created.
    """
    return make_folder(home() / "datasets")


def has_images(path: Path) -> bool:
    """Return whether a folder is one of images: the first files in it, or below it, tell.

    Raises:
        DataError: it cannot be read.
    """
    if not path.is_dir():
        return False
    return (path / LABELS).is_file() or any(is_image(name) for name, _ in _walk(path, GLANCE))


def is_image(name: str) -> bool:
    """Return whether a file's name has a suffix of images."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def list_folders(path: Path) -> list[str]:
    """Return the names of the folders in a folder, ascending, without the hidden ones.

    Raises:
        DataError: it cannot be read.
    """
    return sorted(each.name for each in _entries(path) if each.is_dir())


def read_state(path: Path, belongs: Callable[[str], bool] | None = None) -> FolderState:
    """Return the state of a folder, for which no file is read.

    Args:
        path: of the folder.
        belongs: tells from a file's name whether it counts; by default images and label files do.

    Raises:
        DataError: it is no folder, or cannot be read.
    """
    if not path.is_dir():
        raise DataError(f"{path}: is no folder; correct the path")
    stats, others, newest = {}, [], 0
    for name, entry in _walk(path):
        if belongs(entry.name) if belongs else is_image(name) or entry.name == LABELS:
            stat = entry.stat()
            stats[name] = f"{name}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
            newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
        else:
            others.append(name)
    names = tuple(sorted(stats))
    key = hashlib.sha256("\n".join(stats[name] for name in names).encode(errors="surrogateescape")).hexdigest()
    return FolderState(path, names, key, newest, tuple(sorted(others)))


def _walk(path: Path, limit: int | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the files below a folder with their names in it; at most `limit` entries are looked at.

    Links to folders are followed at the top alone, so that none leads round in a circle.
    """
    folders, looked = [("", path)], 0
    while folders:
        lead, folder = folders.pop()
        for entry in _entries(folder):
            looked += 1
            if limit is not None and looked > limit:
                return
            if entry.is_dir(follow_symlinks=not lead):
                folders.append((f"{lead}{entry.name}/", Path(entry.path)))
            elif entry.is_file():
                yield lead + entry.name, entry


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, without what is hidden, and HPO_HOME, which may be among the data.

    Raises:
        DataError: it cannot be read.
    """
    own = str(home())
    try:
        with os.scandir(path) as entries:
            return [each for each in entries if each.name[0] != "." and each.name != "__MACOSX" and each.path != own]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


def known_digest(state: FolderState) -> str | None:
    """Return the digest of a folder in that state, or None if it was never computed."""
    try:
        kept = json.loads(_note(state).read_text(encoding="utf-8"))
        digest = kept["digest"] if kept["state"] == state.key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def digest_folder(state: FolderState, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the SHA-256 over names and contents of a folder's files, and keep it.

    Args:
        state: of the folder, taken before any file was read.
        known: digests of files that have been read since, by name.

    Raises:
        DataError: a file cannot be read.
    """
    kept = known_digest(state)
    if kept is not None:
        return kept
    others = [name for name in state.names if name not in known]
    with ThreadPoolExecutor(cores()) as pool:
        hashes = dict(known) | dict(
            zip(others, pool.map(lambda name: _digest_file(state.path / name), others), strict=True)
        )
    lines = "".join(f"{name}\0{hashes[name]}\n" for name in state.names)
    digest = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
    if time.time_ns() - state.newest > SETTLED_NS:
        cache_folder()
        content = json.dumps({"path": str(state.path), "state": state.key, "digest": digest})
        write_atomically(_note(state), content.encode(errors="replace"), sync=False)
    return digest


def _note(state: FolderState) -> Path:
    name = hashlib.sha256(str(state.path).encode(errors="surrogateescape")).hexdigest()[:16]
    return home() / "datasets" / f"{name}.json"


def _digest_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions, or delete it") from error
