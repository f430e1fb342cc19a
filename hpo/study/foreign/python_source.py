"""Python files that are read without being run: what their names stand for, and the values of plain expressions."""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hpo.errors import DefinitionError
from hpo.study.foreign.arguments import find_arguments
from hpo.study.foreign.python_calls import Argument, CalledFunctions
from hpo.study.foreign.table_names import TableNames
from hpo.utils.text import shorten

__all__ = ["STEPS", "Source", "UnreadableError", "describe", "parse_source"]

STEPS = 50_000  # expressions that are evaluated of one file
LENGTH = 1000  # values of a list
TEXT_LENGTH = 1000
LARGEST = 2**63
USUAL = {"np": "numpy"}  # names by which a part of a file may know what another part imports
NO_LOCALS: Mapping[str, Any] = {}


class Array(list[Any]):
    """Values of an array of numpy's, whose arithmetic is another than that of lists."""


class UnreadableError(Exception):
    """An expression whose value is known only when the file runs."""


def describe(node: ast.AST, length: int = 60) -> str:
    """Return an expression as a file has it, shortened, on one line."""
    try:
        return shorten(" ".join(ast.unparse(node).split()), length, quote=False)
    except RecursionError:
        return "…"


def parse_source(text: str) -> Source:
    """Parse a Python file.

    Raises:
        DefinitionError: it is no Python of a version that is still in use; the message names the line.
    """
    try:
        with warnings.catch_warnings():  # of what is wrong in the file, but not here
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        raise DefinitionError(f"line {error.lineno}: is no valid Python: {shorten(error.msg, quote=False)}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise DefinitionError("is no Python that can be parsed") from error
    return Source(tree, *_collect(tree))


def _collect(tree: ast.Module) -> tuple[dict[str, str], dict[str, ast.expr], Counter[str]]:
    """Return what names are imported as, the expressions of names bound once, and how often each name is bound."""
    imports: dict[str, str] = {}
    assigned: dict[str, ast.expr] = {}
    bound: Counter[str] = Counter()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for each in names:
                    imports[each.asname or each.name.partition(".")[0]] = (
                        each.name if each.asname else each.name.partition(".")[0]
                    )
            case ast.ImportFrom(module=module, names=names):
                imports.update({each.asname or each.name: f"{module or ''}.{each.name}" for each in names})
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                assigned[name] = value
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound[node.id] += 1
        elif isinstance(node, ast.arg):
            bound[node.arg] += 1
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound[node.name] += 1
    return imports, {name: value for name, value in assigned.items() if bound[name] == 1}, bound


@dataclass
class Source:
    """Parsed Python file.

    Attributes:
        tree: of its syntax.
        imports: full names of what is imported, by the names that the file gives them.
        assigned: expressions of the names that are assigned once, in any function.
        bound: how often the file gives each name to a value, an argument, a function or a class.
        assumed: notes on defaults that were taken for values.
        steps: expressions that have been evaluated.
    """

    tree: ast.Module
    imports: Mapping[str, str]
    assigned: Mapping[str, ast.expr]
    bound: Mapping[str, int]
    assumed: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    _pending: set[str] = field(default_factory=set)

    @cached_property
    def tables(self) -> TableNames:
        """The names of the file's tables, and what adds to them."""
        return TableNames(self.tree)

    @cached_property
    def called(self) -> CalledFunctions:
        """The file's functions with their calls."""
        return CalledFunctions(self.tree)

    @cached_property
    def arguments(self) -> Mapping[str, Argument]:
        """Arguments whose names stand for nothing else in the file, and those of a command line, as `args.epochs`."""
        own = {name: each for name, each in self.called.list_arguments().items() if self.bound[name] == 1}
        return own | {name: Argument(default) for name, default in find_arguments(self.tree).items()}

    def calls(self) -> Iterator[ast.Call]:
        """Yield all calls, in the file's order."""
        found = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        yield from sorted(found, key=lambda call: (call.lineno, call.col_offset))

    def origin(self, node: ast.AST) -> str:
        """Return the full name of what an expression stands for, such as `ray.tune.choice`; empty if it has none."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        if node.id in self.bound and node.id not in self.imports:
            return ""
        known = self.imports.get(node.id, USUAL.get(node.id, node.id))
        return ".".join([known, *reversed(parts)])

    def keywords(self, call: ast.Call) -> dict[str, ast.expr]:
        """Return the keywords of a call, with those of the tables that it unpacks.

        Raises:
            UnreadableError: a table is known only when the file runs.
        """
        self.steps += 1
        if self.steps > STEPS:
            raise UnreadableError
        words: dict[str, ast.expr] = {}
        try:
            for word in call.keywords:
                words |= {word.arg: word.value} if word.arg else self._entries(word.value)
        except RecursionError as error:  # tables that are parts of each other
            raise UnreadableError from error
        return words

    def _entries(self, node: ast.expr) -> dict[str, ast.expr]:
        match self.resolve(node):
            case ast.Dict(keys=keys, values=values) as table if not any(self.tables.additions(table)):
                entries: dict[str, ast.expr] = {}
                for key, value in zip(keys, values, strict=True):
                    entries |= self._entries(value) if key is None else {str(self.evaluate(key)): value}
                return entries
            case ast.Call(func=function, args=[]) as call if self.origin(function) == "dict":
                if not any(self.tables.additions(call)):
                    return self.keywords(call)
        raise UnreadableError

    def resolve(self, node: ast.expr) -> ast.expr:
        """Return the expression that a name stands for; any other as it is."""
        for _ in range(10):
            if not (isinstance(node, ast.Name) and node.id in self.assigned):
                break
            node = self.assigned[node.id]
        return node

    def evaluate(self, node: ast.expr, names: Mapping[str, Any] = NO_LOCALS) -> Any:
        """Return the value of an expression of literals, arithmetic, names with such values, and a few functions.

        Args:
            node: the expression.
            names: values of names, before all that the file gives them.

        Raises:
            UnreadableError: it has anything else, or is too large.
        """
        try:
            return self._evaluate(node, names)
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, AttributeError) as error:
            raise UnreadableError from error

    def _evaluate(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        self.steps += 1
        if self.steps > STEPS:
            raise UnreadableError
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return _bounded(value)
            case ast.Name(id=name):
                return names[name] if name in names else self._look_up(name)
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute) if owner not in names:
                return self._look_up(f"{owner}.{attribute}")
            case ast.IfExp(test=test, body=body, orelse=other):
                return self._evaluate(body if self._evaluate(test, names) else other, names)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return self._items(parts, names)
            case ast.Dict(keys=keys, values=values) if None not in keys:
                pairs = zip(keys, values, strict=True)
                return {self._evaluate(key, names): self._evaluate(value, names) for key, value in pairs if key}
            case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
                return UNARY[type(op)](self._evaluate(operand, names))
            case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mod(), right=right):
                given = self._evaluate(right, names)
                return _fill(text, r"%[ds]", given if isinstance(given, list) else [given])
            case ast.BinOp(left=left, op=op, right=right):
                return _combine(op, self._evaluate(left, names), self._evaluate(right, names))
            case ast.Subscript(value=owner, slice=key):
                return self._evaluate(owner, names)[self._evaluate(key, names)]
            case ast.JoinedStr(values=parts):
                return _bounded("".join(str(self._evaluate(part, names)) for part in parts))
            case ast.FormattedValue(value=value, format_spec=None):
                return self._evaluate(value, names)
            case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as loop]):
                items = self._evaluate(loop.iter, names)
                if loop.ifs or len(items) > LENGTH:
                    raise UnreadableError
                return [self._evaluate(element, {**names, name: item}) for item in items]
            case ast.Call():
                return self._call(node, names)
        raise UnreadableError

    def _look_up(self, name: str) -> Any:
        if name in self.assigned:
            return self._evaluate(self.assigned[name], NO_LOCALS)
        if name not in self.arguments or name in self._pending:
            raise UnreadableError
        self._pending.add(name)  # a function may call itself
        try:
            return self._read_argument(name, self.arguments[name])
        finally:
            self._pending.remove(name)

    def _read_argument(self, name: str, argument: Argument) -> Any:
        """Return what all calls of its function give to an argument; else its default, which is noted."""
        calls = [argument.default if each is None else each for each in argument.given]
        given = [each for each in calls if each is not None]
        try:
            values = [self.evaluate(each, NO_LOCALS) for each in given]
        except UnreadableError:
            values = []
        if any(argument.given) and values and all(value == values[0] for value in values):
            return values[0]
        if argument.default is None:
            raise UnreadableError
        value = self._evaluate(argument.default, NO_LOCALS)
        others = ", ".join(f"{describe(each)} in line {each.lineno}" for each in given if each is not argument.default)
        note = f"{name} = {shorten(value)} is taken from a default, in line {argument.default.lineno}"
        self.assumed[name] = f"{note}; the file gives it {others}" if others else note
        return value

    def _items(self, parts: Sequence[ast.expr], names: Mapping[str, Any]) -> list[Any]:
        items: list[Any] = []
        for part in parts:
            if isinstance(part, ast.Starred):
                items += self._evaluate(part.value, names)
            else:
                items.append(self._evaluate(part, names))
        return items

    def _call(self, node: ast.Call, names: Mapping[str, Any]) -> Any:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "tolist":
            return list(self._evaluate(node.func.value, names))
        if isinstance(node.func, ast.Attribute) and node.func.attr in PARTS and not (node.args or node.keywords):
            return PARTS[node.func.attr](self._evaluate(node.func.value, names))
        if isinstance(node.func, ast.Attribute) and node.func.attr == "format" and not node.keywords:
            return _fill(self._evaluate(node.func.value, names), r"\{\d?\}", self._items(node.args, names))
        function = FUNCTIONS.get(self.origin(node.func))
        if function is None or any(word.arg is None for word in node.keywords):
            raise UnreadableError
        arguments = self._items(node.args, names)
        words = {str(word.arg): self._evaluate(word.value, names) for word in node.keywords}
        return _bounded(function(*arguments, **words))


def _bounded(value: Any) -> Any:
    """Return a value that is not too large.

    Raises:
        UnreadableError: it is.
    """
    too_large = (
        isinstance(value, complex)
        or (isinstance(value, int) and abs(value) >= LARGEST)
        or (isinstance(value, str | list) and len(value) > (TEXT_LENGTH if isinstance(value, str) else LENGTH))
    )
    if too_large:
        raise UnreadableError
    return value


def _fill(text: str, place: str, values: Sequence[Any]) -> str:
    """Return a text with values in its plain places; those with a width or a format cannot be read."""
    parts = re.split(place, text)
    if len(parts) != len(values) + 1 or re.search(r"[%{}]", "".join(parts)):
        raise UnreadableError
    return str(_bounded("".join(map(str, itertools.chain(*zip(parts, [*values, ""], strict=True))))))


def _combine(op: ast.operator, left: Any, right: Any) -> Any:
    """Return the result of arithmetic, of joining two texts, lists or tables, or of repeating a text or a list."""
    numbers = all(isinstance(each, int | float) for each in (left, right))
    if isinstance(op, ast.Pow) and (not numbers or abs(right) > 1024 or abs(left) > LARGEST):
        raise UnreadableError
    joined = isinstance(op, ast.Add | ast.BitOr) and type(left) is type(right) and type(left) in (str, list, dict)
    counts = [each for each in (left, right) if isinstance(each, int)]
    parts = [each for each in (left, right) if type(each) in (str, list)]
    repeated = isinstance(op, ast.Mult) and len(counts) == len(parts) == 1 and counts[0] * len(parts[0]) <= TEXT_LENGTH
    if type(op) not in BINARY or not (numbers or joined or repeated):
        raise UnreadableError
    return _bounded(BINARY[type(op)](left, right))


def _list_range(*ends: int) -> list[int]:
    numbers = range(*ends)
    if len(numbers) > LENGTH:
        raise UnreadableError
    return list(numbers)


def _list_numbers(function: Callable[..., Any], count: Callable[..., float]) -> Callable[..., Array]:
    """Return a function of numpy's that makes an array, if it is not too long."""

    def make(*arguments: Any, **words: Any) -> Array:
        if not 0 <= count(*arguments, **words) <= LENGTH:
            raise UnreadableError
        return Array(
            float(f"{each:.12g}") if isinstance(each, float) else each
            for each in function(*arguments, **words).tolist()
        )

    return make


def _count_arange(start: float, stop: float | None = None, step: float = 1) -> float:
    return (start if stop is None else stop - start) / step


def _count_space(_start: float, _stop: float, num: int = 50, **_words: Any) -> float:
    return num


UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitOr: operator.or_,
}
PARTS: Mapping[str, Callable[[dict[Any, Any]], list[Any]]] = {
    "items": lambda table: [list(pair) for pair in table.items()],
    "keys": list,
    "values": lambda table: list(table.values()),
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "range": _list_range,
    "list": list,
    "tuple": list,
    "dict": dict,
    "sorted": sorted,
    "len": len,
    "min": min,
    "max": max,
    "sum": sum,
    "abs": abs,
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "round": round,
    "math.log": math.log,
    "math.log2": math.log2,
    "math.log10": math.log10,
    "math.exp": math.exp,
    "math.sqrt": math.sqrt,
    "math.pow": math.pow,
    "numpy.log": math.log,
    "numpy.log10": math.log10,
    "numpy.exp": math.exp,
    "numpy.sqrt": math.sqrt,
    "numpy.array": Array,
    "numpy.arange": _list_numbers(np.arange, _count_arange),
    "numpy.linspace": _list_numbers(np.linspace, _count_space),
    "numpy.logspace": _list_numbers(np.logspace, _count_space),
    "numpy.geomspace": _list_numbers(np.geomspace, _count_space),
}
