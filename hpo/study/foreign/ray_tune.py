"""Search spaces of Ray Tune, in Python files, which are parsed and never run."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign import hugging_face
from hpo.study.foreign.domains import ComputedError, read_each
from hpo.study.foreign.python_source import Source, UnreadableError, describe, parse_source
from hpo.study.foreign.ray_domains import is_domain, is_grid, name_domain, read_domain, read_values
from hpo.study.foreign.ray_mutations import add_mutations, find_tables
from hpo.study.foreign.ray_settings import read_settings
from hpo.study.foreign.ray_tables import UnknownKey, iterate_entries
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain, ForeignParameter, ForeignSearch

__all__ = ["read", "recognizes"]

TOOL = "Ray Tune"
When = Mapping[str, tuple[Any, ...]]
SPACES = {"ray.tune.Tuner": "param_space", "ray.tune.tuner.Tuner": "param_space", "ray.tune.run": "config"}
DEPTH_LIMIT = 32


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Value in a search space: its path, its expression, the choices under which it exists, and if it is a grid's."""

    path: tuple[str, ...]
    node: ast.expr
    when: When = dataclasses.field(default_factory=dict)
    grid: bool = False


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document is a Python file that imports Ray Tune."""
    if not isinstance(document, str):
        return False
    return re.search(r"^\s*(?:from\s+ray\b|import\s+ray\b)", document, re.MULTILINE) is not None and "tune" in document


def read(document: Mapping[str, Any] | str, _path: Path) -> ForeignSearch:
    """Read the search space of a file, and what it gives to `Tuner`, `TuneConfig` or `tune.run`.

    Raises:
        DefinitionError: it has no search space or several, or one with values that are known only when it runs.
    """
    assert isinstance(document, str)
    source = parse_source(document)
    leaves = _find_space(source)
    named = [(".".join(leaf.path), leaf) for leaf in leaves]
    parameters = add_mutations(source, _merge(read_each(named, lambda _, leaf: _read_leaf(source, leaf))))
    grids = {leaf.path for leaf in leaves if leaf.grid}
    drawn = any(is_domain(source, leaf.node) and not leaf.grid for leaf in leaves)
    sizes = [_size(parameter.domain) for parameter in parameters if parameter.path in grids]
    settings, notes = read_settings(source, sizes, drawn=drawn)
    return ForeignSearch(TOOL, tuple(parameters), notes=(*notes, *source.assumed.values()), **settings)


def _size(domain: ForeignDomain) -> int:
    return len(domain.values) if isinstance(domain, Choices) else 1


def _merge(parameters: list[ForeignParameter]) -> list[ForeignParameter]:
    """Return each parameter once; a later one of the same path and conditions replaces an earlier one."""
    merged: dict[tuple[Any, ...], ForeignParameter] = {}
    for parameter in parameters:
        merged[parameter.path, repr(parameter.when)] = parameter
    return list(merged.values())


# Where the space is.


def _find_space(source: Source) -> list[Leaf]:
    """Return the values of the search space: what `Tuner` or `tune.run` is given, or the only table with domains.

    There may be none where a scheduler's mutations are all that is searched.

    Raises:
        DefinitionError: there is none, or more than one.
    """
    mutations = [table for _, table in find_tables(source)]
    candidates = {ast.dump(source.resolve(node)): node for node in _given_spaces(source)}
    spaces = _search_tables(source, candidates.values(), constants=bool(mutations))
    if not spaces:
        inner = {id(each) for table in (*mutations, *source.tables.added()) for each in ast.walk(table)}
        tables = [table for table in _outer_tables(source) if id(table) not in inner]
        spaces = _search_tables(source, tables)
    if not spaces and not mutations:
        raise DefinitionError("has no search space of Ray Tune: no table with tune.uniform, tune.choice or their like")
    if len(spaces) > 1:
        lines = ", ".join(map(str, spaces))
        raise DefinitionError(f"has {len(spaces)} search spaces (lines {lines}); leave one in the file")
    return next(iter(spaces.values()), [])


def _given_spaces(source: Source) -> Iterator[ast.expr]:
    """Yield what functions of Ray's are given as a search space, and Hugging Face's `hyperparameter_search`."""
    for call in source.calls():
        if hugging_face.is_search(call):
            yield from hugging_face.list_spaces(source, call)
        for word in call.keywords:
            if word.arg is not None and SPACES.get(source.origin(call.func)) == word.arg:
                yield word.value


def _search_tables(source: Source, nodes: Iterable[ast.expr], *, constants: bool = False) -> dict[int, list[Leaf]]:
    """Return the values of those tables that have domains, or at least constants, by their lines."""
    found = {node.lineno: list(_walk(source, node, (), {}, DEPTH_LIMIT)) for node in nodes}
    return {
        line: leaves
        for line, leaves in found.items()
        if leaves and (constants or any(is_domain(source, leaf.node) for leaf in leaves))
    }


def _outer_tables(source: Source) -> Iterator[ast.expr]:
    """Yield the tables of a file that are in no other table."""
    inner: set[int] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Dict) or (isinstance(node, ast.Call) and source.origin(node.func) == "dict"):
            if id(node) not in inner:
                yield node
            inner.update(id(each) for each in ast.walk(node))


def _walk(source: Source, node: ast.expr, path: tuple[str, ...], when: When, depth: int) -> Iterator[Leaf]:
    """Yield the values in a table and in those within it."""
    resolved = source.resolve(node)
    configuration = isinstance(resolved, ast.Call) and source.origin(resolved.func) != "dict"
    if depth and not is_domain(source, resolved) and not (path and configuration):
        entries = list(iterate_entries(source, resolved, depth))
        if entries:
            for key, value in entries:
                if isinstance(key, UnknownKey):
                    yield Leaf((*path, key), value, when)
                else:
                    yield from _walk(source, value, (*path, key), when, depth - 1)
            return
    branches = _find_branches(source, resolved) if depth else None
    if branches is None:
        if path:
            yield Leaf(path, resolved, when, is_grid(source, resolved))
        return
    for leaf in _walk_branches(source, branches, path, when, depth):
        yield dataclasses.replace(leaf, grid=is_grid(source, resolved)) if leaf.when == when else leaf


# Choices among tables, with domains of their own.


def _find_branches(source: Source, node: ast.expr) -> list[ast.Dict] | None:
    """Return the tables that a choice or a grid search is among, if they have domains of their own."""
    if name_domain(source, node) not in ("choice", "grid_search") or not isinstance(node, ast.Call):
        return None
    parts = [source.resolve(part) for part in read_values(source, node) or []]
    tables = [part for part in parts if isinstance(part, ast.Dict)]
    nested = any(is_domain(source, inner) for table in tables for inner in ast.walk(table))
    return tables if nested and len(tables) == len(parts) else None


def _walk_branches(
    source: Source, branches: list[ast.Dict], path: tuple[str, ...], when: When, depth: int
) -> Iterator[Leaf]:
    """Yield a choice, by the constant that tells its tables apart or else by their numbers, and what is in each."""
    tables = [list(_walk(source, branch, (), {}, depth - 1)) for branch in branches]
    key = _find_discriminator(source, tables)
    names: list[Any]
    if key is None:
        chosen, names = (*path, "choice"), list(range(len(tables)))
    else:
        chosen = (*path, *key)
        names = [source.evaluate(next(leaf.node for leaf in table if leaf.path == key)) for table in tables]
    listed = ast.List([ast.Constant(name) for name in names], ast.Load())
    yield Leaf(chosen, ast.copy_location(ast.Dict([ast.Constant("grid_search")], [listed]), branches[0]), when)
    for name, table in zip(names, tables, strict=True):
        for leaf in table:
            if leaf.path != key:
                yield Leaf((*path, *leaf.path), leaf.node, {**when, ".".join(chosen): (name,), **leaf.when})


def _find_discriminator(source: Source, tables: list[list[Leaf]]) -> tuple[str, ...] | None:
    """Return the path at which all tables have a constant of their own."""
    for first in tables[0]:
        nodes = [leaf.node for table in tables for leaf in table if leaf.path == first.path]
        try:
            values = [source.evaluate(node) for node in nodes if not is_domain(source, node)]
        except UnreadableError:
            continue
        plain = all(isinstance(value, str | int | float) for value in values)
        if plain and len(values) == len(tables) == len(set(values)):
            return first.path
    return None


def _read_leaf(source: Source, leaf: Leaf) -> list[ForeignParameter]:
    node, key = leaf.node, leaf.path[-1]
    if isinstance(key, UnknownKey):
        raise ComputedError(
            f"its name (line {node.lineno}) is known only when the file runs; write it there", describe(node)
        )
    if is_domain(source, node) and isinstance(node, ast.Call | ast.Dict):
        domain, note = read_domain(source, node)
        return [ForeignParameter(leaf.path, domain, leaf.when, note)]
    try:
        return [ForeignParameter(leaf.path, Constant(source.evaluate(node)), leaf.when)]
    except UnreadableError:
        return [ForeignParameter(leaf.path, Computed(describe(node)), leaf.when)]
