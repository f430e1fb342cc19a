"""Definitions of studies whose trials are calls of an objective function, from options or from a study of Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.config import registry
from hpo.config.registry import Direction
from hpo.datasets import DatasetReference
from hpo.errors import DefinitionError, describe_unknown
from hpo.study.definition import Budget, Definition, FunctionReference, Objective, default_metrics
from hpo.study.input.key_values import get_integer
from hpo.study.input.optuna_components import Component, read_component, read_seed
from hpo.study.input.resampling_keys import KEYS as RESAMPLING
from hpo.study.input.study_file import check_name, parse_budget, parse_component
from hpo.study.pruners import check_pruner
from hpo.study.samplers import check_sampler
from hpo.study.study import Study
from hpo.utils.text import quantity

__all__ = [
    "DEFAULT_TRIALS",
    "define_function_study",
    "parse_directions",
    "read_stored_keys",
    "read_study_keys",
    "waiting_params",
]

DEFAULT_TRIALS = 100
KEYS = (
    "name",
    "trials",
    "timeout",
    "trial_timeout",
    "target",
    "until",
    "sampler",
    "pruner",
    "seed",
    "direction",
    "metric_names",
)


def define_function_study(
    function: FunctionReference, default_name: str, keys: Mapping[str, Any]
) -> tuple[str, Definition, Budget]:
    """Return name, definition and budget of a study of an objective function.

    Args:
        function: the objective function.
        default_name: the study's name where the keys give none.
        keys: `name`, `trials`, `timeout`, `trial_timeout`, `target`, `until`, `sampler`, `pruner`, `seed` as in a study
            file, or a sampler or pruner of Optuna;
            `direction`, `minimize` by default, or one for each value that the function returns; and `metric_names`, as
            many.

    Raises:
        DefinitionError: names the key and the value that is wrong.
    """
    for key in keys:
        if key in RESAMPLING:
            raise DefinitionError(
                f"{key}: is for studies of models and training loops, whose data are known; {function.label} reads its "
                "own: divide them, or train several times, there, and return the mean"
            )
        if key not in KEYS:
            raise DefinitionError(describe_unknown("key", key, KEYS))
    objectives = _parse_objectives(keys.get("direction", "minimize"), keys.get("metric_names"))
    several = len(objectives) > 1
    seed = read_seed(keys.get("sampler"))  # of a sampler of Optuna's
    sampler = parse_component(keys.get("sampler", "tpe"), "sampler")
    # As optuna.create_study has them.
    pruner = parse_component(keys.get("pruner", "none" if several else "median"), "pruner")
    check_sampler(sampler.name, sampler.options, len(objectives))
    if sampler.name in ("grid", "qmc"):
        raise DefinitionError(
            f"sampler '{sampler.name}': needs the whole space before the first trial, and an objective function shows "
            "its own only as it is called; use random or tpe"
        )
    if pruner.name == "hyperband" and "max_resource" not in pruner.options:
        raise DefinitionError(
            "pruner 'hyperband': needs max_resource, the last step that a trial reports; give "
            """--pruner '{name="hyperband", max_resource=27}' with that step instead of 27, in Python """
            'pruner={"name": "hyperband", "max_resource": 27}, or use asha, which needs none'
        )
    check_pruner(pruner.name, pruner.options, 1, len(objectives))
    definition = Definition(
        dataset=DatasetReference(name=registry.NO_DATA),
        objectives=objectives,
        sampler=sampler,
        pruner=pruner,
        seed=get_integer({"seed": seed or 0, **keys}, "seed", 0, low=0, high=2**32 - 1),
        parameters={},
        function=function,
    )
    return check_name(str(keys.get("name", default_name))), definition, parse_budget(keys, definition, DEFAULT_TRIALS)


def _parse_objectives(direction: object, names: object) -> tuple[Objective, ...]:
    """Parse directions and names of metrics, as texts with commas or as lists."""
    directions = parse_directions(direction)
    metrics = _split(names, "metric_names") if names else default_metrics(len(directions))
    if len(metrics) != len(directions):
        raise DefinitionError(
            f"metric_names = {', '.join(metrics)}: {len(metrics)} of them, and the study has "
            f"{quantity(len(directions), 'direction')}"
        )
    if len(set(metrics)) < len(metrics):
        raise DefinitionError(f"metric_names = {', '.join(metrics)}: a name occurs twice")
    return tuple(Objective(metric=m, direction=d) for m, d in zip(metrics, directions, strict=True))


def parse_directions(value: object) -> list[Direction]:
    """Parse the key `direction`: a text, with commas for several objectives, or a list.

    Raises:
        DefinitionError: one of them is neither `maximize` nor `minimize`.
    """
    directions = _split(value, "direction")
    for each in directions:
        if each not in get_args(Direction):
            raise DefinitionError(describe_unknown("direction", each, get_args(Direction)))
    return cast(list[Direction], directions)


def _split(value: object, key: str) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) and part.strip() for part in parts):
        raise DefinitionError(f"{key} = {value!r}: give a text, or several with commas between them")
    return [part.strip() for part in parts]


def read_stored_keys(study: Study) -> dict[str, Any]:
    """Return what a stored study has, as keys of `define_function_study`."""
    definition, budget = study.definition, study.budget
    keys: dict[str, Any] = {
        "direction": [objective.direction for objective in definition.objectives],
        "metric_names": [objective.metric for objective in definition.objectives],
    }
    if definition.foreign:
        return keys
    components = {
        kind: {"name": spec.name, **spec.options}
        for kind, spec in (("sampler", definition.sampler), ("pruner", definition.pruner))
    }
    limits = budget.model_dump(include={"timeout", "trial_timeout", "target", "until"}, exclude_none=True)
    return {**keys, **components, **limits, "seed": definition.seed, "trials": budget.trials}


def read_study_keys(study: optuna.Study) -> tuple[dict[str, Any], list[str]]:
    """Return the keys of a study that plain Optuna made, and a line for each thing that has no name here.

    Args:
        study: whose directions, metric names, sampler, pruner and name are read.
    """
    notes: list[str] = []
    several = len(study.directions) > 1
    keys: dict[str, Any] = {
        "direction": ["maximize" if each == StudyDirection.MAXIMIZE else "minimize" for each in study.directions],
        "metric_names": study.metric_names,
        "sampler": _translate_component(study.sampler, notes),
        "pruner": None if several else _translate_component(study.pruner, notes),
        "seed": read_seed(study.sampler),
        "name": None if study.study_name.startswith("no-name-") else study.study_name,
    }
    return {key: value for key, value in keys.items() if value is not None}, notes


def _translate_component(component: Component, notes: list[str]) -> dict[str, Any] | None:
    """Return name and options of a sampler or pruner of Optuna; None, and a note, for one that has no name here."""
    try:
        return read_component(component)
    except DefinitionError as error:
        notes.append(f"{error}; the default one takes its place")
        return None


def waiting_params(study: optuna.Study) -> list[dict[str, Any]]:
    """Return the parameters that have been enqueued in a study of Optuna, in order."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [dict(trial.system_attrs.get("fixed_params", {})) for trial in waiting]
