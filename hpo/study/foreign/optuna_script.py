"""Objective functions of Optuna, in Python files, which are parsed and never run: their `trial.suggest_…`."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import read_each
from hpo.study.foreign.optuna_calls import Suggestion, read_suggestion
from hpo.study.foreign.optuna_conditions import Scope, list_values, read_iterations, read_match, read_test
from hpo.study.foreign.optuna_epochs import read_epochs
from hpo.study.foreign.optuna_functions import Function, Objective, find_objective, iterate_own, list_names
from hpo.study.foreign.optuna_settings import read_grid, read_settings
from hpo.study.foreign.optuna_uses import Uses
from hpo.study.foreign.python_source import Source, describe, parse_source
from hpo.study.foreign.search import Choices, ForeignParameter, ForeignSearch

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
    objective = find_objective(source)
    reader = _Reader(source, objective.functions)
    reader.walk(source.tree.body, Scope())
    uses = Uses(source, objective.starts)
    named = [(suggestion.name, suggestion) for suggestion in reader.reachable()]
    parameters, notes = _merge(read_each(named, lambda _, each: [_read_parameter(each, uses)]))
    if not parameters:
        raise DefinitionError("calls no trial.suggest_…")
    grid = read_grid(source)
    parameters = [replace(each, domain=grid.get(each.name, each.domain)) for each in parameters]
    settings, more = read_settings(source)
    epochs, counted = read_epochs(source, objective.functions, parameters)
    refused = [each for each in (suggestion.describe_error() for _, suggestion in named) if each]
    function = _name_objective(source, objective) if not refused else ""
    runs = f"the function runs as it stands, too: hpo launch {path.name}:{function}" if function else ""
    found = (
        *objective.notes(),
        *reader.notes,
        *notes,
        *counted,
        *more,
        *refused,
        *source.assumed.values(),
        *filter(None, [runs]),
    )
    return ForeignSearch(TOOL, (*parameters, *epochs), notes=tuple(dict.fromkeys(found)), **settings)


def _read_parameter(suggestion: Suggestion, uses: Uses) -> ForeignParameter:
    """Return the parameter that is suggested, with what the file computes of it."""
    parameter = suggestion.parameter()
    domain = parameter.domain
    values = domain.values if isinstance(domain, Choices) else (getattr(domain, "value", None),)
    use = uses.find(suggestion.call, is_text=all(isinstance(value, str) for value in values))
    both = "uses it as it is, and computes with it too" if not use.always else "computes with it"
    told = f"the file {both}: {use.expression}" if use.expression else ""
    note = "; ".join(filter(None, [parameter.note, told]))
    return replace(parameter, note=note, expression=use.expression if use.always else "")


def _name_objective(source: Source, objective: Objective) -> str:
    """Return the function that `hpo launch` can run: one that is given to `optimize` by its name, or `objective`."""
    functions = [node for node in source.tree.body if node in objective.functions and isinstance(node, ast.FunctionDef)]
    given = {call.args[0].id for call in source.calls() if _optimizes_name(call) and isinstance(call.args[0], ast.Name)}
    names = [node.name for node in functions if node.name in given]
    names += [node.name for node in functions if node.name == "objective"]
    return names[0] if names else ""


def _optimizes_name(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "optimize" and bool(call.args)


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
            expression = earlier.expression and parameter.expression  # both compute with it, or it has its own value
            noted = "; ".join(dict.fromkeys(filter(None, [earlier.note, parameter.note])))
            merged[parameter.name] = replace(earlier, when=when, note=noted, expression=expression)
        elif earlier.excludes(parameter):
            merged[f"{parameter.name} {len(merged)}"] = parameter
        else:
            notes.append(f"{parameter.name} is suggested again with other values, which are left out")
    return list(merged.values()), notes


class _Reader:
    """Collector of the suggestions of a file, in its order."""

    def __init__(self, source: Source, functions: Collection[Function]) -> None:
        self.source, self.functions = source, functions
        self.suggestions: list[Suggestion] = []
        self.notes: list[str] = []

    def reachable(self) -> Iterator[Suggestion]:
        """Yield the suggestions without those whose conditions never hold, which are noted."""
        for each in self.suggestions:
            if all(each.scope.when.values()):
                yield each
            else:
                line = each.call.lineno
                self.notes.append(f"{each.name} (line {line}) is left out: the conditions around it never hold")

    def walk(self, body: Sequence[ast.stmt], scope: Scope) -> None:
        """Collect what statements suggest under the conditions of a scope."""
        for statement in body:
            self._walk_statement(statement, scope)
            match statement:
                case ast.If(test=test, body=[*_, ast.Return() | ast.Raise()], orelse=[]):  # what follows is its else
                    if found := read_test(self.source, test, scope):
                        scope = scope.narrow(found[0], found[2])

    def _walk_statement(self, statement: ast.stmt, scope: Scope) -> None:
        match statement:
            case ast.If(test=test, body=body, orelse=otherwise):
                self._suggest(test, scope)
                self._branch(test, body, otherwise, scope)
            case ast.For(target=ast.Name(id=name), iter=items, body=body):
                self._suggest(items, scope)
                self._repeat(name, items, body, scope)
            case ast.While(test=test, body=body, orelse=otherwise):
                self._suggest(test, scope)
                self._walk_unread([*body, *otherwise], scope, f"while {describe(test)}", test.lineno)
            case ast.Match(subject=subject):
                self._suggest(subject, scope)
                self.walk(read_match(statement), scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if statement not in self.functions:
                self.walk([inner for inner in iterate_own(statement) if isinstance(inner, Function)], scope)
            case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body):
                for names in list_names(self.source, statement):
                    self.walk(body, replace(scope, names={**scope.names, **names}))
            case ast.ClassDef(body=body):
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
            elif isinstance(each, ast.ExceptHandler):
                self.walk(each.body, scope)
            elif isinstance(each, ast.expr | ast.withitem):
                self._suggest(each, scope)

    def _branch(self, test: ast.expr, body: Sequence[ast.stmt], otherwise: Sequence[ast.stmt], scope: Scope) -> None:
        """Walk both branches of an `if`, each under its condition if that is plain."""
        found = read_test(self.source, test, scope)
        if found is None:
            self._walk_unread([*body, *otherwise], scope, f"if {describe(test)}", test.lineno)
            return
        key, chosen, rest = found
        self.walk(body, scope.narrow(key, chosen))
        self.walk(otherwise, scope.narrow(key, rest))

    def _walk_unread(self, body: Sequence[ast.stmt], scope: Scope, condition: str, line: int) -> None:
        """Walk statements under a condition that cannot be read, and note it; a loop is one that may run not at all."""
        before = len(self.suggestions)
        self.walk(body, scope)
        names = [each.name for each in self.suggestions[before:] if not (each.is_open and each.scope.loops)]
        if names:
            what = "condition of" if condition.startswith("if ") else "loop around"
            self.notes.append(f"the {what} {', '.join(names)}, `{condition}` in line {line}, is not read")

    def _repeat(self, name: str, items: ast.expr, body: Sequence[ast.stmt], scope: Scope) -> None:
        """Walk the body of a loop once for each value of its variable, under the condition that there is such a one."""
        iterations = read_iterations(self.source, items, scope)
        if iterations is None:
            inside = scope.repeat(name, describe(items))
            self._walk_unread(body, inside, f"for {name} in {describe(items)}", items.lineno)
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
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                self._suggest(test, scope)
                branches = [ast.copy_location(ast.Expr(each), each) for each in (body, otherwise)]
                self._walk_unread(branches, scope, f"if {describe(test)}", test.lineno)
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
