"""Output of commands: tables and lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.cli.output import print_rows, printable, say


@given(st.text())
def test_a_text_from_a_database_does_not_steer_the_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_tables_and_lines_write_control_characters_out(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x\x1b[31m\x1b]0;t\x07\ny"
    print_rows([{"name": name, "trials": 3}], "table")
    say(f"study {name} deleted")
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err
    assert len(output.out.splitlines()) == 2
    assert output.err == "study x\\x1b[31m\\x1b]0;t\\x07\\ny deleted\n"
