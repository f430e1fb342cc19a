"""Launching: from a study file or a Python call to a study in a storage, and workers that run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from hpo import registry, templates
from hpo.backends.local import start_workers
from hpo.backends.options import WorkerOptions
from hpo.backends.watch import watch
from hpo.errors import (
    RequestError,
    RunError,
    StorageMissingError,
    StudyConflictError,
    StudyNotFoundError,
    unknown,
)
from hpo.home import default_storage
from hpo.space import Space
from hpo.study import Budget, Definition, Study, StudyStorage
from hpo.study.file import budget_of, define, read_study

__all__ = ["Plan", "go_on", "launch", "plan", "run"]


@dataclass(frozen=True)
class Plan:
    """A study that is not in a storage yet: its name, definition and budget."""

    name: str
    definition: Definition
    budget: Budget

    def create(self, storage: str | None = None) -> Study:
        """Put it into a storage, or go on with the study that is there.

        Raises:
            StorageError: the storage cannot be opened.
            StudyConflictError: a study of that name has another definition.
        """
        return Study.create(StudyStorage(storage or default_storage()), self.name, self.definition, self.budget)


def plan(
    study: str | None,
    storage: str | None = None,
    *,
    imports: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Plan:
    """What a launch would create.

    Args:
        study: a template's name, a path to a study file, or the name of a study in the storage to go on with; None
            where `keys` say all.
        storage: a storage URL; by default the one that the commands use.
        imports: modules that register the user's models, data sets and metrics.
        parameters: domains that add to those of the file, or override them.
        keys: the other keys of a study file; None leaves the file's.

    Raises:
        RequestError: with the file, the key and the value that is wrong.
    """
    registry.import_modules(imports)
    if study is not None:
        existing = go_on(study, storage, parameters, **keys)
        return existing or Plan(*read_study(study, parameters, **keys))
    given = {key: value for key, value in keys.items() if value is not None}
    if "name" not in given:
        raise RequestError("a study without a file needs a name; give name=…")
    return Plan(*define({**given, "parameters": parameters or {}}, given["name"], Path.cwd()))


def go_on(study: str, storage: str | None, parameters: Mapping[str, Any] | None, **keys: Any) -> Plan | None:
    """The plan to go on with the study of that name; None where `study` is a file, or a template to launch.

    Only the budget's keys may be given: the definition is the stored one. A template's name means the stored study too,
    where there is one and nothing is asked for that would change it: it may have been launched with changes.

    Raises:
        RequestError: the others would change the definition, or the budget is wrong.
        StudyNotFoundError: the storage holds no such study.
        StorageError: the storage cannot be opened.
    """
    template = study in templates.names("studies")
    given = {key: value for key, value in keys.items() if value is not None}
    other = [*(key for key in given if key not in Budget.model_fields), *(parameters or {})]
    if study.endswith(".toml") or os.sep in study or (template and other):
        return None
    try:
        found = Study(StudyStorage(storage or default_storage(), create=False), study)
    except (StorageMissingError, StudyNotFoundError) as error:
        if template:
            return None
        raise type(error)(f"{unknown('study template', study, templates.names('studies'))}, and {error}") from error
    found.definition.check_registered()
    if other:
        raise StudyConflictError(
            f"study '{study}' exists, and {', '.join(other)} would change its definition; "
            "launch a file under another --name"
        )
    budget = found.budget.extended(budget_of(given, found.definition, found.budget.trials))
    return Plan(study, found.definition, budget)


def run(study: Study, options: WorkerOptions, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Run a study with local worker processes until nothing is left to begin.

    Raises:
        RunError: a worker failed; the line has its last words and its log.
    """
    study.storage.patience.asked_to_stop = should_stop
    study.start_clock()
    started = start_workers(study, options)
    failures = watch(study, started, should_stop)
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
    **keys: Any,
) -> optuna.Study:
    """Launch a study, as `hpo launch` does, and return it as Optuna's when nothing is left to begin.

    With one worker it runs in this process, so that models and data sets defined in a notebook are found.

    Args:
        study: a template's name or a path to a study file; None where the other arguments say all.
        storage: a storage URL; by default the one that the commands use.
        workers: processes on this machine; more than one need `imports` for what the user registered.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        imports: modules that register the user's models, data sets and metrics.
        parameters: domains that add to those of the space, or override them.
        space: a space, or a template's name.
        cohort: how many trials a worker trains at the same time, at most; None leaves that to what trains well.
        tensorboard: a folder for TensorBoard events of every trial, in STUDY/trial_N.
        keys: the other keys of a study file: name, dataset, objective, trials, sampler, pruner, seed, baseline, …

    Raises:
        RequestError: with the key and the value that is wrong.
        RunError: a worker failed.
    """
    if workers < 0:
        raise RequestError(f"workers = {workers}: must be at least 0")
    if cohort is not None and cohort < 1:
        raise RequestError(f"cohort = {cohort}: must be at least 1")
    created = plan(study, storage, imports=imports, parameters=parameters, space=space, **keys).create(storage)
    if workers == 1:
        from hpo.worker import Worker  # torch

        created.start_clock()
        Worker(created, device, cohort=cohort, tensorboard=tensorboard).run()
    elif workers > 1:
        events = None if tensorboard is None else tensorboard.resolve()
        run(created, WorkerOptions(workers, device, imports, cohort=cohort, tensorboard=events))
    return created.optuna_study
