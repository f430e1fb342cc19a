"""Watchdog of a worker's training: does it get on, and does it take longer than the study allows?"""

from __future__ import annotations

import faulthandler
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from hpo.errors import TrialTimeoutError
from hpo.execution.study_callback import RunningTrial
from hpo.utils.text import format_stack

__all__ = ["Watchdog"]

PATIENCE = 600.0  # seconds without a sign of life after which leases are no longer renewed: at least so many,
GAPS = 20  # and so many times the longest gap between two signs of life
GRACE = 10.0  # seconds past the limit in which training may come back to a step, besides such a gap


@dataclass
class _Run:
    """Training of a cohort under watch.

    Attributes:
        trials: the cohort.
        limit: seconds that its training may take; None is no limit.
        began: when it began, by the watchdog's clock.
        needed: signs of life before which there is no telling how long a step takes.
        ticks: signs of life so far; written by the training thread alone.
        seen, changed: the ticks of the last check, and when that first found them.
        longest: longest gap that checks have found between two signs of life, in seconds.
        thread: id of the training thread.
    """

    trials: Sequence[RunningTrial]
    limit: float | None
    began: float
    needed: int
    ticks: int = 0
    seen: int = 0
    changed: float = 0.0
    longest: float = 0.0
    thread: int = field(default_factory=threading.get_ident)


class Watchdog:
    """Watchdog that the training thread feeds, and that the heartbeat's thread asks.

    Args:
        clock: returns seconds that only grow.

    Attributes:
        exits: whether a hang that lets no other thread run may end the process, by a timer of the C library.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.exits = False
        self._clock = clock
        self._run: _Run | None = None

    # The training thread.

    @contextmanager
    def watch(self, trials: Sequence[RunningTrial], limit: float | None, *, loop: bool) -> Iterator[None]:
        """Watch the training of a cohort.

        Args:
            trials: the cohort.
            limit: seconds that each of its trials may take; the cohort's time is divided evenly among them.
            loop: whether it is a loop of the user's own, which gives its first sign of life as it reports an epoch.
        """
        now, whole = self._clock(), None if limit is None else limit * len(trials)
        self._run = _Run(trials, whole, now, needed=1 if loop else 2, changed=now)
        if self.exits and whole is not None and sys.__stderr__ is not None:
            # Code that holds the interpreter's lock stops the heartbeat's thread as well.
            faulthandler.dump_traceback_later(2 * (whole + GRACE), exit=True, file=sys.__stderr__)
        try:
            yield
        finally:
            self._run = None
            if self.exits:
                faulthandler.cancel_dump_traceback_later()

    def tick(self, *, report: bool = False) -> None:
        """Note a sign of life: training has come to a step, or reported an epoch.

        Raises:
            TrialTimeoutError: it has taken too long.
        """
        run = self._run
        if run is None:
            return
        if report or run.needed > 1 or run.ticks:
            run.ticks += 1
        if not report and run.limit is not None and (seconds := self._clock() - run.began) > run.limit:
            raise TrialTimeoutError(
                f"{_over(seconds, run)}; raise trial_timeout, or train a smaller model or less long"
            )

    # The heartbeat's thread.

    def stalled(self) -> tuple[float, float] | None:
        """Return for how long training has given no sign of life, and the longest gap before, if that is too long."""
        if (run := self._run) is None:
            return None
        quiet = self._look(run)
        patient = run.ticks < run.needed or quiet <= max(PATIENCE, GAPS * run.longest)
        return None if patient else (quiet, run.longest)

    def overdue(self) -> tuple[Sequence[RunningTrial], TrialTimeoutError] | None:
        """Return the trials in training, and what is wrong, if they exceed their time and come back to no step."""
        if (run := self._run) is None or run.limit is None:
            return None
        quiet, seconds, grace = self._look(run), self._clock() - run.began, GRACE + run.longest
        if seconds <= run.limit + grace or quiet <= grace:
            return None
        return run.trials, TrialTimeoutError(f"{_over(seconds, run)}, and it did not come back from its last step")

    def stack(self) -> str:
        """Return the stack of the training thread, innermost call last."""
        run = self._run
        frame = None if run is None else _current_frame(run.thread)
        return "" if frame is None else format_stack(frame)

    def _look(self, run: _Run) -> float:
        """Take note of new signs of life; return the seconds since the last ones."""
        now, ticks = self._clock(), run.ticks
        if ticks != run.seen:
            run.longest = max(run.longest, now - run.changed)
            run.seen, run.changed = ticks, now
        return now - run.changed


def _current_frame(thread: int) -> FrameType | None:
    """Return the frame that a thread is in.

    Python holds the lock of its threads meanwhile, and waits for it for ever if a garbage collection then drops one
    (github.com/python/cpython/issues/106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread)
    finally:
        if collects:
            gc.enable()


def _over(seconds: float, run: _Run) -> str:
    limit, each = run.limit or 0.0, "" if len(run.trials) == 1 else f" for each of a cohort of {len(run.trials)}"
    return f"it trained for {seconds:.4g} s, longer than trial_timeout = {limit / len(run.trials):.6g} s{each}"
