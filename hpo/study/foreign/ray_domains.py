"""Domains of Ray Tune's search spaces: the calls `tune.uniform(…)`, `tune.choice([…])` and their like.

Source: the docstrings of `ray.tune.search.sample`. The upper bound of `randint` and `lograndint` is exclusive, and of
`qrandint` and `qlograndint` with q = 1; of the others with a q it is inclusive. Those with a q draw from its multiples
between both bounds.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import (
    ComputedError,
    continuous,
    list_choices,
    multiples,
    normal,
    number,
    whole_below,
)
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.random_calls import read_draw
from hpo.study.foreign.search import Computed, ForeignDomain

__all__ = ["is_domain", "is_grid", "name_domain", "read_domain", "read_values"]

Read = tuple[ForeignDomain, str]


@dataclass(frozen=True)
class Distribution:
    """Function of Ray Tune that makes a domain of numbers.

    Attributes:
        arguments: its names of them.
        read: makes the domain of their values.
        needed: how many must be given.
    """

    arguments: tuple[str, ...]
    read: Callable[..., Read]
    needed: int = 2


def name_domain(source: Source, node: ast.AST) -> str:
    """Return the name of the function of Ray Tune that a call makes a domain with; empty if it is none."""
    if not isinstance(node, ast.Call):
        return ""
    module, _, name = source.origin(node.func).rpartition(".")
    return name if name in FUNCTIONS and (module == "ray.tune" or module.startswith("ray.tune.")) else ""


def is_domain(source: Source, node: ast.AST) -> bool:
    """Return whether an expression is a domain: a call of Ray Tune's, or `{"grid_search": […]}`."""
    return is_grid(source, node) or bool(name_domain(source, node))


def is_grid(source: Source, node: ast.AST) -> bool:
    """Return whether an expression is a grid search, of which all values are tried."""
    if isinstance(node, ast.Dict):
        return [key.value if isinstance(key, ast.Constant) else None for key in node.keys] == ["grid_search"]
    return name_domain(source, node) == "grid_search"


def read_values(source: Source, node: ast.Call | ast.Dict) -> list[ast.expr] | None:
    """Return the expressions of the values of a choice or a grid search, if the file lists them."""
    arguments = node.values if isinstance(node, ast.Dict) else [*node.args, *(word.value for word in node.keywords)]
    listed = source.resolve(arguments[0]) if arguments else None
    plain = isinstance(listed, ast.List | ast.Tuple) and not any(isinstance(each, ast.Starred) for each in listed.elts)
    return listed.elts if plain and isinstance(listed, ast.List | ast.Tuple) else None


def read_domain(source: Source, node: ast.Call | ast.Dict) -> Read:
    """Return a domain, and a note on what it lost.

    Raises:
        DefinitionError: its arguments are wrong, or known only when the file runs.
    """
    name = name_domain(source, node)
    try:
        if name == "sample_from" and isinstance(node, ast.Call):
            return _read_function(source, node)
        if name in DISTRIBUTIONS and isinstance(node, ast.Call):
            distribution = DISTRIBUTIONS[name]
            return distribution.read(*_bind(source, node, distribution))
        return _read_listed(source, node)
    except UnreadableError:
        why = f"{describe(node)} (line {node.lineno}) is known only when the file runs; write its values there"
        raise ComputedError(why, describe(node)) from None
    except DefinitionError as error:
        raise DefinitionError(f"{describe(node)} (line {node.lineno}): {error}") from error


def _bind(source: Source, node: ast.Call, distribution: Distribution) -> list[float]:
    """Return the numbers that a call gives, in the order of the arguments; `base`, which Ray ignores, is left out."""
    names = distribution.arguments
    given = dict(zip(names, node.args, strict=False))
    given.update({str(word.arg): word.value for word in node.keywords if word.arg != "base"})
    missing = [name for name in names[: distribution.needed] if name not in given]
    if missing or not set(given) <= set(names):
        raise DefinitionError(f"takes {', '.join(names)}")
    return [number(source.evaluate(given[name]), name) for name in names if name in given]


def _read_listed(source: Source, node: ast.Call | ast.Dict) -> Read:
    parts = read_values(source, node)
    if parts is None:
        argument = (node.values if isinstance(node, ast.Dict) else [*node.args, *(w.value for w in node.keywords)])[:1]
        if not argument:
            raise DefinitionError("has no values")
        return list_choices(source.evaluate(argument[0])), ""
    values: list[Any] = []
    named: list[str] = []
    for part in parts:
        try:
            values.append(source.evaluate(part))
        except UnreadableError:
            values.append(_name_object(part))
            named.append(describe(part))
    note = f"{', '.join(named)} are read as names" if named else ""
    return list_choices(values), note


def _name_object(node: ast.expr) -> str:
    """Return the last part of the name of a class or a function: ReLU of `nn.ReLU`.

    Raises:
        UnreadableError: the expression is no name.
    """
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=function, args=[], keywords=[]):
            return _name_object(function)
    raise UnreadableError


def _read_function(source: Source, node: ast.Call) -> Read:
    """Return what a function draws, if it draws numbers alone; else it stays an expression."""
    function = node.args[0] if node.args else node.keywords[0].value if node.keywords else node
    try:
        return read_draw(source, source.resolve(function))
    except UnreadableError:
        return Computed(describe(function)), ""


# Functions of numbers.


def _read_qrandint(low: float, high: float, q: float = 1, *, log: bool = False) -> Read:
    if q == 1:
        return whole_below(low, high, log=log), ""
    if q < 1 or q != int(q):
        raise DefinitionError(f"q = {q:g}: must be a whole number above 0")
    return multiples(low, high, q, log=log)


def _read_normal(mu: float = 0.0, sigma: float = 1.0, q: float | None = None) -> Read:
    numbers = f"{mu:g}, {sigma:g}"
    return normal(mu, sigma, f"randn({numbers})" if q is None else f"qrandn({numbers}, {q:g})", q=q)


ENDS = ("lower", "upper")
DISTRIBUTIONS: Mapping[str, Distribution] = {
    "uniform": Distribution(ENDS, lambda low, high: (continuous(low, high), "")),
    "quniform": Distribution((*ENDS, "q"), multiples, 3),
    "loguniform": Distribution(ENDS, lambda low, high: (continuous(low, high, log=True), "")),
    "qloguniform": Distribution((*ENDS, "q"), lambda low, high, q: multiples(low, high, q, log=True), 3),
    "randint": Distribution(ENDS, lambda low, high: (whole_below(low, high), "")),
    "qrandint": Distribution((*ENDS, "q"), _read_qrandint),
    "lograndint": Distribution(ENDS, lambda low, high: (whole_below(low, high, log=True), "")),
    "qlograndint": Distribution((*ENDS, "q"), lambda low, high, q: _read_qrandint(low, high, q, log=True), 3),
    "randn": Distribution(("mean", "sd"), _read_normal, 0),
    "qrandn": Distribution(("mean", "sd", "q"), _read_normal, 3),
}
FUNCTIONS = (*DISTRIBUTIONS, "choice", "grid_search", "sample_from")
