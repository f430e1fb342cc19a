"""Tables of Python files that are not run: their literals, with what later statements add to them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.python_loops import unroll
from hpo.study.foreign.python_source import Source, UnreadableError, describe

__all__ = ["Cell", "Tables"]

DEPTH_LIMIT = 32
STEPS = 50_000  # tables that are read of one file, since one may hold itself


@dataclass(frozen=True)
class Cell:
    """Expression in a file, and how statements that change its value write it.

    Attributes:
        node: the expression.
        places: such as `config` and `sweep['parameters']`.
    """

    node: ast.expr
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """Change of a table.

    Attributes:
        statement: that makes it.
        key: that gets a value; None where another table is merged.
        value: the value or the table; None where the key is removed.
        is_certain: whether no condition decides if it is made.
    """

    statement: ast.stmt
    key: ast.expr | None
    value: ast.expr | None
    is_certain: bool = True


class Tables:
    """Tables of a file.

    Args:
        source: the file.

    Attributes:
        notes: on changes that are made only under a condition.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.notes: list[str] = []
        self.steps = 0
        self.changes: dict[str, list[Change]] = defaultdict(list)
        self._collect(source.tree.body, is_certain=True)

    def _collect(self, body: Sequence[ast.stmt | ast.ExceptHandler], *, is_certain: bool) -> None:
        """Collect what statements do to tables, by how these are written."""
        for statement in body:
            if isinstance(statement, ast.For) and (repeated := unroll(self.source, statement)) is not None:
                self._collect(repeated, is_certain=is_certain)
                continue
            for owner, key, value in _read_change(statement):
                if isinstance(statement, ast.stmt) and (place := _name_place(owner)):
                    self.changes[place].append(Change(statement, key, value, is_certain))
            branches = isinstance(statement, ast.If | ast.For | ast.While | ast.Try) and not _is_main(statement)
            for field in ("body", "handlers", "orelse", "finalbody"):
                self._collect(getattr(statement, field, []), is_certain=is_certain and not branches)

    def outer(self) -> Iterator[Cell]:
        """Yield the tables of a file that are in no other."""
        names: dict[int, str] = {}
        inner: set[int] = set()
        for node in ast.walk(self.source.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names[id(node.value)] = _name_place(targets[0])
            if isinstance(node, ast.Dict) or (isinstance(node, ast.Call) and self.source.origin(node.func) == "dict"):
                if id(node) not in inner:
                    yield Cell(node, tuple(filter(None, [names.get(id(node), "")])))
                inner.update(id(each) for each in ast.walk(node))

    def resolve(self, cell: Cell) -> Cell:
        """Return the expression that a name stands for, with the name among its places."""
        node, places = cell.node, list(cell.places)
        while isinstance(node, ast.Name) and node.id in self.source.assigned and len(places) < DEPTH_LIMIT:
            places.append(node.id)
            node = self.source.assigned[node.id]
        return Cell(node, tuple(dict.fromkeys(places)))

    def entries(self, cell: Cell, depth: int = DEPTH_LIMIT) -> dict[str, Cell] | None:
        """Return the entries of a table, with later changes; None if an expression is no table that can be read.

        Raises:
            DefinitionError: a key is known only when the file runs.
        """
        self.steps += 1
        if not depth or self.steps > STEPS:
            _refuse(cell.node)
        cell = self.resolve(cell)
        entries = self._literal(cell.node, depth)
        if entries is None:
            return None
        self._change(entries, [change for place in cell.places for change in self.changes.get(place, ())], depth)
        return {
            key: Cell(each.node, (*each.places, *(f"{place}[{key!r}]" for place in cell.places)))
            for key, each in entries.items()
        }

    def _change(self, entries: dict[str, Cell], changes: Sequence[Change], depth: int) -> None:
        """Change entries. What is set without a condition stays; of what is set under conditions only, the last."""
        guesses: dict[str, ast.stmt | None] = dict.fromkeys(entries)  # None is certain
        for change in changes:
            for key, value in self._changed(change, depth).items():
                earlier = guesses.get(key)
                if key in guesses and earlier is None and not change.is_certain:
                    self._note(change.statement, "left out: it would change a value under a condition")
                    continue
                if earlier is not None:
                    self._note(earlier, f"left out: line {change.statement.lineno} sets the same")
                guesses[key] = None if change.is_certain else change.statement
                entries.pop(key, None)
                entries |= {} if value is None else {key: value}
        for statement in filter(None, guesses.values()):
            self._note(statement, "read as if its condition always held")

    def _changed(self, change: Change, depth: int) -> Mapping[str, Cell | None]:
        """Return the entries that a change gives a table; None for one that it removes."""
        if change.key is not None:
            return {self._key(change.key): None if change.value is None else Cell(change.value)}
        return {} if change.value is None else self._merged(change.value, depth)

    def _note(self, statement: ast.stmt, outcome: str) -> None:
        note = f"`{describe(statement)}` in line {statement.lineno} is {outcome}"
        if note not in self.notes:
            self.notes.append(note)

    def _literal(self, node: ast.expr, depth: int) -> dict[str, Cell] | None:
        entries: dict[str, Cell] = {}
        match node:
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    entries |= self._merged(value, depth) if key is None else {self._key(key): Cell(value)}
                return entries
            case ast.Call(func=function, args=arguments, keywords=words) if self.source.origin(function) == "dict":
                for given in [*arguments, *(word.value for word in words if word.arg is None)]:
                    entries |= self._merged(given, depth)
                return entries | {word.arg: Cell(word.value) for word in words if word.arg is not None}
        return None

    def _merged(self, node: ast.expr, depth: int) -> Mapping[str, Cell]:
        """Return the entries of a table that is put into another.

        Raises:
            DefinitionError: they are known only when the file runs.
        """
        entries = self.entries(Cell(node), depth - 1)
        return _refuse(node) if entries is None else entries

    def _key(self, node: ast.expr) -> str:
        try:
            return str(self.source.evaluate(node))
        except UnreadableError:
            where = f"the key {describe(node)} (line {node.lineno})"
            raise DefinitionError(f"{where} is known only when the file runs; write it there") from None

    def evaluate(self, cell: Cell, depth: int = DEPTH_LIMIT) -> Any:
        """Return the value of an expression; of a table, with later changes.

        Raises:
            DefinitionError: it is known only when the file runs.
        """
        entries = self.entries(cell, depth)
        if entries is not None:
            return {key: self.evaluate(each, depth - 1) for key, each in entries.items()}
        try:
            return self.source.evaluate(cell.node)
        except UnreadableError:
            return _refuse(cell.node)


def _refuse(node: ast.expr) -> Any:
    where = f"{describe(node)} (line {node.lineno})"
    raise DefinitionError(f"{where} is known only when the file runs; write its values there")


def _is_main(statement: ast.AST) -> bool:
    return isinstance(statement, ast.If) and describe(statement.test).startswith("__name__ ==")


def _name_place(node: ast.AST) -> str:
    """Return how a variable, or an entry of its table, is written; empty for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Subscript(value=owner, slice=ast.Constant(value=key)) if place := _name_place(owner):
            return f"{place}[{key!r}]"
    return ""


def _read_change(statement: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None, ast.expr | None]]:
    """Yield the tables that a statement changes, each with the key and its value; see `Change`."""
    match statement:
        case ast.Assign(targets=[ast.Subscript(value=owner, slice=key)], value=value):
            yield owner, key, value
        case ast.Delete(targets=[ast.Subscript(value=owner, slice=key)]):
            yield owner, key, None
        case ast.AugAssign(target=ast.Name() as owner, op=ast.BitOr(), value=table):
            yield owner, None, table
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr="update"), args=tables, keywords=words)):
            yield from ((owner, None, table) for table in tables)
            yield from ((owner, ast.Constant(word.arg), word.value) for word in words if word.arg)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr="pop"), args=[key, *_])):
            yield owner, key, None
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr="setdefault"), args=[key, value])):
            yield owner, key, value
