"""Tables of Python files that are not run: their keys and values, and what a file adds to them by name."""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Sequence

from hpo.errors import DefinitionError
from hpo.study.foreign.python_source import STEPS, Source, UnreadableError, describe

__all__ = ["UnknownKey", "iterate_entries"]

Entry = tuple[str, ast.expr]


class UnknownKey(str):
    """Expression of a key that is known only when the file runs."""

    __slots__ = ()


def iterate_entries(source: Source, node: ast.expr, depth: int) -> Iterator[Entry]:
    """Yield the keys and values of a table, of `dict(…)`, of `{**a, …}`, of `a | b`, and of RLlib's configurations.

    What the file adds to a table by name comes after what stands in it.

    Raises:
        DefinitionError: the tables are parts of each other too often.

    Args:
        source: the file.
        node: the expression.
        depth: how many tables may be parts of each other; nothing is yielded of an expression of another kind.
    """
    if not depth:
        return
    source.steps += 1
    if source.steps > STEPS:
        raise DefinitionError("its tables are parts of each other too often to be read")
    match node:
        case ast.Dict():
            yield from _grow(source, node, list(_table_entries(source, node, depth)), depth)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from iterate_entries(source, source.resolve(left), depth - 1)
            yield from iterate_entries(source, source.resolve(right), depth - 1)
        case ast.Call(func=function) if source.origin(function) == "dict":
            yield from _grow(source, node, list(_call_entries(source, node, depth)), depth)
        case ast.Call(func=ast.Attribute(value=inner, attr=method), args=arguments, keywords=words) if (
            not source.origin(node.func)
        ):  # RLlib: PPOConfig().environment("CartPole-v1").training(lr=tune.grid_search([…]))
            yield from iterate_entries(source, source.resolve(inner), depth - 1)
            yield from (("env", argument) for argument in arguments[:1] if method == "environment")
            yield from ((_option(word.arg), word.value) for word in words if word.arg is not None)


def _table_entries(source: Source, table: ast.Dict, depth: int) -> Iterator[Entry]:
    for key, value in zip(table.keys, table.values, strict=True):
        if key is None:
            yield from iterate_entries(source, source.resolve(value), depth - 1)
        else:
            yield _read_key(source, key), value


def _call_entries(source: Source, call: ast.Call, depth: int) -> Iterator[Entry]:
    """Yield what `dict` or `update` is called with."""
    for table in call.args:
        yield from iterate_entries(source, source.resolve(table), depth - 1)
    for word in call.keywords:
        if word.arg is None:
            yield from iterate_entries(source, source.resolve(word.value), depth - 1)
        else:
            yield word.arg, word.value


def _option(word: str) -> str:
    """Return the name of RLlib's option for an argument: `lambda_`, which Python cannot call lambda, is lambda."""
    return word[:-1] if word.endswith("_") and keyword.iskeyword(word[:-1]) else word


def _read_key(source: Source, node: ast.expr) -> str:
    try:
        return str(source.evaluate(node))
    except UnreadableError:
        return UnknownKey(describe(node))


def _grow(source: Source, table: ast.expr, own: Sequence[Entry], depth: int) -> Iterator[Entry]:
    """Yield the entries of a table, and what a file adds by its name: `config["lr"] = …`, `config.update({…})`, …"""
    yield from own
    for node in source.tables.additions(table):
        match node:
            case ast.Assign(targets=[ast.Subscript() as place], value=value):
                yield _nest(source, place, value)
            case ast.AugAssign(value=value):
                yield from iterate_entries(source, source.resolve(value), depth - 1)
            case ast.Call(func=ast.Attribute(attr="setdefault"), args=[key, value]):
                if (given := _read_key(source, key)) not in dict(own):
                    yield given, value
            case ast.Call():
                yield from _call_entries(source, node, depth)


def _nest(source: Source, place: ast.Subscript, value: ast.expr) -> Entry:
    """Return the entry that an assignment makes: `config["optimizer"]["lr"] = …` is of a table within a table."""
    while isinstance(place.value, ast.Subscript):
        value = ast.copy_location(ast.Dict([place.slice], [value]), value)
        place = place.value
    return _read_key(source, place.slice), value
