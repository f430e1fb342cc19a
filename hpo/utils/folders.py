"""New folders of files: all of it is written, or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import RequestError

__all__ = ["check_new", "written_whole"]


def check_new(folder: Path) -> None:
    """Refuse a folder that is not new or empty, before any work is done for it.

    Raises:
        RequestError: it holds something, or is no folder.
    """
    if folder.is_dir() and next(folder.iterdir(), None) is None:
        return
    if folder.exists():
        what = "is not empty" if folder.is_dir() else "is no folder"
        raise RequestError(f"{folder}: {what}; choose another folder, or delete this one")


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes the one asked for at the end; of an error nothing is left.

    Raises:
        RequestError: the folder is not empty, or cannot be written.
    """
    folder = folder.resolve()  # for `.` has no name, and a link is not replaced by a folder
    check_new(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / "made"  # a folder of its own, with the usual rights
            made.mkdir()
            yield made
            if folder.exists():  # and is empty, and somebody may stand in it
                for path in made.iterdir():
                    path.replace(folder / path.name)
            else:
                made.replace(folder)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written ({error.strerror or error}); choose another folder") from error
