"""Texts of errors: bounded, whatever an exception holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.utils.text import (
    LONGEST_MESSAGE,
    first_line,
    format_rough,
    format_traceback,
    shorten,
    shorten_message,
    summarize_error,
)


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def error_of(message: object) -> Exception:
    with pytest.raises(ValueError) as raised:
        raise ValueError(message)
    return raised.value


@pytest.mark.parametrize(
    ("error", "line", "summary"),
    [
        (ValueError("no such colour"), "no such colour", "ValueError: no such colour"),
        (ValueError("\n first\nsecond"), "first", "ValueError: first"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (RuntimeError(" \n "), "RuntimeError", "RuntimeError"),
    ],
)
def test_first_line(error: Exception, line: str, summary: str) -> None:
    assert first_line(error) == line
    assert summarize_error(error) == summary


@given(st.text(max_size=100), st.integers(30, 200))
def test_a_text_is_at_most_that_long_with_its_beginning_and_its_end(text: str, longest: int) -> None:
    short = shorten_message(text * 10, longest)
    assert len(short) <= longest
    assert short == text * 10 or (short[:1], short[-1:]) == (text[:1], (text * 10)[-1:])


@given(st.text(max_size=50))
def test_a_short_message_stays_in_one_line(message: str) -> None:
    error = ValueError(message)
    lines = message.strip().splitlines()
    assert first_line(error) == (lines[0].rstrip() if lines else "ValueError")
    assert "\n" not in summarize_error(error)


def test_five_megabytes_are_two_kilobytes_wherever_they_are_shown() -> None:
    for message in ("x" * 5_000_000, "line\n" * 1_000_000):
        error = error_of(message)
        assert len(summarize_error(error)) <= LONGEST_MESSAGE
        trace = format_traceback(error)
        assert len(trace) < 50_000
        assert "raise ValueError(message)" in trace
    assert summarize_error(error_of("x" * 5_000_000)).startswith("ValueError: xxx")


def test_an_error_without_a_message_is_its_type() -> None:
    assert first_line(SilentError()) == summarize_error(SilentError()) == "SilentError"
    assert first_line(LeavingError()) == summarize_error(LeavingError()) == "LeavingError"
    assert "SilentError" in format_traceback(SilentError())


def test_values_are_shortened_to_one_line() -> None:
    assert shorten("a\nb") == "'a\\nb'"
    assert shorten("a\nb\x1b[31m", quote=False) == "a b [31m"
    assert shorten("x" * 10_000, 11, quote=False) == "xxxxx…xxxxx"
    assert shorten(list(range(10_000)), 20) == "[0, 1, 2, …98, 9999]"
    assert shorten(10**5000) == "a number of thousands of digits"
    assert len(shorten("x" * 10_000)) == 80


def test_rough_numbers_are_written_out() -> None:
    numbers = (0.01399, -0.5, 1.26, 123.4, -12_345.0, 1e-7)
    assert [format_rough(each) for each in numbers] == ["0.014", "-0.5", "1.3", "120", "-12,000", "1e-07"]
    assert [format_rough(1234.0, 3), format_rough(2.5e16), format_rough(float("nan"))] == ["1,230", "2.5e+16", "nan"]
