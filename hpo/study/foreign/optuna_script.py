"""Objective functions of Optuna, in Python files, which are parsed and never run: their `trial.suggest_…`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import read_each
from hpo.study.foreign.optuna_calls import Suggestion, read_suggestion
from hpo.study.foreign.optuna_conditions import Scope, list_values, read_iterations, read_test
from hpo.study.foreign.optuna_settings import read_settings
from hpo.study.foreign.python_source import Source, describe, parse_source
from hpo.study.foreign.search import ForeignParameter, ForeignSearch

__all__ = ["read", "recognizes"]

TOOL = "Optuna"


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document is a Python file with an objective function of Optuna."""
    return isinstance(document, str) and re.search(r"\.suggest_\w+\(", document) is not None


def read(document: Mapping[str, Any] | str, path: Path) -> ForeignSearch:
    """Read the parameters that a file suggests, with the conditions that are plain, and what it gives to its study.

    Raises:
        DefinitionError: a domain is wrong or known only when the file runs.
    """
    assert isinstance(document, str)
    source = parse_source(document)
    reader = _Reader(source)
    reader.walk(source.tree.body, Scope())
    named = [(suggestion.name, suggestion) for suggestion in reader.suggestions]
    parameters, notes = _merge(read_each(named, lambda _, each: [each.parameter()]))
    if not parameters:
        raise DefinitionError("calls no trial.suggest_…")
    settings, more = read_settings(source)
    function = _find_objective(source)
    runs = f"the function runs as it stands, too: hpo launch {path.name}:{function}" if function else ""
    found = (*reader.notes, *notes, *more, *source.assumed.values(), *filter(None, [runs]))
    return ForeignSearch(TOOL, tuple(parameters), notes=tuple(dict.fromkeys(found)), **settings)


def _find_objective(source: Source) -> str:
    """Return the function that a study's `optimize` is given; else the one that is called objective, if there is."""
    functions = {node.name for node in source.tree.body if isinstance(node, ast.FunctionDef)}
    for call in source.calls():
        if isinstance(call.func, ast.Attribute) and call.func.attr == "optimize" and call.args:
            given = call.args[0]
            if isinstance(given, ast.Name) and given.id in functions:
                return given.id
    return "objective" if "objective" in functions else ""


def _merge(found: Sequence[ForeignParameter]) -> tuple[list[ForeignParameter], list[str]]:
    """Return each parameter once. Optuna gives a second suggestion of the same name the value of the first."""
    merged: dict[str, ForeignParameter] = {}
    notes: list[str] = []
    for parameter in found:
        earlier = merged.setdefault(parameter.name, parameter)
        if earlier is parameter or earlier == parameter:
            continue
        if earlier.domain == parameter.domain:
            when = {} if earlier.when != parameter.when else earlier.when
            merged[parameter.name] = ForeignParameter(earlier.path, earlier.domain, when, earlier.note)
        elif earlier.excludes(parameter):
            merged[f"{parameter.name} {len(merged)}"] = parameter
        else:
            notes.append(f"{parameter.name} is suggested again with other values, which are left out")
    return list(merged.values()), notes


class _Reader:
    """Collector of the suggestions of a file, in its order."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.suggestions: list[Suggestion] = []
        self.notes: list[str] = []

    def walk(self, body: Sequence[ast.stmt], scope: Scope) -> None:
        """Collect what statements suggest under the conditions of a scope."""
        for statement in body:
            self._walk_statement(statement, scope)

    def _walk_statement(self, statement: ast.stmt, scope: Scope) -> None:
        match statement:
            case ast.If(test=test, body=body, orelse=otherwise):
                self._suggest(test, scope)
                self._branch(test, body, otherwise, scope)
            case ast.For(target=ast.Name(id=name), iter=items, body=body):
                self._suggest(items, scope)
                self._repeat(name, items, body, scope)
            case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body) | ast.ClassDef(body=body):
                self.walk(body, scope)
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                self._suggest(value, scope)
                self._remember(target, value, scope)
            case _:
                for _field, inner in ast.iter_fields(statement):
                    self._walk_field(inner, scope)

    def _walk_field(self, inner: Any, scope: Scope) -> None:
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, ast.stmt):
                self._walk_statement(each, scope)
            elif isinstance(each, ast.ExceptHandler | ast.match_case):
                self.walk(each.body, scope)
            elif isinstance(each, ast.expr | ast.withitem):
                self._suggest(each, scope)

    def _branch(self, test: ast.expr, body: Sequence[ast.stmt], otherwise: Sequence[ast.stmt], scope: Scope) -> None:
        """Walk both branches of an `if`, each under its condition if that is plain."""
        found = read_test(self.source, test, scope)
        before = len(self.suggestions)
        if found is None:
            self.walk(body, scope)
            self.walk(otherwise, scope)
            self._note_condition(self.suggestions[before:], f"if {describe(test)}", test.lineno)
            return
        key, chosen, rest = found
        self.walk(body, scope.narrow(key, chosen))
        self.walk(otherwise, scope.narrow(key, rest))

    def _note_condition(self, suggestions: Sequence[Suggestion], condition: str, line: int) -> None:
        if suggestions:
            names = ", ".join(suggestion.name for suggestion in suggestions)
            self.notes.append(f"the condition of {names}, `{condition}` in line {line}, is not read")

    def _repeat(self, name: str, items: ast.expr, body: Sequence[ast.stmt], scope: Scope) -> None:
        """Walk the body of a loop once for each value of its variable, under the condition that there is such a one."""
        iterations = read_iterations(self.source, items, scope)
        if iterations is None:
            before = len(self.suggestions)
            self.walk(body, scope)
            self._note_condition(self.suggestions[before:], f"for {name} in {describe(items)}", items.lineno)
            return
        for item, when in iterations:
            inner = scope.name(name, item)
            for key, values in when.items():
                inner = inner.narrow(key, values)
            self.walk(body, inner)

    def _suggest(self, node: ast.expr | ast.withitem, scope: Scope) -> None:
        """Collect the suggestions in an expression."""
        match node:
            case ast.IfExp(test=test, body=body, orelse=otherwise) if found := read_test(self.source, test, scope):
                key, chosen, rest = found
                self._suggest(body, scope.narrow(key, chosen))
                self._suggest(otherwise, scope.narrow(key, rest))
                return
            case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name), iter=items)]):
                self._suggest(items, scope)
                self._repeat(name, items, [ast.copy_location(ast.Expr(element), element)], scope)
                return
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.expr):
                self._suggest(inner, scope)
            elif isinstance(inner, ast.keyword):
                self._suggest(inner.value, scope)
        if isinstance(node, ast.Call) and (suggestion := read_suggestion(self.source, node, scope)):
            self.suggestions.append(suggestion)

    def _remember(self, target: ast.expr, value: ast.expr, scope: Scope) -> None:
        """Keep which parameter a variable, or an entry of a table, holds."""
        for place, held in _places(target, value):
            if isinstance(held, ast.Call) and (suggestion := read_suggestion(self.source, held, scope)):
                scope.holders[place] = (suggestion.name, list_values(suggestion))


def _places(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the places that an assignment gives values to, as they are written, and the values."""
    place = ast.unparse(target)
    yield place, value
    if isinstance(value, ast.Dict):
        for key, each in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant):
                yield f"{place}[{key.value!r}]", each
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        yield from ((ast.unparse(part), each) for part, each in zip(target.elts, value.elts, strict=False))
