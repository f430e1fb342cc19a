"""What a launch says of the trials that are trained one by one: how many there are, and about how long they take."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from hpo.config.cohort_key import UNSTACKABLE
from hpo.config.trial_config import TrialConfig
from hpo.errors import HpoError
from hpo.execution.launch import LaunchPlan
from hpo.study import Definition, Study, StudyStorage
from hpo.study.slots import fixed_trials
from hpo.utils.home import default_storage

if TYPE_CHECKING:
    from hpo.training.step_cost import StepCost

__all__ = ["cost_notice", "measured", "one_by_one"]

Measure = Callable[[Sequence[TrialConfig], Definition, int, str], "StepCost"]


def cost_notice(
    plan: LaunchPlan, storage: str | None, threads: int, device: str, measure: Measure | None = None
) -> str | None:
    """The line that says what the study's trials cost that are trained one by one for their optimizer's sake.

    None where there are none left, or where nobody knows yet how many there will be, as in an adaptive study.

    Args:
        plan: what is about to be launched.
        storage: where; a study of that name which is there already counts with what is left of it.
        threads: of torch, for each worker.
        device: of the workers, as `--device`.
        measure: gives the price; by default `measured`.
    """
    if not one_by_one(plan):
        return None
    stored = _stored(plan.name, storage)
    finished = {trial.number for trial in stored.trials() if trial.state.is_finished()} if stored else set()
    if not (alone := one_by_one(plan, finished)):
        return None
    names = " and ".join(sorted({config.optimizer for config in alone}))
    line = f"{len(alone)} of {plan.budget.trials - len(finished)} trials use {names}, which trains one by one: "
    try:
        price = (measure or measured)(alone, plan.definition, threads, device)
    except Exception as error:  # whatever it is, an estimate is not worth a launch
        return f"{line}for how long could not be measured ({' '.join(str(error).split())[:200]})"
    answers = ", for one run answers all its numbers of epochs" if price.runs < price.trials else ""
    runs = f"{price.runs} run{'s' if price.runs > 1 else ''}{answers}; measured on {price.measured} of them"
    return f"{line}about {_about(price.seconds)} of one worker ({runs}{'' if stored else _without(plan.definition)})"


def one_by_one(plan: LaunchPlan, finished: Collection[int] = ()) -> list[TrialConfig]:
    """The configurations of a plan that are trained one by one; those of the finished trials are left out."""
    definition, space = plan.definition, plan.definition.space
    if not (definition.fixed and UNSTACKABLE & set(_optimizers(definition))):
        return []
    drawn = enumerate(fixed_trials(definition, 0, plan.budget.trials))
    configs = [definition.config(space.values(params)) for number, params in drawn if number not in finished]
    return [config for config in configs if config.optimizer in UNSTACKABLE]


def measured(configs: Sequence[TrialConfig], definition: Definition, threads: int, device: str) -> StepCost:
    """What it costs one worker to train configurations one by one, measured in a few seconds.

    Raises:
        HpoError: the data set or the device is missing.
    """
    import torch

    from hpo.training.data import DataCache
    from hpo.training.device import select_device as find
    from hpo.training.device import set_threads
    from hpo.training.step_cost import estimate_step_cost

    usual = torch.get_num_threads()
    set_threads(threads)
    try:
        return estimate_step_cost(configs, DataCache(definition.dataset, find(device)).get(configs[0]))
    finally:
        set_threads(usual)


def _stored(name: str, storage: str | None) -> Study | None:
    try:
        return Study(StudyStorage(storage or default_storage(), create=False), name)
    except HpoError:  # mostly that there is none yet; whatever else it is, the launch itself will meet it
        return None


def _optimizers(definition: Definition) -> list[str]:
    dimensions = (d for d in definition.space.dimensions if d.parameter.name == "optimizer")
    return list(dict.fromkeys(str(value) for d in dimensions for value in d.domain.points()))


def _without(definition: Definition) -> str:
    """How to launch the rest alone, where there is a rest."""
    rest = [name for name in _optimizers(definition) if name not in UNSTACKABLE]
    return f"; leave them out with --set {shlex.quote(f'optimizer={json.dumps(rest)}')}" if rest else ""


def _about(seconds: float) -> str:
    """An estimate in whole units, no finer than it deserves."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
