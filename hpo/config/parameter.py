"""Hyperparameters: type, default, bounds and help of each, and the check of a value against them."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import annotated_types
from pydantic.fields import FieldInfo

from hpo.config.aliases import PARAMETER_ALIASES
from hpo.config.effects import ALWAYS, Effect
from hpo.errors import ConfigError, describe_unknown
from hpo.utils.text import shorten

__all__ = ["AllowedNames", "Group", "Parameter", "Value", "parameter_from_field", "unknown_parameter"]

Value = bool | int | float | str


@dataclass(frozen=True)
class Group:
    """Group in which a parameter is listed."""

    name: str


@dataclass(frozen=True)
class AllowedNames:
    """Valid values of a parameter whose values are names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """Named hyperparameter, a row of `hpo parameters`.

    Attributes:
        name: as study files spell it.
        kind: type of its values: bool, int, float or str.
        default: its value where nothing else is given.
        help: a phrase that explains it.
        group: the group in which it is listed.
        low: lower bound of a number, or None.
        high: upper bound of a number, or None.
        low_open: whether `low` itself is invalid.
        high_open: whether `high` itself is invalid.
        choices: the valid values, if they can be listed.
        pattern: regular expression that a text must match.
        optional: whether None is valid.
        effect: when it matters.
    """

    name: str
    kind: type
    default: Value | None
    help: str
    group: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[Value, ...] = ()
    pattern: str | None = None
    optional: bool = False
    effect: Effect = ALWAYS

    @property
    def bounds(self) -> str:
        """Valid values as text: `0 <= x < 1`, or the choices, or nothing."""
        if self.choices:
            return " ".join(str(choice) for choice in self.choices)
        low = "" if self.low is None else f"{self.low:g} {'<' if self.low_open else '<='} "
        high = "" if self.high is None else f" {'<' if self.high_open else '<='} {self.high:g}"
        return f"{low}x{high}" if low or high else ""

    def check(self, value: object) -> Value | None:
        """Check a value, and return it in this parameter's type.

        Raises:
            ConfigError: it has a wrong type or is out of bounds; the message names the parameter, the value and what is
                valid.
        """
        if value is None and self.optional:
            return None
        typed = self._convert(value)
        if self.choices and typed not in self.choices:
            raise ConfigError(
                f"{self.name} = {shorten(value)}: {describe_unknown('value', str(value), map(str, self.choices))}"
            )
        if self.pattern and not re.fullmatch(self.pattern, str(typed)):
            raise ConfigError(
                f"{self.name} = {shorten(value)}: does not have the form that the help describes: {self.help}"
            )
        if isinstance(typed, int | float) and not isinstance(typed, bool) and not self._within(typed):
            raise ConfigError(f"{self.name} = {value!r}: out of bounds, must be {self.bounds}")
        return typed

    def _convert(self, value: object) -> Value:
        wrong = ConfigError(
            f"{self.name} = {shorten(value)}: must be {ARTICLES[self.kind]}, not {type(value).__name__}"
        )
        if self.kind in (bool, str):
            if not isinstance(value, self.kind):
                raise wrong
            return typing.cast(Value, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.name} = {value!r}: must be finite")
        if self.kind is int and value != int(value):
            raise ConfigError(f"{self.name} = {value!r}: must be a whole number")
        if (self.kind is int or isinstance(value, int)) and not -(2**63) <= value < 2**63:
            raise ConfigError(f"{self.name} = {shorten(value)}: out of bounds, must be {self.bounds or 'of 64 bits'}")
        return int(value) if self.kind is int else float(value)

    def _within(self, value: float) -> bool:
        above_low = self.low is None or (value > self.low if self.low_open else value >= self.low)
        below_high = self.high is None or (value < self.high if self.high_open else value <= self.high)
        return above_low and below_high


ARTICLES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def unknown_parameter(name: str, table: Iterable[str]) -> str:
    """Return the message for a parameter that does not exist; for another tool's name it gives ours."""
    if name.lower() in PARAMETER_ALIASES:
        return f"unknown parameter {name!r}: `{name}` is called `{PARAMETER_ALIASES[name.lower()]}` here"
    return describe_unknown("parameter", name, table)


def parameter_from_field(name: str, info: FieldInfo) -> Parameter:
    """Return the parameter that a pydantic field declares: its type, its default, and what its metadata say."""
    kind, optional, choices = _parse_annotation(name, info.annotation)
    row = Parameter(name, kind, info.default, info.description or "", "model", choices=choices, optional=optional)
    for item in info.metadata:
        match item:
            case annotated_types.Ge(ge=bound):
                row = replace(row, low=typing.cast(float, bound))
            case annotated_types.Gt(gt=bound):
                row = replace(row, low=typing.cast(float, bound), low_open=True)
            case annotated_types.Le(le=bound):
                row = replace(row, high=typing.cast(float, bound))
            case annotated_types.Lt(lt=bound):
                row = replace(row, high=typing.cast(float, bound), high_open=True)
            case Group(name=group):
                row = replace(row, group=group)
            case AllowedNames(names=names):
                row = replace(row, choices=names)
            case Effect():
                row = replace(row, effect=item)
            case _ if getattr(item, "pattern", None):
                row = replace(row, pattern=item.pattern)
    return row


def _parse_annotation(name: str, annotation: Any) -> tuple[type, bool, tuple[Value, ...]]:
    """Return what a field's annotation says: the type, whether None is valid, and the choices."""
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        return type(choices[0]), False, choices
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        kind, _, choices = _parse_annotation(name, inner[0])
        return kind, True, choices
    if annotation not in ARTICLES:
        raise ConfigError(
            f"parameter '{name}': its type must be bool, int, float, str or a Literal of them, not {annotation}"
        )
    return annotation, False, ()
