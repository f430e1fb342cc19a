"""Database trouble that passes: a deadlock, a locked file, a lost connection. Tried again, with backoff."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import optuna
import sqlalchemy.exc
import tenacity
from optuna.storages import RDBStorage

from hpo.utils import text

__all__ = ["RETRY_SECONDS", "RetryPolicy", "first_line", "is_transient", "retrying_proxy", "with_retries"]

log = logging.getLogger("hpo.study")
Given = ParamSpec("Given")
Result = TypeVar("Result")

RETRY_SECONDS = 300.0  # seconds: a server's restart takes less
NOTICED = 3  # tries after which the trouble is worth a line in the log
# Too many connections, shutting down, lock wait timeout, deadlock, and what goes wrong with a connection.
MYSQL_CODES = {1040, 1053, 1205, 1213, 2003, 2006, 2013}
# Classes of SQLSTATE: rolled back (deadlock among them), connection, intervention of an operator, out of resources.
POSTGRES_CLASSES = ("40", "08", "57", "53")


def first_line(error: BaseException) -> str:
    """What the database said, in one line."""
    return text.first_line(getattr(error, "orig", None) or error)


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


class RetryPolicy:
    """Tries again what may succeed in a moment, for five minutes.

    Attributes:
        asked_to_stop: asked between tries; once true, the next failure counts.
    """

    def __init__(self) -> None:
        self.asked_to_stop: Callable[[], bool] = lambda: False

    def __call__(self, call: Callable[[], Result]) -> Result:
        """The call's result, or its last error."""
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_transient),
            stop=tenacity.stop_any(tenacity.stop_after_delay(RETRY_SECONDS), _Asked(self)),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=10),
            sleep=self._sleep,
            before_sleep=_say,
            reraise=True,
        )
        return trying(call)

    def _sleep(self, seconds: float) -> None:
        """Wait, but not past a request to stop: there are ten seconds for that."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.asked_to_stop():
            time.sleep(min(left, 0.2))


class _Asked(tenacity.stop.stop_base):
    def __init__(self, patience: RetryPolicy) -> None:
        self._patience = patience

    def __call__(self, _: tenacity.RetryCallState) -> bool:
        return self._patience.asked_to_stop()


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    if state.attempt_number == NOTICED and error:
        log.warning("the database does not do as asked; trying on for up to 5 minutes (%s)", first_line(error))


class Retrying(Protocol):
    """What has methods that are tried again."""

    @property
    def patience(self) -> RetryPolicy: ...


Self = TypeVar("Self", bound=Retrying)


def with_retries(method: Callable[Concatenate[Self, Given], Result]) -> Callable[Concatenate[Self, Given], Result]:
    """A method that is tried again, as its object's patience has it."""

    @functools.wraps(method)
    def trying(self: Self, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        return self.patience(lambda: method(self, *args, **kwargs))

    return cast(Callable[Concatenate[Self, Given], Result], trying)


class _Patient:
    """An object whose every method is tried again, one call at a time."""

    def __init__(self, target: object, patience: RetryPolicy, turn: AbstractContextManager[Any]) -> None:
        self._target, self._patience, self._turn = target, patience, turn

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def trying(*args: Any, **kwargs: Any) -> Any:
            def once() -> Any:
                with self._turn:
                    return value(*args, **kwargs)

            return self._patience(once)

        return trying


def retrying_proxy(
    rdb: RDBStorage, patience: RetryPolicy, turn: AbstractContextManager[Any] | None = None
) -> RDBStorage:
    """Optuna's storage with every method tried again; it does so for the creation of a trial only."""
    return cast(RDBStorage, _Patient(rdb, patience, turn or threading.RLock()))
