"""Retry policy for transient database errors: deadlocks, locked files, lost connections."""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import optuna
import sqlalchemy.exc
import tenacity
from optuna.storages import RDBStorage

from hpo.errors import StorageDamagedError
from hpo.storage.disk_full import DiskFullError
from hpo.utils import text
from hpo.utils.masking import mask_secrets
from hpo.utils.pause import pause

__all__ = ["RETRY_SECONDS", "RetryPolicy", "first_line", "is_damage", "is_transient", "retrying_proxy", "with_retries"]

log = logging.getLogger("hpo.study")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

RETRY_SECONDS = 300.0  # seconds: a server's restart takes less
LOG_AFTER = 3  # tries after which the trouble is worth a line in the log
# Too many connections, shutting down, lock wait timeout, deadlock, and what goes wrong with a connection.
MYSQL_CODES = {1040, 1053, 1205, 1213, 2003, 2006, 2013}
# Classes of SQLSTATE: rolled back (deadlock among them), connection, intervention of an operator, out of resources.
POSTGRES_CLASSES = ("40", "08", "57", "53")


def first_line(error: BaseException) -> str:
    """Return the first line of the database's own message."""
    return text.first_line(getattr(error, "orig", None) or error)


def is_transient(error: BaseException) -> bool:
    """Return whether the same transaction may succeed in a moment. Optuna wraps the database's error in one of its
    own.
    """
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


def is_damage(error: Exception) -> bool:
    """Return whether SQLAlchemy has failed to read a value, or to write one that a copy has read: SQLite's columns hold
    values of any type.
    """
    if isinstance(error, sqlalchemy.exc.StatementError) and isinstance(error.orig, TypeError | ValueError):
        return not isinstance(error.orig, UnicodeEncodeError)  # of a text that nobody can have read there
    if isinstance(error, sqlalchemy.exc.SQLAlchemyError):
        return "Could not decode to UTF-8" in str(error)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("sqlalchemy.")


class RetryPolicy:
    """Policy that retries transient errors with backoff, for five minutes.

    Args:
        storage: the storage's URL without a password, for errors.

    Attributes:
        stop_requested: called between tries; once it returns true, the next failure is final.
    """

    def __init__(self, storage: str = "") -> None:
        self.storage = storage
        self.stop_requested: Callable[[], bool] = lambda: False

    def __call__(self, call: Callable[[], Result]) -> Result:
        """Return the call's result, or raise its last error.

        Raises:
            StorageDamagedError: the database holds a value that is not of its column's type.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_transient),
            stop=tenacity.stop_any(tenacity.stop_after_delay(RETRY_SECONDS), _StopRequested(self)),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=10),
            sleep=self._sleep,
            before_sleep=_log_retry,
            reraise=True,
        )
        try:
            return retrying(call)
        except optuna.exceptions.StorageInternalError as error:
            if isinstance(error.__cause__, DiskFullError):  # which says what is wrong
                raise error.__cause__ from error
            raise
        except Exception as error:
            if not is_damage(error):
                raise
            raise StorageDamagedError(
                f"storage {self.storage}: a stored value is not of its column's type ({first_line(error)[:200]}); "
                "restore the database from a backup, or delete the study that has it"
            ) from error

    def _sleep(self, seconds: float) -> None:
        """Wait, but not past a request to stop: there are ten seconds for that."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.stop_requested():
            pause(min(left, 0.2))


class _StopRequested(tenacity.stop.stop_base):
    def __init__(self, retry_policy: RetryPolicy) -> None:
        self._retry_policy = retry_policy

    def __call__(self, _: tenacity.RetryCallState) -> bool:
        return self._retry_policy.stop_requested()


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    if state.attempt_number == LOG_AFTER and error:
        log.warning(
            "the database refuses a request; retrying for up to 5 minutes (%s)", mask_secrets(first_line(error))
        )


class Retrying(Protocol):
    """An object with a retry policy for its methods."""

    @property
    def retry_policy(self) -> RetryPolicy: ...


Self = TypeVar("Self", bound=Retrying)


def with_retries(
    method: Callable[Concatenate[Self, Parameters], Result],
) -> Callable[Concatenate[Self, Parameters], Result]:
    """Retry a method by its object's retry policy."""

    @functools.wraps(method)
    def retrying(self: Self, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self.retry_policy(lambda: method(self, *args, **kwargs))

    return cast(Callable[Concatenate[Self, Parameters], Result], retrying)


class _RetryingProxy:
    """Proxy that retries every method of its target, one call at a time."""

    def __init__(self, target: object, retry_policy: RetryPolicy, lock: AbstractContextManager[Any]) -> None:
        self._target, self._retry_policy, self._lock = target, retry_policy, lock

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def retrying(*args: Any, **kwargs: Any) -> Any:
            def once() -> Any:
                with self._lock:
                    return value(*args, **kwargs)

            return self._retry_policy(once)

        return retrying


def retrying_proxy(
    rdb: RDBStorage, retry_policy: RetryPolicy, lock: AbstractContextManager[Any] | None = None
) -> RDBStorage:
    """Wrap Optuna's storage so that every method is retried; by itself it retries the creation of a trial alone."""
    return cast(RDBStorage, _RetryingProxy(rdb, retry_policy, lock or threading.RLock()))
