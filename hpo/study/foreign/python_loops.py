"""Loops of a Python file that is not run, over values that are written there, as the statements that they stand for."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hpo.study.foreign.python_source import STEPS, Source, UnreadableError, describe

__all__ = ["describe_repeats", "unroll"]

LONGEST = 200  # statements that a loop becomes


def unroll(source: Source, loop: ast.For) -> list[ast.stmt] | None:
    """Return the body of a loop once for each value, which stands there in the place of its variable.

    None where the values are known only when the file runs, the loop may end before the last, or changes its variable.
    """
    stored = [node.id for node in ast.walk(loop) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if len(set(stored)) < len(stored) or any(isinstance(node, ast.Break | ast.Continue) for node in ast.walk(loop)):
        return None
    try:
        rounds = [_name_values(loop.target, value) for value in source.evaluate(loop.iter)]
    except (UnreadableError, TypeError):
        return None
    source.steps += len(rounds) * len(loop.body)
    if len(rounds) * len(loop.body) > LONGEST or source.steps > STEPS:
        return None
    return [_Values(names).visit(copy.deepcopy(statement)) for names in rounds for statement in loop.body]


def describe_repeats(source: Source, calls: Iterable[ast.Call], outcome: str) -> Iterator[str]:
    """Yield a note on each call that stands in a loop, and may thus be made several times."""
    loops = [node for node in ast.walk(source.tree) if isinstance(node, ast.For | ast.While)]
    for call in calls:
        around = [loop for loop in loops if any(node is call for part in loop.body for node in ast.walk(part))]
        if around:
            yield f"{describe(call)} (line {call.lineno}) stands in the loop of line {around[0].lineno}: {outcome}"


def _name_values(target: ast.expr, value: Any) -> dict[str, Any]:
    """Return the values of a loop's variables in one round."""
    match target:
        case ast.Name(id=name):
            return {name: value}
        case ast.Tuple(elts=parts) if isinstance(value, Sequence) and len(parts) == len(value):
            named = [_name_values(part, each) for part, each in zip(parts, value, strict=True)]
            return {name: each for names in named for name, each in names.items()}
    raise UnreadableError


class _Values(ast.NodeTransformer):
    """Replacement of names by values."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the value of a name that is read."""
        if node.id not in self.names or not isinstance(node.ctx, ast.Load):
            return node
        value = ast.parse(repr(self.names[node.id]), mode="eval").body
        for part in ast.walk(value):
            ast.copy_location(part, node)
        return value
