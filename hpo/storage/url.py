"""Storage URLs: normalization, masking of passwords, and one line for each way in which one cannot be opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from hpo.errors import StorageError, StorageMissingError
from hpo.storage.disk_full import DiskFullError, SqliteConnection, explain_full_disk
from hpo.storage.schema import check_schema, read_schema
from hpo.utils.text import first_line

__all__ = [
    "check_file",
    "connect_once",
    "explain_connect_error",
    "is_file",
    "make_plain_engine",
    "mask",
    "normalize",
    "translate_connect_errors",
    "tune_sqlite",
]

SECRETS = {"password", "passwd", "sslpassword", "passfile"}
EXTRAS = {"postgresql": "postgres", "mysql": "mysql"}
DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    # Optuna tests the dialect's name for "mysql", and SQLAlchemy would call this one "mariadb".
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
}


def normalize(url: str) -> URL:
    """Normalize a storage URL as people write it: add its driver, and make the path of a SQLite file absolute.

    Raises:
        StorageError: it is no URL; the line says what one looks like.
    """
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        shown = url if "@" not in url else "(not shown: it may hold a password)"
        raise StorageError(
            f"storage {shown!r} is not a URL; write sqlite:///path/to/file.db, postgresql://user@host/name "
            "or mysql://user@host/name"
        ) from error
    if parsed.drivername in DRIVERS:
        return parsed.set(drivername=DRIVERS[parsed.drivername])
    if is_file(parsed):
        return parsed.set(database=str(Path(str(parsed.database)).expanduser().absolute()))
    return parsed


def mask(url: str | URL) -> str:
    """Return the URL without passwords, to be shown: neither the user's nor those that drivers take as options."""
    parsed = normalize(url) if isinstance(url, str) else url
    shown = {key: "***" if key.lower() in SECRETS else value for key, value in parsed.query.items()}
    return parsed.set(query=shown).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def is_file(url: URL) -> bool:
    """Return whether the storage is a SQLite file."""
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def check_file(url: URL, create: bool) -> None:
    """Check that a SQLite file exists, or make the folder of one that is to be created.

    Raises:
        StorageMissingError: the file does not exist, and is not to be created.
        StorageError: its folder cannot be made.
    """
    if not is_file(url):
        return
    path = Path(str(url.database))
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"storage {mask(url)}: cannot make its folder: {error.strerror}") from error
    elif not path.exists():
        raise StorageMissingError(
            f"storage {mask(url)}: the file does not exist; give another --storage, or launch a study first"
        )


def make_plain_engine(url: URL) -> sa.Engine:
    """Make an engine that reads once: without retries, and on a full disk too."""
    return sa.create_engine(url, connect_args={"factory": SqliteConnection} if is_file(url) else {})


def connect_once(url: URL) -> bool:
    """Connect once, without a retry, and return whether there are tables.

    Nothing is written, so that tables which are refused stay as they are.

    Raises:
        StorageError: the tables are older or newer than ours; the line has the command that helps.
    """
    engine = make_plain_engine(url)
    try:
        with engine.connect() as connection:
            schema = read_schema(connection)
    finally:
        engine.dispose()
    if schema is not None:
        check_schema(schema, mask(url))
    return schema is not None


@contextmanager
def translate_connect_errors(url: URL) -> Iterator[None]:
    """Translate each way in which a storage cannot be opened into one line.

    Raises:
        StorageError: with the URL, without its password, the database's own words, and what to do.
    """
    try:
        yield
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        backend = url.get_backend_name()
        known = f"pip install 'torch-hpo[{EXTRAS.get(backend)}]'"
        advice = known if backend in EXTRAS else "use sqlite, postgresql or mysql"
        raise StorageError(f"storage {mask(url)}: the driver for {url.drivername} is missing; {advice}") from error
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError, optuna.exceptions.StorageInternalError) as error:
        raise StorageError(explain_connect_error(url, error, "cannot be opened")) from error


def explain_connect_error(url: URL, error: Exception, what: str) -> str:
    """Return one line for a database's error, in its own words."""
    if isinstance(error, DiskFullError):
        return str(error)
    if is_file(url) and (line := explain_full_disk(Path(str(url.database)), mask(url))) is not None:
        return line
    cause = error.__cause__ or error
    return f"storage {mask(url)}: {what}: {first_line(getattr(cause, 'orig', None) or cause)}"


def tune_sqlite(connection: Any, _record: Any) -> None:
    """Turn on SQLite's write-ahead log, under which readers and the one writer do not wait for each other."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
