"""Orderly stops: the first SIGINT, SIGTERM or SIGHUP asks; the second ends what runs at once, the third the process."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

__all__ = ["StopRequest"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """A context in which the first signal is remembered and the second one raises SystemExit.

    What runs may still give back what it holds as the exception passes; a third signal does not wait for that. The exit
    code is 128 plus the signal's number.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raised = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130, 143 or 129 after a signal, else 0."""
        return 128 + self.signal if self.signal is not None else 0

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self._raised:
            os._exit(128 + number)
        if self.signal is not None:
            self._raised = True
            raise SystemExit(128 + number)
        self.signal = number
