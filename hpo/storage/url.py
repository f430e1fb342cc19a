"""Storage URLs: normalization, masking of passwords, and one line for each way in which one cannot be opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from hpo.errors import StorageError, StorageMissingError
from hpo.storage.disk_full import DiskFullError, SqliteConnection, explain_full_disk
from hpo.storage.schema import check_schema, read_schema
from hpo.utils.masking import MASK, is_secret_name, list_masked, mask_part, mask_secrets, mask_url_text
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

# Of its driver, and of SQLite's own URIs.
SQLITE_OPTIONS = frozenset({
    "autocommit", "cached_statements", "check_same_thread", "detect_types", "factory", "isolation_level", "timeout",
    "cache", "immutable", "mode", "nolock", "psow", "uri", "vfs",
})  # fmt: skip
FILE_SUFFIXES = {".db", ".sqlite", ".sqlite3"}
OPTIONS = re.compile(r"\?.*=", re.DOTALL)  # as they follow a URL's path
HOST = re.compile(r"[\w.,-]*|[0-9a-fA-F:.]+(%\w+)?")  # names, or an address of IPv6 without its brackets
EXTRAS = {"postgresql": "postgres", "mysql": "mysql"}
DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    # Optuna tests the dialect's name for "mysql", and SQLAlchemy would call this one "mariadb".
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
}


def normalize(url: str | URL) -> URL:
    """Normalize a storage URL as people write it: add its driver, and make the path of a SQLite file absolute.

    The bare path of a file is that of a SQLite file, if the file is there or is called `.db`, `.sqlite` or `.sqlite3`.

    Raises:
        StorageError: it is no URL, or a part of it is none; the line says how it is written.
    """
    text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    if _is_bare_path(text):
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        parsed = make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # whose messages, and so a traceback, quote parts of the URL
        raise _no_url_error(text) from None
    if not HOST.fullmatch(parsed.host or "") or any(
        OPTIONS.search(part or "") for part in (parsed.username, parsed.password)
    ):
        raise _no_url_error(text)  # an @ that belongs to a password, or a ? that does
    if (scheme := parsed.drivername.lower()) in DRIVERS:
        return parsed.set(drivername=DRIVERS[scheme])
    if is_file(parsed):
        _check_sqlite_options(text, parsed)
        return parsed.set(database=str(Path(str(parsed.database)).expanduser().absolute()))
    return parsed


def _is_bare_path(text: str) -> bool:
    if ":" in text or not text.strip():
        return False
    path = Path(text).expanduser()
    return path.suffix.lower() in FILE_SUFFIXES or path.is_file()


def _no_url_error(text: str) -> StorageError:
    return StorageError(
        f"storage {mask_url_text(text)!r} is not a URL; write sqlite:///path/to/file.db, postgresql://user@host/name "
        "or mysql://user@host/name, and % and two digits for a character that has a meaning there, such as %40 for @"
    )


def _check_sqlite_options(text: str, url: URL) -> None:
    """Refuse what follows a `?` and is no option: it was probably meant as a part of the path.

    Raises:
        StorageError: says how a path is written.
    """
    unknown = [key for key in url.query if key not in SQLITE_OPTIONS]
    if unknown or ("?" in text and not url.query):
        what = mask_url_text(unknown[0] if unknown else text.partition("?")[2])
        raise StorageError(
            f"storage {mask(url.set(query={}))}: {what!r} is no option of SQLite; "
            "in a path write %3F for ?, %25 for % and %23 for #"
        )


def mask(url: str | URL) -> str:
    """Return the URL to be shown: without passwords, those that stand in a wrong place included.

    The path of a SQLite file is shown as it is.
    """
    parsed = normalize(url) if isinstance(url, str) else url
    user, colon, _ = (parsed.username or "").partition(":")
    shown = parsed.set(
        username=user or parsed.username,
        password=MASK if colon or parsed.password is not None else None,
        query={mask_part(key): _mask_option(key, value) for key, value in parsed.query.items()},
    )
    if parsed.database and not _is_path(parsed):
        shown = shown.set(database=mask_part(parsed.database))
    return shown.render_as_string(hide_password=True).replace(quote(MASK), MASK)


def _mask_option(name: str, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Mask the value of an option in a URL, which may be given several times."""
    if isinstance(value, tuple):
        return tuple(str(_mask_option(name, each)) for each in value)
    if is_secret_name(name):
        return MASK
    return value if name == "host" and "@" not in value else mask_part(value)


def _list_secrets(url: URL) -> list[str]:
    """List what is masked in a URL, which a driver's message may quote."""
    options = [(name, each) for name, value in url.query.items() for each in _as_tuple(value)]
    named = [value for name, value in options if is_secret_name(name)]
    parts = [url.username or "", *(value for name, value in options if name != "host")]
    parts += [] if _is_path(url) else [url.database or ""]
    return [str(url.password or ""), *named, *(secret for part in parts for secret in list_masked(part))]


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def _is_path(url: URL) -> bool:
    """Return whether the URL's database is the path of a SQLite file, and nothing else stands in the URL."""
    return url.get_backend_name() == "sqlite" and url.username is None and url.host is None


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


def connect_once(url: URL, *, check: bool = True) -> bool:
    """Connect once, without a retry, and return whether there are tables; `check` refuses those of other versions.

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
    if schema is not None and check:
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
    words = first_line(getattr(cause, "orig", None) or cause)
    return f"storage {mask(url)}: {what}: {mask_secrets(words, _list_secrets(url))}"


def tune_sqlite(connection: Any, _record: Any) -> None:
    """Turn on SQLite's write-ahead log, under which readers and the one writer do not wait for each other."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
