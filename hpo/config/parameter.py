"""Hyperparameters: type, default, bounds and help of each, and the check of a value against them."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hpo.config.aliases import NEAR_MISSES, canonical, find_aliases, find_value_alias
from hpo.config.declared_domain import DeclaredDomain
from hpo.config.effects import ALWAYS, Effect
from hpo.config.forms import Form
from hpo.config.values import OFF, Value, dump_list, load_list, spell_value
from hpo.errors import ConfigError, describe_unknown
from hpo.utils.text import shorten

__all__ = [
    "AllowedNames",
    "Group",
    "Implied",
    "Parameter",
    "Value",
    "parameter_from_field",
    "unknown_parameter",
]


@dataclass(frozen=True)
class Group:
    """Group in which a parameter is listed."""

    name: str


@dataclass(frozen=True)
class AllowedNames:
    """Valid values of a parameter whose values are names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Implied:
    """Mark of a parameter whose default goes without saying; see `Parameter.implied`."""


@dataclass(frozen=True)
class Parameter:
    """Named hyperparameter, a row of `hpo parameters`.

    Its values are checked and kept in their plain form; see `hpo.config.values`.

    Attributes:
        name: as study files spell it.
        kind: type of its values: bool, int, float, str or list.
        default: its value where nothing else is given.
        help: a phrase that explains it.
        group: the group in which it is listed.
        low: lower bound of a number, or None.
        high: upper bound of a number, or None.
        low_open: whether `low` itself is invalid.
        high_open: whether `high` itself is invalid.
        choices: the valid values, if they can be listed.
        pattern: regular expression that a text must match.
        form: form that a text must have.
        optional: whether None is valid.
        effect: when it matters.
        annotation: type of a list, such as `list[int]`.
        domain: the domain that its field declares, which contains all of its values.
        implied: whether its default goes without saying, so that configurations from before there was the parameter
            are what they were.
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
    form: Form | None = None
    annotation: Any = list
    domain: DeclaredDomain | None = None
    implied: bool = False

    @property
    def type_text(self) -> str:
        """Type of its values, as Python writes it."""
        if self.kind is not list:
            return self.kind.__name__
        bounded = typing.get_origin(self.annotation) is typing.Annotated
        annotation = typing.get_args(self.annotation)[0] if bounded else self.annotation
        return str(annotation) if typing.get_origin(annotation) else annotation.__name__

    @property
    def separator(self) -> str | None:
        """Text that joins the numbers or names of a list that is given for a text; None where no list is."""
        return None if self.form is None else self.form.separator

    @property
    def bounds(self) -> str:
        """Valid values as text: `0 <= x < 1`, or the choices, or nothing."""
        if self.domain is not None:
            return self.domain.text
        if self.choices:
            return " ".join(map(spell_value, self.choices))
        low = "" if self.low is None else f"{self.low:g} {'<' if self.low_open else '<='} "
        high = "" if self.high is None else f" {'<' if self.high_open else '<='} {self.high:g}"
        return f"{low}x{high}" if low or high else ""

    def is_off(self, value: object) -> bool:
        """Return whether a value means None. A text that has `none` among its own choices means just that."""
        return self.optional and OFF not in self.choices and isinstance(value, str | None) and value in (None, OFF)

    def check(self, value: object) -> Value:
        """Check a value, and return it in its plain form and this parameter's type.

        Raises:
            ConfigError: it has a wrong type or is out of bounds; the message names the parameter, the value and what is
                valid.
        """
        if self.is_off(value):
            typed: Value = OFF
        else:
            typed = self._convert(value)
            self._check_bounds(value, typed)
        if self.domain is not None and not self.domain.allows(typed):
            raise ConfigError(f"{self.name} = {shorten(value)}: out of bounds, must be {self.domain.text}")
        return typed

    def join(self, value: object) -> object:
        """Return the text that a list of names or numbers stands for, if it is one, and other values as they are.

        A list of names stands for a text only where one value is meant in any case, as within a list of choices.
        """
        if self.separator is None or not isinstance(value, list | tuple):
            return value
        return self.separator.join(map(str, value)) if all(isinstance(part, Value) for part in value) else value

    def load(self, value: Value) -> Any:
        """Return what a configuration has for a plain value: None, a list, or the value itself."""
        if self.is_off(value):
            return None
        return load_list(value, self.annotation) if self.kind is list else value

    def spell(self, literal: Any) -> Any:
        """Return a value or a domain, whose lists are in plain form, as people write it: with lists."""
        if self.kind is not list:
            return literal
        if isinstance(literal, Mapping):
            return {key: part if key == "when" else self.spell(part) for key, part in literal.items()}
        if isinstance(literal, str) and not self.is_off(literal):
            return list(load_list(literal, self.annotation))
        return [self.spell(part) for part in literal] if isinstance(literal, list | tuple) else literal

    def _check_bounds(self, value: object, typed: Value) -> None:
        if self.choices and typed not in self.choices:
            off = [OFF] if self.is_off(OFF) else []
            valid, ours = [*map(str, self.choices), *off], find_value_alias(self.name, str(value))
            meant = ours if ours in valid else None
            raise ConfigError(f"{self.name} = {shorten(value)}: {describe_unknown('value', str(value), valid, meant)}")
        if self.form is not None and (fault := self.form.find_fault(str(typed))):
            off_too = "; none turns it off" if self.is_off(OFF) else ""
            raise ConfigError(f"{self.name} = {shorten(value)}: {fault}{off_too}")
        if self.pattern and not re.fullmatch(self.pattern, str(typed)):
            raise ConfigError(
                f"{self.name} = {shorten(value)}: does not have the form that the help describes: {self.help}"
            )
        if isinstance(typed, int | float) and not isinstance(typed, bool) and not self._within(typed):
            raise ConfigError(f"{self.name} = {value!r}: out of bounds, must be {self.bounds}")

    def _convert(self, value: object) -> Value:
        if self.kind is list:
            return self._convert_list(value)
        if self.separator is not None and isinstance(value, list | tuple):
            if any(isinstance(part, str | list | tuple) for part in value):
                raise ConfigError(
                    f"{self.name} = {shorten(value)}: a list of texts is several choices, and one value is needed; "
                    f"write the parts of one as a text, joined by '{self.separator}'"
                )
            value = self.join(value)
        must = f"must be {ARTICLES[self.kind]}, not {type(value).__name__}{self._hint(value)}"
        wrong = ConfigError(f"{self.name} = {shorten(value)}: {must}")
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

    def _convert_list(self, value: object) -> str:
        try:
            return dump_list(value, self.annotation)
        except ValueError as error:
            raise ConfigError(f"{self.name} = {shorten(value)}: must be {self.type_text}{error}") from error

    def _hint(self, value: object) -> str:
        """Say how a number is turned off, where None was tried."""
        return (
            "; 0 turns it off"
            if isinstance(value, str | None) and value in (None, OFF) and self.help.endswith("0 is off")
            else ""
        )

    def _within(self, value: float) -> bool:
        above_low = self.low is None or (value > self.low if self.low_open else value >= self.low)
        below_high = self.high is None or (value < self.high if self.high_open else value <= self.high)
        return above_low and below_high


ARTICLES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}


def unknown_parameter(name: str, table: Mapping[str, Parameter]) -> str:
    """Return the message for a parameter that does not exist; for another tool's name it gives ours."""
    if ours := find_aliases(name, table):
        return f"unknown parameter {name!r}: `{name}` is called `{ours[0]}` here"
    if owner := next((row.name for row in table.values() if canonical(name) in row.choices), None):
        return f"unknown parameter {name!r}: it is a value; write {owner} = '{canonical(name)}'"
    near, meaning = NEAR_MISSES.get(canonical(name), (None, ""))
    if meaning:
        return f"unknown parameter {name!r}: {f'it is not quite {near}; ' if near in table else ''}{meaning}"
    return describe_unknown("parameter", name, table)


def parameter_from_field(name: str, info: FieldInfo) -> Parameter:
    """Return the parameter that a pydantic field declares: its type, its default, and what its metadata say.

    Raises:
        ConfigError: its type is none of a parameter, or its default is no value of that type.
    """
    kind, optional, choices, annotation = _parse_annotation(name, info.annotation)
    default = info.get_default(call_default_factory=True, validated_data={})
    row = Parameter(name, kind, default, info.description or "", "model", choices=choices, optional=optional)
    if kind is list:
        bounds = [item for item in info.metadata if isinstance(item, annotated_types.BaseMetadata)]
        annotation = typing.Annotated[annotation, *bounds] if bounds else annotation
        row = replace(row, annotation=annotation)
        if default is not None and default is not PydanticUndefined:
            row = replace(row, default=row.check(default))
    for item in info.metadata:
        row = _apply_metadata(row, item)
    return row


def _apply_metadata(row: Parameter, item: object) -> Parameter:
    """Return a parameter with what one item of a field's metadata says."""
    match item:
        case annotated_types.Ge(ge=bound):
            return replace(row, low=typing.cast(float, bound))
        case annotated_types.Gt(gt=bound):
            return replace(row, low=typing.cast(float, bound), low_open=True)
        case annotated_types.Le(le=bound):
            return replace(row, high=typing.cast(float, bound))
        case annotated_types.Lt(lt=bound):
            return replace(row, high=typing.cast(float, bound), high_open=True)
        case Group(name=group):
            return replace(row, group=group)
        case AllowedNames(names=names):
            return replace(row, choices=names)
        case Form():
            return replace(row, form=item)
        case DeclaredDomain():
            return replace(row, domain=replace(item, choices=tuple(map(row.check, item.choices))))
        case Effect():
            return replace(row, effect=item)
        case Implied():
            return replace(row, implied=True)
    pattern = getattr(item, "pattern", None)
    return replace(row, pattern=pattern) if pattern else row


def _parse_annotation(name: str, annotation: Any) -> tuple[type, bool, tuple[Value, ...], Any]:
    """Return what a field's annotation says: the type, whether None is valid, the choices, and the type of a list."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        choices = tuple(choice for choice in typing.get_args(annotation) if choice is not None)
        return type(choices[0]), None in typing.get_args(annotation), choices, list
    if origin in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        kind, optional, choices, items = _parse_annotation(name, inner[0])
        return kind, optional or type(None) in typing.get_args(annotation), choices, items
    if origin in (list, tuple) or annotation in (list, tuple):
        return list, False, (), annotation
    if annotation not in ARTICLES:
        raise ConfigError(
            f"parameter '{name}': its type must be bool, int, float, str, a list, a tuple or a Literal, "
            f"not {annotation}"
        )
    return annotation, False, (), list
