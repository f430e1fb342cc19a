"""Calls of Optuna's `trial.suggest_…` as parameters. All bounds are inclusive; a step lowers the upper one."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import ComputedError, continuous, list_choices, number, stepped, whole
from hpo.study.foreign.optuna_conditions import Scope
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import ForeignDomain, ForeignParameter

__all__ = ["Suggestion", "is_suggestion", "read_suggestion"]

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
        source: the file.
        call: the call.
        scope: what is known where it stands.
    """

    name: str
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
        node = _bind(self.call, _kind(self.call))["name"]
        if not self.is_open:
            return ""
        used = [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in self.scope.loops]
        each = f"{used[0]} of {self.scope.loops[used[0]]}" if used else f"name {describe(node)}"
        return f"the file suggests one for each {each} (line {self.call.lineno}), and this one stands for all of them"

    @property
    def is_open(self) -> bool:
        """True if the name is known only when the file runs."""
        try:
            self.source.evaluate(_bind(self.call, _kind(self.call))["name"], self.scope.names)
        except UnreadableError:
            return True
        return False

    def domain(self) -> ForeignDomain:
        """Return the values.

        Raises:
            UnreadableError: they are known only when the file runs.
            DefinitionError: they are wrong.
        """
        kind = _kind(self.call)
        nodes = _bind(self.call, kind)
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


def _kind(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _bind(call: ast.Call, kind: str) -> dict[str, ast.expr]:
    given = dict(zip(ARGUMENTS[kind], call.args, strict=False))
    return {**given, **{word.arg: word.value for word in call.keywords if word.arg}}


def is_suggestion(node: ast.AST) -> bool:
    """Return whether an expression is a call that suggests a parameter."""
    return isinstance(node, ast.Call) and _kind(node) in ARGUMENTS


def read_suggestion(source: Source, call: ast.Call, scope: Scope) -> Suggestion | None:
    """Return the suggestion that a call is; None if it is another call."""
    kind = _kind(call)
    if kind not in ARGUMENTS:
        return None
    node = _bind(call, kind).get("name")
    if node is None:
        return None
    return Suggestion(_read_name(source, node, scope), source, call, scope)


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
