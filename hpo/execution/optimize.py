"""Optimization of an objective function from Python, as `optuna.Study.optimize` with workers and an exact budget."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from hpo.errors import RequestError
from hpo.execution.backends.base import Backend
from hpo.execution.launch import check_backend, conclude, run_study
from hpo.execution.launch_function import default_name, plan_function_launch
from hpo.execution.objective_function import ObjectiveFunction, check_function, describe_function, pickle_function
from hpo.execution.study_names import choose_free_name
from hpo.execution.worker_options import WorkerOptions, accepts_worker_options

__all__ = ["optimize", "send_function"]

log = logging.getLogger("hpo.study")


@accepts_worker_options
def optimize(
    objective: Callable[[optuna.trial.Trial], Any],
    *,
    trials: int | None = None,
    workers: int | None = 1,
    direction: str | Sequence[str] | None = None,
    name: str | None = None,
    storage: str | None = None,
    sampler: str | Mapping[str, Any] | optuna.samplers.BaseSampler | None = None,
    pruner: str | Mapping[str, Any] | optuna.pruners.BasePruner | None = None,
    timeout: str | float | None = None,
    trial_timeout: str | float | None = None,
    target: float | None = None,
    until: str | None = None,
    seed: int | None = None,
    metric_names: Sequence[str] | None = None,
    warm_start: str | None = None,
    top: int | None = None,
    backend: Backend | None = None,
    **keywords: Any,
) -> optuna.Study:
    """Optimize an objective function, and return the study as Optuna's when no trial is left.

    The function is one that `optuna.Study.optimize` takes. One worker runs in this process. Several are processes of
    this machine; a function of a notebook or a script is sent to them, with all that it refers to.

    Args:
        objective: a function of Optuna's trial that returns a number, or one for each direction.
        trials: the budget: exactly this many trials in all, 100 by default; a larger one extends a study.
        workers: number of processes; None starts one per GPU, or one per core if there is none.
        direction: `minimize`, the default, or `maximize`; a list for several objectives.
        name: the study's name. A study of that name is gone on with. By default a new study, called after the function
            or its file.
        storage: a storage URL; by default the one that the commands use.
        sampler: `tpe` by default, or its name, a table of name and options, or a sampler of Optuna, whose
            options and seed are taken.
        pruner: `median` by default, and `none` for several objectives; or as the sampler.
        timeout: no trial is begun after this much time: seconds, or a text such as "2h".
        trial_timeout: a trial that takes longer fails.
        target: the value of the objective that ends the study.
        until: `settled` ends the study as soon as going on is expected to gain less than the noise of its values.
        seed: the seed of the sampler.
        metric_names: names of the values.
        warm_start: the name of a study whose best trials' parameters are called first.
        top: number of its best trials; by default 5.
        backend: where the workers run: `hpo.Ray(address)` or `hpo.Slurm(parameters)`; by default on this machine.
        keywords: the options of workers below.

    Raises:
        RequestError: a value is wrong, or the function cannot be sent to workers.
        RunError: a worker failed.
    """
    options, keys = WorkerOptions.split({"workers": workers, **keywords})
    check_backend(backend, options)
    check_function(getattr(objective, "__name__", "objective"), objective)
    function = ObjectiveFunction(objective, describe_function(objective))
    keys |= {"trials": trials, "direction": direction, "sampler": sampler, "pruner": pruner, "timeout": timeout}
    keys |= {"trial_timeout": trial_timeout, "target": target, "until": until, "seed": seed}
    keys["metric_names"] = metric_names
    keys["name"] = name or choose_free_name(default_name(function.reference), storage)
    plan = plan_function_launch(function, storage, warm_start=warm_start, top=top, **keys)
    for notice in plan.notices:
        log.warning("%s", notice)
    with send_function(function, options, backend) as options:
        study = plan.create(storage)
        run_study(study, options, backend, function)
        conclude(study, options, backend, function)
    return study.optuna_study


@contextmanager
def send_function(
    function: ObjectiveFunction, options: WorkerOptions, backend: Backend | None
) -> Iterator[WorkerOptions]:
    """Yield options with which workers find a function in its file, or in one that is there as long as this context.

    Enter it before a study is created, so that a function that cannot be sent leaves none behind.

    Raises:
        RequestError: the function cannot be sent to workers.
    """
    if options.workers == 1 and backend is None:
        yield options
    elif function.reference.module is not None:
        yield options.model_copy(update={"function": function.reference.location})
    elif backend is not None:
        raise RequestError(
            f"{function.reference.label}: lives in this process alone, and workers of a backend may run elsewhere; "
            "move it to a module that they can import"
        )
    else:  # a script is not imported in workers: without `if __name__ == …` it would optimize there, too
        with tempfile.TemporaryDirectory(prefix="hpo-") as folder:
            yield options.model_copy(update={"function": str(pickle_function(function, Path(folder)))})
