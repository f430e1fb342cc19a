"""One line of an error."""

import pytest

from hpo.utils.text import first_line, shorten, summarize_error


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


def test_values_are_shortened_to_one_line() -> None:
    assert shorten("a\nb") == "'a\\nb'"
    assert shorten("a\nb\x1b[31m", quote=False) == "a b [31m"
    assert shorten("x" * 10_000, 11, quote=False) == "xxxxx…xxxxx"
    assert shorten(list(range(10_000)), 20) == "[0, 1, 2, …98, 9999]"
    assert shorten(10**5000) == "a number of thousands of digits"
    assert len(shorten("x" * 10_000)) == 80
