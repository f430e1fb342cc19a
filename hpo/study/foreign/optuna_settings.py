"""Keywords of Optuna's `create_study` and `optimize` in a file: direction, sampler, pruner and number of trials."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Container, Mapping
from typing import Any

import optuna

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import count, list_choices, number
from hpo.study.foreign.python_source import Source, UnreadableError, describe
from hpo.study.foreign.search import ForeignDomain, Method, name_values
from hpo.study.pruners import PRUNERS
from hpo.study.samplers import SAMPLERS as OUR_SAMPLERS
from hpo.utils.text import shorten

__all__ = ["read_grid", "read_settings"]

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
        **_read_sampler(source, nodes, notes, made=studies > 0),
        "trials": None if trials is None else count(trials, "n_trials"),
        "timeout": None if timeout is None else number(timeout, "timeout"),
        "pruner": _read_pruner(source, nodes, notes),
        "name": name if isinstance(name, str) else None,
    }
    _note_absent(source, nodes, notes)
    return found, notes


def _note_absent(source: Source, nodes: Mapping[str, ast.expr], notes: list[str]) -> None:
    """Note what a study file has no equivalent of, or says in another place."""
    for call in source.calls():
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("enqueue_trial", "add_trial"):
            where = f"{describe(call)} (line {call.lineno})"
            notes.append(f"{where} is left out; warm_start in the study file says which trials come first")
    if "callbacks" in nodes:
        notes.append(f"callbacks = {describe(nodes['callbacks'])} have no equivalent")
    if "n_jobs" in nodes:
        notes.append(f"n_jobs = {describe(nodes['n_jobs'])}: hpo launch --workers says how many trials train at once")


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


def _read_sampler(source: Source, nodes: Mapping[str, ast.expr], notes: list[str], *, made: bool) -> dict[str, Any]:
    """Return the sampler, its options and its seed, as attributes of a search."""
    call = _read_component(source, nodes, "sampler")
    if call is None:
        if "sampler" in nodes and describe(nodes["sampler"]) != "None":
            notes.append(f"sampler = {describe(nodes['sampler'])} is known only when the file runs")
            return {}
        return {"method": "tpe"} if made else {}  # the default of create_study
    name = _class_name(source, call)
    if name not in SAMPLERS:
        notes.append(f"sampler {shorten(name)} has no equivalent among the samplers")
        return {}
    method = SAMPLERS[name]
    arguments = _name_arguments(call, getattr(optuna.samplers, name))
    arguments.pop("search_space", None)  # see `read_grid`
    seed = _evaluate(source, arguments, "seed", notes)
    arguments.pop("seed", None)
    options = _read_options(source, f"sampler {name}", arguments, OUR_SAMPLERS[method].options, notes)
    if options.get("multivariate") is False:  # ours is True by default, and so is group, which needs it
        options.setdefault("group", False)
    return {"method": method, "sampler_options": options, "seed": seed if isinstance(seed, int) else None}


def read_grid(source: Source) -> dict[str, ForeignDomain]:
    """Return the values of the parameters that a `GridSampler` is given, which replace those that are suggested.

    Raises:
        DefinitionError: they are known only when the file runs, or are no lists.
    """
    for call in source.calls():
        if _class_name(source, call) == "GridSampler":
            node = _name_arguments(call, optuna.samplers.GridSampler).get("search_space", ast.Constant(None))
            try:
                space = source.evaluate(source.resolve(node))
            except UnreadableError:
                raise DefinitionError(
                    f"{describe(call)} (line {call.lineno}) is known only when the file runs"
                ) from None
            return {name: list_choices(values) for name, values in (space or {}).items()}
    return {}


def _read_pruner(source: Source, nodes: Mapping[str, ast.expr], notes: list[str]) -> Any:
    """Return the pruner as a study file has it; Optuna's default, the median, if the function asks for one."""
    call = _read_component(source, nodes, "pruner")
    asks = any(isinstance(node, ast.Attribute) and node.attr == "should_prune" for node in ast.walk(source.tree))
    if call is None:
        return "median" if asks and "pruner" not in nodes else None
    theirs = _class_name(source, call)
    name = PRUNER_NAMES.get(theirs)
    if name is None:
        notes.append(f"pruner {shorten(theirs)} has no equivalent among the pruners")
    if name is None or name == "none":
        return None
    arguments = _name_arguments(call, getattr(optuna.pruners, theirs))
    return {"name": name, **_read_options(source, f"pruner {theirs}", arguments, PRUNERS[name].options, notes)}


def _name_arguments(call: ast.Call, called: Callable[..., Any]) -> dict[str, ast.expr]:
    """Return the arguments of a call by their names."""
    words = {word.arg: word.value for word in call.keywords if word.arg}
    return {**dict(zip(inspect.signature(called).parameters, call.args, strict=False)), **words}


def _read_options(
    source: Source, owner: str, arguments: Mapping[str, ast.expr], known: Container[str], notes: list[str]
) -> dict[str, Any]:
    """Return the arguments that a study file has as well; the others are noted."""
    if absent := [name for name in arguments if name not in known and describe(arguments[name]) != "None"]:
        notes.append(f"{owner}: {', '.join(absent)} {'have' if len(absent) > 1 else 'has'} no equivalent")
    given = {name: _evaluate(source, arguments, name, notes) for name in arguments if name in known}
    return {name: value for name, value in given.items() if value not in (None, "auto")}
