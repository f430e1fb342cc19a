"""Sweeps of Weights & Biases in Python files, which are parsed and never run: the table that `wandb.sweep` is given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.config.choices import Direction
from hpo.errors import DefinitionError
from hpo.study.foreign import hugging_face
from hpo.study.foreign.domains import Problems, count
from hpo.study.foreign.python_loops import describe_repeats
from hpo.study.foreign.python_source import Source, UnreadableError, describe, parse_source
from hpo.study.foreign.python_tables import Cell, Tables
from hpo.study.foreign.search import Computed, ForeignParameter, ForeignSearch
from hpo.study.foreign.wandb import read_sweep

__all__ = ["read", "recognizes"]

PARAMETERS = re.compile(r"""["']parameters["']|\bparameters\s*=""")
AGENT = ("sweep_id", "function", "entity", "project", "count")  # its arguments, in their order
METHOD = re.compile(r"""["']method["']|\bmethod\s*=""")


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document is a Python file that makes a sweep, or has the table of one."""
    if not isinstance(document, str):
        return False
    makes = re.search(r"\bwandb\b", document) is not None and re.search(r"\bsweep\(", document) is not None
    return makes or (PARAMETERS.search(document) is not None and METHOD.search(document) is not None)


def read(document: Mapping[str, Any] | str, path: Path) -> ForeignSearch:
    """Read the sweep of a file as if its table were a YAML file.

    Raises:
        DefinitionError: it has no sweep or several, or one with values that are known only when it runs.
    """
    assert isinstance(document, str)
    source = parse_source(document)
    tables = Tables(source)
    entries = _find_sweep(source, tables)
    named = tables.entries(entries.pop("parameters")) or {}
    computed = {name: cell for name, cell in named.items() if _is_computed(tables, cell)}
    sweep = _evaluate(tables, entries, "")
    parameters = _evaluate(tables, {name: cell for name, cell in named.items() if name not in computed}, "parameters.")
    search = read_sweep({**sweep, "parameters": parameters}, path)
    absent = [ForeignParameter((name,), Computed(_describe_value(tables, cell))) for name, cell in computed.items()]
    trials, counted = _read_count(source, search)
    direction, directed = _read_direction(source, search)
    agents = [call for call in source.calls() if source.origin(call.func) == "wandb.agent"]
    counted += describe_repeats(source, agents, "its count counts once here")
    notes = (*search.notes, *counted, *directed, *tables.notes, *source.assumed.values())
    everything = (*search.parameters, *absent)
    return replace(search, parameters=everything, trials=trials, direction=direction, notes=notes)


def _evaluate(tables: Tables, cells: Mapping[str, Cell], prefix: str) -> dict[str, Any]:
    """Return the values of entries.

    Raises:
        DefinitionError: one is known only when the file runs.
        ImportRefusedError: several are; `lines` has one for each.
    """
    values, problems = {}, Problems()
    for name, cell in cells.items():
        try:
            values[name] = tables.evaluate(cell)
        except DefinitionError as error:
            problems.lines.append(f"{prefix}{name}: {error}")
    problems.check("values")
    return values


def _find_sweep(source: Source, tables: Tables) -> dict[str, Cell]:
    """Return the entries of the table that `wandb.sweep` is given; of the only such table, where that is unknown.

    Raises:
        DefinitionError: there is none, or more than one.
    """
    given = [Cell(node) for node in _given(source)]
    cells = [cell for cell in given if _is_sweep(tables, cell)] or [c for c in tables.outer() if _is_sweep(tables, c)]
    found = {id(tables.resolve(cell).node): cell for cell in cells}
    if len(found) > 1:
        lines = ", ".join(map(str, sorted(tables.resolve(cell).node.lineno for cell in found.values())))
        raise DefinitionError(f"has {len(found)} sweeps (lines {lines}); leave one in the file")
    for cell in found.values():
        return dict(tables.entries(cell) or {})
    if given:
        where = f"{describe(given[0].node)} (line {given[0].node.lineno})"
        raise DefinitionError(f"the sweep, {where}, is known only when the file runs; write its table there")
    raise DefinitionError("has no sweep of Weights & Biases: no table with `method` and `parameters`")


def _given(source: Source) -> Iterator[ast.expr]:
    for call in source.calls():
        if source.origin(call.func) == "wandb.sweep":
            yield from call.args[:1] or [word.value for word in call.keywords if word.arg == "sweep"]


def _is_sweep(tables: Tables, cell: Cell) -> bool:
    try:
        return {"method", "parameters"} <= (tables.entries(cell) or {}).keys()
    except DefinitionError:
        return False


def _is_computed(tables: Tables, cell: Cell) -> bool:
    """Return whether a parameter has one value, which is known only when the file runs."""
    entries = tables.entries(cell) or {}
    if entries.keys() != {"value"}:
        return False
    try:
        tables.evaluate(entries["value"])
    except DefinitionError:
        return True
    return False


def _describe_value(tables: Tables, cell: Cell) -> str:
    return describe(tables.resolve((tables.entries(cell) or {})["value"]).node)


def _read_count(source: Source, search: ForeignSearch) -> tuple[int | None, list[str]]:
    """Return the number of trials, which the sweep and its agents may say, and notes on what these count."""
    given = list(_list_counts(source))
    if not given:
        return search.trials, []
    written = " and ".join(f"{name} = {describe(node)} (line {node.lineno})" for name, node in given)
    try:
        total = sum(count(source.evaluate(node), name) for name, node in given)
    except UnreadableError:
        return search.trials, [f"{written}: known only when the file runs"]
    if search.trials is not None:
        trials = min(total, search.trials)
        return trials, [f"run_cap = {search.trials} and {written}: the smaller, {trials}, is the number of trials here"]
    if len(given) > 1:
        return total, [f"{written}: here {total} trials in all"]
    in_each = [f"wandb.agent has count = {total} in each process; here it is that of all trials"]
    return total, in_each if given[0][0] == "count" else []


def _list_counts(source: Source) -> Iterator[tuple[str, ast.expr]]:
    """Yield the numbers of trials of `wandb.agent` and of Hugging Face's trainer, each with its name there."""
    for call in source.calls():
        if hugging_face.is_search(call):
            yield "n_trials", hugging_face.list_arguments(call)["n_trials"]
        elif source.origin(call.func) == "wandb.agent":
            arguments = dict(zip(AGENT, call.args, strict=False)) | {word.arg: word.value for word in call.keywords}
            if "count" in arguments and describe(arguments["count"]) != "None":
                yield "count", arguments["count"]


def _read_direction(source: Source, search: ForeignSearch) -> tuple[Direction | None, list[str]]:
    """Return the direction of the metric, which Hugging Face's trainer gives the sweep, and notes."""
    for call in filter(hugging_face.is_search, source.calls()):
        try:
            directions = hugging_face.read_directions(source, call)
        except UnreadableError:
            directions = []
        if len(directions) == 1:
            return directions[0], []
        written = describe(hugging_face.list_arguments(call)["direction"])
        kept = f"the sweep has one metric, and its goal counts here: {search.direction}"
        return search.direction, [f"direction = {written} (line {call.lineno}): {kept}"]
    return search.direction, []
