"""Full disks under a SQLite file: what can be read is read, and errors say that the disk is full."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa
import sqlalchemy.exc

from hpo.errors import RunError

__all__ = ["DiskFullError", "SqliteConnection", "explain_full_disk", "is_full", "name_full_disk"]

NEEDED = 2**18  # free bytes below which a disk counts as full: SQLite's log and its index need some tens of thousands


class DiskFullError(sqlalchemy.exc.OperationalError, RunError):
    """Refusal of a write because the disk is full; to those who retry or give up, it is the database's own error."""

    def __init__(self, line: str, orig: BaseException) -> None:
        super().__init__(None, None, orig)
        self.line = line

    def __str__(self) -> str:
        return self.line


class SqliteConnection(sqlite3.Connection):
    """Connection that can be read on a full disk, where SQLite cannot make the index of its write-ahead log.

    It then keeps the index in memory, which only one process at a time may do: others wait for it.
    """

    def __init__(self, database: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(database, *args, **kwargs)
        if is_full(Path(database)) and not _is_readable(database):
            self.execute("PRAGMA locking_mode = EXCLUSIVE").close()


def is_full(path: Path) -> bool:
    """Return whether the disk of a file is full."""
    return _free(path) < NEEDED


def _is_readable(database: str) -> bool:
    """Return whether the file can be read as usual, tried on another connection: this one could not change its mind."""
    with closing(sqlite3.connect(database)) as other:
        try:
            other.execute("SELECT 1 FROM sqlite_master LIMIT 1").close()
        except sqlite3.OperationalError:
            return False
    return True


def explain_full_disk(path: Path, shown: str) -> str | None:
    """Return a line that says that the disk of a SQLite file is full, and how much is free; None where it is not."""
    free = _free(path)
    if free >= NEEDED:
        return None
    return (
        f"storage {shown}: the disk is full: {free} bytes are free in {path.parent}, and at least {NEEDED} are needed; "
        "remove files from it, for example with: hpo gc"
    )


def name_full_disk(engine: sa.Engine, path: Path, shown: str) -> None:
    """Let the engine raise a DiskFullError for what a full disk refuses."""

    def handle(context: sa.engine.ExceptionContext) -> None:
        error = context.original_exception
        refused = isinstance(error, sqlite3.OperationalError) and any(
            text in str(error) for text in ("full", "disk I/O", "unable to open")
        )
        if refused and (line := explain_full_disk(path, shown)) is not None:
            _refuse(line, error)

    sa.event.listen(engine, "handle_error", handle)


def _refuse(line: str, error: BaseException) -> NoReturn:
    raise DiskFullError(line, error) from error


def _free(path: Path) -> float:
    """Return the free bytes of a file's disk; infinitely many where that cannot be found out."""
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return float("inf")
