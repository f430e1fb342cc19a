"""Domains that Ray Tune's population-based schedulers change parameters within, as parameters of the search."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import continuous, list_choices, number, read_each
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.random_calls import read_draw
from hpo.study.foreign.ray_domains import is_domain, read_domain
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain, ForeignParameter, Range
from hpo.utils.text import shorten

__all__ = ["add_mutations", "find_tables"]

NOTE = "changed while a trial runs there; here a trial keeps its value"
ARGUMENTS = ("hyperparam_mutations", "hyperparam_bounds")
Path = tuple[str, ...]


def add_mutations(source: Source, parameters: Sequence[ForeignParameter]) -> list[ForeignParameter]:
    """Return the parameters of a space with the domains that a scheduler changes them within, instead of their own.

    Raises:
        DefinitionError: names each mutation that is wrong.
    """
    named = [(".".join(path), (path, kind, node)) for path, kind, node in _entries(source)]
    mutations = {each.path: each for each in read_each(named, lambda _, entry: [_read_mutation(source, *entry)])}
    changed = [_replace_domain(each, mutations[each.path]) if each.path in mutations else each for each in parameters]
    known = {each.path for each in parameters}
    return [*changed, *(each for path, each in mutations.items() if path not in known)]


def _replace_domain(first: ForeignParameter, mutation: ForeignParameter) -> ForeignParameter:
    """Return a parameter with the domain of its mutation, and say what it begins with."""
    if isinstance(mutation.domain, Computed) and not mutation.domain.problem:
        note = f"changed by {mutation.domain.expression} while a trial runs there; here a trial keeps its value"
        return dataclasses.replace(first, note="; ".join(filter(None, (first.note, note))))
    note = mutation.note
    if first.domain != mutation.domain:
        lost = note.removesuffix(NOTE)  # in reading the mutation
        changed = f"changed {'within' if isinstance(mutation.domain, Range) else 'to'} {_describe(mutation.domain)}"
        note = (
            f"{lost}begins with {_describe(first.domain)} there, and is {changed} while a trial runs; the study "
            "searches the latter"
        )
    return dataclasses.replace(first, domain=mutation.domain, note=note)


def _describe(domain: ForeignDomain) -> str:
    match domain:
        case Constant(value):
            return shorten(value)
        case Choices(values):
            *others, last = [shorten(value) for value in values]
            return shorten(f"{', '.join(others)} or {last}", quote=False)
        case Range(low, high):
            return f"{low:g} to {high:g}"
        case Computed(expression):
            return expression


def find_tables(source: Source) -> Iterator[tuple[str, ast.expr]]:
    """Yield the tables of mutations that a file gives to a scheduler, each with the name of its argument."""
    for call in source.calls():
        yield from ((word.arg, source.resolve(word.value)) for word in call.keywords if word.arg in ARGUMENTS)


def _entries(source: Source) -> Iterator[tuple[Path, str, ast.expr]]:
    for kind, table in find_tables(source):
        yield from ((path, kind, node) for path, node in _leaves(source, table, ()))


def _leaves(source: Source, node: ast.expr, above: Path) -> Iterator[tuple[Path, ast.expr]]:
    """Yield the values of a table and of those within it."""
    table = source.resolve(node)
    if isinstance(table, ast.Dict) and not is_domain(source, table):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Constant):
                yield from _leaves(source, value, (*above, str(key.value)))
    elif above:
        yield above, table


def _read_mutation(source: Source, path: Path, kind: str, node: ast.expr) -> ForeignParameter:
    domain: ForeignDomain
    if is_domain(source, node) and isinstance(node, ast.Call | ast.Dict):
        domain, note = read_domain(source, node)
        return ForeignParameter(path, domain, note="; ".join(filter(None, (note, NOTE))))
    try:
        values = source.evaluate(node)
    except UnreadableError:
        return ForeignParameter(path, _read_function(source, node), note=NOTE)
    if kind == "hyperparam_mutations":
        return ForeignParameter(path, list_choices(values), note=NOTE)
    if not isinstance(values, list) or len(values) != 2:
        raise DefinitionError(f"{describe(node)} (line {node.lineno}): must be two numbers")
    return ForeignParameter(path, continuous(*(number(value, kind) for value in values)), note=NOTE)


def _read_function(source: Source, node: ast.expr) -> ForeignDomain:
    try:
        return read_draw(source, node)[0]
    except UnreadableError:
        return Computed(describe(node))
