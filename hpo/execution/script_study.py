"""Studies that a script makes: what its calls of `optuna.create_study` say, read without running them."""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from optuna.study import StudyDirection

from hpo.errors import DefinitionError, RequestError
from hpo.study.definition import FunctionReference
from hpo.study.input.optuna_components import Component, read_component, read_seed
from hpo.study.pruners import PRUNERS
from hpo.study.samplers import SAMPLERS
from hpo.utils.modules import import_file

__all__ = ["FileDirections", "find_directions", "read_components"]


class UnreadableError(Exception):
    """An expression whose value is known only when the script runs."""


@dataclass(frozen=True)
class FileDirections:
    """Directions that a file gives to `optuna.create_study`.

    Attributes:
        directions: one for each objective.
        file: the file's name.
        line: of the call.
        written: false if the call leaves the direction out, which Optuna takes for `minimize`.
    """

    directions: list[str]
    file: str
    line: int
    written: bool

    def describe(self) -> str:
        """Return a line that says where they come from."""
        text = f"direction {', '.join(self.directions)}"
        if self.written:
            return f"{text}, as {self.file} has it in line {self.line}"
        return f"{text}, the default of create_study, which {self.file} calls in line {self.line}"


@dataclass(frozen=True)
class _Script:
    """Source of a module that is imported, with the values of its names.

    Attributes:
        name: of the file.
        tree: the source.
        values: of the module's names.
        bindings: how often each name is bound anywhere in the source.
        assigned: what is assigned to each name.
    """

    name: str
    tree: ast.Module
    values: Mapping[str, object]
    bindings: Counter[str]
    assigned: Mapping[str, ast.expr]

    def find_calls(self) -> list[ast.Call]:
        """Return the calls of `optuna.create_study`, by that name or another."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        return sorted(filter(self._makes_study, calls), key=lambda call: call.lineno)

    def _makes_study(self, call: ast.Call) -> bool:
        called = call.func
        if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) == "create_study":
            return True
        try:
            return self.evaluate(called) is optuna.create_study
        except UnreadableError:
            return False

    def read_arguments(self, call: ast.Call) -> dict[str, ast.expr | object]:
        """Return the keywords of a call, those of `**options` with their values.

        Raises:
            UnreadableError: such options are known only when the script runs.
        """
        arguments: dict[str, ast.expr | object] = {}
        for word in call.keywords:
            if word.arg is not None:
                arguments[word.arg] = word.value
                continue
            options = self.evaluate(word.value)
            if not isinstance(options, dict):
                raise UnreadableError
            arguments.update(options)
        return arguments

    def evaluate(self, node: ast.expr | object) -> Any:
        """Return the value of an expression of literals and of the module's constants; no code of the user's runs.

        Raises:
            UnreadableError: it has calls, or names of other values.
        """
        if not isinstance(node, ast.expr):
            return node
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            pass
        try:
            return self._look_up(node)
        except (AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise UnreadableError from error

    def _look_up(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name):
                # A name that is bound twice may have another value where the study is made.
                if self.bindings[name] > 1:
                    raise UnreadableError
                if name in self.values:
                    return self.values[name]
                return optuna if name == "optuna" else self.evaluate(self.assigned[name])
            case ast.Attribute(value=ast.Name(id="StudyDirection") | ast.Attribute(attr="StudyDirection"), attr=member):
                return StudyDirection[member]
            case ast.Attribute(value=owner, attr=name):
                value = self.evaluate(owner)
                return getattr(value, name) if isinstance(value, ModuleType | type) else vars(value)[name]
            case ast.Subscript(value=owner, slice=key) if type(held := self.evaluate(owner)) in (dict, list, tuple):
                return held[self.evaluate(key)]
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self.evaluate(part) for part in parts]
        raise UnreadableError

    def make_component(self, node: ast.expr | object) -> tuple[Component | None, dict[str, Any]]:
        """Return a sampler or pruner of Optuna, and the keywords that were given to it.

        Raises:
            UnreadableError: the expression is neither a call of such a class nor one that is there already.
        """
        if isinstance(node, ast.Name) and node.id not in self.values and self.bindings[node.id] == 1:
            node = self.assigned.get(node.id, node)
        if not isinstance(node, ast.Call):
            value = self.evaluate(node)
            if value is not None and not isinstance(value, Component):
                raise UnreadableError
            return value, {}
        cls = self.evaluate(node.func)
        if not (isinstance(cls, type) and issubclass(cls, Component) and cls.__module__.startswith("optuna.")):
            raise UnreadableError
        words = {name: self.evaluate(value) for name, value in self.read_arguments(node).items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return cls(*map(self.evaluate, node.args), **words), words
        except Exception as error:  # Optuna refuses the arguments
            raise UnreadableError from error


def _read_script(reference: FunctionReference) -> _Script | None:
    """Return the source of the module that holds a function; None if it has none."""
    module = sys.modules.get(reference.module or "") if reference.file is None else import_file(Path(reference.file))
    path = None if module is None else getattr(module, "__file__", None)
    if module is None or path is None or not path.endswith(".py"):
        return None
    tree = ast.parse(Path(path).read_bytes())
    nodes = list(ast.walk(tree))
    names = [node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)]
    names += [node.arg for node in nodes if isinstance(node, ast.arg)]
    assigned = {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    }
    return _Script(Path(path).name, tree, vars(module), Counter(names), assigned)


def find_directions(reference: FunctionReference) -> FileDirections | None:
    """Find the directions that the function's file gives to `optuna.create_study`, by reading it.

    Most files make their study under `if __name__ == "__main__":`, which a launch does not run. None if the file makes
    no study.

    Raises:
        RequestError: it makes studies of different directions, or they are known only when it runs.
    """
    script = _read_script(reference)
    if script is None:
        return None
    found: dict[tuple[str, ...], FileDirections] = {}
    for call in script.find_calls():
        try:
            given = _read_directions(script, call)
        except UnreadableError:
            raise RequestError(
                f"{script.name}: the direction in line {call.lineno} is known only when the file runs, which a launch "
                "does not; give --direction minimize or --direction maximize, or several with commas"
            ) from None
        directions = given or ["minimize"]
        found.setdefault(tuple(directions), FileDirections(directions, script.name, call.lineno, given is not None))
    if len(found) > 1:
        lines = " and ".join(str(each.line) for each in found.values())
        raise RequestError(
            f"{script.name}: makes studies of different directions (lines {lines}); say which with --direction"
        )
    return next(iter(found.values()), None)


def _read_directions(script: _Script, call: ast.Call) -> list[str] | None:
    """Return the directions of a call of `create_study`; None if it leaves them out.

    Raises:
        UnreadableError: they are known only when the script runs.
    """
    arguments = script.read_arguments(call)
    given = [value for name in ("direction", "directions") if (value := script.evaluate(arguments.get(name)))]
    if not given:
        return None
    parts = given[0] if isinstance(given[0], list | tuple) else [given[0]]
    return [_spell_direction(part) for part in parts]


def _spell_direction(value: object) -> str:
    name = value.name if isinstance(value, StudyDirection) else value
    if not isinstance(name, str):
        raise UnreadableError
    return name.lower()


def read_components(reference: FunctionReference, wanted: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return sampler, pruner and seed that the function's file gives to `optuna.create_study`, and notes on them.

    Args:
        reference: the function.
        wanted: those of `sampler`, `pruner` and `seed` that are looked for.
    """
    script = _read_script(reference)
    keys: dict[str, Any] = {}
    notes: list[str] = []
    calls = [] if script is None else script.find_calls()
    for kind in ("sampler", "pruner"):
        if script is None or kind not in wanted:
            continue
        found: list[dict[str, Any]] = []
        for call in calls:
            where = f"{kind}: that of {script.name}, line {call.lineno}, is not taken"
            try:
                found.append(_read_component(script, call, kind))
            except UnreadableError:
                notes.append(
                    f"{where}, as it is known only when the file runs; the default one is, unless you give --{kind}"
                )
            except DefinitionError as error:
                notes.append(f"{where}, but the default one: {error}")
        if len(found) == len(calls) and all(each == found[0] for each in found):
            keys.update({key: value for key, value in (found[0] if found else {}).items() if key in wanted})
        elif len(found) == len(calls):
            notes.append(
                f"{kind}: {script.name} makes studies of different ones, of which none is taken; give --{kind}"
            )
    if script is not None and keys:
        taken = [f"{key} {value['name'] if isinstance(value, dict) else value}" for key, value in keys.items()]
        notes.append(
            f"{', '.join(taken)}, as {script.name} has {'it' if len(taken) == 1 else 'them'} in line {calls[0].lineno}"
        )
    return keys, notes


def _read_component(script: _Script, call: ast.Call, kind: str) -> dict[str, Any]:
    """Return the sampler or the pruner of a call of `create_study` as a key, and the sampler's seed as another.

    Raises:
        UnreadableError: it is known only when the script runs.
        DefinitionError: it has no name here, or an argument that has none.
    """
    node = script.read_arguments(call).get(kind)
    component, given = script.make_component(node)
    if component is None:
        return {}
    table = read_component(component)
    options = (SAMPLERS if kind == "sampler" else PRUNERS)[table["name"]].options
    for name, value in given.items():
        if name in options and value not in (None, "auto"):
            table[name] = value
        elif name not in options and name != "seed":
            raise DefinitionError(f"{type(component).__name__} has no option {name} here")
    if table["name"] == "hyperband" and "max_resource" not in table:
        raise DefinitionError("HyperbandPruner needs max_resource, the last step that a trial reports")
    seed = read_seed(component) if kind == "sampler" else None
    return {kind: table} if seed is None else {kind: table, "seed": seed}
