"""Text of error messages."""

from __future__ import annotations

__all__ = ["first_line", "summarize_error"]


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the error's type where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def summarize_error(error: BaseException) -> str:
    """Return an error's type and the first line of its message: `ValueError: no such colour`, or the type alone."""
    kind = type(error).__name__
    return f"{kind}: {first_line(error)}" if str(error).strip() else kind
