"""Launching: from a study file or a Python call to a study in a storage, and workers that run it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from hpo.config import registry
from hpo.config.cohort_key import UNSTACKABLE
from hpo.datasets import is_path
from hpo.errors import (
    RequestError,
    RunError,
    StorageMissingError,
    StudyConflictError,
    StudyNotFoundError,
    unknown,
)
from hpo.execution.backends.base import Backend, WorkerOptions
from hpo.execution.backends.live_progress import watch_study
from hpo.execution.backends.local import Local
from hpo.space import Space
from hpo.study import Budget, Definition, Study, StudyStorage, study_names
from hpo.study.definition import WarmFrom
from hpo.study.input import templates
from hpo.study.input.study_file import check_first, parse_budget, parse_definition, read_study
from hpo.study.operations.best_trials import select_warm_starts
from hpo.study.slots import fixed_trials
from hpo.utils.home import default_storage

__all__ = ["LaunchPlan", "launch", "plan_launch", "resume_plan", "run_plan"]

log = logging.getLogger("hpo.study")
TOP = 5  # of a study's trials, how many another one begins with


@dataclass(frozen=True)
class LaunchPlan:
    """A study that is not in a storage yet.

    Attributes:
        name, definition, budget: the study's.
        notices: what a launch should say of how it came about.
    """

    name: str
    definition: Definition
    budget: Budget
    notices: tuple[str, ...] = ()

    def create(self, storage: str | None = None) -> Study:
        """Put it into a storage, or go on with the study that is there.

        Raises:
            StorageError: the storage cannot be opened.
            StudyConflictError: a study of that name has another definition.
        """
        return Study.create(StudyStorage(storage or default_storage()), self.name, self.definition, self.budget)


def plan_launch(
    study: str | None,
    storage: str | None = None,
    *,
    imports: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    warm_start: str | Sequence[Mapping[str, Any]] | None = None,
    top: int | None = None,
    **keys: Any,
) -> LaunchPlan:
    """What a launch would create.

    Args:
        study: a template's name, a path to a study file, or the name of a study in the storage to go on with; None
            where `keys` say all.
        storage: a storage URL; by default the one that the commands use.
        imports: modules that register the user's models, data sets and metrics.
        parameters: domains that add to those of the file, or override them.
        warm_start: the name of a study whose best trials come first, or tables as in a study file.
        top: how many of its best; by default 5.
        keys: the other keys of a study file; None leaves the file's.

    Raises:
        RequestError: with the file, the key and the value that is wrong.
    """
    registry.import_modules(imports)
    if isinstance(data := keys.get("dataset"), str) and is_path(data):
        keys["dataset"] = str(
            Path(data).expanduser().absolute()
        )  # of the folder we are in, wherever the study file lies
    source = warm_start if isinstance(warm_start, str) else None
    if top is not None and (source is None or top < 1):
        why = "must be at least 1" if source else "of which study? name it with --warm-start, or warm_start=…"
        raise RequestError(f"top = {top}: {why}")
    if study is not None and (existing := resume_plan(study, storage, parameters, warm_start=warm_start, **keys)):
        return _add_cohort_notice(existing)
    planned = _planned(study, parameters, {**keys, "warm_start": None if source else warm_start})
    if source is not None:
        planned = _warm(planned, storage, WarmFrom(study=source, top=top or TOP))
    return _add_cohort_notice(planned)


def _planned(study: str | None, parameters: Mapping[str, Any] | None, keys: Mapping[str, Any]) -> LaunchPlan:
    """What a study file says, or the keys of one."""
    if study is not None:
        return LaunchPlan(*read_study(study, parameters, **keys))
    given = {key: value for key, value in keys.items() if value is not None}
    if "name" not in given:
        raise RequestError("a study without a file needs a name; give name=…")
    return LaunchPlan(*parse_definition({**given, "parameters": parameters or {}}, given["name"], Path.cwd()))


def _warm(planned: LaunchPlan, storage: str | None, source: WarmFrom) -> LaunchPlan:
    """The plan, begun with the best trials of another study; those that a study launched so before was begun with."""
    definition = planned.definition
    if definition.fixed:
        raise RequestError(
            f"warm_start = '{source.study}': the trials of sampler '{definition.sampler.name}' are fixed when the study"
            " is made, and learn from no others; take an adaptive one, as tpe"
        )
    opened = StudyStorage(storage or default_storage(), create=False)
    launched = Study(opened, planned.name).definition if planned.name in study_names(opened) else None
    if launched is not None and launched.warm_from == source:
        tables, notice = launched.warm_start, None  # the other study may have better ones by now, or be deleted
    else:
        tables, notice = select_warm_starts(Study(opened, source.study), definition, source.top)
    definition = definition.model_copy(update={"warm_start": tables, "warm_from": source})
    check_first(definition, planned.budget)
    return replace(planned, definition=definition, notices=() if notice is None else (notice,))


def _add_cohort_notice(plan: LaunchPlan) -> LaunchPlan:
    """Return the plan with a notice of the trials whose optimizer keeps them out of cohorts, where there are any."""
    definition, space = plan.definition, plan.definition.space  # which builds and checks it each time
    domains = (each.domain for each in space.dimensions if each.parameter.name == "optimizer")
    names = UNSTACKABLE.intersection(str(value) for domain in domains for value in domain.points())
    if not names:
        return plan
    if not definition.fixed:
        notice = f"trials with {' or '.join(sorted(names))} train one model at a time, not in a cohort"
        return replace(plan, notices=(*plan.notices, notice))
    drawn = [space.values(params) for params in fixed_trials(definition, 0, plan.budget.trials)]
    optimizers = [definition.config(values).optimizer for values in drawn]
    alone = [name for name in optimizers if name in UNSTACKABLE]
    if not alone:
        return plan
    which = " and ".join(sorted(set(alone)))
    notice = f"{len(alone)} of {len(drawn)} trials use {which}, which trains one model at a time, not in a cohort"
    return replace(plan, notices=(*plan.notices, notice))


def resume_plan(
    study: str, storage: str | None, parameters: Mapping[str, Any] | None, **keys: Any
) -> LaunchPlan | None:
    """The plan to go on with the study of that name; None where `study` is a file, or a template to launch.

    Only the budget's keys may be given: the definition is the stored one. A template's name means the stored study too,
    where there is one and nothing is asked for that would change it: it may have been launched with changes.

    Raises:
        RequestError: the others would change the definition, or the budget is wrong.
        StudyNotFoundError: the storage holds no such study.
        StorageError: the storage cannot be opened.
    """
    template = study in templates.template_names("studies")
    given = {key: value for key, value in keys.items() if value is not None}
    other = [*(key for key in given if key not in Budget.model_fields), *(parameters or {})]
    if study.endswith(".toml") or os.sep in study or (template and other):
        return None
    try:
        found = Study(StudyStorage(storage or default_storage(), create=False), study)
    except (StorageMissingError, StudyNotFoundError) as error:
        if template:
            return None
        raise type(error)(
            f"{unknown('study template', study, templates.template_names('studies'))}, and {error}"
        ) from error
    found.definition.check_registered()
    if other:
        raise StudyConflictError(
            f"study '{study}' exists, and {', '.join(other)} would change its definition; "
            "launch a file under another --name"
        )
    budget = found.budget.extended(parse_budget(given, found.definition, found.budget.trials))
    return LaunchPlan(study, found.definition, budget)


def run_plan(
    study: Study,
    options: WorkerOptions,
    should_stop: Callable[[], bool] = lambda: False,
    backend: Backend | None = None,
) -> None:
    """Run a study with the workers of a backend, by default local processes, until nothing is left to begin.

    Raises:
        RequestError: the backend cannot start them.
        RunError: a worker failed; the line has its last words and its log.
    """
    study.storage.patience.asked_to_stop = should_stop
    study.start_clock()
    started = (backend or Local()).start(study, options)
    failures = watch_study(study, started, should_stop)
    if failures and not should_stop():
        raise RunError("; ".join(failures))


def launch(
    study: str | None = None,
    *,
    storage: str | None = None,
    workers: int = 1,
    device: str = "auto",
    imports: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    space: Space | str | None = None,
    cohort: int | None = None,
    tensorboard: Path | None = None,
    trackers: Sequence[str] = (),
    backend: Backend | None = None,
    warm_start: str | Sequence[Mapping[str, Any]] | None = None,
    top: int | None = None,
    **keys: Any,
) -> optuna.Study:
    """Launch a study, as `hpo launch` does, and return it as Optuna's when nothing is left to begin.

    With one worker it runs in this process, so that models and data sets defined in a notebook are found.

    Args:
        study: a template's name or a path to a study file; None where the other arguments say all.
        storage: a storage URL; by default the one that the commands use.
        workers: processes on this machine, or of the backend; more than one, or any of a backend's, need `imports` for
            what the user registered.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        imports: modules that register the user's models, data sets and metrics.
        parameters: domains that add to those of the space, or override them.
        space: a space, or a template's name.
        cohort: how many trials a worker trains at the same time, at most; None leaves that to what trains well.
        tensorboard: a folder for TensorBoard events of every trial, in STUDY/trial_N.
        trackers: `mlflow`, `wandb`: what else is told of every trial.
        backend: what starts the workers: `hpo.execution.backends.ray.Ray(address)` or
        `hpo.execution.backends.slurm.Slurm(parameters)`. warm_start: the name of a study whose best trials come first,
        or tables as in a study file. top: how many of its best; by default 5.
        keys: the other keys of a study file: name, dataset, objective, trials, sampler, pruner, seed, baseline, …

    Raises:
        RequestError: with the key and the value that is wrong.
        RunError: a worker failed.
    """
    if workers < 0:
        raise RequestError(f"workers = {workers}: must be at least 0")
    if cohort is not None and cohort < 1:
        raise RequestError(f"cohort = {cohort}: must be at least 1")
    keys |= {"space": space}
    planned = plan_launch(
        study, storage, imports=imports, parameters=parameters, warm_start=warm_start, top=top, **keys
    )
    for notice in planned.notices:
        log.warning("%s", notice)
    created = planned.create(storage)
    if workers == 1 and backend is None:
        from hpo.execution.worker import Worker  # torch

        created.start_clock()
        Worker(created, device, cohort=cohort, tensorboard=tensorboard, trackers=trackers).run()
    elif workers > 0:
        events = None if tensorboard is None else tensorboard.resolve()
        options = WorkerOptions(workers, device, imports, cohort=cohort, tensorboard=events, trackers=trackers)
        run_plan(created, options, backend=backend)
    return created.optuna_study
