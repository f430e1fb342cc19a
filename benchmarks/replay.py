"""Replay of a study in virtual time: the product's samplers, suggestions and pruners, without any training.

Workers ask for several trials at once, and train them in lockstep as the product's cohorts: in each round every trial
does one epoch, stack after stack, then all report, then the pruner is asked for each. A worker is free again once its
last trial has ended. Trials in training are RUNNING in an Optuna storage in memory, so that samplers see what they
would see in a study. Sampling takes no virtual time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.problems import Answer, Problem
from hpo.storage.stored_values import PAUSED
from hpo.study.asking_cost import most_at_once
from hpo.study.definition import ComponentSpec, Definition
from hpo.study.halving import AshaPruner
from hpo.study.halving_study import HalvingStudy
from hpo.study.pruners import build_pruner
from hpo.study.samplers import SAMPLERS, build_sampler, count_startup_trials, generation_size, trial_seed
from hpo.study.slots import fixed_trials
from hpo.study.suggestion import ASKS, TakenKeys, suggest_new

__all__ = ["Log", "Plan", "replay"]


@dataclass(frozen=True)
class Plan:
    """Plan of a study: how it asks and prunes.

    Attributes:
        sampler, pruner: names, with their options.
        cohort: how many trials a worker asks for at once; 0 for as many as `--cohort auto` allows at most.
        workers: how many there are.
        startup: whether start-up trials are asked for all at once, and others one by one until they have ended, as
            `--cohort auto` does; see `hpo.execution.cohort_sizes`.
    """

    sampler: str = "tpe"
    pruner: str = "none"
    cohort: int = 1
    workers: int = 2
    startup: bool = False
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Log:
    """Record of a replay, with a row per round of a worker.

    Attributes:
        seconds: virtual time at the end of the round.
        epochs: how many have been trained so far.
        best: the true score of the trial that has reported the best value so far.
        values: by the trial's number, the best value that it reported, and its true score.
        ended: by the trial's number, the row in which it ended.
        trials: as Optuna has them, once the replay is over.
    """

    seconds: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    values: dict[int, tuple[float, float]] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    trials: Sequence[optuna.trial.FrozenTrial] = field(default=(), repr=False)

    def add_round(self, seconds: float, epochs: int) -> None:
        """Add a row, once the values of its trials are known."""
        self.seconds.append(seconds)
        self.epochs.append(epochs + (self.epochs[-1] if self.epochs else 0))
        self.best.append(max(self.values.values())[1])

    def has_ended(self, count: int) -> bool:
        """Return whether the first trials have all ended."""
        return all(number in self.ended for number in range(count))

    def best_of_trials(self, count: int) -> float:
        """Return the true score of the best of the first trials."""
        return max(self.values[number] for number in range(count))[1]

    def best_within(self, costs: Sequence[float], limit: float) -> float:
        """Return the true score of the best after the last row whose cost is within a limit; of the first if none is.

        Args:
            costs: by row, `seconds` or `epochs`.
            limit: of these.
        """
        row = int(np.searchsorted(np.asarray(costs), limit * (1 + 1e-9), side="right")) - 1
        return self.best[max(row, 0)]

    def cost_of_trials(self, count: int) -> tuple[float, float]:
        """Return the seconds and epochs until the first trials have ended."""
        row = max(self.ended[number] for number in range(count))
        return self.seconds[row], self.epochs[row]


@dataclass
class _Trial:
    """Trial in training, with what its table says and how many epochs are done."""

    handle: optuna.trial.Trial
    answer: Answer
    epoch: int = 0

    @property
    def best(self) -> tuple[float, float]:
        """The best value so far, and its true score."""
        epoch = int(self.answer.scores[: self.epoch].argmax())
        return float(self.answer.scores[epoch]), float(self.answer.true[epoch])


class _Replay:
    """Study in virtual time; see `replay`."""

    def __init__(self, problem: Problem, plan: Plan, seed: int, trials: int, most: int) -> None:
        self.problem, self.plan, self.most, self.log = problem, plan, most, Log()
        pruner = build_pruner(plan.pruner, plan.pruner_options, problem.epochs)
        storage = optuna.storages.InMemoryStorage()
        name = optuna.create_study(storage=storage, direction="maximize").study_name
        halves = isinstance(pruner, AshaPruner) and pruner.promotes
        self.study = (HalvingStudy if halves else optuna.Study)(name, storage, pruner=pruner)
        spec = ComponentSpec(name=plan.sampler, options=dict(plan.sampler_options))
        self.definition: Definition = problem.definition.model_copy(update={"sampler": spec, "seed": seed})
        fixed = SAMPLERS[plan.sampler].fixed
        self.slots = fixed_trials(self.definition, 0, most) if fixed else []
        free = generation_size(plan.sampler, plan.sampler_options, len(problem.space.varied)) if not fixed else 1
        self.cohort = plan.cohort or most_at_once(trials, plan.workers, free)
        self.taken, self.trials, self.paused = TakenKeys(None), dict[int, _Trial](), list[int]()

    def claim(self) -> list[_Trial]:
        """Return the trials that a free worker trains next: promoted ones first, then new ones up to the budget."""
        size = self._at_once()
        claimed = self._promote()[:size]
        for trial in claimed:
            self.paused.remove(trial.handle.number)
            self._set_state(trial, TrialState.RUNNING)
        new = min(size - len(claimed), self.most - len(self.trials))
        return claimed + [self._ask() for _ in range(new)]

    def _at_once(self) -> int:
        """Return how many trials a worker takes now."""
        plan = self.plan
        startup = count_startup_trials(plan.sampler, plan.sampler_options) if plan.startup else 0
        if left := max(startup - len(self.trials), 0):
            return min(left, math.ceil(startup / plan.workers))
        return self.cohort if len(self.log.ended) + len(self.paused) >= startup else 1

    def _promote(self) -> list[_Trial]:
        """Return the paused trials that may go on, the most promising first."""
        if not self.paused:
            return []
        pruner = self.study.pruner
        assert isinstance(pruner, AshaPruner)
        ending = len(self.trials) >= self.most and len(self.paused) + len(self.log.ended) == len(self.trials)
        found = pruner.find_promotable(self.study.get_trials(deepcopy=False), self.study.direction, ending=ending)
        by_id = {each.handle._trial_id: each for each in self.trials.values()}
        return [by_id[trial_id] for trial_id, _ in found]

    def _ask(self) -> _Trial:
        """Create a trial, and choose its parameters as `hpo.study.Study.suggest_config` does."""
        definition, space, number = self.definition, self.problem.space, len(self.trials)
        make = partial(build_sampler, definition.sampler.name, definition.sampler.options, definition.seed, number)
        self.study._thread_local.cached_all_trials = None
        self.study.sampler = make()
        handle = optuna.trial.Trial(self.study, self.study._storage.create_new_trial(self.study._study_id))
        if self.slots:
            handle._fixed_params = dict(self.slots[number])
        else:
            taken = self.taken.read(self.study.get_trials(deepcopy=False), number)
            suggest_new(space, handle, taken, make, trial_seed(definition.seed, number, ASKS))
        space.suggest(handle)
        answer = self.problem.answer(handle.params, np.random.default_rng([definition.seed, number]))
        self.trials[number] = trial = _Trial(handle, answer)
        return trial

    def seconds(self, trials: Sequence[_Trial]) -> float:
        """Return the seconds of a round: one epoch of each trial, stack after stack."""
        stacks: dict[object, list[Answer]] = {}
        for number, trial in enumerate(trials):
            key = ("alone", number) if trial.answer.stack is None else trial.answer.stack
            stacks.setdefault(key, []).append(trial.answer)
        return sum(self.problem.stack_seconds(stack) for stack in stacks.values())

    def end_round(self, trials: Sequence[_Trial], now: float) -> list[_Trial]:
        """Let all trials report an epoch, judge each of them, and return those that go on."""
        for trial in trials:
            trial.epoch += 1
            trial.handle.report(float(trial.answer.scores[trial.epoch - 1]), trial.epoch)
            self.log.values[trial.handle.number] = trial.best
        self.log.add_round(now, len(trials))
        return [trial for trial in trials if not self._ends(trial)]

    def _ends(self, trial: _Trial) -> bool:
        """End a trial that is complete, or that the pruner prunes or pauses; return whether it does not go on."""
        if trial.epoch == self.problem.epochs:
            self._end(trial, TrialState.COMPLETE)
        elif isinstance(self.study.pruner, AshaPruner) and self.study.pruner.promotes:
            if not self.study.pruner.pauses(self.study, self.study._storage.get_trial(trial.handle._trial_id)):
                return False
            self._pause(trial)
        elif trial.handle.should_prune():
            self._end(trial, TrialState.PRUNED)
        else:
            return False
        return True

    def _pause(self, trial: _Trial) -> None:
        """Let a trial wait for its promotion, as the product stores it."""
        self.study._storage.set_trial_system_attr(trial.handle._trial_id, PAUSED, trial.epoch)
        self._set_state(trial, TrialState.WAITING)
        self.paused.append(trial.handle.number)

    def _end(self, trial: _Trial, state: TrialState) -> None:
        """Tell the study the best value that a trial has reported, as the product does."""
        self._set_state(trial, state, [trial.best[0]])
        self.log.ended[trial.handle.number] = len(self.log.seconds) - 1

    def _set_state(self, trial: _Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        self.study._storage.set_trial_state_values(trial.handle._trial_id, state, values)

    def finish(self) -> None:
        """End the trials that are paused: nobody will promote them."""
        for number in self.paused:
            self._end(self.trials[number], TrialState.PRUNED)
        self.log.trials = self.study.get_trials(deepcopy=False)


def replay(
    problem: Problem,
    plan: Plan,
    seed: int,
    trials: int,
    most: int | None = None,
    goes_on: Callable[[Log], bool] = lambda _: True,
) -> Log:
    """Replay a study from its first trial to the end of its last, and return what happened.

    Args:
        problem: answers for the training.
        plan: how the study asks and prunes.
        seed: of the study.
        trials: the budget, which the number of trials asked at once depends on.
        most: how many trials to create at most; by default the budget.
        goes_on: asked before every round; once it returns false, the replay is broken off.
    """
    state = _Replay(problem, plan, seed, trials, most or trials)
    free, busy = list(range(plan.workers)), list[tuple[float, int, list[_Trial]]]()
    now = 0.0
    while goes_on(state.log):
        for worker in list(free):
            if claimed := state.claim():
                free.remove(worker)
                heapq.heappush(busy, (now + state.seconds(claimed), worker, claimed))
        if not busy:
            break
        now, worker, training = heapq.heappop(busy)
        if left := state.end_round(training, now):
            heapq.heappush(busy, (now + state.seconds(left), worker, left))
        else:
            free.append(worker)
    state.finish()
    return state.log
