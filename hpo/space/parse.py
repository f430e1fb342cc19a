"""Parser of domains, from shorthand and longhand in TOML or Python to values in the parameter's type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic.fields import FieldInfo

from hpo.config.declared_domain import DeclaredDomain
from hpo.config.parameter import Parameter, unknown_parameter
from hpo.config.values import OFF
from hpo.errors import ConfigError, HpoError, SpaceError, describe_unknown
from hpo.space.domains import Between, Choices, Condition, Constant, Domain, Float, Int, Range, Test

__all__ = ["parse"]

Table = Mapping[str, Parameter]
KEYS = ("value", "choices", "low", "high", "log", "step", "when")


def parse(name: str, literal: object, table: Table) -> tuple[Domain, ...]:
    """Parse the domains of a parameter: one, or several alternatives under conditions that exclude each other.

    Args:
        name: the parameter's name.
        literal: a scalar (constant), a list (choices), a table (longhand), a list of tables (alternatives), a
            `Domain`, or a list of these.
        table: every parameter by name.

    Raises:
        SpaceError: a rule is broken; the message names the parameter, the value and the rule.
    """
    if name not in table:
        raise SpaceError(unknown_parameter(name, table))
    try:
        if (
            isinstance(literal, list | tuple)
            and literal
            and all(isinstance(x, Mapping | Domain | FieldInfo) for x in literal)
        ):
            domains = tuple(_domain(table[name], item, table) for item in literal)
            _check_alternatives(domains)
            return domains
        return (_domain(table[name], literal, table),)
    except HpoError as error:
        text = str(error)
        raise SpaceError(text if text.startswith(f"{name} ") else f"{name}: {text}") from error


def _domain(parameter: Parameter, literal: object, table: Table) -> Domain:
    if isinstance(literal, Mapping):
        return _longhand(parameter, literal, table)
    if isinstance(literal, FieldInfo):
        literal = next((item.literal for item in literal.metadata if isinstance(item, DeclaredDomain)), literal)
    if isinstance(literal, Domain):
        wrong = Float if parameter.kind is int else Int if parameter.kind is float else None
        if wrong is not None and isinstance(literal, wrong):
            raise SpaceError(
                f"{literal!r}: the parameter is {parameter.kind.__name__}; use {parameter.kind.__name__.capitalize()}"
            )
        return _longhand(parameter, literal.to_json(), table)
    if isinstance(literal, list | tuple) and not _is_value(parameter, literal):
        return _choices(parameter, literal, Condition())
    return Constant(parameter.check(literal))


def _is_value(parameter: Parameter, literal: Sequence[object]) -> bool:
    """Return whether a list is one value rather than choices: `[128, 64]` where a value is a list of numbers."""
    if parameter.kind is not list and parameter.separator is None:
        return False
    if _is_valid(parameter, literal):
        return not literal or not all(_is_valid(parameter, item) for item in literal)
    return not any(isinstance(item, str | list | tuple) for item in literal)


def _is_valid(parameter: Parameter, value: object) -> bool:
    try:
        parameter.check(value)
    except ConfigError:
        return False
    return True


def _choices(parameter: Parameter, literal: Sequence[object], when: Condition) -> Choices:
    values = tuple(parameter.check(parameter.join(value)) for value in literal)
    return Choices(values, when, off=OFF in values and parameter.is_off(OFF))


def _longhand(parameter: Parameter, literal: Mapping[str, Any], table: Table) -> Domain:
    for key in literal:
        if key not in KEYS:
            raise SpaceError(f"{describe_unknown('domain key', key, KEYS)}")
    when = _condition(literal.get("when", {}), table)
    rest = {key: value for key, value in literal.items() if key != "when"}
    if set(rest) == {"value"}:
        return Constant(parameter.check(parameter.join(rest["value"])), when)
    if set(rest) == {"choices"}:
        if not isinstance(rest["choices"], list | tuple):
            raise SpaceError(f"choices = {rest['choices']!r}: must be a list")
        return _choices(parameter, rest["choices"], when)
    if {"low", "high"} <= set(rest) and not {"value", "choices"} & set(rest):
        return _range(parameter, rest, when)
    raise SpaceError(f"{dict(literal)!r}: give value, or choices, or both low and high")


def _range(parameter: Parameter, literal: Mapping[str, Any], when: Condition) -> Range:
    if parameter.kind not in (int, float) or parameter.choices:
        raise SpaceError(f"{dict(literal)!r}: only numbers can have a range; give a list of choices")
    if not isinstance(literal.get("log", False), bool):
        raise SpaceError(f"log = {literal['log']!r}: must be true or false")
    unbounded = replace(parameter, low=None, high=None, domain=None)
    numbers = {key: _number(unbounded, key, literal[key]) for key in ("low", "high", "step") if key in literal}
    build = Int if parameter.kind is int else Float
    domain = build(numbers["low"], numbers["high"], literal.get("log", False), numbers.get("step"), when)
    for key in ("low", "high"):
        _number(parameter, key, numbers[key])
    return domain


def _number(parameter: Parameter, key: str, value: object) -> float:
    """Return a bound of a range in the parameter's type, once it is checked against the parameter's own bounds."""
    return cast(float, replace(parameter, name=key, optional=False).check(value))


def _condition(literal: object, table: Table) -> Condition:
    if not isinstance(literal, Mapping):
        raise SpaceError(f'when = {literal!r}: must be a table, for example {{ optimizer = "adam" }}')
    for name in literal:
        if name not in table:
            raise SpaceError(f"when: {unknown_parameter(name, table)}")
    return Condition({name: _test(table[name], test) for name, test in literal.items()})


def _test(parameter: Parameter, literal: object) -> Test:
    if isinstance(literal, Mapping):
        if set(literal) != {"low", "high"}:
            raise SpaceError(f"when {parameter.name} = {dict(literal)!r}: a range has low and high, and nothing else")
        domain = _range(parameter, literal, Condition())
        return Between(domain.low, domain.high)
    values = literal if isinstance(literal, list | tuple) and not _is_value(parameter, literal) else [literal]
    if not values:
        raise SpaceError(f"when {parameter.name} = []: an empty list can never hold")
    try:
        return tuple(parameter.check(parameter.join(value)) for value in values)
    except ConfigError as error:
        raise SpaceError(f"when {error}") from error


def _check_alternatives(domains: tuple[Domain, ...]) -> None:
    for i, first in enumerate(domains):
        for second in domains[i + 1 :]:
            if not first.condition.excludes(second.condition):
                one, other = first.condition.label() or "always", second.condition.label() or "always"
                raise SpaceError(
                    f"overlapping alternatives: '{one}' and '{other}' can both hold; make them exclude each other"
                )
