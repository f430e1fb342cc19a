"""Arguments of a command line that a Python file reads with argparse, and their defaults."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["find_arguments"]

PARSERS = ("parse_args", "parse_known_args")
SWITCHES = {"store_true": False, "store_false": True}  # by action, their defaults


def find_arguments(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the expressions of the defaults of arguments, as `args.epochs` for `args = parser.parse_args()`.

    Those that the file gives other values, or several defaults, have none.
    """
    nodes = list(ast.walk(tree))
    owners = _find_owners(nodes)
    defaults: dict[str, list[ast.expr]] = {}
    changed: set[str] = set()
    for node in nodes if owners else ():
        match node:
            case ast.Call(func=ast.Attribute(attr="add_argument")):
                defaults.setdefault(_name(node), []).extend(_find_default(node))
            case ast.Call(func=ast.Attribute(attr="set_defaults"), keywords=words):
                changed.update(word.arg for word in words if word.arg)
            case ast.Attribute(value=ast.Name(id=owner), attr=name, ctx=ast.Store()) if owner in owners:
                changed.add(name)
    single = {name: values[0] for name, values in defaults.items() if len(values) == 1 and name not in changed}
    return {f"{owner}.{name}": value for owner in owners for name, value in single.items()}


def _find_owners(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the names of what parsers return, which are given to nothing else but arguments of functions."""
    others: Counter[str] = Counter()
    parsed: set[str] = set()
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                others[name] += 1
            case (
                ast.Assign(
                    targets=[ast.Name(id=name) | ast.Tuple(elts=[ast.Name(id=name), _])], value=ast.Call() as call
                )
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call() as call)
            ) if _is_parsed(call):
                others[name] -= 1
                parsed.add(name)
    return sorted(name for name in parsed if not others[name])


def _is_parsed(call: ast.Call) -> bool:
    """Return whether a call reads the command line, and no words that the file gives instead."""
    given = [*call.args, *(word.value for word in call.keywords)]
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in PARSERS
        and not any(isinstance(each, ast.List) and each.elts for each in given)
    )


def _name(call: ast.Call) -> str:
    """Return the name of an argument: `--batch-size` is batch_size."""
    if isinstance(given := _words(call).get("dest"), ast.Constant):
        return str(given.value)
    flags = [str(each.value) for each in call.args if isinstance(each, ast.Constant)]
    long = [flag for flag in flags if flag.startswith("--")]
    return next(iter([*long, *flags]), "").lstrip("-").replace("-", "_")


def _find_default(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the default, if the argument has one: a text is read as the type that the argument has."""
    words = _words(call)
    default, kind, action = words.get("default"), words.get("type"), words.get("action")
    if isinstance(default, ast.Constant) and isinstance(default.value, str) and kind is not None:
        yield ast.copy_location(ast.Call(kind, [default], []), call)
    elif default is not None:
        yield default
    elif isinstance(action, ast.Constant) and action.value in SWITCHES:
        yield ast.copy_location(ast.Constant(SWITCHES[action.value]), call)


def _words(call: ast.Call) -> Mapping[str, ast.expr]:
    return {word.arg: word.value for word in call.keywords if word.arg}
