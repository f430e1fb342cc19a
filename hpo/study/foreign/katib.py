"""Experiments of Katib, Kubeflow's tuner.

Source: "How to Configure Experiment" of its documentation, and the types of its API `kubeflow.org/v1beta1`. Numbers are
texts there; `min` and `max` are inclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError, describe_unknown
from hpo.study.foreign.domains import Problems, continuous, count, list_choices, number, read_each, stepped, whole
from hpo.study.foreign.search import Constant, ForeignDomain, ForeignParameter, ForeignSearch, Method, Range
from hpo.study.foreign.unread import describe_fixed_arguments, describe_settings, describe_unused_stopping
from hpo.utils.text import shorten

__all__ = ["read", "recognizes"]

TOOL = "Katib"
Spec = Mapping[str, Any]
Parameters = tuple[ForeignParameter, ...]

TYPES = ("double", "int", "discrete", "categorical")
DISTRIBUTIONS = ("uniform", "logUniform", "normal", "logNormal")
METHODS: Mapping[str, Method] = {
    "random": "random",
    "grid": "grid",
    "bayesianoptimization": "gp",
    "tpe": "tpe",
    "multivariate-tpe": "tpe",
    "cmaes": "cmaes",
    "sobol": "qmc",
    "hyperband": "random",
}
# Keys of an experiment that say how trials are started and watched, which a study does not need.
STARTING_KEYS = ("trialTemplate", "parallelTrialCount", "maxFailedTrialCount", "metricsCollectorSpec", "resumePolicy")


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document is an experiment of Katib."""
    if isinstance(document, str):
        return False
    spec = document.get("spec")
    ours = str(document.get("apiVersion", "")).startswith("kubeflow.org/") and document.get("kind") == "Experiment"
    return ours or (isinstance(spec, Mapping) and "objective" in spec and "algorithm" in spec)


def read(document: Mapping[str, Any] | str, _path: Path) -> ForeignSearch:
    """Read an experiment.

    Raises:
        DefinitionError: names the key and the value that is wrong.
    """
    assert isinstance(document, Mapping)
    spec = _table(document, "spec")
    if "nasConfig" in spec:
        raise DefinitionError("spec.nasConfig: a search for an architecture, layer by layer, has no equivalent here")
    problems = Problems()
    parameters: Parameters = problems.attempt(lambda: _read_parameters(spec.get("parameters")), ())
    objective, algorithm = _table(spec, "objective"), _table(spec, "algorithm")
    settings: dict[str, Any] = problems.attempt(lambda: _read_settings(algorithm), {})
    notes: list[str] = []
    name = str(algorithm.get("algorithmName"))
    pruner = problems.attempt(lambda: _read_stopping(spec, notes), None)
    read_settings: list[str] = []
    if name == "hyperband":
        hyperband = problems.attempt(lambda: _read_hyperband(settings), {})
        read_settings = ["eta", "r_l"]
        if pruner:
            unused = {key: settings[key] for key in read_settings if key in settings}
            notes.append(describe_unused_stopping("algorithm hyperband", unused, "earlyStopping"))
        pruner = pruner or hyperband or None
        budget = str(settings.get("resource_name")).lstrip("-")
        if "max_resource" in hyperband and any(each.name.lstrip("-") == budget for each in parameters):
            read_settings.append("resource_name")
            parameters = tuple(_set_budget(parameters, budget, hyperband["max_resource"]))
    method = METHODS.get(name)
    if method is None and algorithm:
        notes.append(f"algorithm {shorten(algorithm.get('algorithmName'))} has no equivalent among the samplers")
    unread = {key: value for key, value in settings.items() if key not in read_settings}
    notes += describe_settings("algorithmSettings", unread, method)
    trials, goal = spec.get("maxTrialCount"), objective.get("goal")
    title = _table(document, "metadata").get("name")
    search = ForeignSearch(
        TOOL,
        parameters,
        metric=problems.attempt(lambda: _read_metric(objective), None),
        direction=problems.attempt(lambda: _read_direction(objective), None),
        target=problems.attempt(lambda: None if goal is None else number(goal, "spec.objective.goal"), None),
        method=method,
        trials=problems.attempt(lambda: None if trials is None else count(trials, "spec.maxTrialCount"), None),
        pruner=pruner,
        name=None if title is None else str(title),
        notes=(*notes, *_describe_unread_metrics(objective), *_describe_start(spec)),
    )
    return replace(search, problems=tuple(problems.lines))


def _table(document: Spec, key: str) -> Spec:
    found = document.get(key) or {}
    if not isinstance(found, Mapping):
        raise DefinitionError(f"{key} = {shorten(found)}: must be a table")
    return found


def _read_metric(objective: Spec) -> str | None:
    metric = objective.get("objectiveMetricName")
    if metric is not None and not isinstance(metric, str):
        raise DefinitionError(f"spec.objective.objectiveMetricName = {shorten(metric)}: must be a text")
    return metric


def _read_direction(objective: Spec) -> Any:
    direction = objective.get("type")
    if direction not in (None, "maximize", "minimize"):
        raise DefinitionError(f"spec.objective.type = {shorten(direction)}: must be maximize or minimize")
    return direction


def _read_settings(algorithm: Spec) -> dict[str, Any]:
    """Return the settings of an algorithm, a list of names and values, as a table."""
    settings = algorithm.get("algorithmSettings") or []
    if not isinstance(settings, list) or not all(isinstance(each, Mapping) and "name" in each for each in settings):
        raise DefinitionError(f"algorithmSettings = {shorten(settings)}: must be a list of names and values")
    return {str(each["name"]): each.get("value") for each in settings}


def _read_hyperband(settings: Spec) -> dict[str, Any]:
    """Return the pruner of the algorithm that stops trials as well: Hyperband, with factor eta and resource r_l."""
    pruner: dict[str, Any] = {"name": "hyperband", "reduction_factor": count(settings.get("eta") or 3, "eta")}
    longest = settings.get("r_l")
    return {**pruner, "max_resource": count(longest, "r_l")} if longest is not None else pruner


def _set_budget(parameters: Parameters, budget: str, most: int) -> Iterator[ForeignParameter]:
    """Yield the parameters, the one that is Hyperband's budget, which it sets whatever its range, with the most."""
    for each in parameters:
        if each.name.lstrip("-") == budget and each.domain != Constant(most):
            note = f"hyperband sets it there, as its budget, to r_l = {most} at most"
            yield replace(each, domain=Constant(most), note=note)
        else:
            yield each


def _read_stopping(spec: Spec, notes: list[str]) -> Any:
    stopping = _table(spec, "earlyStopping")
    if not stopping:
        return None
    if stopping.get("algorithmName") != "medianstop":
        notes.append(f"earlyStopping {shorten(stopping.get('algorithmName'))} has no equivalent among the pruners")
        return None
    settings = _read_settings(stopping)
    needed, start = settings.pop("min_trials_required", 3), settings.pop("start_step", 4)
    notes += describe_settings("earlyStopping", settings, None)
    return {
        "name": "median",
        "n_startup_trials": int(number(needed, "min_trials_required")),
        "n_warmup_steps": int(number(start, "start_step")),
    }


def _describe_unread_metrics(objective: Spec) -> Iterator[str]:
    """Yield a note on metrics that are collected beside the objective, and on how."""
    others, strategies = objective.get("additionalMetricNames"), objective.get("metricStrategies")
    if others:
        yield f"additionalMetricNames = {shorten(others)}: not read; metrics = [...] in the study file records others"
    if strategies:
        yield "metricStrategies: not read; a trial's value is that of its best epoch"


def _describe_start(spec: Spec) -> Iterator[str]:
    """Yield notes on the keys that start trials, and on the constants that the trial's command has."""
    if found := [key for key in STARTING_KEYS if key in spec]:
        yield f"{', '.join(found)}: they say how trials are started; here hpo launch and hpo worker do that"
    yield from describe_fixed_arguments(_commands(spec.get("trialTemplate")))


def _commands(node: object) -> Iterator[list[object]]:
    """Yield the commands in a template, each with its arguments."""
    if isinstance(node, Mapping):
        words = [node.get(key) for key in ("command", "args")]
        yield [word for part in words for word in (part if isinstance(part, list) else [part]) if word is not None]
        for each in node.values():
            yield from _commands(each)
    elif isinstance(node, list):
        for each in node:
            yield from _commands(each)


# Parameters.


def _read_parameters(parameters: object) -> tuple[ForeignParameter, ...]:
    if not isinstance(parameters, list) or not parameters:
        raise DefinitionError(f"spec.parameters = {shorten(parameters)}: must be a list of parameters")
    named: list[tuple[str, Any]] = []
    for number_, each in enumerate(parameters):
        name = each.get("name") if isinstance(each, Mapping) else None
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"spec.parameters[{number_}] = {shorten(each)}: must be a table with a name")
        if any(name == earlier for earlier, _ in named):
            raise DefinitionError(f"spec.parameters: {shorten(name)} occurs twice")
        named.append((name, each))
    return tuple(read_each(named, _read_parameter))


def _read_parameter(name: str, spec: Spec) -> list[ForeignParameter]:
    kind, space = spec.get("parameterType"), spec.get("feasibleSpace")
    if kind not in TYPES:
        raise DefinitionError(f"parameterType: {describe_unknown('type', str(kind), TYPES)}")
    if not isinstance(space, Mapping):
        raise DefinitionError(f"feasibleSpace = {shorten(space)}: must be a table with min and max, or list")
    if kind in ("discrete", "categorical"):
        return [ForeignParameter((name,), _read_list(space.get("list")))]
    domain, note = _read_range(space, integer=kind == "int")
    return [ForeignParameter((name,), domain, note=note)]


def _read_list(values: Any) -> ForeignDomain:
    """Return listed values, as numbers if all texts are numbers."""
    listed = list_choices(values)  # refuses what is no list
    try:
        return list_choices([number(value, "list") for value in values])  # whose repeats are likelier
    except DefinitionError:
        return listed


def _read_range(space: Spec, *, integer: bool) -> tuple[Range | Constant, str]:
    low, high = number(space.get("min"), "feasibleSpace.min"), number(space.get("max"), "feasibleSpace.max")
    step, distribution = space.get("step"), space.get("distribution") or "uniform"
    if distribution not in DISTRIBUTIONS:
        raise DefinitionError(
            f"feasibleSpace.distribution: {describe_unknown('distribution', str(distribution), DISTRIBUTIONS)}"
        )
    log = distribution.startswith("log")
    note = ""
    if "ormal" in distribution:
        scale = "on a logarithmic scale " if log else ""
        note = f"{distribution} has no equivalent: {low:g} to {high:g}, evenly {scale}".strip() + ", replaces it"
    if step is None:
        return (whole if integer else continuous)(low, high, log=log), note
    distance = number(step, "feasibleSpace.step")
    if not log:
        return stepped(low, high, distance, integer=integer), note
    if not (integer and distance == 1):
        lost = f"its steps of {distance:g} on a logarithmic scale have no equivalent and are left out"
        note = f"{note}; {lost}" if note else lost
    return (whole if integer else continuous)(low, high, log=True), note
