"""Text of error messages."""

from __future__ import annotations

__all__ = ["first_line"]


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the error's type where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
