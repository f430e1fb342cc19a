"""Text of error messages, of bounded length: an exception of user code may have a message of any size."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

__all__ = [
    "LONGEST_MESSAGE",
    "first_line",
    "format_number",
    "format_rough",
    "format_stack",
    "format_traceback",
    "locate_error",
    "quantity",
    "shorten",
    "shorten_message",
    "summarize_error",
]

LONGEST_MESSAGE = 2000  # characters; MySQL's text holds 64 kB
MOST_DIGITS = 1e15  # up to which a float is exact, and digits are easier to read than a power
LONGEST_TRACE_LINE = 500
FIRST_LINES, LAST_LINES = 60, 40  # of a traceback that are kept


def shorten_message(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Return a text; of one with more characters than `longest` the beginning, its size and the end.

    The end stays because advice stands there.
    """
    if len(text) <= longest:
        return text
    middle = f" … ({len(text):,} characters) … "
    end = max(0, longest - len(middle)) // 4
    return f"{text[: max(0, longest - len(middle) - end)]}{middle}{text[len(text) - end :]}"


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


def quantity(count: int, noun: str) -> str:
    """Return a number with its noun, which has a plural in -s: `1 trial`, `2 trials`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def format_number(value: float) -> str:
    """Return a number with six digits, and one from a million on as a whole number: 1637390, not 1.63739e+06."""
    text = f"{value:.6g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < MOST_DIGITS else text


def format_rough(value: float, digits: int = 2) -> str:
    """Return a number with two significant digits, or as many as given, a large one written out: 0.014, 120, 12,000."""
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e+" in text and abs(value) < MOST_DIGITS else text


def first_line(error: object) -> str:
    """Return the first line of an error's message, or the error's type where the message is empty."""
    return shorten_message(_message(error).split("\n", 1)[0].rstrip()) or type(error).__name__


def summarize_error(error: BaseException) -> str:
    """Return an error's type and the first line of its message: `ValueError: no such colour`, or the type alone."""
    kind = type(error).__name__
    return shorten_message(f"{kind}: {first_line(error)}") if _message(error) else kind


def locate_error(error: BaseException) -> str:
    """Return the innermost line of the user's own code that led to an error: `nets.py, line 14: x = self.head(x)`.

    Empty where no such code is involved: Python's, installed packages and this one are not the user's.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_installed(frame.filename)]
    if not own:
        return ""
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: {shorten(own[-1].line or '', quote=False)}"


def _is_installed(file: str) -> bool:
    path = Path(file)
    folders = (Path(__file__).parent.parent, Path(sysconfig.get_path("stdlib")))
    return "site-packages" in path.parts or any(map(path.is_relative_to, folders)) or not path.is_absolute()


def format_traceback(error: BaseException) -> str:
    """Return an error's traceback with the longest lines, and the middle of very many, left out."""
    return _join_bounded(traceback.format_exception(error))


def format_stack(frame: FrameType) -> str:
    """Return the calls that led to a frame, the innermost last, with the middle of very many left out."""
    return _join_bounded(traceback.format_stack(frame))


def _join_bounded(parts: Sequence[str]) -> str:
    lines = [shorten_message(line, LONGEST_TRACE_LINE) for part in parts for line in part.rstrip("\n").split("\n")]
    left_out = len(lines) - FIRST_LINES - LAST_LINES
    if left_out > 0:
        lines[FIRST_LINES:-LAST_LINES] = [f"… ({left_out:,} lines)"]
    return "\n".join(lines)


def _message(error: object) -> str:
    """Return an error's message, of which user code decides: it may raise as well, or try to end the process."""
    try:
        return "\n".join(str(error).strip().splitlines())
    except (Exception, SystemExit):
        return ""
