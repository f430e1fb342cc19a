"""Plans of studies of an objective function: new ones, ones to go on with, and ones that plain Optuna began."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hpo.errors import RequestError, StudyConflictError
from hpo.execution.launch import TOP, LaunchPlan, add_warm_start, check_top
from hpo.execution.objective_function import ObjectiveFunction, find_changes
from hpo.execution.script_study import find_directions, read_components
from hpo.execution.study_names import find_study
from hpo.study import Study
from hpo.study.definition import FunctionReference, WarmFrom
from hpo.study.input.function_study import (
    define_function_study,
    parse_directions,
    read_stored_keys,
    read_study_keys,
    waiting_params,
)

COMPONENT_KEYS = ("sampler", "pruner", "seed")
LONGEST_NAME = 80  # characters, which leaves room for a number
__all__ = ["plan_function_launch"]


def plan_function_launch(
    function: ObjectiveFunction,
    storage: str | None = None,
    made: optuna.Study | None = None,
    *,
    read_file: bool = False,
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
        read_file: whether direction, sampler, pruner and seed are otherwise those of the file's own call of
            `optuna.create_study`, as far as they can be read. A study that is stored already keeps its own.
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
    if made is None and read_file:
        of_file, notices = _read_file(function.reference, stored, given)
    if stored is not None and "direction" not in given:
        notices += _compare_directions(stored, of_file.pop("direction", None), function.reference)
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


def _read_file(
    reference: FunctionReference, stored: Study | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the keys that the file of a function has for a study, and lines that say so.

    Raises:
        RequestError: a new study needs its direction, which the file has, but not in plain text.
    """
    keys: dict[str, Any] = {}
    notices: list[str] = []
    if "direction" not in given:
        try:
            found = find_directions(reference)
        except RequestError:
            if stored is None:
                raise
            found = None  # the stored study has its directions
        if found is not None:
            keys["direction"] = found.directions
            notices += [] if stored else [found.describe()]
    if stored is None or stored.definition.foreign:
        components, notes = read_components(reference, [key for key in COMPONENT_KEYS if key not in given])
        known = {"direction": "minimize", **keys, **({} if stored is None else read_stored_keys(stored)), **given}
        several = len(parse_directions(known["direction"])) > 1
        keys |= {key: value for key, value in components.items() if not (several and key == "pruner")}
        notices += notes
    return keys, notices


def _compare_directions(study: Study, of_file: object, reference: FunctionReference) -> list[str]:
    """Return a line if the file of a function has other directions than the study, which keeps its own."""
    directions = [objective.direction for objective in study.definition.objectives]
    if of_file is None or of_file == directions:
        return []
    return [
        f"study '{study.name}' keeps its direction, {', '.join(directions)}; {reference.label} has "
        f"{', '.join(parse_directions(of_file))}"
    ]


def _check_directions(study: Study, requested: Sequence[str]) -> None:
    stored = [objective.direction for objective in study.definition.objectives]
    if stored != requested:
        if not any(trial.state == TrialState.COMPLETE for trial in study.trials()):
            raise StudyConflictError(
                f"study '{study.name}' exists with direction {', '.join(stored)}, and no trial of it has completed; "
                f"remove it with: hpo delete {shlex.quote(study.name)}, or give this one another --name"
            )
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
