"""Study files, templates and Python calls as definitions and budgets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from hpo.config import registry
from hpo.config.builtin_metrics import default_metric
from hpo.config.declaration import NONE_DECLARED, Declarations
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.config.values import Value
from hpo.datasets import DatasetReference, make_reference
from hpo.errors import DefinitionError, RequestError, describe_unknown
from hpo.space import Space
from hpo.space.declared import list_declared
from hpo.space.space import list_models
from hpo.study.constraints import read_constraints
from hpo.study.definition import (
    SETTLED,
    Budget,
    ComponentSpec,
    Definition,
    Objective,
    constant_parameters,
    longest_epochs,
    test_metric,
)
from hpo.study.input import templates
from hpo.study.input.adapted_study import adapt_study, choose_template
from hpo.study.input.blame import blame_options
from hpo.study.input.compatibility import check_compatible, check_task
from hpo.study.input.key_places import check_parameter_places, check_places, join_task
from hpo.study.input.key_values import get_flag, get_integer, get_table, get_text
from hpo.study.input.metric_names import describe_misfit, describe_unknown_metric, fits, parse_recorded
from hpo.study.input.optuna_components import Component, read_component
from hpo.study.input.report_options import parse_report_table
from hpo.study.input.resampling_keys import parse_resampling
from hpo.study.input.weight_files import digest_weight_files, resolve_weight_files, resolve_weight_tables
from hpo.study.outlook import refuse_unsettled
from hpo.study.pruners import check_pruner
from hpo.study.samplers import check_sampler
from hpo.study.slots import baseline_params, count_first
from hpo.study.warm_start import check_warm_start
from hpo.utils.documents import parse_toml, read_document
from hpo.utils.paths import LONGEST, LONGEST_BYTES, NAME_RULE, ROOM, is_name
from hpo.utils.text import shorten

__all__ = [
    "check_first",
    "check_name",
    "check_objective_metrics",
    "default_objective",
    "join_file_task",
    "parse_budget",
    "parse_component",
    "parse_definition",
    "parse_duration",
    "parse_objectives",
    "parse_override",
    "read_study",
]

DEFAULT_TRIALS = 60
T = TypeVar("T")
FIXED_LIMIT = 1_000_000  # trials that are inserted when the study is created
TIMEOUT_LIMIT = 3650 * 86_400  # seconds


def read_study(study: str, sets: Mapping[str, Any] | None = None, **keys: Any) -> tuple[str, Definition, Budget]:
    """Read name, definition and budget from a study file or a template.

    Args:
        study: a template's name, or a path to a `.toml` file.
        sets: parameters that override those of the file.
        keys: other keys of a study file (`trials`, `seed`, …) that override those of the file, unless None.

    Raises:
        RequestError: names the file, the key and the value that is wrong.
    """
    path = _find_file(study)
    given = {key: value for key, value in keys.items() if value is not None}
    name, file = path.stem, path

    def parse(parameters: Mapping[str, Any], keys: Mapping[str, Any]) -> tuple[str, Definition, Budget]:
        nonlocal file
        file, table = path, read_document(path)
        if isinstance(dataset := keys.get("dataset"), DatasetReference):
            if "task" in table:
                dataset = join_task(dataset, table["task"], Path.cwd(), given=True)
                keys = {**keys, "dataset": dataset}
                table = {key: value for key, value in table.items() if key != "task"}
            assert isinstance(dataset, DatasetReference)
            if (template := choose_template(study, dataset)) != study:
                file = templates.find_template("studies", template)
                table = read_document(file)
            table = adapt_study(study, table, dataset)
        table |= keys
        given = resolve_weight_files(parameters, Path.cwd())
        table["parameters"] = {**get_table(table, "parameters"), **given}
        return parse_definition(table, default_name=name, base=path.parent)

    try:
        return parse(sets or {}, given)
    except RequestError as error:
        named = str(error) if str(error).startswith(f"{file}: ") else f"{file}: {error}"  # if unreadable
        raise type(error)(blame_options(error, sets or {}, given, parse) or named) from error


def _find_file(study: str) -> Path:
    if templates.names_file(study):
        return Path(study).expanduser().resolve()
    return templates.find_template("studies", study)


def join_file_task(study: str, dataset: object) -> object:
    """Return another data set for a study file with the file's `task`, by which its labels are to be read.

    Args:
        study: a template's name, a path to a `.toml` file, or the name of a stored study, whose task is not looked for.
        dataset: a name, a path, or a table of path and options.

    Raises:
        RequestError: the file cannot be read, or its task is none.
    """
    try:
        file = _find_file(study)
    except DefinitionError:
        return dataset
    table = read_document(file)
    try:
        return join_task(dataset, table["task"], Path.cwd(), given=True) if "task" in table else dataset
    except RequestError as error:
        raise type(error)(f"{file}: {error}") from error


def parse_definition(
    table: Mapping[str, Any], default_name: str, base: Path, declarations: Declarations = NONE_DECLARED
) -> tuple[str, Definition, Budget]:
    """Parse name, definition and budget from the keys of a study file.

    Args:
        table: the keys of a study file.
        default_name: the study's name where the table gives none.
        base: the folder that relative paths start from.
        declarations: of the study that the new one is made from, whose models and metrics need not be registered.

    Raises:
        RequestError: names the key and the value that is wrong.
    """
    check_places(table)
    name = check_name(get_text(table, "name", default_name))
    table = resolve_weight_tables(table, base)
    literals = resolve_weight_files(_read_parameters(table, base, declarations), base)
    dataset = _find_dataset(table, list_models(literals), declarations, base)
    space = _make_space(literals, dataset, declarations)
    task = dataset.task
    objectives = parse_objectives(table.get("objective", default_objective(space.models, declarations, task)), task)
    recorded = parse_recorded(table.get("metrics", ()))
    sampler = parse_component(table.get("sampler", "tpe"), "sampler")
    pruner = parse_component(table.get("pruner", "none"), "pruner")
    check_sampler(sampler.name, sampler.options, len(objectives))
    check_pruner(pruner.name, pruner.options, longest_epochs(space), len(objectives))
    constraints = read_constraints(table.get("constraints", ()), sampler.name)
    metrics = {name: f"metrics: '{name}'" for name in recorded}
    metrics |= {constraint.metric: f"constraints: '{constraint.text}'" for constraint in constraints}
    metrics |= {objective.metric: f"objective = '{objective.metric}'" for objective in objectives}
    check_objective_metrics(metrics, space.models, declarations, task)
    resampling, resplit = parse_resampling(table, dataset, literals, space.domains, pruner.name, len(objectives))
    if resampling is None or resampling.folds is None:
        _check_validation(space, objectives)
    baseline = _with_prefix("[baseline]", lambda: _parse_baseline(table, space, declarations))
    _with_prefix("[parameters]", lambda: space.check(lambda config: check_compatible(config, dataset)))
    report = get_table(table, "report") if "report" in table else None
    declared = declarations.select(space.models, metrics)
    definition = Definition(
        dataset=dataset,
        objectives=objectives,
        sampler=sampler,
        pruner=pruner,
        seed=get_integer(table, "seed", 0, low=0, high=2**32 - 1),
        parameters=space.to_json(),
        constraints=constraints,
        baseline=baseline,
        modules=_modules(declared),
        declarations=declared,
        warm_start=check_warm_start(table.get("warm_start", ()), space, sampler.name),
        report=None
        if report is None
        else _with_prefix("[report]", lambda: parse_report_table(report, space, objectives, recorded)),
        record_steps=get_flag(table, "record_steps"),
        recorded=recorded,
        resampling=resampling,
        resplit=resplit,
        weights=_with_prefix("[parameters]", lambda: digest_weight_files(space)),
    )
    if baseline is not None:
        _with_prefix("[baseline]", lambda: check_compatible(definition.baseline_config(space), dataset))
    budget = parse_budget(table, definition, DEFAULT_TRIALS)
    check_first(definition, budget)
    return name, definition, budget


def _parse_baseline(table: Mapping[str, Any], space: Space, declarations: Declarations) -> dict[str, Value] | None:
    """Return the values of the key `baseline` in plain form; None without the key."""
    if "baseline" not in table:
        return None
    given = get_table(table, "baseline")
    config = TrialConfig.of({**constant_parameters(space), **given}, declarations)
    parameters = all_parameters([config.model], declarations)
    return {name: parameters[name].check(value) for name, value in given.items()}


def _find_dataset(
    table: Mapping[str, Any], models: Iterable[str], declarations: Declarations, base: Path
) -> DatasetReference:
    """Return the data set that the table names, or the usual one of the models.

    Raises:
        DefinitionError: a model would have no data to be trained on.
    """
    trained_by_us = [name for name in models if not declarations.get(name).loop]
    default = "mnist" if trained_by_us else registry.NO_DATA
    value = table.get("dataset", default)
    if "task" in table:
        value = join_task(value, table["task"], base)
    dataset = value if isinstance(value, DatasetReference) else make_reference(value, base)
    if dataset.name == registry.NO_DATA and trained_by_us:
        raise DefinitionError(
            f"dataset = '{dataset.name}': is for training loops of your own, and {', '.join(trained_by_us)} is none; "
            f"name a data set"
        )
    return dataset


def check_first(definition: Definition, budget: Budget) -> None:
    """Refuse a budget that is too small for the trials that a study begins with.

    Raises:
        DefinitionError: names their number.
    """
    if definition.warm_start and budget.trials < (first := count_first(definition)):
        raise DefinitionError(f"trials = {budget.trials}: the baseline and warm_start alone are {first} trials")


def _check_validation(space: Space, objectives: tuple[Objective, ...]) -> None:
    """Refuse a study that has no validation samples to choose by."""
    domains = [d.domain for d in space.dimensions if d.parameter.name == "validation"]
    if any(domain.contains(0.0) for domain in domains) and any(test_metric(o.metric) for o in objectives):
        metrics = ", ".join(objective.metric for objective in objectives)
        raise DefinitionError(f"[parameters] validation = 0: leaves no samples to measure {metrics} on; give it some")


def _with_prefix(prefix: str, check: Callable[[], T]) -> T:
    """Return the result of a check; if it fails, its error begins with the prefix."""
    try:
        return check()
    except RequestError as error:
        raise type(error)(f"{prefix} {error}") from error


def check_name(name: str, room: int = ROOM) -> str:
    """Check that a name can be a folder's and a command's argument on every system, and return it.

    Args:
        name: a study's name.
        room: number of characters that it leaves to the names of its evaluations.

    Raises:
        DefinitionError: it cannot.
    """
    if not is_name(name, room):
        size = len(name.encode(errors="replace"))
        bytes_left = f"; in UTF-8 it has {size} bytes, of at most {LONGEST_BYTES - room}" if size > len(name) else ""
        raise DefinitionError(f"name = {shorten(name)}: use up to {LONGEST - room} {NAME_RULE}{bytes_left}")
    return name


def _read_parameters(table: Mapping[str, Any], base: Path, declarations: Declarations) -> dict[str, Any]:
    """Return the domains of the space that the table names, extended and overridden by its `[parameters]`.

    Domains that a model declares hold where neither says anything else.
    """
    parameters: dict[str, Any] = {}
    if "space" in table:
        space = table["space"]
        if isinstance(space, Space):
            parameters = space.to_json()
        else:
            name = get_text(table, "space", "")
            is_path = templates.names_file(name)
            parameters = read_document(
                (base / name).resolve() if is_path else templates.find_template("search_spaces", name)
            )

    def add_declared() -> dict[str, Any]:
        literals = parameters | get_table(table, "parameters")
        own = [model for model in list_models(literals) if not declarations.has("model", model)]
        return {**list_declared(own), **literals}

    return _with_prefix("[parameters]", add_declared)


def _make_space(literals: Mapping[str, Any], dataset: DatasetReference, declarations: Declarations) -> Space:
    """Return the space, with the constants that the data set decides, such as its task."""

    def make() -> Space:
        asked = literals.get("task", dataset.task)
        check_task(asked["value"] if isinstance(asked, dict) and "value" in asked else asked, dataset)
        check_parameter_places(literals, all_parameters(list_models(literals), declarations))
        return Space({**dataset.parameters, **literals}, registered=declarations)

    return _with_prefix("[parameters]", make)


def default_objective(
    models: Iterable[str], declarations: Declarations = NONE_DECLARED, task: str = "classification"
) -> str:
    """Return the objective of a study of these models, on data of that task, that names none."""
    return default_metric(task, reconstructs=any(declarations.get(name).reconstructs for name in models))


def check_objective_metrics(
    metrics: Mapping[str, str],
    models: Iterable[str],
    declarations: Declarations = NONE_DECLARED,
    task: str = "classification",
) -> None:
    """Refuse metrics that a model does not have.

    Args:
        metrics: by metric, how the study file asks for it; the error begins with that.
        models: names of models.
        declarations: of models and metrics that need not be registered.
        task: of the data.

    Raises:
        DefinitionError: a metric is of another task, or only of models that reconstruct their input, or of none of
            them.
    """
    for model in models:
        entry = declarations.get(model)
        if entry.loop:
            continue
        for metric in (name for name in metrics if declarations.metric(name).reported):
            raise DefinitionError(
                f"{metrics[metric]}: only training loops of your own report it, and model '{model}' is none"
            )
        for metric in (name for name in metrics if not fits(name, task, reconstructs=entry.reconstructs)):
            why = describe_misfit(metric, model, task, reconstructs=entry.reconstructs)
            raise DefinitionError(f"{metrics[metric]}: {why}")


def parse_objectives(value: object, task: str | None = None) -> tuple[Objective, ...]:
    """Parse the key `objective`; of the metrics that an unknown name may mean, those of the task come first.

    Raises:
        DefinitionError: a metric or a direction is unknown, or a metric occurs twice.
    """
    items = value if isinstance(value, list | tuple) else [value]
    objectives = tuple(_parse_objective(item, task) for item in items)
    if not objectives:
        raise DefinitionError("objective = []: name at least one metric")
    if len({objective.metric for objective in objectives}) < len(objectives):
        raise DefinitionError(f"objective = {shorten(value)}: a metric occurs twice")
    return objectives


def _parse_objective(item: object, task: str | None) -> Objective:
    if isinstance(item, Objective):
        return item
    table = item if isinstance(item, Mapping) else {"metric": item}
    metric = table.get("metric")
    if not set(table) <= {"metric", "direction"} or not isinstance(metric, str):
        raise DefinitionError(f"objective = {shorten(item)}: give a metric's name, or {{ metric = …, direction = … }}")
    if metric not in registry.metrics.names():
        raise DefinitionError(describe_unknown_metric("objective", metric, task))
    entry = registry.metrics.get(metric)
    direction = table.get("direction", entry.direction)
    if direction not in ("maximize", "minimize"):
        raise DefinitionError(describe_unknown("direction", str(direction), ("maximize", "minimize")))
    return Objective(metric=entry.name, direction=direction)


def parse_component(value: object, kind: str) -> ComponentSpec:
    """Parse the key `sampler` or `pruner`: a name, a table of name and options, or an object of Optuna's.

    A text may have the table as TOML writes it in one line, as an option of a command does.

    Raises:
        DefinitionError: it is none of them.
    """
    if isinstance(value, Component):
        value = read_component(value)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_toml(f"value = {value}")["value"]
        except DefinitionError as error:
            example = f'{{name = "{"tpe" if kind == "sampler" else "median"}", n_startup_trials = 5}}'
            raise DefinitionError(f"{kind} = {shorten(value, quote=False)}: {error}; write it as {example}") from error
    table = value if isinstance(value, Mapping) else {"name": value}
    if not isinstance(table.get("name"), str):
        raise DefinitionError(f"{kind} = {shorten(value)}: give its name, or a table with name and options")
    return ComponentSpec(name=table["name"], options={key: value for key, value in table.items() if key != "name"})


def _modules(declared: Declarations) -> dict[str, str]:
    """Return the modules of models and metrics that are not ours, so that a worker's error can name them."""
    models = {f"model:{each.name}": each.module for each in declared.models}
    return models | {f"metric:{each.name}": each.module for each in declared.metrics}


def parse_budget(table: Mapping[str, Any], definition: Definition, trials: int) -> Budget:
    """Parse the budget from a study file's keys; without `trials` among them, the argument counts.

    Raises:
        DefinitionError: names the key and the value that is wrong.
    """
    target = table.get("target")
    number = isinstance(target, int | float) and not isinstance(target, bool) and abs(target) < 2**63
    if target is not None and not number:
        raise DefinitionError(
            f"target = {shorten(target)}: must be the value of the objective that ends the study, a number"
        )
    if target is not None and len(definition.objectives) > 1:
        count = len(definition.objectives)
        raise DefinitionError(f"target = {target!r}: needs a single objective, but the study has {count}")
    until = _parse_until(table.get("until"), definition)
    timeouts = {key: parse_duration(table[key], key) for key in ("timeout", "trial_timeout") if key in table}
    most = FIXED_LIMIT if definition.fixed else 10**9
    trials = get_integer(table, "trials", trials, low=1, high=most)
    if definition.sampler.name == "grid":
        points = count_grid_points(definition, definition.space)
        if "trials" in table and trials != points:
            raise DefinitionError(
                f"trials = {trials}: a grid study's budget is its number of points, {points}; leave trials out"
            )
        trials = points
    return Budget(trials=trials, target=target, until=until, **timeouts)


def _parse_until(value: object, definition: Definition) -> Literal["settled", "trials"] | None:
    """Parse the key `until`.

    Raises:
        DefinitionError: it is no known word, or the study cannot end so.
    """
    if value is None:
        return None
    if value == "trials":
        return "trials"
    if value != SETTLED:
        raise DefinitionError(f'until = {shorten(value)}: must be "settled" or "trials"')
    if (why := refuse_unsettled(definition)) is not None:
        raise DefinitionError(f'until = "settled": {why}')
    return "settled"


def count_grid_points(definition: Definition, space: Space) -> int:
    """Count the trials of a grid study: its points, and one more for a baseline that is none of them.

    Raises:
        SpaceError: a range is continuous.
        DefinitionError: there are too many points to insert.
    """
    points = space.grid_size()
    points += definition.baseline is not None and baseline_params(definition, space) is None
    if points > FIXED_LIMIT:
        raise DefinitionError(
            f'the grid has more than {FIXED_LIMIT:,} points; take fewer values, or sampler = "random"'
        )
    return points


def parse_duration(value: object, key: str = "timeout") -> float:
    """Parse the duration of a key, `90`, `"90s"`, `"15m"`, `"2h"`, `"1h30m"` or `"1d"`, to seconds.

    Raises:
        DefinitionError: it is no such duration, or not above 0.
    """
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
    text = shorten(value, quote=False) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    whole = "".join(number + unit for number, unit in parts) == text
    seconds = sum(float(number) * units[unit] for number, unit in parts) if whole else 0.0
    if not 0 < seconds <= TIMEOUT_LIMIT:
        raise DefinitionError(
            f'{key} = {shorten(value)}: give a time above 0 and up to 3650d, as "2h", "15m", "1h30m" or seconds'
        )
    return seconds


def parse_override(text: str) -> tuple[str, Any]:
    """Parse `--set name=value` to name and value; the value is TOML, or else a text.

    Raises:
        DefinitionError: there is no `=`.
    """
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise DefinitionError(f"--set {shorten(text, quote=False)}: write name=value, as --set learning_rate=0.01")
    name, raw = name.strip(), raw.strip()
    try:
        value = parse_toml(f"value = {raw}")["value"]
    except DefinitionError:
        return name, raw
    # `512` alone is a number to TOML, and `1024-12-10` a date, but a parameter of texts (widths) wants the text.
    parameter = all_parameters().get(name)
    is_text = parameter is not None and parameter.kind is str and not isinstance(value, str | list | dict)
    return name, raw if is_text else value
