"""Pauses of a loop that waits for something."""

from __future__ import annotations

import threading

__all__ = ["pause"]


def pause(seconds: float) -> None:
    """Wait. A lock's timeout counts seconds; `time.sleep` ends at a moment, which fails where the clock is another's.

    A process that sees another time than its machine, as under faketime, gets an OSError of `time.sleep`.
    """
    threading.Event().wait(seconds)
