"""Domains that Ray Tune's population-based schedulers change parameters within, as parameters of the search."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import continuous, list_choices, number, read_each
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.random_calls import read_draw
from hpo.study.foreign.ray_domains import is_domain, read_domain
from hpo.study.foreign.search import Computed, ForeignDomain, ForeignParameter

__all__ = ["read_mutations"]

NOTE = "changed while a trial runs there; here a trial keeps its value"


def read_mutations(source: Source) -> list[ForeignParameter]:
    """Return the parameters of `hyperparam_mutations` and `hyperparam_bounds`, whose domains replace first values.

    Raises:
        DefinitionError: names each that is wrong.
    """
    return read_each(_entries(source), lambda name, entry: [_read_mutation(source, name, *entry)])


def _entries(source: Source) -> Iterator[tuple[str, tuple[str, ast.expr]]]:
    for call in source.calls():
        for word in call.keywords:
            table = source.resolve(word.value)
            if word.arg not in ("hyperparam_mutations", "hyperparam_bounds") or not isinstance(table, ast.Dict):
                continue
            for key, value in zip(table.keys, table.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield str(key.value), (word.arg, source.resolve(value))


def _read_mutation(source: Source, name: str, kind: str, node: ast.expr) -> ForeignParameter:
    domain: ForeignDomain
    if is_domain(source, node) and isinstance(node, ast.Call | ast.Dict):
        domain, note = read_domain(source, node)
        return ForeignParameter((name,), domain, note="; ".join(filter(None, (note, NOTE))))
    try:
        values = source.evaluate(node)
    except UnreadableError:
        return ForeignParameter((name,), _read_function(source, node), note=NOTE)
    if kind == "hyperparam_mutations":
        return ForeignParameter((name,), list_choices(values), note=NOTE)
    if not isinstance(values, list) or len(values) != 2:
        raise DefinitionError(f"{describe(node)} (line {node.lineno}): must be two numbers")
    return ForeignParameter((name,), continuous(*(number(value, kind) for value in values)), note=NOTE)


def _read_function(source: Source, node: ast.expr) -> ForeignDomain:
    try:
        return read_draw(source, node)[0]
    except UnreadableError:
        return Computed(describe(node))
