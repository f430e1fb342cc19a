"""Keywords of Optuna's `create_study` and `optimize` in a file: direction, sampler, pruner and number of trials."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import count, number
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import Method, name_values
from hpo.study.pruners import PRUNERS
from hpo.utils.text import shorten

__all__ = ["read_settings"]

SAMPLERS: Mapping[str, Method] = {
    "TPESampler": "tpe",
    "RandomSampler": "random",
    "GridSampler": "grid",
    "BruteForceSampler": "grid",
    "GPSampler": "gp",
    "CmaEsSampler": "cmaes",
    "NSGAIISampler": "nsga2",
    "QMCSampler": "qmc",
}
PRUNER_NAMES = {pruner.target: name for name, pruner in PRUNERS.items()}


def read_settings(source: Source) -> tuple[dict[str, Any], list[str]]:
    """Return the settings as attributes of a search, and notes.

    Raises:
        DefinitionError: a setting is wrong.
    """
    notes: list[str] = []
    nodes: dict[str, ast.expr] = {}
    studies = 0
    for call in source.calls():
        called = call.func.attr if isinstance(call.func, ast.Attribute) else source.origin(call.func).rpartition(".")[2]
        if called in ("create_study", "optimize"):
            studies += called == "create_study"
            nodes.update({word.arg: word.value for word in call.keywords if word.arg})
            if called == "optimize" and len(call.args) > 1:
                nodes["n_trials"] = call.args[1]
    if studies > 1:
        notes.append(f"it makes {studies} studies; what they are given is taken from the last that gives it")
    trials = _evaluate(source, nodes, "n_trials", notes)
    timeout = _evaluate(source, nodes, "timeout", notes)
    name = _evaluate(source, nodes, "study_name", notes)
    directions = _read_directions(source, nodes, notes) if studies else []
    if directions:
        notes.append("what its function returns has no name there, and is called value here")
    found = {
        **(name_values(directions) if directions else {}),
        "method": _read_sampler(source, nodes, notes, made=studies > 0),
        "trials": None if trials is None else count(trials, "n_trials"),
        "timeout": None if timeout is None else number(timeout, "timeout"),
        "pruner": _read_pruner(source, nodes, notes),
        "name": name if isinstance(name, str) else None,
    }
    return found, notes


def _evaluate(source: Source, nodes: Mapping[str, ast.expr], name: str, notes: list[str]) -> Any:
    if name not in nodes:
        return None
    try:
        return source.evaluate(nodes[name])
    except UnreadableError:
        notes.append(f"{name} = {describe(nodes[name])} (line {nodes[name].lineno}) is known only when the file runs")
        return None


def _read_directions(source: Source, nodes: Mapping[str, ast.expr], notes: list[str]) -> list[Any]:
    """Return the directions of a study; none where they are known only when the file runs."""
    node = source.resolve(nodes["directions"]) if "directions" in nodes else None
    parts = node.elts if isinstance(node, ast.List | ast.Tuple) else [nodes.get("direction", node)]
    directions = [_read_direction(source, part, notes) for part in parts if part is not None]
    if not directions and not {"direction", "directions"} & set(nodes):
        return ["minimize"]  # the default of create_study
    return [each for each in directions if each is not None] if None not in directions else []


def _read_direction(source: Source, node: ast.expr, notes: list[str]) -> Any:
    if isinstance(node, ast.Attribute) and node.attr in ("MINIMIZE", "MAXIMIZE"):
        return node.attr.lower()
    direction = _evaluate(source, {"direction": node}, "direction", notes)
    if direction not in (None, "minimize", "maximize"):
        raise DefinitionError(f"direction = {shorten(direction)}: must be minimize or maximize")
    return direction


def _read_component(source: Source, nodes: Mapping[str, ast.expr], name: str) -> ast.Call | None:
    node = source.resolve(nodes[name]) if name in nodes else None
    return node if isinstance(node, ast.Call) else None


def _class_name(source: Source, call: ast.Call) -> str:
    return source.origin(call.func).rpartition(".")[2] or describe(call.func)


def _read_sampler(source: Source, nodes: Mapping[str, ast.expr], notes: list[str], *, made: bool) -> Method | None:
    call = _read_component(source, nodes, "sampler")
    if call is None:
        if "sampler" in nodes and describe(nodes["sampler"]) != "None":
            notes.append(f"sampler = {describe(nodes['sampler'])} is known only when the file runs")
            return None
        return "tpe" if made else None  # the default of create_study
    name = _class_name(source, call)
    if name not in SAMPLERS:
        notes.append(f"sampler {shorten(name)} has no equivalent among the samplers")
    return SAMPLERS.get(name)


def _read_pruner(source: Source, nodes: Mapping[str, ast.expr], notes: list[str]) -> Any:
    """Return the pruner as a study file has it; Optuna's default, the median, if the function asks for one."""
    call = _read_component(source, nodes, "pruner")
    asks = any(isinstance(node, ast.Attribute) and node.attr == "should_prune" for node in ast.walk(source.tree))
    if call is None:
        return "median" if asks and "pruner" not in nodes else None
    name = PRUNER_NAMES.get(_class_name(source, call))
    if name is None:
        notes.append(f"pruner {shorten(_class_name(source, call))} has no equivalent among the pruners")
    if name is None or name == "none":
        return None
    words = {word.arg: word.value for word in call.keywords if word.arg}
    options = {option: _evaluate(source, words, option, notes) for option in words if option in PRUNERS[name].options}
    if call.args and name == "percentile":
        options["percentile"] = _evaluate(source, {"percentile": call.args[0]}, "percentile", notes)
    return {"name": name, **{key: value for key, value in options.items() if value not in (None, "auto")}}
