"""Tables of a Python file that grow: the statements that add to a table by its name, where the name stands for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["TableNames"]

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(eq=False)
class _Scope:
    """Function, or the module, with the names that are its own."""

    outer: _Scope | None = None
    names: set[str] = field(default_factory=set)


class TableNames:
    """Names of the tables of a file, and what adds to them.

    Args:
        tree: the file's syntax.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.bindings: dict[int, tuple[str, _Scope]] = {}  # by the id of the table's expression
        self.changes: dict[str, list[tuple[ast.AST, _Scope]]] = {}  # by the table's name
        left: list[tuple[ast.AST, _Scope]] = [(tree, _Scope())]
        while left:
            node, scope = left.pop()
            self._note(node, scope)
            inner = _Scope(scope) if isinstance(node, Function) else scope
            left += [(child, inner) for child in reversed(list(ast.iter_child_nodes(node)))]

    def _note(self, node: ast.AST, scope: _Scope) -> None:
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                scope.names.add(name)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() | ast.Call() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() | ast.Call() as value)
            ):
                self.bindings[id(value)] = name, scope
        if name := _changed_name(node):
            self.changes.setdefault(name, []).append((node, scope))

    def additions(self, table: ast.expr) -> Iterator[ast.AST]:
        """Yield the statements and calls that add to a table, in the file's order."""
        name, scope = self.bindings.get(id(table), ("", None))
        for node, where in self.changes.get(name, ()):
            found = where
            while found.outer is not None and name not in found.names:
                found = found.outer
            if found is scope:
                yield node

    def added(self) -> Iterator[ast.AST]:
        """Yield what is added to the tables that the file has."""
        for name in {name for name, _ in self.bindings.values()}:
            for node, _ in self.changes.get(name, ()):
                yield from ast.iter_child_nodes(node)


def _changed_name(node: ast.AST) -> str:
    """Return the name of the table that a statement or a call adds to; empty if it does not."""
    match node:
        case ast.Assign(targets=[ast.Subscript(value=owner)]):
            while isinstance(owner, ast.Subscript):
                owner = owner.value
            return owner.id if isinstance(owner, ast.Name) else ""
        case (
            ast.AugAssign(target=ast.Name(id=name), op=ast.BitOr())
            | ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update" | "setdefault"))
        ):
            return name
    return ""
