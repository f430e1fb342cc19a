"""Identity of a database and of a study in it, by which one that was deleted or replaced in use is noticed."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc

from hpo.errors import StorageLostError

__all__ = ["KEY", "FileWatch", "StudyIdentity", "is_gone"]

log = logging.getLogger("hpo.study")
KEY = "hpo:key"  # a study's user attribute: drawn once, so another study under its name has another one
POSTGRES_GONE: set[object] = {"3D000", "42P01"}  # SQLSTATE: no such database, no such table
MYSQL_GONE: set[object] = {1049, 1146}  # the same


@dataclass(frozen=True)
class StudyIdentity:
    """Identity of a study: its id in the database, and the value of its attribute `KEY`."""

    study_id: int
    key: str


def is_gone(error: sqlalchemy.exc.SQLAlchemyError) -> bool:
    """Return whether the database says that it, or one of its tables, does not exist."""
    origin: Any = getattr(error, "orig", None)
    code = getattr(origin, "sqlstate", None)
    if code is None and origin is not None and origin.args:
        code = origin.args[0]
    if code is not None and code in POSTGRES_GONE | MYSQL_GONE:
        return True
    # SQLite has no codes for it, and a connection that PostgreSQL refuses has none in psycopg.
    text = str(origin)
    return "no such table" in text or ('database "' in text and "does not exist" in text)


class FileWatch:
    """Watch over a SQLite file: no connection to it is used once another file, or none, lies at its path.

    SQLite itself would go on writing to the file that it has opened, which nobody can open any more.

    Args:
        engine: whose connections are checked, each time one is opened or taken from the pool.
        path: of the file, which exists.
        shown: the storage's URL as it may be shown.

    Attributes:
        rescue: whether what the file held is saved as soon as it is missed, for a connection that is open still reads
            it: true where a study would lose what it has trained.
    """

    def __init__(self, engine: sa.Engine, path: Path, shown: str) -> None:
        self.rescue = False
        self._path, self._shown = path, shown
        self._file = self._identify()
        sa.event.listen(engine, "do_connect", self._check)
        sa.event.listen(engine, "checkout", self._check_pooled)

    @property
    def saved(self) -> Path | None:
        """The copy of what the file held, which this process or another one has written; None where there is none."""
        return copy if (copy := self._copy()).exists() else None

    def _copy(self) -> Path:
        return self._path.with_name(f"{self._path.name}.lost-{self._file[1] if self._file else 0}")

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check(self, *_: object) -> None:
        """Raise an error unless the path still leads to the file.

        Raises:
            StorageLostError: it does not.
        """
        found = self._identify()
        if found != self._file:
            what = "was deleted or moved" if found is None else "was replaced by another file"
            raise StorageLostError(f"storage {self._shown}: the file {what} while it was in use")

    def _check_pooled(self, connection: sqlite3.Connection, *_: object) -> None:
        try:
            self._check()
        except StorageLostError:
            if self.rescue and self.saved is None:
                _back_up(connection, self._copy())
            raise


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """Copy a SQLite database through an open connection to a new file, unless another process is faster."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(temporary)) as target:
            connection.backup(target)
        path.hardlink_to(temporary)
    except (OSError, sqlite3.Error) as error:
        log.warning("%s: could not be written, to save what the database held (%s)", path, error)
    finally:
        temporary.unlink(missing_ok=True)
