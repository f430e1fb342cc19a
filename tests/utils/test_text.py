"""One line of an error."""

import pytest

from hpo.utils.text import first_line, summarize_error


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
