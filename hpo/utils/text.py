"""Text of error messages."""

from __future__ import annotations

__all__ = ["first_line", "shorten", "summarize_error"]

SHOWN = 80  # characters of a value


def shorten(text: str) -> str:
    """Return a value as a line may show it: its beginning, if it is long."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the error's type where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def summarize_error(error: BaseException) -> str:
    """Return an error's type and the first line of its message: `ValueError: no such colour`, or the type alone."""
    kind = type(error).__name__
    return f"{kind}: {first_line(error)}" if str(error).strip() else kind
