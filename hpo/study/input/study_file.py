"""From a study file, a template or a Python call to a definition and a budget."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hpo.config import registry
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.datasets import DatasetReference, make_reference
from hpo.errors import DefinitionError, RequestError, unknown
from hpo.space import Space
from hpo.study.constraints import read_constraints
from hpo.study.definition import (
    Budget,
    ComponentSpec,
    Definition,
    Objective,
    constant_parameters,
    longest_epochs,
    test_metric,
)
from hpo.study.input import templates
from hpo.study.input.compatibility import check_compatible
from hpo.study.input.report_options import parse_report_table
from hpo.study.pruners import check_pruner
from hpo.study.samplers import check_sampler
from hpo.study.warm_start import check_warm_start

__all__ = [
    "check_first",
    "check_name",
    "check_objective_metrics",
    "default_objective",
    "get_table",
    "get_text",
    "parse_budget",
    "parse_definition",
    "parse_duration",
    "parse_objectives",
    "parse_override",
    "read_study",
    "read_toml",
]

KEYS = (
    *("name", "dataset", "objective", "trials", "timeout", "target", "sampler", "pruner", "seed"),
    *("space", "parameters", "constraints", "baseline", "warm_start", "report", "record_steps"),
)
DEFAULT_TRIALS = 60
T = TypeVar("T")
POINTS_LIMIT = 1_000_000


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's table.

    Raises:
        DefinitionError: it cannot be read, or has a syntax error; the message has file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(f"{path}: not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_study(study: str, sets: Mapping[str, Any] | None = None, **keys: Any) -> tuple[str, Definition, Budget]:
    """Name, definition and budget of a study file or a template.

    Args:
        study: a template's name, or a path to a `.toml` file.
        sets: parameters that override those of the file.
        keys: other keys of a study file (`trials`, `seed`, …) that override those of the file, unless None.

    Raises:
        RequestError: with the file, the key and the value that is wrong.
    """
    is_path = study.endswith(".toml") or os.sep in study
    path = Path(study).expanduser().resolve() if is_path else templates.find_template("studies", study)
    table = read_toml(path) | {key: value for key, value in keys.items() if value is not None}
    try:
        table["parameters"] = {**get_table(table, "parameters"), **(sets or {})}
        return parse_definition(table, default_name=path.stem, base=path.parent)
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error


def parse_definition(table: Mapping[str, Any], default_name: str, base: Path) -> tuple[str, Definition, Budget]:
    """Name, definition and budget from the keys of a study file.

    Args:
        table: the keys of a study file.
        default_name: the study's name where the table gives none.
        base: the folder that relative paths start from.

    Raises:
        RequestError: with the key and the value that is wrong.
    """
    for key in table:
        if key not in KEYS:
            raise DefinitionError(unknown("key", key, KEYS))
    name = check_name(get_text(table, "name", default_name))
    space = _space(table, base)
    objectives = parse_objectives(table.get("objective", default_objective(space.models)))
    sampler, pruner = _named(table.get("sampler", "tpe"), "sampler"), _named(table.get("pruner", "none"), "pruner")
    check_sampler(sampler.name, sampler.options, len(objectives))
    check_pruner(pruner.name, pruner.options, longest_epochs(space), len(objectives))
    constraints = read_constraints(table.get("constraints", ()), sampler.name)
    written = {constraint.metric: f"constraints: '{constraint.text}'" for constraint in constraints}
    metrics = {**written, **{objective.metric: f"objective = '{objective.metric}'" for objective in objectives}}
    check_objective_metrics(metrics, space.models)
    _check_validated(space, objectives)
    baseline = get_table(table, "baseline") if "baseline" in table else None
    if baseline is not None:
        _in("[baseline]", lambda: TrialConfig(**{**constant_parameters(space), **baseline}))
    given = table.get("dataset")
    usual = registry.NO_DATA if _loops(space) == len(space.models) else "mnist"
    dataset = given if isinstance(given, DatasetReference) else make_reference(get_text(table, "dataset", usual), base)
    _check_data(dataset, space)
    _in("[parameters]", lambda: space.check(lambda config: check_compatible(config, dataset)))
    report = get_table(table, "report") if "report" in table else None
    definition = Definition(
        dataset=dataset,
        objectives=objectives,
        sampler=sampler,
        pruner=pruner,
        seed=_whole(table, "seed", 0, low=0, high=2**32 - 1),
        parameters=space.to_json(),
        constraints=constraints,
        baseline=baseline,
        modules=_modules(space, metrics),
        warm_start=check_warm_start(table.get("warm_start", ()), space, sampler.name),
        report=None if report is None else _in("[report]", lambda: parse_report_table(report, space, objectives)),
        record_steps=_flag(table, "record_steps"),
    )
    if baseline is not None:
        _in("[baseline]", lambda: check_compatible(definition.baseline_config(space), dataset))
    budget = parse_budget(table, definition, DEFAULT_TRIALS)
    check_first(definition, budget)
    return name, definition, budget


def _loops(space: Space) -> int:
    """How many of a space's models train themselves."""
    return sum(registry.models.get(name).loop for name in space.models)


def _check_data(dataset: DatasetReference, space: Space) -> None:
    """Refuse models that would have no data to be trained on."""
    if dataset.name == registry.NO_DATA and _loops(space) < len(space.models):
        names = ", ".join(name for name in space.models if not registry.models.get(name).loop)
        raise DefinitionError(
            f"dataset = '{dataset.name}': is for loops of your own, and {names} is no such loop; name data"
        )


def check_first(definition: Definition, budget: Budget) -> None:
    """Refuse a budget that is too small for the trials that a study begins with.

    Raises:
        DefinitionError: says how many they are.
    """
    first = len(definition.warm_start) + (definition.baseline is not None)
    if definition.warm_start and budget.trials < first:
        raise DefinitionError(f"trials = {budget.trials}: the baseline and warm_start alone are {first} trials")


def _check_validated(space: Space, objectives: tuple[Objective, ...]) -> None:
    """Refuse a study that could choose by nothing, for it has no validation samples."""
    domains = [d.domain for d in space.dimensions if d.parameter.name == "validation"]
    if any(domain.contains(0.0) for domain in domains) and any(test_metric(o.metric) for o in objectives):
        metrics = ", ".join(objective.metric for objective in objectives)
        raise DefinitionError(f"[parameters] validation = 0: leaves nothing to measure {metrics} on; give it samples")


def _in(where: str, check: Callable[[], T]) -> T:
    """The result of a check; its error says where."""
    try:
        return check()
    except RequestError as error:
        raise type(error)(f"{where} {error}") from error


def check_name(name: str) -> str:
    """A name that can be a folder's and an argument everywhere.

    Raises:
        DefinitionError: it cannot.
    """
    if not re.fullmatch(r"\w[\w .+@=,-]{0,99}", name) or name != name.strip():
        raise DefinitionError(
            f"name = {name!r}: use up to 100 letters, digits, spaces and . _ + @ = , - beginning with a letter or digit"
        )
    return name


def _space(table: Mapping[str, Any], base: Path) -> Space:
    """The space the table names, with its `[parameters]` added or overriding."""
    parameters: dict[str, Any] = {}
    if "space" in table:
        given = table["space"]
        if isinstance(given, Space):
            parameters = given.to_json()
        else:
            name = get_text(table, "space", "")
            is_path = name.endswith(".toml") or os.sep in name
            parameters = read_toml(
                (base / name).resolve() if is_path else templates.find_template("search_spaces", name)
            )
    try:
        return Space({**parameters, **get_table(table, "parameters")})
    except RequestError as error:
        raise type(error)(f"[parameters] {error}") from error


def default_objective(models: Iterable[str]) -> str:
    """The objective of studies of such models that name none."""
    return "val_loss" if any(registry.models.get(name).reconstructs for name in models) else "val_accuracy"


def check_objective_metrics(metrics: Mapping[str, str], models: Iterable[str]) -> None:
    """Refuse a metric that a model has not.

    Args:
        metrics: each with how it was asked for, which the error begins with.
        models: by name.

    Raises:
        DefinitionError: it is of classes, and the model reconstructs its input, or the other way round.
    """
    for model in models:
        entry = registry.models.get(model)
        if entry.loop:
            continue
        for metric in (name for name in metrics if registry.metrics.get(name).reported):
            raise DefinitionError(f"{metrics[metric]}: only loops of your own report it, and model '{model}' is none")
        missing = "val_accuracy" if entry.reconstructs else "val_reconstruction_error"
        if missing in metrics:
            others = "val_loss or val_reconstruction_error" if entry.reconstructs else "val_accuracy or val_loss"
            raise DefinitionError(f"{metrics[missing]}: model '{model}' has none; use {others}")


def parse_objectives(given: object) -> tuple[Objective, ...]:
    """The objectives that the key `objective` names.

    Raises:
        DefinitionError: a metric or a direction is unknown, or a metric stands twice.
    """
    items = given if isinstance(given, list | tuple) else [given]
    objectives = tuple(_objective(item) for item in items)
    if not objectives:
        raise DefinitionError("objective = []: name at least one metric")
    if len({objective.metric for objective in objectives}) < len(objectives):
        raise DefinitionError(f"objective = {given!r}: a metric stands twice")
    return objectives


def _objective(item: object) -> Objective:
    if isinstance(item, Objective):
        return item
    table = item if isinstance(item, Mapping) else {"metric": item}
    metric = table.get("metric")
    if not set(table) <= {"metric", "direction"} or not isinstance(metric, str):
        raise DefinitionError(f"objective = {item!r}: give a metric's name, or {{ metric = …, direction = … }}")
    if metric not in registry.metrics.names():
        raise DefinitionError(unknown("objective", metric, registry.metrics.names()))
    entry = registry.metrics.get(metric)
    direction = table.get("direction", entry.direction)
    if direction not in ("maximize", "minimize"):
        raise DefinitionError(unknown("direction", str(direction), ("maximize", "minimize")))
    return Objective(metric=entry.name, direction=direction)


def _named(given: object, kind: str) -> ComponentSpec:
    table = given if isinstance(given, Mapping) else {"name": given}
    if not isinstance(table.get("name"), str):
        raise DefinitionError(f"{kind} = {given!r}: give its name, or a table with name and options")
    return ComponentSpec(name=table["name"], options={key: value for key, value in table.items() if key != "name"})


def _modules(space: Space, metrics: Iterable[str]) -> dict[str, str]:
    """Where the models and metrics that are not ours came from, so that a worker's error can name the module."""
    entries: list[tuple[str, registry.Entry]] = [("model", registry.models.get(name)) for name in sorted(space.models)]
    entries += [("metric", registry.metrics.get(name)) for name in metrics]
    return {f"{kind}:{entry.name}": entry.module for kind, entry in entries if not entry.builtin}


def parse_budget(table: Mapping[str, Any], definition: Definition, trials: int) -> Budget:
    """The budget that a study file's keys give a study; `trials` where they do not say.

    Raises:
        DefinitionError: with the key and the value that is wrong.
    """
    target = table.get("target")
    number = isinstance(target, int | float) and not isinstance(target, bool) and math.isfinite(target)
    if target is not None and not number:
        raise DefinitionError(f"target = {target!r}: must be a number, the value of the objective that ends the study")
    if target is not None and len(definition.objectives) > 1:
        count = len(definition.objectives)
        raise DefinitionError(f"target = {target!r}: needs a single objective, but the study has {count}")
    timeout = parse_duration(table["timeout"]) if "timeout" in table else None
    trials = _whole(table, "trials", trials, low=1)
    if definition.sampler.name == "grid":
        points = count_grid_points(definition, definition.space)
        if "trials" in table and trials != points:
            raise DefinitionError(
                f"trials = {trials}: a grid study's budget is its number of points, {points}; leave trials out"
            )
        trials = points
    return Budget(trials=trials, timeout=timeout, target=target)


def count_grid_points(definition: Definition, space: Space) -> int:
    """The budget of a grid study: its points, and one more for a baseline.

    Raises:
        SpaceError: a range is continuous.
        DefinitionError: too many points to insert.
    """
    points = 1 if definition.baseline is not None else 0
    for _ in space.grid():
        points += 1
        if points > POINTS_LIMIT:
            raise DefinitionError(
                f'the grid has more than {POINTS_LIMIT:,} points; take fewer values, or sampler = "random"'
            )
    return points


def parse_duration(given: object) -> float:
    """Seconds from `90`, `"90s"`, `"15m"`, `"2h"`, `"1h30m"` or `"1d"`.

    Raises:
        DefinitionError: it is no such duration, or not above 0.
    """
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
    text = str(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    whole = "".join(number + unit for number, unit in parts) == text
    seconds = sum(float(number) * units[unit] for number, unit in parts) if whole else 0.0
    if not 0 < seconds < float("inf"):
        raise DefinitionError(f'timeout = {given!r}: give a time above 0, as "2h", "15m", "1h30m" or seconds')
    return seconds


def parse_override(text: str) -> tuple[str, Any]:
    """Name and value of `--set name=value`; the value is TOML, or else a text.

    Raises:
        DefinitionError: there is no `=`.
    """
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise DefinitionError(f"--set {text}: write name=value, as --set learning_rate=0.01")
    name, raw = name.strip(), raw.strip()
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return name, raw
    # `512` alone is a number to TOML, and `1024-12-10` a date, but a parameter of texts (widths) wants the text.
    parameter = all_parameters().get(name)
    is_text = parameter is not None and parameter.kind is str and not isinstance(value, str | list | dict)
    return name, raw if is_text else value


def get_text(table: Mapping[str, Any], key: str, default: str) -> str:
    """A key's text.

    Raises:
        DefinitionError: it is none, or empty.
    """
    value = table.get(key, default)
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"{key} = {value!r}: must be a text")
    return value


def _whole(table: Mapping[str, Any], key: str, default: int, low: int, high: int = 10**9) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DefinitionError(f"{key} = {value!r}: must be a whole number from {low} to {high}")
    return value


def _flag(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise DefinitionError(f"{key} = {value!r}: must be true or false")
    return value


def get_table(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A key's table, by default an empty one.

    Raises:
        DefinitionError: it is none.
    """
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{key} = {value!r}: must be a table")
    return dict(value)
