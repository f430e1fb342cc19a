"""Reproduction of a call of an objective function: called again, and each reported value compared with the recorded."""

from __future__ import annotations

import logging

import optuna
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.errors import RequestError
from hpo.execution.objective_call import ObjectiveTrial, call_objective
from hpo.execution.objective_function import ObjectiveFunction
from hpo.execution.reproduce import Difference, Reproduction, find_changes, measure_distance, read_threads
from hpo.execution.restore import choose_trial
from hpo.execution.trial_seed import derive_seed
from hpo.storage.stored_values import allow_lists
from hpo.storage.study_storage import ENVIRONMENT
from hpo.study import Study
from hpo.study.attributes import TRIAL_SEED, read_table, read_whole
from hpo.training.device import set_threads
from hpo.training.environment import describe_environment
from hpo.training.process_state import contain_user_code

__all__ = ["reproduce_call"]


class ReplayedTrial(ObjectiveTrial):
    """Trial in memory that has the number, the parameters and the seed of a recorded one, and is pruned where that was.

    Args:
        study: a study in memory.
        recorded: the recorded trial.
        seed: its seed.
    """

    def __init__(self, study: optuna.Study, recorded: FrozenTrial, seed: int) -> None:
        super().__init__(study, study._storage.create_new_trial(study._study_id))
        self._recorded = recorded
        self._cached_frozen_trial.number = recorded.number
        self.seed = seed
        self.give(recorded.params)

    @property
    def reports(self) -> dict[int, float]:
        """The values that have been reported, by step."""
        return self._cached_frozen_trial.intermediate_values

    @override
    def should_prune(self) -> bool:
        """Return whether the recorded trial was pruned after as many reports."""
        return self._recorded.state == TrialState.PRUNED and len(self.reports) >= len(
            self._recorded.intermediate_values
        )


def reproduce_call(study: Study, number: int, function: ObjectiveFunction, threads: int | None = None) -> Reproduction:
    """Call a study's objective function again as trial `number`, and compare what it reports and returns.

    Args:
        study: the trial's study.
        number: number of the trial.
        function: the study's objective function.
        threads: number of torch's threads; by default as many as the trial had.

    Raises:
        RequestError: there is no such trial, or it has not ended well, or it is a run of an evaluation.
        RunError: the function returns something else than numbers.
        Exception: whatever the function raises.
    """
    trial = choose_trial(study, number)
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(f"reproduce: study '{study.name}' is an evaluation; reproduce a trial of '{of}'")
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        raise RequestError(
            f"study '{study.name}': trial {number} is {trial.state.name}, so there is nothing to compare"
        )
    then = {name: str(value)[:200] for name, value in read_table(trial.system_attrs, ENVIRONMENT).items()}
    if threads := threads or read_threads(then):
        set_threads(threads)
    seed = read_whole(trial.user_attrs, TRIAL_SEED)
    seed = derive_seed(study.definition.seed, number) if seed is None else seed
    memory = _make_study_in_memory(study)
    again = ReplayedTrial(memory, trial, seed)
    with contain_user_code(), allow_lists():
        result = call_objective(function.call, again, len(memory.directions))
    assert result is not None  # nothing interrupts it
    reported = _compare("reported", trial.intermediate_values, again.reports)
    names = [objective.metric for objective in study.definition.objectives]
    was, now = dict(zip(names, trial.values or (), strict=False)), dict(zip(names, result.values or (), strict=False))
    returned = [Difference(name, measure_distance(was.get(name), now.get(name)), None) for name in names]
    changed = find_changes(then, describe_environment())
    return Reproduction(number, len(trial.intermediate_values), [*reported, *returned], 1, changed, bool(then), "step")


def _make_study_in_memory(study: Study) -> optuna.Study:
    """Return an empty study in memory with the name and directions of another, which Optuna does not announce."""
    storage, announcer = optuna.storages.InMemoryStorage(), logging.getLogger("optuna.storages._in_memory")
    level = announcer.level
    announcer.setLevel(logging.WARNING)
    try:
        storage.create_new_study(study.optuna_study.directions, study.name)
    finally:
        announcer.setLevel(level)
    return optuna.Study(study.name, storage)


def _compare(name: str, then: dict[int, float], now: dict[int, float]) -> list[Difference]:
    """Return the largest difference of the reported values, if there are any."""
    sizes = {step: measure_distance(then.get(step), now.get(step)) for step in sorted({*then, *now})}
    largest = max(sizes, key=lambda step: sizes[step], default=None)
    if largest is None:
        return []
    return [Difference(name, sizes[largest], largest if sizes[largest] > 0 else None)]
