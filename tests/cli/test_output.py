"""Output of commands: tables and lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.cli.output import print_rows, printable, say
from hpo.study.operations.stack_notes import StackNote, write_stack_note
from tests.helpers import run_hpo
from tests.study.helpers import make_study


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


def test_show_calls_its_section_on_models_alike_in_text_and_json(tmp_path: Path) -> None:
    study = make_study(tmp_path, "small")
    note = StackNote.of("net", {"width": 16}, 8, None)
    assert write_stack_note(study, note, 0)
    storage = study.storage.url.render_as_string(False)
    text, shown = (run_hpo("show", "small", "--storage", storage, *more).stdout for more in ((), ("--format", "json")))
    assert "models:\n  net: stacked, up to 8 at a time\n" in text
    assert json.loads(shown)["models"] == [note.model_dump()]
