"""Epochs of a trial in the functions that an objective of Optuna's runs, where they are a plain number."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Sequence

from hpo.config.aliases import canonical, find_aliases
from hpo.study.foreign.optuna_functions import Function, iterate_own
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import Constant, ForeignParameter

__all__ = ["read_epochs"]

NAMES = ("epochs", "max_epochs", "num_epochs", "n_epochs", "num_train_epochs")
OTHER_LOOPS = ("fold", "split", "seed", "repeat")  # words for loops around whole trainings
LARGEST = 1_000_000


def read_epochs(
    source: Source, functions: Collection[Function], parameters: Iterable[ForeignParameter]
) -> tuple[list[ForeignParameter], list[str]]:
    """Return the epochs as a parameter with one value, and a note; nothing where the file suggests them.

    They are the times of a loop whose body reports to the trial, or an argument of that name. Several are only noted.
    """
    if any("epochs" in (canonical(each.name), *find_aliases(each.name, ("epochs",))) for each in parameters):
        return [], []
    found = sorted(_find(source, functions), key=lambda each: (each[2], each[1]))
    written = [f"{count}, from {text} in line {line}" for count, text, line in found]
    counts = {count for count, _, _ in found}
    if len(counts) > 1:
        return [], [f"it has several numbers of epochs, of which none is taken: {'; '.join(written)}"]
    if not counts:
        return [], []
    return [ForeignParameter(("epochs",), Constant(counts.pop()))], [f"epochs = {written[0]}"]


def _find(source: Source, functions: Collection[Function]) -> Iterator[tuple[int, str, int]]:
    """Yield numbers of epochs, each with its expression and line."""
    for node in (each for function in functions for each in iterate_own(function)):
        match node:
            case ast.For(iter=ast.Call(args=ends) as items) if _counts_epochs(source, node):
                yield from _count(source, ends, describe(items))
            case ast.Call(keywords=words):
                for word in words:
                    if word.arg in NAMES:
                        yield from _count(source, [word.value], f"{word.arg}={describe(word.value)}")


def _count(source: Source, ends: Sequence[ast.expr], written: str) -> Iterator[tuple[int, str, int]]:
    """Yield how many numbers a range with these ends has, where that can be epochs."""
    try:
        count = len(range(*(source.evaluate(end) for end in ends)))
    except (UnreadableError, TypeError, ValueError):
        return
    if 1 <= count <= LARGEST:
        yield count, written, ends[0].lineno


def _counts_epochs(source: Source, loop: ast.For) -> bool:
    """Return whether a loop over a range is the innermost one around a report."""
    assert isinstance(loop.iter, ast.Call)
    if source.origin(loop.iter.func) != "range" or any(word in describe(loop.target) for word in OTHER_LOOPS):
        return False
    return any(_reports(statement) for statement in loop.body)


def _reports(node: ast.AST) -> bool:
    if isinstance(node, ast.For | ast.While):
        return False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "report":
        return True
    return any(map(_reports, ast.iter_child_nodes(node)))
