"""Evaluation of a study of an objective function: calls with the parameters of its best trials and fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.errors import RequestError, RunError, StudyForeignError
from hpo.execution.objective_function import (
    ObjectiveFunction,
    check_function,
    describe_function,
    find_function,
    load_function,
)
from hpo.execution.trial_seed import SEEDLESS
from hpo.report.data.results import read_results
from hpo.study import Study
from hpo.study.attributes import TRIAL_SEED
from hpo.study.files.cleanup import find_study_folders, remove_files
from hpo.study.operations.evaluation_study import create_function_evaluations, evaluation_studies

__all__ = [
    "check_function_options",
    "choose_trials",
    "find_study_function",
    "plan_function_evaluations",
    "refuse_seedless",
]


def find_study_function(
    study: Study, objective: str | Callable[[optuna.trial.Trial], Any] | None, imports: Sequence[str], verb: str
) -> ObjectiveFunction:
    """Return the objective function of a study, as the caller names it; none is imported because a database says so.

    Args:
        study: of an objective function, or made by another tool.
        objective: the function itself, or `FILE.py:FUNCTION`; None if one of the modules holds it.
        imports: modules that the caller has named.
        verb: what is to be done, as the error begins.

    Raises:
        RequestError: nothing names the function, or it cannot be called with a trial alone.
        RegistryError: its file or module cannot be imported.
    """
    if callable(objective):
        function = ObjectiveFunction(objective, describe_function(objective))
        check_function(function.reference.label, objective)
        stored = study.definition.function
        if stored is not None and stored.name != function.reference.name:
            raise RequestError(f"{verb}: study '{study.name}' calls {stored.label}, not {function.reference.label}")
        return function
    if study.definition.function is not None:
        return find_function(study, objective, imports)
    if objective is None:
        raise StudyForeignError(
            f"{verb}: study '{study.name}' in {study.storage.masked_url} was made by another tool, and its objective "
            "function is not known; name it with --objective FILE.py:FUNCTION"
        )
    return load_function(objective)


def check_function_options(
    study: Study,
    dataset: object,
    datasets: Sequence[object] = (),
    *,
    refit: bool,
    inside: bool,
    vary: object = (),
    compare: object = None,
) -> None:
    """Refuse the options of an evaluation that only models have.

    Raises:
        RequestError: names the option.
    """
    given = {"dataset": dataset is not None, "datasets": bool(datasets), "refit": refit, "inside": inside}
    given |= {"vary": bool(vary), "compare": compare is not None}
    for name, is_given in given.items():
        if is_given:
            raise RequestError(
                f"evaluate --{name}: is for studies of models; study '{study.name}' calls an objective function, which "
                f"alone knows its data and its model; leave --{name} out"
            )


def plan_function_evaluations(study: Study, top: int, seeds: int, function: ObjectiveFunction) -> list[Study]:
    """Create or extend the evaluations of a study's best trials; run nothing.

    Args:
        study: the study to evaluate.
        top: number of its trials, the best first; those of the Pareto front if it has several objectives.
        seeds: number of seeds that each is called with.
        function: the objective function.

    Raises:
        RequestError: no trial is complete, the study is an evaluation itself, or the function takes no seed.
    """
    chosen = choose_trials(study, top)
    if not (_has_changed(study, function) or any(TRIAL_SEED in trial.user_attrs for trial in study.trials())):
        raise RequestError(f"evaluate: study '{study.name}': {SEEDLESS}")
    return create_function_evaluations(study, chosen, seeds, function.reference)


@contextmanager
def refuse_seedless(study: Study) -> Iterator[None]:
    """Turn the finding of a worker that the function asks for no seed into one line, and leave no evaluation behind.

    Whether a changed function, or another tool's, takes a seed is known when it has been called, which workers do.

    Raises:
        RequestError: it asks for none.
    """
    present = {each.name for each in evaluation_studies(study)}
    try:
        yield
    except (RequestError, RunError) as error:
        if SEEDLESS not in str(error):
            raise
        for each in evaluation_studies(study):
            if each.name not in present and not any(trial.state.is_finished() for trial in each.trials()):
                _delete(each)
        raise RequestError(f"evaluate: study '{study.name}': {SEEDLESS}") from error


def choose_trials(study: Study, top: int) -> list[FrozenTrial]:
    """Return the best trials; of those with the same parameters only the best one.

    Raises:
        RequestError: no trial is complete, or the study is an evaluation itself.
    """
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(f"evaluate: '{study.name}' is an evaluation itself; evaluate '{of}' with other options")
    trials = {trial.number: trial for trial in study.trials()}
    chosen: list[FrozenTrial] = []
    for row in read_results(study).top(len(trials)):
        trial = trials[row.number]
        if len(chosen) < top and all(trial.params != other.params for other in chosen):
            chosen.append(trial)
    if not chosen:
        raise RequestError(f"evaluate: study '{study.name}' has no COMPLETE trial to call again; launch it first")
    return chosen


def _has_changed(study: Study, function: ObjectiveFunction) -> bool:
    """Tell whether the function may take a seed although no trial of the study has one: its first call will show."""
    stored = study.definition.function
    return stored is None or stored.sha256 != function.reference.sha256


def _delete(evaluation: Study) -> None:
    """Delete an evaluation and its files; logs stay."""
    folders = [folder for folder in find_study_folders(evaluation) if not folder.stays]
    evaluation.storage.delete_study(evaluation.id)
    for folder in folders:
        remove_files(folder.path)
