"""The reader of TOML, YAML and JSON: what it returns, and its one line for whatever is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import DefinitionError
from hpo.utils.documents import parse_json, parse_toml, read_document

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
TABLES = st.dictionaries(TEXTS, TREES, max_size=4)
WRITERS = {"json": json.dumps, "toml": tomli_w.dumps, "yaml": yaml.safe_dump}


def read(folder: Path, style: str, text: str | bytes) -> dict[str, Any]:
    path = folder / f"file.{style}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return read_document(path)


@pytest.mark.parametrize("style", WRITERS)
def test_what_is_written_is_read(style: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("documents")

    @settings(max_examples=60, deadline=None, database=None)
    @given(TABLES)
    def check(table: dict[str, Any]) -> None:
        assert read(folder, style, WRITERS[style](table)) == table

    check()


@pytest.mark.parametrize("style", WRITERS)
def test_any_text_is_a_table_or_one_line_that_names_the_file(
    style: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("documents")
    letters = st.sampled_from("{}[]:,&*!<>?-|'\"#=.\n\t 0123456789eE+x_nulltrue\0\ud800é\\u")

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.text(letters, max_size=60) | st.binary(max_size=40))
    def check(text: str | bytes) -> None:
        line = ""
        try:
            assert isinstance(read(folder, style, text), dict)
        except DefinitionError as error:
            line = str(error)
        assert not line or line.startswith(f"{folder / f'file.{style}'}: ")
        assert "\n" not in line

    check()


NINES = "9" * 5000
BILLION = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
REFUSED = {
    "deep table": ("json", '{"a":' * 50 + "1" + "}" * 50, "more than 32 tables and lists"),
    "deeper than Python recurses": ("json", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "more than 32 tables"),
    "deep TOML": ("toml", "a = " + "[" * 100_000, "more than 32 tables"),
    "deep YAML": ("yaml", "a: " + "[" * 100_000, "too many lists and tables within each other"),
    "deep keys": ("toml", ".".join("a" * 50) + " = 1", "more than 32 tables"),
    "digits of JSON": ("json", f'{{"a": {NINES}}}', "thousands of digits"),
    "digits of TOML": ("toml", f"a = {NINES}", "thousands of digits"),
    "digits of YAML": ("yaml", f"a: {NINES}", "thousands of digits"),
    "digits of a float's size": ("json", f'{{"a": {{"b": [{NINES[:400]}]}}}}', "a.b = 999"),
    "a hexadecimal number": ("toml", f"a = 0x{'f' * 5000}", "a = a number of thousands of digits"),
    "a number beyond 64 bits": ("toml", "a = 9223372036854775808", "a = 9223372036854775808: a whole number can have"),
    "a date of TOML": ("toml", "[p]\na = 2001-01-09", "p.a = 2001-01-09: is a date; put it in quotes"),
    "no date": ("toml", "a = 2001-99-99", "not valid TOML: .*line 1"),
    "a number as a key": ("yaml", "a: {1: 2}", r"a key that is no text; put it in quotes \(line 1, column 5\)"),
    "null as a key": ("yaml", "b: 1\nnull: 2", r"no text; put it in quotes \(line 2, column 1\)"),
    "a list as a key": ("yaml", "? [a]\n: 2", "no text"),
    "a key twice in YAML": ("yaml", "a: 1\nb: 2\na: 3", r"the key 'a' twice \(line 3"),
    "a key twice in JSON": ("json", '{"p": {"a": 1, "a": 2}}', "the key 'a' occurs twice"),
    "nested aliases": ("yaml", BILLION, "more than 20,000 values"),
    "nested merges": ("yaml", MERGES, "more than 20,000 values"),
    "an alias within itself": ("yaml", "a: &a [*a]", "an alias within what it stands for"),
    "a merge with itself": ("yaml", "a: &a\n  <<: *a\n", "an alias within what it stands for"),
    "an object": ("yaml", "a: !!python/object/apply:os.getcwd []", "not valid YAML: .*os.getcwd"),
    "bytes": ("yaml", "a: !!binary aGk=", "not valid YAML"),
    "a set": ("yaml", "a: !!set {b, c}", "not valid YAML"),
    "a number that is none": ("yaml", "a: !!int b", "not valid YAML"),
    "a byte of zeros": ("yaml", "a: \0", "not valid YAML"),
    "a text with a zero": ("json", '{"a": "\\u0000"}', "a character that no text can have"),
    "half a character": ("json", '{"a": "\\ud800"}', "a character that no text can have"),
    "a long text": ("json", json.dumps({"a": "x" * 20_000}), "a = 'xxx.*longer than 10,000 characters"),
    "a large file": ("toml", "# " + "x" * 1_000_000, "larger than 1,000,000 bytes"),
    "another encoding": ("toml", b"a = '\xff'", r"no text in UTF-8 \(byte 5\)"),
    "a list": ("json", "[1]", "must be a table"),
    "nothing": ("yaml", "", "must be a table"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_short_line_at_once(case: str, tmp_path: Path) -> None:
    style, text, words = REFUSED[case]
    start = time.process_time()
    with pytest.raises(DefinitionError, match=words) as refused:
        read(tmp_path, style, text)
    assert time.process_time() - start < 2
    assert str(refused.value).startswith(str(tmp_path))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < len(str(tmp_path)) + 400


def test_what_is_harmless_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "yaml", "a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: [*a, *a]") == {
        "a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": [{"b": 1}, {"b": 1}]
    }  # fmt: skip
    assert read(tmp_path, "yaml", "name: 2001-99-99\nday: 2001-01-09") == {"name": "2001-99-99", "day": "2001-01-09"}
    assert read(tmp_path, "toml", b"\xef\xbb\xbfa = 1") == {"a": 1}
    assert (tmp_path / "file.toml").rename(tmp_path / "file.TOML").exists()
    assert read_document(tmp_path / "file.TOML") == {"a": 1}
    assert parse_toml("a = 1") == parse_json('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("name", ["none.toml", "folder", "x" * 300, "a\0b"])
def test_what_cannot_be_opened_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DefinitionError, match="cannot be read: "):
        read_document(tmp_path / name)
