"""Keywords of Optuna's `create_study` and `optimize` in a file: direction, sampler, pruner and number of trials."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna

from hpo.errors import DefinitionError
from hpo.study.foreign import hugging_face
from hpo.study.foreign.domains import count, list_choices, number
from hpo.study.foreign.optuna_runs import add_runs
from hpo.study.foreign.python_loops import describe_repeats
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
LONGEST = 200  # characters of the expression of a sampler or a pruner
OPTIMIZE = ("func", "n_trials", "timeout", "n_jobs", "catch", "callbacks")  # its arguments, in their order
PRUNER_NAMES = {pruner.target: name for name, pruner in PRUNERS.items()}


def read_settings(source: Source) -> tuple[dict[str, Any], list[str]]:
    """Return the settings as attributes of a search, and notes.

    Raises:
        DefinitionError: a setting is wrong.
    """
    notes: list[str] = []
    trainers = [call for call in source.calls() if hugging_face.is_search(call)]
    studies = [call for call in source.calls() if _name_called(source, call) == "create_study"]
    runs = [call for call in source.calls() if _name_called(source, call) == "optimize"]
    given = [_list_arguments(source, call, notes) for call in (*studies, *runs, *trainers)]
    nodes = {name: node for arguments in given for name, node in arguments.items()}
    if len(studies) > 1:
        notes.append(f"it makes {len(studies)} studies; what they are given is taken from the last that gives it")
        total = dict(nodes)
    else:
        total = nodes | add_runs(source, given[len(studies) :], notes)
    notes += describe_repeats(source, (*runs, *trainers), "its trials count once here")
    trials = _evaluate(source, total, "n_trials", notes)
    timeout = _evaluate(source, total, "timeout", notes)
    name = _evaluate(source, nodes, "study_name", notes)
    found = {
        **_read_objectives(source, nodes, trainers, notes, made=bool(studies)),
        **_read_sampler(source, nodes, notes, made=bool(studies or trainers)),
        "trials": None if trials is None else count(trials, "n_trials"),
        "timeout": None if timeout is None else number(timeout, "timeout"),
        "pruner": _read_pruner(source, nodes, notes, reports=bool(trainers)),
        "name": name if isinstance(name, str) else None,
    }
    _note_absent(source, nodes, notes)
    return found, notes


def _name_called(source: Source, call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else source.origin(call.func).rpartition(".")[2]


def _list_arguments(source: Source, call: ast.Call, notes: list[str]) -> dict[str, ast.expr]:
    """Return the arguments of a call that makes or runs a study, by their names."""
    if hugging_face.is_search(call):
        return hugging_face.list_arguments(call)
    try:
        words = source.keywords(call)
    except UnreadableError:
        words = {word.arg: word.value for word in call.keywords if word.arg}
        unpacked = ", ".join(f"**{describe(word.value)}" for word in call.keywords if not word.arg)
        notes.append(
            f"{unpacked} of {_name_called(source, call)} (line {call.lineno}) is known only when the file runs"
        )
    positional = dict(zip(OPTIMIZE, call.args, strict=False)) if _name_called(source, call) == "optimize" else {}
    return positional | words


def _read_objectives(
    source: Source, nodes: Mapping[str, ast.expr], trainers: Sequence[ast.Call], notes: list[str], *, made: bool
) -> dict[str, Any]:
    """Return the objectives as attributes of a search."""
    if trainers:
        objectives, more = hugging_face.name_objectives(source, trainers[-1])
        notes += more
        return objectives
    directions = _read_directions(source, nodes, notes) if made else []
    if not directions:
        return {}
    if len(directions) == 1:
        notes.append("what its function returns has no name there, and is called value here")
    else:
        names = " and ".join(f"value_{place + 1}" for place in range(len(directions)))
        notes.append(f"what its function returns has no names there, and is called {names} here")
    return name_values(directions)


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


def _read_component(source: Source, nodes: Mapping[str, ast.expr], name: str, notes: list[str]) -> ast.Call | None:
    """Return the call that makes a sampler or a pruner; None, with a note if it is there, where it is none."""
    node = source.resolve(nodes[name]) if name in nodes else ast.Constant(None)
    if isinstance(node, ast.Call):
        return node
    if describe(node) != "None":
        where = f"{name} = {describe(node, LONGEST)} (line {node.lineno})"
        notes.append(f"{where} is known only when the file runs; write it into the study file")
    return None


def _class_name(source: Source, call: ast.Call) -> str:
    return source.origin(call.func).rpartition(".")[2] or describe(call.func)


def _read_sampler(source: Source, nodes: Mapping[str, ast.expr], notes: list[str], *, made: bool) -> dict[str, Any]:
    """Return the sampler, its options and its seed, as attributes of a search."""
    call = _read_component(source, nodes, "sampler", notes)
    if call is None:
        is_default = "sampler" not in nodes or describe(nodes["sampler"]) == "None"
        return {"method": "tpe"} if made and is_default else {}  # the default of create_study
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


def _read_pruner(source: Source, nodes: Mapping[str, ast.expr], notes: list[str], *, reports: bool) -> Any:
    """Return the pruner as a study file has it; Optuna's default, the median, if the function asks for one.

    Hugging Face's trainer asks by itself.
    """
    call = _read_component(source, nodes, "pruner", notes)
    asks = reports or any(
        isinstance(node, ast.Attribute) and node.attr == "should_prune" for node in ast.walk(source.tree)
    )
    if call is None:
        is_default = "pruner" not in nodes or describe(nodes["pruner"]) == "None"
        return "median" if asks and is_default else None
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
