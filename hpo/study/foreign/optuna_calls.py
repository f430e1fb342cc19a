"""Calls of Optuna's `trial.suggest_…` as parameters. All bounds are inclusive; a step lowers the upper one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import ComputedError, continuous, list_choices, number, stepped, whole
from hpo.study.foreign.optuna_conditions import Scope
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import ForeignDomain, ForeignParameter

__all__ = ["Suggestion", "find_name_parts", "is_suggestion", "read_suggestion"]

ENDS = ("name", "low", "high")
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "suggest_float": (*ENDS, "step", "log"),
    "suggest_int": (*ENDS, "step", "log"),
    "suggest_categorical": ("name", "choices"),
    "suggest_uniform": ENDS,
    "suggest_loguniform": ENDS,
    "suggest_discrete_uniform": (*ENDS, "q"),
}


@dataclass(frozen=True)
class Suggestion:
    """Call that suggests a parameter.

    Attributes:
        name: of the parameter, which a part that is known only when the file runs stands in as it is written.
        named: the expression of the name.
        source: the file.
        call: the call.
        scope: what is known where it stands.
    """

    name: str
    named: ast.expr
    source: Source
    call: ast.Call
    scope: Scope

    def parameter(self) -> ForeignParameter:
        """Return the parameter.

        Raises:
            DefinitionError: its domain is wrong, or known only when the file runs.
        """
        try:
            return ForeignParameter((self.name,), self.domain(), dict(self.scope.when), note=self._describe_repeats())
        except UnreadableError:
            written = describe(self.call)
            raise ComputedError(
                f"{written} (line {self.call.lineno}) is known only when the file runs; write its values there", written
            ) from None
        except DefinitionError as error:
            raise DefinitionError(f"{describe(self.call)} (line {self.call.lineno}): {error}") from error

    def _describe_repeats(self) -> str:
        """Return a note where the name is known only when the file runs, so that it stands for several parameters."""
        node = self.named
        if not self.is_open:
            return ""
        used = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in self.scope.loops]
        each = f"{used[0]} of {self.scope.loops[used[0]]}" if used else f"name {describe(node)}"
        where = f"the file suggests one for each {each} (line {self.call.lineno})"
        return f"{where}, and this one stands for all of them, which can no longer differ"

    @property
    def is_open(self) -> bool:
        """True if the name is known only when the file runs."""
        try:
            self.source.evaluate(self.named, self.scope.names)
        except UnreadableError:
            return True
        return False

    def describe_error(self) -> str:
        """Return what Optuna has against the call when the file runs; empty if nothing is known."""
        signature = inspect.signature(getattr(optuna.trial.Trial, _kind(self.call)))
        try:
            words = self.source.keywords(self.call)
            if not any(isinstance(each, ast.Starred) for each in self.call.args):
                signature.bind(None, *self.call.args, **words)
        except UnreadableError:
            return ""
        except TypeError as error:
            takes = ", ".join(_describe_argument(each) for each in list(signature.parameters.values())[1:])
            return f"Optuna itself refuses {describe(self.call)} (line {self.call.lineno}): {error}; it takes {takes}"
        return ""

    def domain(self) -> ForeignDomain:
        """Return the values.

        Raises:
            UnreadableError: they are known only when the file runs.
            DefinitionError: they are wrong.
        """
        kind = _kind(self.call)
        nodes = _bind(self.source, self.call)
        if kind == "suggest_categorical":
            return list_choices(self._choices(nodes["choices"])) if "choices" in nodes else list_choices(None)
        given = {name: self.source.evaluate(node, self.scope.names) for name, node in nodes.items() if name != "name"}
        if not {"low", "high"} <= set(given):
            raise DefinitionError("needs low and high")
        low, high = number(given["low"], "low"), number(given["high"], "high")
        step, integer = given.get("step", given.get("q")), kind == "suggest_int"
        log = bool(given.get("log")) or kind == "suggest_loguniform"
        if log or step is None or (integer and step == 1):
            return (whole if integer else continuous)(low, high, log=log)
        return stepped(low, high, number(step, "step"), integer=integer)

    def _choices(self, node: ast.expr) -> list[Any]:
        """Return the choices; of a class or a function, which Optuna cannot keep, the name."""
        listed = self.source.resolve(node)
        if not isinstance(listed, ast.List | ast.Tuple):
            return list(self.source.evaluate(listed, self.scope.names))
        return [self._choice(part) for part in listed.elts]

    def _choice(self, node: ast.expr) -> Any:
        try:
            return self.source.evaluate(node, self.scope.names)
        except UnreadableError:
            if isinstance(node, ast.Attribute):
                return node.attr
            raise


def _describe_argument(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}=…" if parameter.kind is inspect.Parameter.KEYWORD_ONLY else parameter.name


def _kind(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _bind(source: Source, call: ast.Call) -> dict[str, ast.expr]:
    """Return the arguments of a suggestion by their names.

    Raises:
        UnreadableError: some are known only when the file runs.
    """
    return {**dict(zip(ARGUMENTS[_kind(call)], call.args, strict=False)), **source.keywords(call)}


def _find_name(call: ast.Call) -> ast.expr | None:
    return next(iter(call.args), None) or next((word.value for word in call.keywords if word.arg == "name"), None)


def find_name_parts(call: ast.Call) -> set[str]:
    """Return the variables that the name of a suggestion is built from."""
    node = _find_name(call)
    return set() if node is None else {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def is_suggestion(node: ast.AST) -> bool:
    """Return whether an expression is a call that suggests a parameter."""
    return isinstance(node, ast.Call) and _kind(node) in ARGUMENTS


def read_suggestion(source: Source, call: ast.Call, scope: Scope) -> Suggestion | None:
    """Return the suggestion that a call is; None if it is another call."""
    node = _find_name(call) if is_suggestion(call) else None
    if node is None:
        return None
    return Suggestion(_read_name(source, node, scope), node, source, call, scope)


def _read_name(source: Source, node: ast.expr, scope: Scope) -> str:
    try:
        return str(source.evaluate(node, scope.names))
    except UnreadableError:
        if not isinstance(node, ast.JoinedStr):
            return describe(node)
        return "".join(_read_part(source, part, scope) for part in node.values)


def _read_part(source: Source, node: ast.expr, scope: Scope) -> str:
    try:
        return str(source.evaluate(node, scope.names))
    except UnreadableError:
        return "_"
