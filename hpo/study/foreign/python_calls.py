"""Functions of a Python file that is not run, and what its calls give to their arguments."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Argument", "CalledFunctions", "list_defaults"]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Given = Mapping[str, ast.expr | None]


@dataclass(frozen=True)
class Argument:
    """Argument of a function.

    Attributes:
        default: its expression; None without one.
        given: what each call of the function gives it; None where a call leaves it to the default.
    """

    default: ast.expr | None
    given: tuple[ast.expr | None, ...] = ()


class CalledFunctions:
    """Functions of a file with their calls.

    Args:
        tree: of the file's syntax.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._functions: list[Function | ast.Lambda] = []
        self._calls: dict[str, list[ast.Call]] = defaultdict(list)
        for node in ast.walk(tree):
            if isinstance(node, Function | ast.Lambda):
                self._functions.append(node)
            elif isinstance(node, ast.Call) and (name := _name_called(node)):
                self._calls[name].append(node)
        self._defined = Counter(each.name for each in self._functions if isinstance(each, Function))

    def list_arguments(self) -> dict[str, Argument]:
        """Return the arguments of all functions by their names; the last of each name."""
        found: dict[str, Argument] = {}
        for function in self._functions:
            calls = self.list_calls(function) if isinstance(function, Function) else []
            for name, default in list_defaults(function.args).items():
                found[name] = Argument(default, tuple(given[name] for given in calls))
        return found

    def list_calls(self, function: Function) -> list[Given]:
        """Return what each call of a function gives to its arguments; none where another function has its name."""
        return [_bind(function, call) for call in self._calls[function.name] if self._defined[function.name] == 1]


def _name_called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name
    return ""


def list_defaults(arguments: ast.arguments) -> Given:
    """Return the default of each argument; None where it has none."""
    positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    absent = [None] * (len(positional) - len(arguments.defaults))
    named = zip((each.arg for each in arguments.kwonlyargs), arguments.kw_defaults, strict=True)
    return dict([*zip(positional, [*absent, *arguments.defaults], strict=True), *named])


def _bind(function: Function, call: ast.Call) -> Given:
    """Return what a call gives to each argument: None where it is the default, `*…` where it may be unpacked there."""
    positional = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    if isinstance(call.func, ast.Attribute):
        positional = positional[1:]  # self
    stars: list[ast.expr] = [each for each in call.args if isinstance(each, ast.Starred)]
    stars += [ast.copy_location(ast.Starred(word.value), word.value) for word in call.keywords if word.arg is None]
    plain = call.args[: call.args.index(stars[0])] if stars and stars[0] in call.args else call.args
    given = dict(zip(positional, plain, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}
    return {name: given.get(name, stars[0] if stars else None) for name in list_defaults(function.args)}
