"""Reader of TOML, YAML and JSON files, the only one, with the same limits for all three.

What it returns holds tables, lists, texts, booleans and numbers that every other part can take: tables with texts as
keys, whole numbers of 64 bits, and texts that can be printed and be part of a path. What else a format offers, dates in
TOML, objects and repeated keys in YAML, is refused; a date in YAML is a text.
"""

from __future__ import annotations

import functools
import io
import json
import tokenize
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from hpo.errors import DefinitionError, RequestError
from hpo.utils.text import shorten

__all__ = ["parse_json", "parse_toml", "read_document", "read_python", "read_text"]

Format = Literal["toml", "yaml", "json"]
SUFFIXES: Mapping[str, Format] = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
SIZE_LIMIT = 1_000_000  # bytes
DEPTH_LIMIT = 32  # tables and lists within each other
TEXT_LIMIT = 10_000  # characters
YAML_SIZE_LIMIT = 200_000  # its parser takes five times as long as the others
YAML_NODE_LIMIT = 20_000


def read_document(
    path: Path, style: Format | None = None, *, limit: int = SIZE_LIMIT, exponents: bool = False
) -> dict[str, Any]:
    """Read the table that a file holds.

    Args:
        path: of the file.
        style: its format; by default the one that its suffix names, which is TOML unless it says otherwise.
        limit: the largest size in bytes.
        exponents: whether 1e-3 is a number in YAML, as of `hpo.utils.yaml.parse_yaml`.

    Raises:
        DefinitionError: the file cannot be read, is not in that format, or is beyond a limit; the message names the
            file, and the line or the key.
    """
    style = style or SUFFIXES.get(path.suffix.lower(), "toml")
    text = read_text(path, min(limit, YAML_SIZE_LIMIT) if style == "yaml" else limit)
    try:
        return _parse(text, style, exponents=exponents)
    except DefinitionError as error:
        raise DefinitionError(f"{path}: {error}") from error


def read_text(path: Path, limit: int = SIZE_LIMIT) -> str:
    """Read a text file of at most `limit` bytes.

    Raises:
        DefinitionError: it cannot be read, is larger, or is no UTF-8.
    """
    return _decode(path, _read_bytes(path, limit), "utf-8-sig")


def read_python(path: Path, limit: int = SIZE_LIMIT) -> str:
    """Read a Python file of at most `limit` bytes, in the encoding that its first lines name; by default UTF-8.

    Raises:
        DefinitionError: it cannot be read, is larger, or is not in that encoding.
    """
    content = _read_bytes(path, limit)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    except SyntaxError:  # an unknown encoding, or bytes that are no UTF-8, whose place the decoder names
        encoding = "utf-8-sig"
    return _decode(path, content, encoding)


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise DefinitionError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > limit:
        raise DefinitionError(f"{path}: is larger than {limit:,} bytes, which no such file needs; is it the right one?")
    return content


def _decode(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DefinitionError(f"{path}: is no text in {name} (byte {error.start}); save it as UTF-8") from error
    except (LookupError, ValueError) as error:  # an encoding that is none of texts
        raise DefinitionError(f"{path}: cannot be read as {encoding}; save it as UTF-8") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML that does not come from a file.

    Raises:
        DefinitionError: it is no TOML, or beyond a limit; the message names the line or the key.
    """
    return _parse(text, "toml")


def parse_json(text: str) -> dict[str, Any]:
    """Parse JSON that does not come from a file.

    Raises:
        DefinitionError: it is no JSON, or beyond a limit; the message names the key.
    """
    return _parse(text, "json")


def _parse(text: str, style: Format, *, exponents: bool = False) -> dict[str, Any]:
    loaders: dict[Format, Callable[[str], Any]] = {
        "toml": tomllib.loads,
        "yaml": functools.partial(_load_yaml, exponents=exponents),
        "json": _load_json,
    }
    try:
        table = loaders[style](text)
    except RecursionError:
        raise DefinitionError(f"holds more than {DEPTH_LIMIT} tables and lists within each other") from None
    except RequestError:
        raise
    except ValueError as error:  # every parser's errors are, and those of numbers and dates that they pass on
        raise DefinitionError(f"not valid {style.upper()}: {_explain(error)}") from error
    if not isinstance(table, dict):
        raise DefinitionError("must be a table of keys and values")
    _check_table(table, "", DEPTH_LIMIT)
    return table


def _explain(error: ValueError) -> str:
    """Say what a parser has found."""
    message = str(error)
    return (
        "a number of thousands of digits"
        if "integer string conversion" in message
        else shorten(message, 300, quote=False)
    )


def _check_table(table: Mapping[Any, Any], where: str, depth: int) -> None:
    for key, value in table.items():
        if not isinstance(key, str):
            raise DefinitionError(f"{where}{shorten(key)}: a key must be a text; put it in quotes")
        _check_text(key, f"{where}{shorten(key)}")
        _check(value, f"{where}{shorten(key, quote=False)}", depth)


def _check(value: Any, where: str, depth: int) -> None:
    """Refuse a value that is beyond a limit, or of a type that no key has."""
    if isinstance(value, dict | list) and not depth:
        raise DefinitionError(f"{where}: holds more than {DEPTH_LIMIT} tables and lists within each other")
    if isinstance(value, dict):
        _check_table(value, f"{where}.", depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, where, depth - 1)
    elif isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DefinitionError(f"{where} = {shorten(value)}: a whole number can have 64 bits, about 18 digits")
    elif value is not None and not isinstance(value, float):
        raise DefinitionError(f"{where} = {value}: is a {type(value).__name__}; put it in quotes if it is a text")


def _check_text(text: str, where: str) -> None:
    if len(text) > TEXT_LIMIT:
        raise DefinitionError(f"{where} = {shorten(text)}: is longer than {TEXT_LIMIT:,} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise DefinitionError(f"{where} = {shorten(text)}: holds a character that no text can have")


# JSON.


def _load_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique_pairs)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shorten(next(key for key in keys if keys.count(key) > 1))} occurs twice")
    return table


# YAML.


def _load_yaml(text: str, *, exponents: bool) -> Any:
    from hpo.utils.yaml import parse_yaml  # which most commands do not need

    return parse_yaml(text, YAML_NODE_LIMIT, DEPTH_LIMIT, exponents=exponents)
