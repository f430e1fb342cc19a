"""Launch of a study: from a study file or a Python call to a study in a storage, and workers that run it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from hpo.config import registry
from hpo.config.model_library import find_library
from hpo.datasets import DatasetSource, check_unchanged, make_reference
from hpo.datasets.memory_data import save_data
from hpo.datasets.source import parse_source, spell_source
from hpo.errors import (
    RequestError,
    RunError,
    StorageLostError,
    StorageMissingError,
    StudyConflictError,
    StudyNotFoundError,
    describe_unknown,
)
from hpo.execution.backends.base import Backend
from hpo.execution.backends.live_progress import watch_study
from hpo.execution.backends.local import Local
from hpo.execution.backends.process import find_refusal
from hpo.execution.data_parameters import describe_data_parameters
from hpo.execution.loss import explain_loss
from hpo.execution.notebook_code import send_notebook_code
from hpo.execution.objective_function import ObjectiveFunction, is_function
from hpo.execution.optimizer_notices import explain_optimizers
from hpo.execution.study_names import choose_name_by_data, find_study, name_after
from hpo.execution.threads import choose_threads
from hpo.execution.training_notices import explain_training
from hpo.execution.worker_options import WorkerOptions, accepts_worker_options
from hpo.space import Space
from hpo.study import Budget, Definition, Study, StudyStorage, study_names
from hpo.study.definition import WarmFrom
from hpo.study.halving_study import explain_idle_sampler
from hpo.study.input import templates
from hpo.study.input.adapted_study import FIRST, explain_adaptation
from hpo.study.input.study_file import check_first, join_file_task, parse_budget, parse_definition, read_study
from hpo.study.operations.best_trials import select_warm_starts
from hpo.study.operations.progress import describe_rest, explain_no_result
from hpo.study.outlook import explain_short_budget
from hpo.study.racing import explain_idle_pruner
from hpo.study.slots import explain_merges, explain_repeats
from hpo.utils.home import default_storage, home, yield_cores

__all__ = [
    "TOP",
    "LaunchPlan",
    "add_warm_start",
    "check_backend",
    "check_top",
    "conclude",
    "launch",
    "plan_launch",
    "resume_plan",
    "run_study",
    "run_workers",
]

log = logging.getLogger("hpo.study")
TOP = 5  # trials of another study to start with, by default


@dataclass(frozen=True)
class LaunchPlan:
    """Plan of a study that is not in a storage yet.

    Attributes:
        name, definition, budget: of the study.
        notices: lines about the plan, to be shown at the launch.
    """

    name: str
    definition: Definition
    budget: Budget
    notices: tuple[str, ...] = ()

    def create(self, storage: str | None = None) -> Study:
        """Create the study in a storage, or return the one that is there.

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
    """Return the plan of a launch; nothing is created.

    Args:
        study: a template's name, a path to a study file, or the name of a study in the storage to go on with; None
            if `keys` define it.
        storage: a storage URL; by default the one that the commands use.
        imports: modules that register the user's models, data sets and metrics.
        parameters: domains that add to those of the file, or replace them.
        warm_start: the name of a study whose best trials are trained first, or tables as in a study file.
        top: number of its best trials; by default 5.
        keys: the other keys of a study file; None leaves the file's.

    Raises:
        RequestError: a value is wrong; the line names the file, the key and the value.
    """
    registry.import_modules(imports)
    unnamed = keys.get("name") is None and (study is None or study in templates.template_names("studies"))
    if keys.get("dataset") is not None:
        asked = keys["dataset"] if study is None else join_file_task(study, keys["dataset"])
        keys["dataset"] = make_reference(asked)  # relative to this folder, wherever the study file lies
    source = warm_start if isinstance(warm_start, str) else None
    check_top(top, source)
    first: list[str] = []
    if study is None and keys.get("dataset") is not None and not keys.get("name"):
        keys["name"] = name_after(keys["dataset"])
        first.append(f"study {keys['name']}: named after the data; give it another name with name=…")
    if study is None and keys.get("dataset") is not None and not parameters and keys.get("space") is None:
        study = FIRST
        first.append(f"no study, space or parameters are given: it is the template {FIRST}")
    if study is not None and (existing := resume_plan(study, storage, parameters, warm_start=warm_start, **keys)):
        return _add_code_notices(_add_training_notices(existing), storage)
    plan = _plan_study(study, parameters, {**keys, "warm_start": None if source else warm_start})
    if unnamed and (name := choose_name_by_data(plan.name, plan.definition, storage)) != plan.name:
        first.append(
            f"study {name}: named so because study {plan.name} has other data; choose a name with --name or name=…"
        )
        plan = replace(plan, name=name)
    _check_library_models(plan.definition)
    idle = describe_data_parameters(plan.definition, own_validation=plan.definition.dataset.own_validation)
    if keys.get("trials") is not None and (stored := find_study(plan.name, storage)) is not None:
        stored.check_growth(keys["trials"])
    if source is not None:
        plan = add_warm_start(plan, storage, WarmFrom(study=source, top=top or TOP))
    plan = replace(
        plan, notices=(*first, *_describe_data(study, plan.definition, keys, parameters or {}), *idle, *plan.notices)
    )
    return _add_code_notices(_add_training_notices(_add_repeat_notices(plan)), storage)


def _check_library_models(definition: Definition) -> None:
    """Refuse models that timm or torchvision do not have; they are imported, with torch, where the space names them.

    Raises:
        ConfigError: names the closest model.
        RegistryError: the library cannot be imported.
    """
    for name in definition.space.models:
        if find_library(name) is not None:
            from hpo.training.library_models import check_name

            check_name(name)


def _describe_data(
    study: str | None, definition: Definition, keys: Mapping[str, Any], parameters: Mapping[str, Any]
) -> list[str]:
    """Return what was guessed about the data, and what follows for the study; a line each."""
    dataset = definition.dataset
    notes = list(dataset.notes)
    if keys.get("dataset") is None:
        return notes
    resampling = definition.resampling
    split_once = not dataset.own_validation and (resampling is None or resampling.division is None)
    notes += explain_adaptation(study, dataset, parameters, split_once=split_once)
    if keys.get("objective") is None and dataset.task != "classification":
        notes.append(f"objective {definition.objectives[0].metric}; name another with --objective")
    return notes


def check_top(top: int | None, source: str | None) -> None:
    """Refuse a number of best trials that is none, or of no study.

    Raises:
        RequestError: says which.
    """
    if top is not None and (source is None or top < 1):
        why = "must be at least 1" if source else "of which study? name it with --warm-start, or warm_start=…"
        raise RequestError(f"top = {top}: {why}")


def _add_code_notices(plan: LaunchPlan, storage: str | None) -> LaunchPlan:
    """Return the plan with a notice of each own model that has changed since the study was launched before, if it was.

    Raises:
        RegistryError: one has become another kind of thing.
    """
    if not plan.definition.modules or (stored := find_study(plan.name, storage)) is None:
        return plan
    declarations = stored.definition.declarations
    stored.definition.check_registered()
    return replace(plan, notices=(*plan.notices, *declarations.describe_changes()))


def _plan_study(study: str | None, parameters: Mapping[str, Any] | None, keys: Mapping[str, Any]) -> LaunchPlan:
    """Return the plan of a study file, or of the keys of one."""
    if study is not None:
        return LaunchPlan(*read_study(study, parameters, **keys))
    values = {key: value for key, value in keys.items() if value is not None}
    if "name" not in values:
        raise RequestError("a study without a file needs a name; give name=…")
    return LaunchPlan(*parse_definition({**values, "parameters": parameters or {}}, values["name"], Path.cwd()))


def add_warm_start(plan: LaunchPlan, storage: str | None, source: WarmFrom) -> LaunchPlan:
    """Return the plan with another study's best trials first; a study launched so before keeps its first trials."""
    definition = plan.definition
    if definition.fixed:
        raise RequestError(
            f"warm_start = '{source.study}': sampler '{definition.sampler.name}' fixes all trials when the study is"
            " created, and learns from no others; use an adaptive one, such as tpe"
        )
    opened = StudyStorage(storage or default_storage(), create=False)
    launched = Study(opened, plan.name).definition if plan.name in study_names(opened) else None
    if launched is not None and launched.warm_from == source:
        tables, notice = launched.warm_start, None  # the other study may have better trials by now, or be deleted
    else:
        tables, notice = select_warm_starts(Study(opened, source.study), definition, source.top)
    definition = definition.model_copy(update={"warm_start": tables, "warm_from": source})
    check_first(definition, plan.budget)
    return replace(plan, definition=definition, notices=(*plan.notices, *filter(None, [notice])))


def _add_repeat_notices(plan: LaunchPlan) -> LaunchPlan:
    """Return the plan with a notice of what would be trained twice and is not, and of what will be."""
    repeats = explain_repeats(plan.definition, plan.budget.trials)
    more = [*explain_merges(plan.definition), *([] if repeats is None else [repeats])]
    return replace(plan, notices=(*plan.notices, *more))


def _add_training_notices(plan: LaunchPlan) -> LaunchPlan:
    """Return the plan with notices of what its optimizers need, or keep from, of options that change nothing, of a
    budget that is too small, of a sampler that does not learn, and of a pruner that drops nothing.
    """
    optimizers = explain_optimizers(plan.definition, plan.budget.trials)
    short = explain_short_budget(plan.definition, plan.budget)
    idle = [explain_idle_sampler(plan.definition), explain_idle_pruner(plan.definition)]
    notices = (*optimizers, *explain_training(plan.definition), *filter(None, [short, *idle]))
    return replace(plan, notices=(*plan.notices, *notices))


def resume_plan(
    study: str, storage: str | None, parameters: Mapping[str, Any] | None, **keys: Any
) -> LaunchPlan | None:
    """Return the plan to go on with a stored study; None if `study` is a file, or a template to launch.

    Only keys of the budget are accepted, since the definition is stored. A template's name means the stored study, if
    there is one and no other key would change it: it may have been launched with changes.

    Raises:
        RequestError: another key would change the definition, or the budget is wrong.
        StudyNotFoundError: the storage holds no such study.
        StorageError: the storage cannot be opened.
    """
    template = study in templates.template_names("studies")
    values = {key: value for key, value in keys.items() if value is not None}
    other = [*(key for key in values if key not in Budget.model_fields), *(parameters or {})]
    if templates.names_file(study) or (template and other):
        return None
    try:
        stored = Study(StudyStorage(storage or default_storage(), create=False), study)
    except (StorageMissingError, StudyNotFoundError) as error:
        if template:
            return None
        raise type(error)(
            f"{describe_unknown('study template', study, templates.template_names('studies'))}, and {error}"
        ) from error
    stored.check_trainable()
    if (function := stored.definition.function) is not None:
        raise RequestError(
            f"study '{study}' calls the objective function {function.label}; go on with it by naming that: "
            f"hpo launch {shlex.quote(function.location)} --name {shlex.quote(study)}"
        )
    stored.definition.check_registered()
    if other:
        options = [f"--{key} {keys[key]}" for key in ("sampler", "pruner") if isinstance(keys.get(key), str)]
        options += [f"--set {name}=…" for name in parameters or {}]
        forks = f"keep its trials with: hpo fork {shlex.quote(study)} NEW {' '.join(options)}; or "
        raise StudyConflictError(
            f"study '{study}' exists, and {', '.join(other)} would change its definition; "
            f"{forks if len(options) == len(other) else ''}launch a file under another --name"
        )
    budget = stored.budget.merge(parse_budget(values, stored.definition, stored.budget.trials))
    stored.check_growth(values.get("trials"))
    return LaunchPlan(study, stored.definition.complete(), budget)


def check_backend(backend: Backend | None, options: WorkerOptions) -> None:
    """Refuse options that a backend cannot give its workers, before a study is created for them.

    Raises:
        RequestError: says which option to leave out.
    """
    if options.gpus is not None and (backend is None or isinstance(backend, Local)):
        raise RequestError("--gpus: workers on this machine have one GPU each where there are several; leave it out")


def run_workers(
    study: Study,
    options: WorkerOptions,
    should_stop: Callable[[], bool] = lambda: False,
    backend: Backend | None = None,
    deadline: float | None = None,
) -> None:
    """Run a study with the workers of a backend, by default local processes, until no trial is left.

    Args:
        study: the study.
        options: of its workers.
        should_stop: true asks for an orderly stop.
        backend: where they run; by default on this machine.
        deadline: when no more trials are begun, by `StudyStorage.read_clock`; by default as the budget says.

    Raises:
        RequestError: the backend cannot start them; the study is in this process's memory; its data on this machine are
            missing or others; or all have refused what the study asks for, in their own line.
        RunError: a worker failed, and the line has the last line of its log, and the log's path; or trials are left.
        StorageLostError, StudyDeletedError: the database or the study was deleted or replaced.
    """
    if study.storage.in_memory:
        raise RequestError(
            f"storage {study.storage.masked_url}: is in memory, where workers, which are processes of their own, "
            "cannot see it; give a file, as sqlite:///studies.db"
        )
    if backend is None or isinstance(backend, Local):  # of other machines this one may not have the data
        check_unchanged(study.definition.dataset)
    study.storage.retry_policy.stop_requested = should_stop
    study.start_clock(deadline)
    if study.has_ended():
        return
    workers = (backend or Local()).start(study, options)
    try:
        failures = watch_study(study, workers, should_stop)
    except StorageLostError as error:
        raise explain_loss(study, error, home() / "checkpoints") from error
    if should_stop():
        return
    left = 0 if study.stop_reason() else study.remaining()
    rest = f"{describe_rest(left, study.budget.trials)}; launch again to go on with {'it' if left == 1 else 'them'}"
    refusals = [find_refusal(failure) for failure in failures]
    if left and refusals and None not in refusals:  # another launch would end alike
        raise RequestError("; ".join(dict.fromkeys(filter(None, refusals))))
    if failures:
        raise RunError("; ".join([*failures, *([rest] if left else [])]))
    if left:
        raise RunError(f"the workers were stopped by hpo stop or a signal; {rest}")


def run_study(
    study: Study,
    options: WorkerOptions,
    backend: Backend | None = None,
    function: ObjectiveFunction | None = None,
    deadline: float | None = None,
) -> None:
    """Run a study from Python until no trial is left: one worker in this process, others as `run_workers`.

    In this process, models and data sets that a notebook defines are found.

    Args:
        study: the study.
        options: of its workers.
        backend: where they run; by default on this machine.
        function: the study's objective function, if it has one.
        deadline: see `run_workers`.

    Raises:
        RequestError: the backend cannot start the workers.
        RunError: a worker failed.
    """
    if options.workers == 0:
        return
    if options.workers == 1 and backend is None:
        yield_cores()
        import torch

        from hpo.execution.worker import Worker

        study.start_clock(deadline)
        if study.has_ended():
            return
        cpus = choose_threads(study, options.cpus, torch.get_num_threads)
        Worker(study, options.model_copy(update={"cpus": cpus}), function=function).run()
    else:
        run_workers(study, options, backend=backend, deadline=deadline)
    if why := explain_no_result(study):
        log.warning("%s", why)


def conclude(
    study: Study, options: WorkerOptions, backend: Backend | None = None, function: ObjectiveFunction | None = None
) -> None:
    """Log the verdict on a study that was to end once it has settled, after fresh seeds of its tied leaders.

    Args:
        study, options, backend, function: see `run_study`.

    Raises:
        RunError: a worker failed.
    """
    from hpo.execution.conclusion import Conclusion  # which evaluates with this module

    if options.workers != 0:

        def run(evaluation: Study, deadline: float) -> None:
            run_study(evaluation, options, backend, function, deadline)

        for line in Conclusion(study, run, function=function).conclude().lines:
            log.warning("%s", line)


def _join_dataset(dataset: object, options: Mapping[str, Any]) -> object:
    """Return a data set with its options, as a study file has it; what is in memory is saved.

    Raises:
        RequestError: there are options, but no data.
    """
    if not options:
        return save_data(dataset)
    if dataset is None:
        raise RequestError(f"{', '.join(options)}: of which data? name them with dataset=…")
    name, source = parse_source(save_data(dataset))
    table = spell_source(name, source)
    return {**({"path": name} if isinstance(table, str) else table), **options}


@accepts_worker_options
def launch(
    study: str | Callable[..., Any] | None = None,
    *,
    storage: str | None = None,
    workers: int | None = 1,
    parameters: Mapping[str, Any] | None = None,
    space: Space | str | None = None,
    backend: Backend | None = None,
    warm_start: str | Sequence[Mapping[str, Any]] | None = None,
    top: int | None = None,
    **keywords: Any,
) -> optuna.Study:
    """Launch a study, as `hpo launch` does, and return it as Optuna's when no trial is left.

    One worker runs in this process, where models and data sets that a notebook defines are found; to several on this
    machine they are sent.

    Args:
        study: a template's name, a path to a study file, or the name of a stored study; a registered training loop or
            model, the function itself or as `FILE.py`, whose declared domains are the space; None if the other
            arguments define it.
        storage: a storage URL; by default the one that the commands use.
        workers: number of processes on this machine, or of workers of the backend; None starts one per GPU, or one per
            core if there is none. Workers of a backend find the user's models and data sets in `imports` alone.
            0 only creates the study.
        parameters: domains that add to those of the space, or replace them.
        space: a space, or a template's name.
        backend: where the workers run: `hpo.Ray(address)` or `hpo.Slurm(parameters)`; by default on this machine.
        warm_start: the name of a study whose best trials are trained first, or tables as in a study file.
        top: number of its best trials; by default 5.
        keywords: `dataset`: a name, a path, a pandas or polars DataFrame, arrays `(X, y)`, or a map-style data set of
            torch's, or a dict of them by part; and the options of a data set in a study file, as `label`, `drop`,
            `task` and `time`.
            Without a study, space and parameters the template quickstart is launched on it; without a name the study
            has that of the file, or quickstart. The options of workers below, and the other keys of a study file: name,
            objective, trials, timeout, trial_timeout, target, until, sampler, pruner, seed, folds, baseline, …

    Raises:
        RequestError: a value is wrong; the line names the key and the value.
        RunError: a worker failed.
    """
    options, keys = WorkerOptions.split({"workers": workers, **keywords})
    of_data = [key for key in DatasetSource.model_fields if keys.get(key) is not None]
    if of_data == ["task"] and keys.get("dataset") is None:
        of_data = []  # of the data of a study file
    keys["dataset"] = _join_dataset(keys.get("dataset"), {key: keys.pop(key) for key in of_data})
    check_backend(backend, options)
    keys |= {"space": space, "warm_start": warm_start, "top": top}
    if study is None or (isinstance(study, str) and not (study.endswith(".py") or is_function(study))):
        plan = plan_launch(study, storage, imports=options.imports, parameters=parameters, **keys)
    else:
        from hpo.execution.launch_model import plan_code_launch  # which plans with this module

        plan, options = plan_code_launch(study, storage, options, parameters=parameters, **keys)
    for notice in plan.notices:
        log.warning("%s", notice)
    with send_notebook_code(plan.definition, options, backend) as options:
        created = plan.create(storage)
        run_study(created, options, backend)
        conclude(created, options, backend)
    return created.optuna_study
