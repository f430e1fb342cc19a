"""Uses of the values that Optuna suggests to an objective function: passed on, or computed with."""

from __future__ import annotations

import ast
import copy
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hpo.study.foreign.optuna_functions import Function
from hpo.study.foreign.python_source import Source, describe

__all__ = ["Use", "Uses"]

HARMLESS = frozenset(("int", "float", "str", "bool"))
COMPUTING = frozenset(
    (
        *("abs", "around", "ceil", "clip", "divmod", "exp", "exp2", "expm1", "floor", "log", "log10", "log1p", "log2"),
        *("max", "maximum", "min", "minimum", "pow", "power", "round", "sqrt", "square", "sum"),
    )
)
REPORTING = ("report", "set_user_attr")
QUESTIONS = (ast.Compare, ast.BoolOp, ast.If, ast.While, ast.Assert)


@dataclass(frozen=True)
class Use:
    """Use of a suggested value.

    Attributes:
        expression: what is computed of it, in the file's words; empty where it is used as it is.
        always: whether it is never used as it is.
    """

    expression: str = ""
    always: bool = False


class Uses:
    """Finder of what a file does with suggested values.

    Args:
        source: the file.
        objectives: functions whose result is the value of a trial, and no parameter.
    """

    def __init__(self, source: Source, objectives: Collection[Function]) -> None:
        self.source, self.objectives = source, objectives
        self.parents: dict[ast.AST, ast.AST] = {}
        self.places: dict[tuple[ast.AST | None, str], list[ast.expr]] = defaultdict(list)
        for node in ast.walk(source.tree):  # parents come before their children
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
            if isinstance(node, ast.expr) and (place := _name_place(node)):
                self.places[self._scope(node), place].append(node)

    def find(self, call: ast.Call, *, is_text: bool) -> Use:
        """Return what the file does with the value of a call.

        Args:
            call: of a suggestion.
            is_text: whether its values are texts, so that looking a thing up by it only names the thing.
        """
        top, changes = self._climb(call, is_text=is_text, is_call=True)
        if changes and not self._is_result(top):
            return Use(_write(top, call), always=True)
        plain, computed = False, ""
        for place in self._held_in(call, top):
            for node in self._reads(place, call):
                if self._rebinds(node, place):
                    return Use(computed or self._describe_change(node, is_text=is_text), always=not plain)
                written = self._describe_change(node, is_text=is_text)
                top = self._climb(node, is_text=is_text, is_call=False)[0]
                if self._is_result(top) if written else self._is_told(node):
                    continue
                computed, plain = computed or written, plain or not written
        return Use(computed, always=bool(computed) and not plain)

    def _climb(self, node: ast.expr, *, is_text: bool, is_call: bool) -> tuple[ast.expr, bool]:
        """Return the largest expression whose value is a value's own or computed of it, and whether it is computed."""
        changes = False
        while isinstance(parent := self.parents.get(node), ast.expr | ast.keyword):
            whole = self.parents[parent] if isinstance(parent, ast.keyword) else parent
            found = self._changes(node, whole, is_text=is_text, is_call=is_call)
            if found is None:
                break
            assert isinstance(whole, ast.expr)
            node, changes = whole, changes or found
        asked = isinstance(parent, QUESTIONS) or (isinstance(parent, ast.IfExp) and parent.test is node)
        return node, changes and not asked

    def _changes(self, node: ast.expr, whole: ast.AST, *, is_text: bool, is_call: bool) -> bool | None:
        """Return whether an expression computes another value of a part; None if its value is about anything else."""
        match whole:
            case ast.BinOp(left=left, right=right):
                other = right if node is left else left
                is_written = isinstance(other, ast.JoinedStr) or isinstance(getattr(other, "value", None), str)
                return True if is_call or not is_written else None  # else it is put into a message
            case ast.JoinedStr() | ast.FormattedValue():
                return True if is_call else None
            case ast.UnaryOp():
                return True
            case ast.Call(func=function) if function is not node:
                name = self.source.origin(function)
                return False if name in HARMLESS else True if name.rpartition(".")[2] in COMPUTING else None
            case ast.Subscript(slice=key) if key is node and not is_text:
                return True
            case ast.IfExp(test=test) if test is not node:
                return False
            case ast.NamedExpr():
                return False
        return None

    def _describe_change(self, node: ast.expr, *, is_text: bool) -> str:
        parent = self.parents.get(node)
        if isinstance(parent, ast.AugAssign) and parent.target is node:
            return describe(parent)
        top, changes = self._climb(node, is_text=is_text, is_call=False)
        return describe(top) if changes else ""

    def _is_told(self, node: ast.expr) -> bool:
        """Return whether a value is only written, reported or compared there."""
        parent = self.parents[node]
        if isinstance(parent, ast.Call):
            called = parent.func
            return getattr(called, "attr", getattr(called, "id", "")) in ("print", *REPORTING)
        return isinstance(parent, ast.FormattedValue | ast.Compare | ast.If)

    def _is_result(self, node: ast.AST) -> bool:
        """Return whether an expression is what an objective function returns or reports, or one of several."""
        parent = self.parents[node]
        if isinstance(parent, ast.Tuple):
            parent = self.parents[parent]
        if isinstance(parent, ast.Call) and getattr(parent.func, "attr", "") in REPORTING:
            return True
        return isinstance(parent, ast.Return) and self._function(parent) in self.objectives

    def _rebinds(self, node: ast.expr, place: str) -> bool:
        """Return whether a variable gets a value that is computed of its own: `k = 2 ** k`, `k *= 32`."""
        statement = self._statement(node)
        if isinstance(statement, ast.AugAssign) and statement.target is node:
            return True
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        return any(_name_place(each) == place for each in targets) and bool(self._describe_change(node, is_text=True))

    def _held_in(self, call: ast.Call, top: ast.expr) -> Iterator[str]:
        """Yield the variables, and entries of tables, that hold a value."""
        node: ast.AST = call
        while node is not top:
            node = self.parents[node]
            if isinstance(node, ast.NamedExpr):
                yield node.target.id
        match self.parents.get(top):
            case ast.Assign() | ast.AnnAssign() as holder:
                yield from filter(None, map(_name_place, _targets(holder)))
            case ast.Tuple(elts=parts) as table:
                for target in _targets(self.parents[table]):
                    if isinstance(target, ast.Tuple) and len(target.elts) == len(parts):
                        yield from filter(None, [_name_place(target.elts[parts.index(top)])])
            case ast.Dict(keys=keys, values=values) as table:
                key = keys[values.index(top)]
                if isinstance(key, ast.Constant):
                    yield from self._entries(table, key.value)
            case ast.keyword(arg=str() as name) as word:
                if self.source.origin(getattr(self.parents[word], "func", word)) == "dict":
                    yield from self._entries(self.parents[word], name)

    def _entries(self, table: ast.AST, key: object) -> Iterator[str]:
        for target in _targets(self.parents[table]):
            if isinstance(target, ast.Name):
                yield f"{target.id}[{key!r}]"

    def _reads(self, place: str, call: ast.Call) -> list[ast.expr]:
        """Return the uses of a variable, in the file's order; of an entry, those of its whole table as well."""
        scope = self._scope(call)
        found = [node for node in self.places[scope, place] if self._is_read(node)]
        table, bracket, _ = place.partition("[")
        if bracket:
            wholes = self.places[scope, table]
            found += [
                each for each in wholes if self._is_read(each) and not isinstance(self.parents[each], ast.Subscript)
            ]
        return sorted(found, key=lambda node: (node.lineno, node.col_offset))

    def _is_read(self, node: ast.expr) -> bool:
        parent = self.parents[node]
        is_changed = isinstance(parent, ast.AugAssign) and parent.target is node
        return is_changed or isinstance(getattr(node, "ctx", None), ast.Load)

    def _statement(self, node: ast.AST) -> ast.AST:
        while not isinstance(node, ast.stmt | ast.Module):
            node = self.parents[node]
        return node

    def _function(self, node: ast.AST | None) -> ast.AST | None:
        while node is not None and not isinstance(node, Function):
            node = self.parents.get(node)
        return node

    def _scope(self, node: ast.AST) -> ast.AST | None:
        """Return the outermost function that a node is in, whose variables the functions within it see."""
        scope = inner = self._function(node)
        while inner is not None:
            scope, inner = inner, self._function(self.parents.get(inner))
        return scope


def _targets(statement: ast.AST) -> list[ast.expr]:
    if isinstance(statement, ast.Assign):
        return statement.targets
    return [statement.target] if isinstance(statement, ast.AnnAssign) else []


def _name_place(node: ast.AST) -> str:
    """Return how a variable, an entry of a table or an attribute is written; empty for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)):
            return f"{name}[{key!r}]"
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return f"{name}.{attribute}"
    return ""


def _write(top: ast.expr, call: ast.Call) -> str:
    """Return an expression with an ellipsis in the place of the suggestion."""
    try:
        return describe(copy.deepcopy(top, {id(call): ast.Name("…")}))
    except RecursionError:
        return "…"
