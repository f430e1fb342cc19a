"""Hugging Face's `Trainer.hyperparameter_search`, behind which Optuna, Ray Tune or Weights & Biases searches."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import name_values

__all__ = ["is_search", "list_arguments", "list_spaces", "name_objectives", "read_directions"]

ARGUMENTS = ("hp_space", "compute_objective", "n_trials", "direction", "backend", "hp_name")
DEFAULTS: Mapping[str, int | str] = {"n_trials": 20, "direction": "minimize"}


def is_search(call: ast.Call) -> bool:
    """Return whether a call is one of `hyperparameter_search`."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "hyperparameter_search"


def list_arguments(call: ast.Call) -> dict[str, ast.expr]:
    """Return the arguments of such a call by their names, with the defaults of those that decide the search."""
    words = {word.arg: word.value for word in call.keywords if word.arg}
    defaults = {name: ast.copy_location(ast.Constant(value), call) for name, value in DEFAULTS.items()}
    return {**defaults, **dict(zip(ARGUMENTS, call.args, strict=False)), **words}


def list_spaces(source: Source, call: ast.Call) -> Iterator[ast.expr]:
    """Yield the tables that the function of its search space returns."""
    space = list_arguments(call).get("hp_space")
    if isinstance(space, ast.Lambda):
        yield space.body
    elif isinstance(space, ast.Name):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef) and node.name == space.id:
                yield from (each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value)


def read_directions(source: Source, call: ast.Call) -> list[Any]:
    """Return the direction of each objective.

    Raises:
        UnreadableError: they are known only when the file runs.
    """
    found = source.evaluate(source.resolve(list_arguments(call)["direction"]))
    directions = found if isinstance(found, list) else [found]
    if not directions or not set(directions) <= {"minimize", "maximize"}:
        raise UnreadableError
    return directions


def name_objectives(source: Source, call: ast.Call) -> tuple[dict[str, Any], list[str]]:
    """Return the objectives as attributes of a search, and a note; the trainer calls what it returns `objective`."""
    try:
        directions = read_directions(source, call)
    except UnreadableError:
        written = describe(list_arguments(call)["direction"])
        return {"metric": "objective"}, [f"direction = {written} (line {call.lineno}) is known only when the file runs"]
    return name_values(directions, "objective"), []
