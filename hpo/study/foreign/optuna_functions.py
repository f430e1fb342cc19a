"""Functions of a Python file that a study of Optuna's runs: what `optimize` is given, and what that calls."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign import hugging_face
from hpo.study.foreign.optuna_calls import find_name_parts, is_suggestion
from hpo.study.foreign.python_calls import list_defaults
from hpo.study.foreign.python_source import Source, UnreadableError

__all__ = ["Function", "Objective", "find_objective", "iterate_own", "list_names"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Objective:
    """What a study runs.

    Attributes:
        starts: functions that return the objective's value.
        functions: these and all that they call.
        left_out: functions that suggest parameters and are not called.
    """

    starts: frozenset[Function]
    functions: frozenset[Function]
    left_out: tuple[Function, ...] = ()

    def notes(self) -> Iterator[str]:
        """Yield what is left out."""
        for each in self.left_out:
            where = f"{each.name} (line {each.lineno})"
            yield f"{where} suggests parameters too, and is left out: the objective function does not call it"


def iterate_own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below another without those of the functions that are defined in it."""
    waiting = [node]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            yield child
            if not isinstance(child, Function):
                waiting.append(child)


def find_objective(source: Source) -> Objective:
    """Return what the file's study runs; without `optimize`, the only function that suggests parameters.

    Raises:
        DefinitionError: it can be one of several.
    """
    return _Functions(source).find()


def list_names(source: Source, function: Function) -> list[dict[str, Any]]:
    """Return the arguments that names of suggestions are built from, as each call of their function gives them.

    Where these are known only when the file runs, or none are, it is one table without any.
    """
    defaults = list_defaults(function.args)
    suggestions = [node for node in iterate_own(function) if isinstance(node, ast.Call) and is_suggestion(node)]
    used = sorted(set().union(*map(find_name_parts, suggestions)) & defaults.keys())
    found: list[dict[str, Any]] = []
    for given in source.called.list_calls(function) if used else ():
        nodes = {name: given[name] or defaults[name] or ast.Name(name, ast.Load()) for name in used}
        try:
            names = {name: source.evaluate(node) for name, node in nodes.items()}
        except UnreadableError:
            return [{}]
        found += [names] if names not in found else []
    return found or [{}]


class _Functions:
    """Functions of a file by name, and what they mention."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.all = [node for node in ast.walk(source.tree) if isinstance(node, Function)]
        self.all.sort(key=lambda node: node.lineno)
        self.owners: dict[Function, str] = {}
        self.named: dict[str, list[Function]] = defaultdict(list)
        for node in self.all:
            self.named[node.name].append(node)
        for owner in ast.walk(source.tree):
            if isinstance(owner, ast.ClassDef):  # to make or to call an object runs these
                special = [each for each in owner.body if isinstance(each, Function) and each.name.startswith("__")]
                self.named[owner.name] += special
                self.owners.update(dict.fromkeys(special, owner.name))
        self.suggesting = [node for node in self.all if any(map(is_suggestion, iterate_own(node)))]
        self.calls = {node: frozenset(self._mentioned(node)) for node in self.all}

    def _mentioned(self, node: ast.AST) -> Iterator[Function]:
        """Yield the functions whose names stand in an expression or in the body of a function."""
        for inner in (node, *iterate_own(node)):
            if isinstance(inner, ast.Name | ast.Attribute):
                yield from self.named.get(inner.id if isinstance(inner, ast.Name) else inner.attr, ())

    def find(self) -> Objective:
        """Return the objective; see `find_objective`."""
        given = [self.source.resolve(each) for each in self._optimized()]
        groups = {frozenset(self._mentioned(node)): node for node in given}
        alone = [node for node in given if any(map(is_suggestion, ast.walk(node)))]  # lambdas
        useful = [starts for starts in groups if _reach(starts, self.calls) & set(self.suggesting)]
        if not useful and not alone:
            useful = [frozenset({top}) for top in self._tops()]
        if len(useful) > 1:
            named = sorted({each for starts in useful for each in starts}, key=lambda each: each.lineno)
            names = ", ".join(f"{self.owners.get(each, each.name)} (line {each.lineno})" for each in named)
            raise DefinitionError(f"has {len(named)} objective functions: {names}; leave one in the file")
        starts = frozenset(each for group in useful for each in group)
        around = [each for each in self.all if any(node in alone for node in iterate_own(each))]
        reached = _reach(starts, self.calls) | set(around)
        left_out = tuple(each for each in self.suggesting if each not in reached)
        return Objective(starts, reached, left_out)

    def _optimized(self) -> Iterator[ast.expr]:
        """Yield what `optimize` is given in the file, and the search space of Hugging Face's trainer."""
        for call in self.source.calls():
            if hugging_face.is_search(call):
                yield from filter(None, [hugging_face.list_arguments(call).get("hp_space")])
            elif isinstance(call.func, ast.Attribute) and call.func.attr == "optimize":
                yield from call.args[:1]
                yield from (word.value for word in call.keywords if word.arg == "func")

    def _tops(self) -> list[Function]:
        """Return the functions that suggest parameters, themselves or by others, and that no other such calls."""
        callers: dict[Function, set[Function]] = defaultdict(set)
        for node in self.all:
            for inner in self.calls[node]:
                callers[inner].add(node)
        reaching = _reach(self.suggesting, callers)
        able = [node for node in self.all if node in reaching]
        called = {inner for node in able for inner in self.calls[node] if inner is not node}
        return [node for node in able if node not in called] or able[:1]


def _reach(starts: Iterable[Function], steps: Mapping[Function, Iterable[Function]]) -> frozenset[Function]:
    """Return the functions that any number of steps leads to."""
    reached: set[Function] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += steps.get(node, ())
    return frozenset(reached)
