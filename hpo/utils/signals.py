"""Orderly stops: the first signal asks; the second ends what runs at once, the third the process.

They are SIGINT, SIGTERM and SIGHUP; and SIGUSR2, with which batch systems announce that they will end a job: to every
process of it, so that one may hear of it twice. It only ever asks.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopRequest"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


class StopRequest:
    """A context in which the first signal is remembered and the second one raises SystemExit.

    What runs may still give back what it holds as the exception passes; a third signal does not wait for that. The exit
    code is 128 plus the signal's number.

    Args:
        within: seconds after the first signal in which the process ends, whatever it waits for; None is no limit.
    """

    def __init__(self, within: float | None = None) -> None:
        self.signal: int | None = None
        self._within = within
        self._raised = False
        self._last: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # nohup has SIGHUP ignored, and that is to stay so.
        kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        wanted = [number for number in SIGNALS if number not in kept]
        self._before = {number: signal.signal(number, self._received) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._last.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130, 143, 129 or 140 after a signal, else 0."""
        return 128 + self.signal if self.signal is not None else 0

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR2 and self.signal is not None:
            return
        if self._raised:
            os._exit(128 + number)
        if self.signal is not None:
            self._raised = True
            raise SystemExit(128 + number)
        self.signal = number
        if self._within is not None:
            self._last = threading.Timer(self._within, os._exit, [128 + number])
            self._last.daemon = True
            self._last.start()
