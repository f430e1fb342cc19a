"""Graceful stops by signals: the first one requests a stop, the second interrupts, the third ends the process.

The signals are SIGINT, SIGTERM and SIGHUP; and SIGUSR2, by which batch systems announce that they will end a job. They
send it to every process of the job, so that one may receive it twice: it only ever requests a stop.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["SIGNALS", "StopRequest", "StopSignal"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


class StopSignal(SystemExit):
    """Exit that a second signal raises, as opposed to one of user code."""


class StopRequest:
    """Context in which the first signal is remembered, and the second one raises StopSignal.

    As that exception passes, the program can still release what it holds; a third signal does not wait for that. The
    exit code is 128 plus the signal's number.

    Args:
        within: seconds after the first signal in which the process ends, whatever it waits for; None is no limit.
    """

    def __init__(self, within: float | None = None) -> None:
        self.signal: int | None = None
        self._within = within
        self._interrupted = False
        self._timer: threading.Timer | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        # nohup ignores SIGHUP, and that is to stay so.
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS if number not in ignored}
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """Exit code of the process: 130, 143, 129 or 140 after a signal, else 0."""
        return 128 + self.signal if self.signal is not None else 0

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR2 and self.signal is not None:
            return
        if self._interrupted:
            os._exit(128 + number)
        if self.signal is not None:
            self._interrupted = True
            raise StopSignal(128 + number)
        self.signal = number
        if self._within is not None:
            self._timer = threading.Timer(self._within, os._exit, [128 + number])
            self._timer.daemon = True
            self._timer.start()
