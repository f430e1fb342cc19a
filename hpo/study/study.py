"""A study: a definition with a budget, and its trials, kept in SQL."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.config.trial_config import TrialConfig, Value
from hpo.errors import RequestError, StudyConflictError, StudyForeignError, StudyNotFoundError, closest
from hpo.space import Space
from hpo.storage.leases import WorkerInfo
from hpo.storage.study_storage import LeaseGrant, StudyStorage
from hpo.study.definition import Budget, Definition, longest_epochs
from hpo.study.pruners import build_pruner
from hpo.study.samplers import build_sampler
from hpo.study.slots import fixed_trials

__all__ = ["ClaimedTrial", "Study", "study_names"]

DEFINITION, BUDGET, DEADLINE, SLOTS = "hpo:definition", "hpo:budget", "hpo:deadline", "hpo:slots"


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this worker has claimed. Its configuration is asked for by `Study.suggest_config`.

    Attributes:
        trial: Optuna's handle on it.
        sampler: that asks for its parameters; every trial has one of its own.
        attempt: the number of this attempt at it, from 1.
        taken_over: whether its worker died, or was cut off, in the last attempt.
    """

    trial: optuna.trial.Trial
    sampler: optuna.samplers.BaseSampler
    attempt: int
    taken_over: bool = False

    @property
    def number(self) -> int:
        """The trial's number, its identity."""
        return self.trial.number

    @property
    def id(self) -> int:
        """The trial's id in the storage."""
        return self.trial._trial_id


def study_names(storage: StudyStorage) -> list[str]:
    """The names of all studies in a storage, ours and others'."""
    return [study.study_name for study in storage.get_all_studies()]


class Study:
    """A study in a storage. Nothing is kept here but its identity: the storage has the truth.

    Raises:
        StudyNotFoundError: the storage has no study of that name.
        StudyForeignError: it has one that we did not make.
    """

    def __init__(self, storage: StudyStorage, name: str) -> None:
        self.storage = storage
        self.name = name
        try:
            self.id = storage.get_study_id_from_name(name)
        except KeyError:
            raise StudyNotFoundError(self._not_found()) from None
        if DEFINITION not in storage.get_study_user_attrs(self.id):
            raise StudyForeignError(
                f"study '{name}' in {storage.masked_url} was not made by hpo launch: it has no definition to train or "
                f"report by; see it with: hpo dashboard --storage {shlex.quote(storage.masked_url)}; go on with it in "
                f"Python: optuna.load_study(study_name={name!r}, storage=hpo.StudyStorage(URL))"
            )

    def _not_found(self) -> str:
        names = study_names(self.storage)
        near = closest(self.name, names)
        held = f"it holds: {', '.join(sorted(names))}" if names else "it holds no studies"
        hint = f"did you mean '{near}'? " if near else ""
        return f"no study '{self.name}' in {self.storage.masked_url}; {hint}{held}"

    @classmethod
    def create(cls, storage: StudyStorage, name: str, definition: Definition, budget: Budget) -> Study:
        """Create a study with all its slots, or go on with the one that exists.

        Raises:
            StudyConflictError: one exists with another definition; the message shows the difference and the ways out.
        """
        fixed = fixed_trials(definition, 0, budget.trials if definition.fixed else 1 + len(definition.warm_start))
        try:
            return cls.insert(storage, name, definition, budget, fixed)
        except optuna.exceptions.DuplicatedStudyError:
            study = cls(storage, name)
            study.check_definition(definition)
            if study.definition.report != definition.report:
                study.replace_definition(study.definition.model_copy(update={"report": definition.report}))
            study.extend(budget)
            return study

    @classmethod
    def insert(
        cls,
        storage: StudyStorage,
        name: str,
        definition: Definition,
        budget: Budget,
        first: Sequence[Mapping[str, Value]],
        also: Callable[[sa.Connection, int], object] = lambda *_: None,
    ) -> Study:
        """Insert a study whose first trials wait with these parameters, all or nothing.

        Args:
            storage, name, definition, budget: of the study.
            first: the Optuna parameters of its first trials, in the order of their numbers.
            also: done at the end of the transaction, with the study's id.

        Raises:
            optuna.exceptions.DuplicatedStudyError: the name is taken.
        """
        attrs = {DEFINITION: definition.model_dump(mode="json"), BUDGET: budget.model_dump(), SLOTS: [[0, len(first)]]}
        directions = [StudyDirection[objective.direction.upper()] for objective in definition.objectives]
        storage.create_study(name, directions, [o.metric for o in definition.objectives], attrs, first, also)
        return cls(storage, name)

    def check_definition(self, definition: Definition) -> None:
        """Refuse another definition than the stored one.

        Raises:
            StudyConflictError: with every difference and the ways out.
        """
        differences = self.definition.differences(definition)
        if differences:
            raise StudyConflictError(
                f"study '{self.name}' exists with another definition ({'; '.join(differences)}); "
                f"launch this one with --name NEW, or remove the old one with: hpo delete {shlex.quote(self.name)}"
            )

    # What it is.

    @property
    def _attrs(self) -> dict[str, Any]:
        return self.storage.get_study_user_attrs(self.id)

    @cached_property
    def definition(self) -> Definition:
        """The stored definition."""
        return Definition.model_validate(self._attrs[DEFINITION])

    @cached_property
    def space(self) -> Space:
        """The space of its definition."""
        return self.definition.space

    @property
    def budget(self) -> Budget:
        """The stored budget, as it is now."""
        return Budget.model_validate(self._attrs[BUDGET])

    @property
    def maximize(self) -> bool:
        """Whether larger is better for the first objective."""
        return self.definition.objectives[0].direction == "maximize"

    @cached_property
    def optuna_study(self) -> optuna.Study:
        """The same study as Optuna's, with the definition's pruner (Optuna itself forgets it)."""
        pruner = self.definition.pruner
        built = build_pruner(pruner.name, pruner.options, longest_epochs(self.space))
        return optuna.load_study(study_name=self.name, storage=self.storage, pruner=built)

    def extend(self, budget: Budget) -> None:
        """Take over a larger budget; a smaller one shrinks nothing. Timeout and target stay unless they are given."""
        while True:
            attrs = self._attrs
            held = Budget.model_validate(attrs[BUDGET])
            merged = held.merge(budget)
            more: list[dict[str, Value]] = []
            start = sum(self.storage.count_trials(self.id).values())
            changed: dict[str, Any] = {BUDGET: merged.model_dump()}
            if self.definition.fixed and merged.trials > held.trials:
                more = fixed_trials(self.definition, start, start + merged.trials - held.trials)
                changed[SLOTS] = [*attrs[SLOTS], [start, start + len(more)]]
            if merged == held or self.storage.update_study(self.id, {BUDGET: attrs[BUDGET]}, changed, more, start):
                return

    def replace_definition(self, definition: Definition) -> None:
        """Replace the definition by one that means the same for all trials there are: whoever calls this knows."""
        held = self._attrs[DEFINITION]
        self.storage.update_study(self.id, {DEFINITION: held}, {DEFINITION: definition.model_dump(mode="json")})
        for name in ("definition", "space"):
            self.__dict__.pop(name, None)

    def start_clock(self) -> None:
        """Let the timeout count from now: a launch gives the study its time anew."""
        timeout = self.budget.timeout
        self.storage.set_study_user_attr(self.id, DEADLINE, None if timeout is None else time.time() + timeout)

    # Its trials.

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.storage.get_all_trials(self.id, deepcopy=False)

    def is_extra(self, number: int) -> bool:
        """Whether trial `number` was added by others to a study of fixed slots."""
        return self.definition.fixed and not any(start <= number < stop for start, stop in self._attrs[SLOTS])

    def is_baseline(self, number: int) -> bool:
        """Whether trial `number` is the baseline."""
        return number == 0 and self.definition.baseline is not None

    def claim(self, holder: WorkerInfo) -> ClaimedTrial | None:
        """The next trial for a worker to train, or None where nothing is left to begin.

        One whose worker is gone comes first, then one that waits; an adaptive study then adds one, as long as it is
        below its budget.

        Raises:
            StudyNotFoundError: the study was deleted.
        """
        try:
            budget = self._budget_on_the_clock()
            if self._stop_reason(*budget):
                self._release_abandoned(holder)
                return None
            claimed = self.storage.claim(self.id, holder, None if self.definition.fixed else budget[0].trials)
        except KeyError:
            raise StudyNotFoundError(f"study '{self.name}' is not in {self.storage.masked_url} any more") from None
        if claimed is None:
            return None
        try:
            return self.open_trial(claimed)
        except BaseException:  # whatever a sampler raises, its trial is not to stay with us
            self.storage.release(claimed.trial_id)
            raise

    def _budget_on_the_clock(self) -> tuple[Budget, float | None]:
        """The budget and the deadline, in one look; a worker attached before any launch starts the clock."""
        attrs = self._attrs
        budget, deadline = Budget.model_validate(attrs[BUDGET]), attrs.get(DEADLINE)
        if budget.timeout is not None and deadline is None:
            self.start_clock()
        return budget, deadline

    def _release_abandoned(self, holder: WorkerInfo) -> None:
        """Trials whose workers are gone wait for the next launch: none stays RUNNING for good."""
        while claimed := self.storage.claim(self.id, holder, abandoned=True):
            self.storage.release(claimed.trial_id)

    def open_trial(self, claimed: LeaseGrant) -> ClaimedTrial:
        """The handle on a trial that the storage has claimed."""
        options = self.definition.sampler
        number = self.storage.get_trial_number_from_id(claimed.trial_id)
        sampler = build_sampler(options.name, options.options, self.definition.seed, number)
        self._ask(sampler)
        trial = optuna.trial.Trial(self.optuna_study, claimed.trial_id)
        return ClaimedTrial(trial, sampler, claimed.attempt, claimed.taken_over)

    def _ask(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Let a trial's own sampler be the study's: Optuna's trial asks that one."""
        # What Optuna's own ask does: a sampler looks at the trials as they were when this was last forgotten.
        self.optuna_study._thread_local.cached_all_trials = None
        self.optuna_study.sampler = sampler

    def suggest_config(self, claim: ClaimedTrial) -> TrialConfig:
        """The configuration of a claimed trial; its parameters are sampled and stored.

        Raises:
            ConfigError: somebody enqueued values that cannot be.
        """
        self._ask(claim.sampler)
        values = self.space.suggest(claim.trial) if not self.is_baseline(claim.number) else self._baseline_values(claim)
        return self.definition.config(values)

    def _baseline_values(self, claim: ClaimedTrial) -> dict[str, Any]:
        """The baseline's own values; Optuna is told of those that its space holds."""
        values = self.definition.baseline_config(self.space).effective()
        params = self.space.params(values)
        for dimension in self.space.varied:
            if dimension.key in params:
                dimension.domain.suggest(claim.trial, dimension.key)
        return values

    def rewind(self, claim: ClaimedTrial, epoch: int) -> None:
        """Let a claimed trial go on after that epoch: what it reported of later ones is discarded."""
        self.storage.discard_reports(claim.id, epoch)
        # Optuna's handle ignores the report of a step that it has seen before.
        reported = claim.trial._cached_frozen_trial.intermediate_values
        for step in [step for step in reported if step > epoch]:
            del reported[step]

    def config_of(self, trial: FrozenTrial) -> TrialConfig:
        """The configuration of a stored trial, from its parameters and the definition.

        Raises:
            SpaceError: parameters are missing: the trial was added by others, or has not begun.
        """
        if self.is_baseline(trial.number):
            return self.definition.baseline_config(self.space)
        return self.definition.config(self.space.values(trial.params))

    def retry(self, numbers: Collection[int] | None = None) -> list[int]:
        """Put FAIL trials back under their own numbers, their reports cleared; returns the numbers.

        Args:
            numbers: which, also RUNNING ones that no worker of ours holds: another tool has left them. None is all that
                failed.

        Raises:
            RequestError: one of them has not failed, or does not exist.
        """
        trials = {trial.number: trial for trial in self.trials()}
        held = {trial_id for worker in self.storage.workers(self.id) for trial_id in worker.trial_ids}
        for number in numbers or ():
            trial = trials.get(number)
            left = trial is not None and trial.state == TrialState.RUNNING and trial._trial_id not in held
            if trial is None or not (trial.state == TrialState.FAIL or left):
                what = "not there" if trial is None else trial.state.name
                raise RequestError(f"study '{self.name}': trial {number} is {what}; only FAIL trials are tried again")
        return self.storage.retry(self.id, numbers)

    def stop_reason(self) -> str | None:
        """Why no trial is begun any more although some may be left: the time is up, or the target is reached."""
        attrs = self._attrs
        return self._stop_reason(Budget.model_validate(attrs[BUDGET]), attrs.get(DEADLINE))

    def _stop_reason(self, budget: Budget, deadline: float | None) -> str | None:
        if deadline is not None and time.time() >= deadline:
            return "its time is up"
        if budget.target is not None and self._reached(budget.target):
            return f"its target {budget.target:g} is reached"
        return None

    def _reached(self, target: float) -> bool:
        best = self.best()
        if best is None or best.value is None:
            return False
        return best.value >= target if self.maximize else best.value <= target

    def best(self) -> FrozenTrial | None:
        """The COMPLETE trial with the best finite first objective; the lowest number of equals; None without any."""
        done = [t for t in self.trials() if t.state == TrialState.COMPLETE and math.isfinite(t.values[0])]
        sign = -1 if self.maximize else 1
        return min(done, key=lambda trial: (sign * trial.values[0], trial.number), default=None)

    def remaining(self) -> int:
        """How many trials of the budget are not finished."""
        counts = self.storage.count_trials(self.id)
        unfinished = counts[TrialState.WAITING] + counts[TrialState.RUNNING]
        return unfinished if self.definition.fixed else max(self.budget.trials - sum(counts.values()), 0) + unfinished
