"""Atomic writes of files and folders: a reader sees all of what is written, or nothing of it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpo.errors import RequestError

__all__ = ["absolute_path", "atomic_folder", "check_new_folder", "remove_file", "write_atomically"]


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object], *, sync: bool = True) -> None:
    """Write a file beside the one to be replaced, and rename it. Its permissions are those of any new file.

    Args:
        path: of the file.
        content: the file's content, or a function that writes it to the open file.
        sync: wait until the content is on the disk, so that a crash of the machine leaves the old file or the new one.

    Raises:
        OSError: the file cannot be written; the one that was there stays.
    """
    # The name is this attempt's alone: a second process, of another host too, may be writing the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def absolute_path(path: Path) -> Path:
    """Return a path from the root; symbolic links are followed only where `..` asks what they lead to."""
    return path.resolve() if ".." in path.parts else path.absolute()


def remove_file(path: Path) -> None:
    """Delete a file, if it exists, and what writers that were killed have left beside it.

    Raises:
        OSError: a file cannot be deleted.
    """
    leftovers = [each for each in path.parent.glob(".*") if each.name.startswith(f".{path.name}.")]
    for each in [path, *leftovers]:
        each.unlink(missing_ok=True)


def check_new_folder(folder: Path) -> None:
    """Check that a folder is new or empty, before any work is done for it.

    Raises:
        RequestError: the folder is not empty, or is a file.
    """
    if folder.is_dir() and next(folder.iterdir(), None) is None:
        return
    if folder.exists():
        problem = "is not empty" if folder.is_dir() else "is not a folder"
        raise RequestError(f"{folder}: {problem}; choose another folder, or delete this one")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into, which becomes `folder` at the end; after an error nothing is left.

    Raises:
        RequestError: the folder is not empty, or cannot be written.
    """
    folder = folder.resolve()  # for `.` has no name, and a link is not replaced by a folder
    check_new_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            content = Path(temporary) / "content"  # a folder of its own, with the usual permissions
            content.mkdir()
            yield content
            if folder.exists():  # it is empty, and may be somebody's working directory
                for path in content.iterdir():
                    path.replace(folder / path.name)
            else:
                content.replace(folder)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
