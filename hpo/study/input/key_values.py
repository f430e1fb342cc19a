"""Values of a study file's keys, each of the kind that its key has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.errors import DefinitionError
from hpo.utils.text import shorten

__all__ = ["get_flag", "get_integer", "get_table", "get_text"]


def get_text(table: Mapping[str, Any], key: str, default: str) -> str:
    """Return a key's text.

    Raises:
        DefinitionError: the value is no text, or empty.
    """
    value = table.get(key, default)
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"{key} = {shorten(value)}: must be a text")
    return value


def get_integer(table: Mapping[str, Any], key: str, default: int, low: int, high: int = 10**9) -> int:
    """Return a key's whole number, or the default.

    Raises:
        DefinitionError: the value is no whole number from `low` to `high`.
    """
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DefinitionError(f"{key} = {shorten(value)}: must be a whole number from {low} to {high}")
    return value


def get_flag(table: Mapping[str, Any], key: str) -> bool:
    """Return a key's truth value, by default false.

    Raises:
        DefinitionError: the value is neither true nor false.
    """
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise DefinitionError(f"{key} = {shorten(value)}: must be true or false")
    return value


def get_table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a key's table, by default an empty one.

    Raises:
        DefinitionError: the value is no table.
    """
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{key} = {shorten(value)}: must be a table")
    return dict(value)
