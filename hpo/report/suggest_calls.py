"""Calls of `trial.suggest_…`: domains as an objective function asks for them."""

from __future__ import annotations

import keyword
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from hpo.config.values import Value, plain_value
from hpo.space import LearnedSpace

__all__ = ["format_calls", "format_suggest_call"]


def format_calls(space: LearnedSpace, toml: str) -> str:
    """Write the lines of a study file that change domains as calls of an objective function, a line each."""
    known = {name: literal for name, literal in tomllib.loads(toml).items() if name in space.domains}
    return "\n".join(format_suggest_call(space, name, literal) for name, literal in known.items())


def format_suggest_call(space: LearnedSpace, name: str, literal: Mapping[str, Any]) -> str:
    """Write a parameter's domain as an assignment: `width = trial.suggest_int("width", 4, 64, log=True)`.

    Args:
        space: that has the parameter; choices are written as its trials have them, None and lists among them.
        name: the parameter.
        literal: its domain in longhand.
    """
    if isinstance(value := literal.get("value"), int | float) and space.is_number(name):
        literal = {"low": value, "high": value}
    call = _format_range(name, literal) if "low" in literal else _format_categorical(space, name, literal)
    return f"{_variable(name)} = {call}"


def _format_range(name: str, literal: Mapping[str, Any]) -> str:
    kind = "int" if isinstance(literal["low"], int) else "float"
    options = "".join(f", {key}={literal[key]!r}" for key in ("step", "log") if literal.get(key))
    return f"trial.suggest_{kind}({_quote(name)}, {literal['low']!r}, {literal['high']!r}{options})"


def _format_categorical(space: LearnedSpace, name: str, literal: Mapping[str, Any]) -> str:
    wanted = [(type(value), value) for value in literal.get("choices", [literal.get("value")])]
    stored: dict[tuple[type, Value], dict[str, Any]] = {}  # None and the text "none" have one plain form
    for value in space.stored_values(name):
        stored.setdefault((type(plain_value(value)), plain_value(value)), {})[repr(value)] = value
    choices = [value for key in wanted for value in stored.get(key, {"": key[1]}).values()]
    return f"trial.suggest_categorical({_quote(name)}, {choices!r})"


def _variable(name: str) -> str:
    """Return a name of Python for a parameter."""
    variable = re.sub(r"\W", "_", name)
    variable = f"_{variable}" if not variable or variable[0].isdigit() else variable
    return f"{variable}_" if keyword.iskeyword(variable) else variable


def _quote(name: str) -> str:
    """Return a name as a literal of Python, between the quotes that ruff and black prefer."""
    text = repr(name)
    return f'"{name}"' if text == f"'{name}'" and '"' not in name else text
