"""Conditions and loops around the suggestions of an objective function, where they depend on other parameters alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hpo.errors import DefinitionError
from hpo.study.foreign.python_source import Source, UnreadableError
from hpo.study.foreign.search import Choices, Constant, Range

if TYPE_CHECKING:
    from hpo.study.foreign.optuna_calls import Suggestion

__all__ = ["Scope", "list_values", "read_iterations", "read_match", "read_test"]

LISTED = 100  # values of a parameter that a condition may depend on, and times that a loop may run
Values = tuple[Any, ...]


@dataclass(frozen=True)
class Scope:
    """Knowledge at a place in a function.

    Attributes:
        when: values of other parameters under which the place is reached.
        names: values of loops' variables.
        holders: names and values of the parameters that variables hold, by how the variables are written.
        loops: what variables run over in loops whose number of times is known only when the file runs.
    """

    when: Mapping[str, Values] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    holders: dict[str, tuple[str, Values | None]] = field(default_factory=dict)
    loops: Mapping[str, str] = field(default_factory=dict)

    def narrow(self, key: str, values: Values | None) -> Scope:
        """Return the scope under a further condition; under the same ones if it has no values that can be listed."""
        if values is None:
            return self
        both = tuple(value for value in self.when[key] if value in values) if key in self.when else values
        return replace(self, when={**self.when, key: both})

    def name(self, name: str, value: Any) -> Scope:
        """Return the scope in which a variable has a value."""
        return replace(self, names={**self.names, name: value})

    def repeat(self, name: str, items: str) -> Scope:
        """Return the scope of a loop that runs over something that is not known."""
        return replace(self, loops={**self.loops, name: items})


def list_values(suggestion: Suggestion) -> Values | None:
    """Return the values of a parameter; None if they cannot be listed."""
    try:
        domain = suggestion.domain()
    except (UnreadableError, DefinitionError):
        return None
    match domain:
        case Constant(value):
            return (value,)
        case Choices(values):
            return values
        case Range(low, high, integer=True, step=step) if (high - low) / (step or 1) < LISTED:
            return tuple(range(int(low), int(high) + 1, int(step or 1)))
    return None


def read_test(source: Source, test: ast.expr, scope: Scope) -> tuple[str, Values | None, Values | None] | None:
    """Return the parameter that a condition is about, its values where it holds, and those where it does not.

    None if it is about anything else. Values are None where they cannot be listed.
    """
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        found = read_test(source, test.operand, scope)
        return None if found is None else (found[0], found[2], found[1])
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _read_comparison(source, test.left, test.ops[0], test.comparators[0], scope)
    held = scope.holders.get(ast.unparse(test))
    return None if held is None else _split(held, lambda value: bool(value))


def _read_comparison(
    source: Source, left: ast.expr, op: ast.cmpop, right: ast.expr, scope: Scope
) -> tuple[str, Values | None, Values | None] | None:
    held = scope.holders.get(ast.unparse(left))
    try:
        value = source.evaluate(right, scope.names)
    except UnreadableError:
        return None
    if held is None or type(op) not in COMPARISONS:
        return None
    compare = COMPARISONS[type(op)]
    if held[1] is None:
        return (held[0], (value,), None) if isinstance(op, ast.Eq) else None
    try:
        return _split(held, lambda each: compare(each, value))
    except TypeError:
        return None


def _split(held: tuple[str, Values | None], test: Any) -> tuple[str, Values | None, Values | None] | None:
    name, values = held
    if values is None:
        return None
    return name, tuple(filter(test, values)), tuple(value for value in values if not test(value))


COMPARISONS: Mapping[type[ast.cmpop], Any] = {
    ast.Eq: lambda one, other: one == other,
    ast.Is: lambda one, other: one is other,
    ast.IsNot: lambda one, other: one is not other,
    ast.NotEq: lambda one, other: one != other,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
    ast.Lt: lambda one, other: one < other,
    ast.LtE: lambda one, other: one <= other,
    ast.Gt: lambda one, other: one > other,
    ast.GtE: lambda one, other: one >= other,
}


def read_match(statement: ast.Match) -> list[ast.stmt]:
    """Return a `match` as the `if` and `elif` that do the same; what a pattern binds is left out."""
    otherwise: list[ast.stmt] = []
    for case in reversed(statement.cases):
        test = _read_pattern(statement.subject, case)
        # No line is needed of it: what is noted are the lines of its condition.
        otherwise = case.body if test is None else [ast.If(test, case.body, otherwise)]
    return otherwise


def _read_pattern(subject: ast.expr, case: ast.match_case) -> ast.expr | None:
    """Return the condition of a case; None if it has none."""
    match case.pattern:
        case ast.MatchAs(pattern=None):
            return case.guard
        case ast.MatchValue(value=value):
            test = ast.Compare(subject, [ast.Eq()], [value])
        case ast.MatchSingleton(value=single):
            test = ast.Compare(subject, [ast.Is()], [ast.Constant(single)])
        case ast.MatchOr(patterns=parts) if all(isinstance(part, ast.MatchValue) for part in parts):
            values = [part.value for part in parts if isinstance(part, ast.MatchValue)]
            test = ast.Compare(subject, [ast.In()], [ast.Tuple(values, ast.Load())])
        case pattern:  # which no expression says, and which is written as it is
            test = ast.Compare(subject, [ast.Eq()], [ast.Name(ast.unparse(pattern), ast.Load())])
    both = test if case.guard is None else ast.BoolOp(ast.And(), [test, case.guard])
    return ast.fix_missing_locations(ast.copy_location(both, case.pattern))


def read_iterations(source: Source, items: ast.expr, scope: Scope) -> Sequence[tuple[Any, Mapping[str, Values]]] | None:
    """Return the values that a loop runs over, each with the condition under which it comes to it.

    None if they depend on more than one parameter, or on anything else.
    """
    try:
        return [(item, {}) for item in _limit(source.evaluate(items, scope.names))]
    except UnreadableError:
        pass
    used = {node.id for node in ast.walk(items) if isinstance(node, ast.Name) and node.id in scope.holders}
    if len(used) != 1:
        return None
    [variable] = used
    name, values = scope.holders[variable]
    if values is None:
        return None
    reached: dict[Any, list[Any]] = {}
    try:
        for value in values:
            for item in _limit(source.evaluate(items, {**scope.names, variable: value})):
                reached.setdefault(item, []).append(value)
    except (UnreadableError, TypeError):
        return None
    return [(item, {} if len(by) == len(values) else {name: tuple(by)}) for item, by in reached.items()]


def _limit(items: Any) -> list[Any]:
    if not isinstance(items, list) or len(items) > LISTED:
        raise UnreadableError
    return items
