"""Database trouble that passes: a deadlock, a locked file, a lost connection. Tried again, with backoff."""

from __future__ import annotations

import functools
from typing import Any, cast

import optuna
import sqlalchemy.exc
import tenacity
from optuna.storages import RDBStorage

__all__ = ["is_transient", "patient", "retried"]

PATIENCE = 300  # seconds: a server's restart takes less
MYSQL_CODES = {1205, 1213, 2003, 2006, 2013}  # lock wait timeout, deadlock, cannot connect, gone away, lost
# Classes of SQLSTATE: rolled back (deadlock among them), connection, intervention of an operator, out of resources.
POSTGRES_CLASSES = ("40", "08", "57", "53")


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed in a moment. Optuna wraps the database's error in one of its own."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    if not isinstance(cause, sqlalchemy.exc.DBAPIError):
        return False
    if cause.connection_invalidated:
        return True
    if not isinstance(cause, sqlalchemy.exc.OperationalError):
        return False
    origin: Any = cause.orig
    if origin.args and isinstance(origin.args[0], int):  # PyMySQL
        return origin.args[0] in MYSQL_CODES
    if hasattr(origin, "sqlstate"):  # psycopg; a server that does not answer gives none
        return origin.sqlstate is None or origin.sqlstate.startswith(POSTGRES_CLASSES)
    return "locked" in str(origin) or "busy" in str(origin)  # SQLite


retried = tenacity.retry(
    retry=tenacity.retry_if_exception(is_transient),
    stop=tenacity.stop_after_delay(PATIENCE),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=10),
    reraise=True,
)


class _Patient:
    """An object whose every method is tried again."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return functools.wraps(value)(retried(value)) if callable(value) else value


def patient(rdb: RDBStorage) -> RDBStorage:
    """Optuna's storage with every method tried again; it does so for the creation of a trial only."""
    return cast(RDBStorage, _Patient(rdb))
