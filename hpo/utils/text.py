"""Text of error messages."""

from __future__ import annotations

__all__ = ["first_line", "shorten", "summarize_error"]


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the error's type where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def summarize_error(error: BaseException) -> str:
    """Return an error's type and the first line of its message: `ValueError: no such colour`, or the type alone."""
    kind = type(error).__name__
    return f"{kind}: {first_line(error)}" if str(error).strip() else kind


def shorten(value: object, limit: int = 80, *, quote: bool = True) -> str:
    """Return a value as Python writes it, or a text as it is without `quote`, cut in the middle to `limit` characters.

    Control characters are replaced, so that the result is one line.
    """
    try:
        text = str(value) if not quote and isinstance(value, str) else repr(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        text = "a number of thousands of digits"
    if len(text) > limit:
        kept = (limit - 1) // 2
        text = f"{text[: limit - 1 - kept]}…{text[len(text) - kept :]}"
    return "".join(c if c.isprintable() else " " for c in text)
