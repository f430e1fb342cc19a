"""Reader of Weights & Biases sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo.config.choices import Direction
from hpo.errors import DefinitionError, describe_unknown
from hpo.study.foreign.domains import Problems, read_each
from hpo.study.foreign.search import ForeignParameter, ForeignSearch, Goal, Method
from hpo.study.foreign.unread import describe_fixed_arguments
from hpo.study.foreign.wandb_distributions import read_distribution, read_number
from hpo.utils.text import shorten

__all__ = ["is_sweep", "read_sweep"]

TOOL = "Weights & Biases"
KEYS = ("method", "metric", "metrics", "parameters", "early_terminate", "name", "description", "run_cap")
METHODS: Mapping[str, Method] = {"grid": "grid", "random": "random", "bayes": "tpe", "custom": "tpe"}
# Keys that say how runs are started or shown, which a study does not need.
IGNORED_KEYS = (
    *("apiVersion", "kind", "program", "command", "entity", "project", "controller", "job", "image_uri"),
    *("display_name", "settings", "version", "resume", "queue", "resource"),
)
# The first bracket is at max_iter / eta ** s epochs, a number that is computed.
EARLY_LIMITS = {"eta": 1_000_000, "min_iter": 1_000_000, "max_iter": 1_000_000, "s": 64}
SPEC_KEYS = ("distribution", "value", "values", "probabilities", "min", "max", "q", "mu", "sigma", "a", "b")


def is_sweep(document: object, _path: Path) -> bool:
    """Return whether a document is a sweep: it has `parameters` beside a key that only sweeps have, or its tables."""
    if not isinstance(document, Mapping) or "parameters" not in document:
        return False
    if {"method", "early_terminate", "run_cap", "program"} & set(document):
        return True
    specs = document["parameters"]
    tables = [each for each in specs.values() if isinstance(each, Mapping)] if isinstance(specs, Mapping) else []
    return any({"values", "value", "min", "distribution", "parameters"} & set(each) for each in tables)


def read_sweep(document: object, _path: Path) -> ForeignSearch:
    """Read a sweep.

    Raises:
        DefinitionError: names the key and the value that is wrong.
    """
    assert isinstance(document, Mapping)
    specs = document.get("parameters")
    if not isinstance(specs, Mapping) or not specs:
        raise DefinitionError("is no sweep: it needs a table `parameters` beside `method` and `metric`")
    for key in document:
        if key not in (*KEYS, "scheduler", "prior_runs", *IGNORED_KEYS):
            raise DefinitionError(describe_unknown("key", str(key), (*KEYS, "scheduler", "prior_runs", *IGNORED_KEYS)))
    notes: list[str] = []
    problems = Problems()
    parameters = problems.attempt(lambda: read_each(_list_specs(specs, ()), _read_parameter), ())
    goals = problems.attempt(lambda: _read_goals(document, notes), ())
    first = goals[0] if goals else Goal(None, None)
    target = problems.attempt(lambda: _read_target(document.get("metric")), None)
    method = problems.attempt(lambda: _read_method(document, notes), None)
    trials = problems.attempt(lambda: _read_cap(document.get("run_cap")), None)
    pruner = problems.attempt(lambda: _read_early_terminate(document.get("early_terminate"), notes), None)
    if "scheduler" in document:
        notes.append("scheduler: its code decides the search there; here the study's sampler does")
    if document.get("prior_runs"):
        notes.append("prior_runs: not read; warm_start in the study file begins with configurations of your own")
    if ignored := [key for key in IGNORED_KEYS if key in document]:
        say = "they say" if len(ignored) > 1 else "it says"
        notes.append(f"{', '.join(ignored)}: {say} how runs are started; here hpo launch and hpo worker do that")
    if isinstance(command := document.get("command"), str | list):
        notes += describe_fixed_arguments([command])
    return ForeignSearch(
        tool=TOOL,
        parameters=tuple(parameters),
        metric=first.metric,
        direction=first.direction,
        also=goals[1:],
        target=target,
        method=method,
        trials=trials,
        pruner=pruner,
        name=None if document.get("name") is None else str(document["name"]),
        about=str(document.get("description") or ""),
        notes=tuple(notes),
        problems=tuple(problems.lines),
    )


# Parameters.


Spec = tuple[tuple[str, ...], Any]  # the path of a parameter, and what stands there


def _list_specs(specs: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Spec]]:
    """Yield the specification of every parameter, a nested one with the names above it, each named for messages."""
    for name, spec in specs.items():
        path = (*above, name)
        is_nested = isinstance(spec, Mapping) and isinstance(spec.get("parameters"), Mapping)
        if is_nested and not {"value", "values", "min"} & set(spec):
            yield from _list_specs(spec["parameters"], path)
        else:
            yield ".".join(path), (path, spec)


def _read_parameter(_name: str, named: Spec) -> list[ForeignParameter]:
    path, spec = named
    if not isinstance(spec, Mapping):
        raise DefinitionError(f"{shorten(spec)}: must be a table with value, values, or min and max")
    for key in spec:
        if key not in SPEC_KEYS:
            raise DefinitionError(describe_unknown("key", str(key), SPEC_KEYS))
    domain, note = read_distribution(spec)
    return [ForeignParameter(path, domain, note=note)]


# Objective, sampler and pruner.


def _read_goals(document: Mapping[str, Any], notes: list[str]) -> tuple[Goal, ...]:
    several = document.get("metrics")
    if several is None:
        return (_read_goal(document["metric"], "metric", notes),) if document.get("metric") is not None else ()
    if "metric" in document:
        raise DefinitionError("metrics: excludes metric; keep one of the two")
    if not isinstance(several, list) or not several:
        raise DefinitionError(f"metrics = {shorten(several)}: must be a list of tables with name and goal")
    return tuple(_read_goal(each, f"metrics[{place}]", notes) for place, each in enumerate(several))


def _read_goal(metric: object, key: str, notes: list[str]) -> Goal:
    if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
        raise DefinitionError(f"{key} = {shorten(metric)}: must be a table with name and goal")
    directions: Mapping[str, Direction] = {"maximize": "maximize", "minimize": "minimize"}
    goal = str(metric.get("goal", "minimize"))
    if goal not in directions:
        raise DefinitionError(f"{key}.goal = {shorten(goal)}: must be maximize or minimize")
    known = ("name", "goal", "target", "impute", "impute_while_running")
    for name in metric:
        if name not in known:
            raise DefinitionError(f"{key}: {describe_unknown('key', str(name), known)}")
    if imputes := [name for name in ("impute", "impute_while_running") if name in metric]:
        notes.append(
            f"{key}.{', '.join(imputes)}: no value is made up for a trial that fails; a running one counts by its best "
            "epoch so far"
        )
    if "goal" not in metric:
        notes.append(f"{key} {metric['name']!r} has no goal, and is minimized, which is the default there")
    return Goal(metric["name"], directions[goal])


def _read_target(metric: object) -> float | None:
    if not isinstance(metric, Mapping) or metric.get("target") is None:
        return None
    try:
        return read_number(metric, "target")
    except DefinitionError as error:
        raise DefinitionError(f"metric.{error}") from error


def _read_method(document: Mapping[str, Any], notes: list[str]) -> Method:
    method = document.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise DefinitionError(f"method = {shorten(method)}: {describe_unknown('method', str(method), METHODS)}")
    if method == "bayes":
        notes.append(
            'method bayes: theirs is a Gaussian process and becomes the sampler tpe; ours of that kind is "gp"'
        )
    if method == "custom":
        notes.append("method custom: the search is code of its own, and becomes the sampler tpe")
    return METHODS[method]


def _read_cap(cap: object) -> int | None:
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
        raise DefinitionError(f"run_cap = {shorten(cap)}: must be a whole number from 1")
    return cap


def _read_early_terminate(early: object, notes: list[str]) -> Mapping[str, Any] | None:
    """Convert their hyperband to our asha: at epochs min_iter * eta ** k it stops runs outside the best 1 / eta."""
    if early is None:
        return None
    if not isinstance(early, Mapping) or early.get("type") != "hyperband":
        raise DefinitionError(f"early_terminate = {shorten(early)}: must be a table with type: hyperband")
    given = [key for key in EARLY_LIMITS if early.get(key) is not None]
    numbers = {key: _read_early(early[key], key, EARLY_LIMITS[key], notes) for key in given}
    eta, shortest = max(2, numbers.get("eta", 3)), numbers.get("min_iter")
    if shortest is None and "max_iter" not in numbers:
        raise DefinitionError("early_terminate: needs min_iter, or max_iter with s")
    if shortest is None:
        first = numbers["max_iter"] / eta ** numbers.get("s", 1)
        shortest = max(1, math.floor(first))
        if shortest != first:
            notes.append(f"early_terminate: its first bracket, epoch {first:g}, is rounded to epoch {shortest}")
    if early.get("strict"):
        notes.append("early_terminate.strict has no equivalent: trials that are good enough go on")
    return {"name": "asha", "min_resource": shortest, "reduction_factor": eta}


def _read_early(value: object, key: str, most: int, notes: list[str]) -> int:
    if isinstance(value, float) and key in ("eta", "s") and 1 <= value <= most:  # the schema has any number there
        rounded = max(2, round(value)) if key == "eta" else round(value)
        if rounded != value:
            notes.append(f"early_terminate.{key} = {value:g} is rounded to {rounded}")
        return rounded
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise DefinitionError(f"early_terminate.{key} = {shorten(value)}: must be a whole number, 1 to {most}")
    return value
