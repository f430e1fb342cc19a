"""Exits of user code, such as `sys.exit()` in a model, as errors that a worker survives."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from hpo.errors import UserExitError
from hpo.utils.signals import StopSignal
from hpo.utils.text import shorten_message, summarize_error

__all__ = ["translate_exits"]

LONGEST_CODE = 80  # characters of what sys.exit was given


@contextmanager
def translate_exits() -> Iterator[None]:
    """Turn whatever would end the process, such as SystemExit, into a UserExitError.

    What asks the process itself to stop passes: the StopSignal of a second signal, and KeyboardInterrupt where it is
    Ctrl-C that raises it.

    Raises:
        UserExitError: names what was raised, and where.
    """
    try:
        yield
    except (Exception, StopSignal):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise
        raise UserExitError(f"{_describe(error)}{_place(error)}") from error


def _describe(error: BaseException) -> str:
    if not isinstance(error, SystemExit):
        return f"{summarize_error(error)} was raised"
    code = "" if error.code is None else shorten_message(repr(error.code), LONGEST_CODE)
    return f"sys.exit({code}) was called"


def _place(error: BaseException) -> str:
    """Return where an error was raised: the function, and the file with the line."""
    hook = getattr(sys.exit, "__code__", None)  # of a library that has put a function of its own in its place
    frames = [each for each in traceback.walk_tb(error.__traceback__) if each[0].f_code is not hook]
    if not frames:
        return ""
    frame, line = frames[-1]
    return f" in {frame.f_code.co_name} ({frame.f_code.co_filename}:{line})"
