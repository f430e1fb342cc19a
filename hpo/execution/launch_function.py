"""Plans of studies of an objective function: new ones, ones to go on with, and ones that plain Optuna began."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from hpo.errors import StudyConflictError
from hpo.execution.launch import TOP, LaunchPlan, add_warm_start, check_top, find_study
from hpo.execution.objective_function import ObjectiveFunction
from hpo.study import Study
from hpo.study.definition import FunctionReference, WarmFrom
from hpo.study.input.function_study import (
    define_function_study,
    parse_directions,
    read_stored_keys,
    read_study_keys,
    waiting_params,
)

LONGEST_NAME = 80  # characters, which leaves room for a number
__all__ = ["find_changes", "plan_function_launch"]


def plan_function_launch(
    function: ObjectiveFunction,
    storage: str | None = None,
    made: optuna.Study | None = None,
    *,
    warm_start: str | None = None,
    top: int | None = None,
    **keys: Any,
) -> LaunchPlan:
    """Return the plan of a study whose trials are calls of an objective function; nothing is created.

    Args:
        function: the objective function.
        storage: a storage URL; by default the one that the commands use.
        made: a study as the function's own file has made it: its directions, metric names, sampler, pruner, name and
            enqueued trials are taken, where no key says otherwise.
        warm_start: the name of a study whose best trials' parameters are called first.
        top: number of its best trials; by default 5.
        keys: see `define_function_study`; None leaves what the study has, or the default.

    Raises:
        RequestError: a value is wrong; the line names the key and the value.
        StudyConflictError: the storage has another study of that name.
    """
    check_top(top, warm_start)
    given = {key: value for key, value in keys.items() if value is not None}
    of_file, notices = ({}, list[str]()) if made is None else read_study_keys(made)
    name = str({"name": default_name(function.reference), **of_file, **given}["name"])
    stored = _find_study(name, storage)
    values = {**of_file, **({} if stored is None else read_stored_keys(stored)), **given}
    if stored is not None and "direction" in given:
        _check_directions(stored, parse_directions(given["direction"]))
    name, definition, budget = define_function_study(function.reference, name, values)
    if stored is not None:
        stored.check_growth(given.get("trials"))
    if stored is not None and not stored.definition.foreign:
        definition = definition.model_copy(update={"warm_start": stored.definition.warm_start})
        notices += find_changes(stored, function.reference)
    elif made is not None:
        definition = definition.model_copy(update={"warm_start": tuple(waiting_params(made))})
    plan = LaunchPlan(name, definition, budget, tuple(notices))
    if warm_start is None:
        return plan
    if stored is not None and stored.definition.foreign:
        raise StudyConflictError(
            f"warm_start = '{warm_start}': study '{name}' exists and has begun; give this one another --name"
        )
    return add_warm_start(plan, storage, WarmFrom(study=warm_start, top=top or TOP))


def _check_directions(study: Study, requested: Sequence[str]) -> None:
    stored = [objective.direction for objective in study.definition.objectives]
    if stored != requested:
        raise StudyConflictError(
            f"study '{study.name}' exists, and its directions are {', '.join(stored)}, not {', '.join(requested)}; "
            "leave --direction out, or give this study another --name"
        )


def default_name(reference: FunctionReference) -> str:
    """Name a study after the file or the module of its function, or after the function itself."""
    if reference.file is not None:
        stem = Path(reference.file).stem
    else:
        stem = reference.name if reference.module is None else reference.module.rpartition(".")[2]
    return re.sub(r"[^\w .+@=,-]", "-", stem).lstrip(" .+@=,-")[:LONGEST_NAME].strip() or "objective"


def find_changes(study: Study, reference: FunctionReference) -> list[str]:
    """Return a line if the source of a study's function is not what it was at the launch."""
    stored = study.definition.function
    if stored is None or not stored.sha256 or not reference.sha256 or stored.sha256 == reference.sha256:
        return []
    return [
        f"{reference.label}: its source is not the one that study '{study.name}' was launched with (SHA-256 "
        f"{reference.sha256[:12]}, then {stored.sha256[:12]}); trials of both are compared"
    ]


def _find_study(name: str, storage: str | None) -> Study | None:
    """Return the stored study of that name, if there is one.

    Raises:
        StudyConflictError: its trials are no calls of an objective function.
    """
    study = find_study(name, storage)
    if study is not None and not study.definition.learned:
        raise StudyConflictError(
            f"study '{name}' exists, and trains configurations of its own space; give this one another --name"
        )
    return study
