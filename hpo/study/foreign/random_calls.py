"""Expressions that draw a random number, such as `2 ** np.random.randint(2, 9)`, as domains."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import RequestError
from hpo.study.foreign.domains import continuous, list_choices, normal, whole, whole_below
from hpo.study.foreign.python_source import Source, UnreadableError
from hpo.study.foreign.search import Choices, Constant, ForeignDomain, Range

__all__ = ["read_draw"]

Read = tuple[ForeignDomain, str]
LISTED = 1000  # values of a whole range that arithmetic is applied to


def read_draw(source: Source, node: ast.expr) -> Read:
    """Return the values that an expression draws from, and a note.

    Raises:
        UnreadableError: it depends on anything else, or draws in another way.
    """
    try:
        return _read(source, node)
    except (RequestError, ArithmeticError, TypeError, ValueError) as error:
        raise UnreadableError from error


def _read(source: Source, node: ast.expr) -> Read:
    match node:
        case ast.Lambda(body=body):
            return _read(source, body)
        case ast.Call() if source.origin(node.func) in DRAWS:
            return DRAWS[source.origin(node.func)](*[source.evaluate(each) for each in _arguments(node)])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _apply(_read(source, operand)[0], lambda value: -value), ""
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _raise(source.evaluate(left), _read(source, right)[0]), ""
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op, right=right):
            return _combine(source, left, op, right), ""
    raise UnreadableError


def _arguments(node: ast.Call) -> list[ast.expr]:
    """Return the arguments of a call; those with names in the order of low, high."""
    words = {word.arg: word.value for word in node.keywords}
    named = [words[name] for name in ("low", "a", "loc", "high", "b", "scale") if name in words]
    if len(named) < len(words):
        raise UnreadableError
    return [*node.args, *named]


def _combine(source: Source, left: ast.expr, op: ast.operator, right: ast.expr) -> ForeignDomain:
    """Return a domain of which each value has been added to, or multiplied with, a constant."""
    holder = ast.BinOp(ast.Name("drawn"), op, right)
    drawn: ForeignDomain
    try:
        drawn, constant = _read(source, left)[0], right
    except UnreadableError:
        drawn, constant = _read(source, right)[0], left
        holder = ast.BinOp(left, op, ast.Name("drawn"))
    source.evaluate(constant)
    return _apply(drawn, lambda value: source.evaluate(holder, {"drawn": value}))


def _apply(domain: ForeignDomain, change: Callable[[Any], Any]) -> ForeignDomain:
    match domain:
        case Range(low, high, integer=False, log=False, step=None):
            ends = sorted((change(low), change(high)))
            return continuous(*ends)
        case Range(integer=True) | Choices() | Constant():
            return list_choices([change(value) for value in _values(domain)])
    raise UnreadableError


def _raise(base: float, exponent: ForeignDomain) -> ForeignDomain:
    """Return the powers of a base: listed for whole exponents, else a range on a logarithmic scale."""
    if isinstance(exponent, Range) and not exponent.integer and not exponent.log:
        low, high = sorted((base**exponent.low, base**exponent.high))
        return continuous(float(f"{low:.12g}"), float(f"{high:.12g}"), log=True)
    return list_choices([base**value for value in _values(exponent)])


def _values(domain: ForeignDomain) -> list[Any]:
    match domain:
        case Constant(value):
            return [value]
        case Choices(values):
            return list(values)
        case Range(low, high, integer=True, log=False, step=None) if high - low < LISTED:
            return list(range(int(low), int(high) + 1))
    raise UnreadableError


def _uniform(low: float = 0.0, high: float = 1.0) -> Read:
    return continuous(low, high), ""


def _randint(low: int, high: int | None = None) -> Read:
    """Return the whole numbers below `high`, as numpy's function has them."""
    return (whole_below(0, low) if high is None else whole_below(low, high)), ""


def _choice(values: Any) -> Read:
    return (whole_below(0, values) if isinstance(values, int) else list_choices(values)), ""


def _normal(mu: float = 0.0, sigma: float = 1.0) -> Read:
    return normal(mu, sigma, f"normal({mu:g}, {sigma:g})")


DRAWS: Mapping[str, Callable[..., Read]] = {
    "numpy.random.uniform": _uniform,
    "numpy.random.rand": _uniform,
    "numpy.random.random": _uniform,
    "numpy.random.randint": _randint,
    "numpy.random.choice": _choice,
    "numpy.random.normal": _normal,
    "random.uniform": _uniform,
    "random.random": _uniform,
    "random.randint": lambda low, high: (whole(low, high), ""),
    "random.randrange": _randint,
    "random.choice": _choice,
    "random.gauss": _normal,
}
