"""Study: a definition with a budget, and its trials in SQL."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.config.declaration import NONE_DECLARED
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import (
    RequestError,
    StudyDeletedError,
)
from hpo.storage.identity import KEY
from hpo.storage.leases import Promotion, WorkerInfo
from hpo.storage.stored_values import PAUSED
from hpo.storage.study_storage import LeaseGrant, StudyStorage
from hpo.study.attributes import BUDGET, DEFINITION, SLOTS, SPLIT_NUMBER, STOPPED, StudyAttributes, read_whole
from hpo.study.definition import SETTLED, Budget, Definition
from hpo.study.halving import AshaPruner
from hpo.study.halving_study import HalvingStudy
from hpo.study.outlook import StudyOutlook
from hpo.study.paused import find_best, paused_epoch
from hpo.study.samplers import build_sampler, trial_seed
from hpo.study.settled import Outlook
from hpo.study.slots import baseline_params, fixed_trials
from hpo.study.stored_study import StoredStudy, study_names
from hpo.study.suggestion import ASKS, TakenKeys, suggest_new

__all__ = ["ClaimedTrial", "Study", "study_names"]

log = logging.getLogger("hpo.study")


@dataclass(frozen=True)
class ClaimedTrial:
    """Trial that this worker has claimed. `Study.suggest_config` gives its configuration.

    Attributes:
        trial: Optuna's handle on the trial.
        sampler: the trial's own sampler, which suggests its parameters.
        attempt: the number of this attempt, from 1.
        taken_over: whether the worker of the last attempt died or was cut off.
        promotable: the paused trials that could go on when it was claimed, for whoever claims more beside it.
    """

    trial: optuna.trial.Trial
    sampler: optuna.samplers.BaseSampler
    attempt: int
    taken_over: bool = False
    promotable: Sequence[Promotion] = ()

    @property
    def number(self) -> int:
        """The trial's number, its identity."""
        return self.trial.number

    @property
    def id(self) -> int:
        """The trial's id in the storage."""
        return self.trial._trial_id


class Study(StoredStudy):
    """Study in a storage. The object holds its identity, cached constants and the budget of its last claim: the
    storage has the truth.

    Raises:
        StudyNotFoundError: the storage has no study of that name.
    """

    trial_type = optuna.trial.Trial  # of the handles on its claimed trials
    _claim_budget: Budget | None = None  # as it was at the last claim

    @classmethod
    def create(cls, storage: StudyStorage, name: str, definition: Definition, budget: Budget) -> Study:
        """Create a study with all its slots, or go on with the one that exists.

        Raises:
            StudyConflictError: a study of that name has another definition; the message shows the differences and what
                to do.
        """
        fixed = fixed_trials(definition, 0, budget.trials if definition.fixed else 1 + len(definition.warm_start))
        try:
            return cls.insert(storage, name, definition, budget, fixed)
        except optuna.exceptions.DuplicatedStudyError:
            study = cls(storage, name)
            if study.definition.foreign:
                study.adopt(definition, budget)
                return study
            study.check_definition(definition)
            changed = study.definition.model_copy(update={"report": definition.report})
            if study.definition.declarations == NONE_DECLARED:  # of an earlier version
                changed = changed.model_copy(update={"declarations": definition.declarations})
            if changed != study.definition:
                study.replace_definition(changed)
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
        finish: Callable[[sa.Connection, int], object] = lambda *_: None,
    ) -> Study:
        """Insert a study whose first trials wait with these parameters, in one transaction.

        Args:
            storage, name, definition, budget: of the study.
            first: the Optuna parameters of its first trials, in the order of their numbers.
            finish: called at the end of the transaction, with the study's id.

        Raises:
            optuna.exceptions.DuplicatedStudyError: the name is taken.
        """
        attrs: dict[str, Any] = {DEFINITION: definition.model_dump(mode="json"), BUDGET: budget.model_dump()}
        attrs |= {SLOTS: [[0, len(first)]], KEY: secrets.token_hex(4)}
        directions = [StudyDirection[objective.direction.upper()] for objective in definition.objectives]
        storage.create_study(name, directions, [o.metric for o in definition.objectives], attrs, first, finish)
        return cls(storage, name)

    # Trials.

    def is_extra(self, number: int) -> bool:
        """Tell whether trial `number` was added by others to a study of fixed slots."""
        return self.definition.fixed and not any(start <= number < stop for start, stop in self._attrs.slots)

    def is_baseline(self, number: int) -> bool:
        """Tell whether trial `number` is the baseline."""
        return number == 0 and self.definition.baseline is not None

    def claim(self, holder: WorkerInfo, *, ending: bool = False) -> ClaimedTrial | None:
        """Claim the next trial for a worker, or return None if there is nothing left to begin.

        A trial whose worker is gone comes first, then a paused one that the pruner promotes, then a waiting one; an
        adaptive study then adds one, as long as it is below its budget.

        Args:
            holder: the worker.
            ending: whether no trial is in training or can begin; see `AshaPruner.find_promotable`.

        Raises:
            StudyDeletedError: the study was deleted.
        """
        try:
            attrs = self._attrs
            budget = self._claim_budget = self._read_budget(attrs)
            if budget.timeout is not None and attrs.deadline is None:
                self.start_clock()  # a worker attached before any launch does
            if self._stop_reason(attrs, budget, self.recent_trials):
                self._release_abandoned(holder)
                return None
            most = None if self.definition.fixed else budget.trials
            promotable = self.find_promotable(ending=ending)
            grant = self.storage.claim(self.id, holder, most, promoted=promotable)
        except StudyDeletedError:
            raise self._deletion() from None
        if grant is None:
            return None
        try:
            return self.open_trial(grant, () if ending else promotable)
        except BaseException:  # whatever a sampler raises, we must not hold its trial any longer
            self.storage.release(grant.trial_id)
            raise

    def find_promotable(self, *, ending: bool = False) -> list[Promotion]:
        """Return the paused trials that the pruner promotes now, the most promising first.

        Args:
            ending: see `AshaPruner.find_promotable`.
        """
        if (pruner := self._pausing_pruner) is None:
            return []
        # What this process has just paused is known; of what others have, the next claim knows.
        trials = self.trials() if ending else self.recent_trials()
        return pruner.find_promotable(trials, self.optuna_study.direction, ending=ending)

    @property
    def pauses(self) -> bool:
        """True if the pruner pauses trials, and promotes them later."""
        return self._pausing_pruner is not None

    @property
    def _pausing_pruner(self) -> AshaPruner | None:
        """The pruner, if it pauses trials."""
        if self.definition.pruner.name != "asha":
            return None
        study = self.optuna_study
        return study.pruner if isinstance(study, HalvingStudy) else None

    def judge(self, claim: ClaimedTrial, *, resumable: bool) -> Literal["pruned", "paused"] | None:
        """Ask the pruner about a trial that has reported; return how the trial ends here, or None if it goes on.

        Args:
            claim: the trial.
            resumable: whether it can go on later from a checkpoint.
        """
        pruner = self._pausing_pruner
        if pruner is None or not resumable:
            return "pruned" if claim.trial.should_prune() else None
        return "paused" if pruner.pauses(self.optuna_study, self.storage.get_trial(claim.id)) else None

    def end_paused(self) -> list[int] | None:
        """End the trials that are still paused, as PRUNED with the values of their best epochs.

        Returns:
            Their numbers; None if a trial was promoted, or ended, or was added meanwhile, and nothing was done.
        """
        trials = self.trials()
        paused = [trial for trial in trials if paused_epoch(trial) is not None]
        known = {t._trial_id: (t.system_attrs[PAUSED], find_best(t, maximize=self.maximize)) for t in paused}
        done = not known or self.storage.end_paused(self.id, known, len(trials))
        return [trial.number for trial in paused] if done else None

    @property
    def trial_timeout(self) -> float | None:
        """Seconds that a trial may take, as the budget said when this process last claimed one."""
        return (self._claim_budget or self.budget).trial_timeout

    def _release_abandoned(self, holder: WorkerInfo) -> None:
        """Let trials whose workers are gone wait for the next launch, so that none stays RUNNING for good."""
        while grant := self.storage.claim(self.id, holder, abandoned=True):
            self.storage.release(grant.trial_id)

    def open_trial(self, grant: LeaseGrant, promotable: Sequence[Promotion] = ()) -> ClaimedTrial:
        """Return the handle on a trial that the storage has claimed; see `ClaimedTrial.promotable`."""
        spec = self.definition.sampler
        number = self.storage.get_trial_number_from_id(grant.trial_id)
        sampler = build_sampler(spec.name, spec.options, self.definition.seed, number)
        self._use_sampler(sampler)
        trial = self.trial_type(self.optuna_study, grant.trial_id)
        return ClaimedTrial(trial, sampler, grant.attempt, grant.taken_over, promotable)

    def _use_sampler(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Make a trial's own sampler the study's, which is the one that Optuna's trial asks."""
        # As Optuna's own `ask` does: a sampler sees the trials as they were when this cache was last cleared.
        self.optuna_study._thread_local.cached_all_trials = None
        self.optuna_study.sampler = sampler

    def use_sampler_of(self, claim: ClaimedTrial) -> None:
        """Make a claimed trial's own sampler the study's, if another trial's has been since."""
        if self.optuna_study.sampler is not claim.sampler:
            self._use_sampler(claim.sampler)

    def suggest_config(self, claim: ClaimedTrial) -> TrialConfig:
        """Sample and store the parameters of a claimed trial, and return its configuration.

        Raises:
            ConfigError: somebody enqueued impossible values.
        """
        self._use_sampler(claim.sampler)
        return self.definition.resplit_config(self._suggest_values(claim), claim.number)

    def _suggest_values(self, claim: ClaimedTrial) -> TrialConfig:
        """Sample and store the parameters of a claimed trial, and return the configuration that the space gives it."""
        if self.is_baseline(claim.number):
            return self.definition.config(self._baseline_values(claim))
        if not self.definition.fixed and not claim.trial.params:
            self._suggest_new(claim)
        config = self.definition.config(self.space.suggest(claim.trial))
        if not self.definition.fixed and self.space.size is not None:
            self.storage.flush()  # so that other workers do not choose the same
        return config

    def _suggest_new(self, claim: ClaimedTrial) -> None:
        """Let an adaptive sampler choose parameters that no other trial has, if some are found."""
        spec, seed, number = self.definition.sampler, self.definition.seed, claim.number
        # With margins, CMA-ES stores with a trial what it asked for, and would take another's value for that one's.
        draws = None if spec.options.get("with_margin") else trial_seed(seed, number, ASKS)
        make = partial(build_sampler, spec.name, spec.options, seed, number)
        if not suggest_new(self.space, claim.trial, self._taken.read(self.trials(), number), make, draws):
            log.info("trial %d repeats the parameters of another trial: no new ones were found", number)

    @cached_property
    def _taken(self) -> TakenKeys:
        inside = self.definition.baseline is None or baseline_params(self.definition, self.space) is not None
        return TakenKeys(None if inside else 0)

    def _baseline_values(self, claim: ClaimedTrial) -> dict[str, Any]:
        """Return the baseline's values, and tell Optuna those that the space contains."""
        values = self.definition.baseline_config(self.space).effective(self.space.domains)
        params = self.space.params(values)
        for dimension in self.space.varied:
            if dimension.key in params:
                dimension.domain.suggest(claim.trial, dimension.key)
        return values

    def rewind(self, claim: ClaimedTrial, epoch: int) -> None:
        """Let a claimed trial go on after an epoch; its reports of later epochs are discarded."""
        self.storage.discard_reports(claim.id, epoch)
        # Optuna's handle ignores reports of a step, and constraints, that it has seen before.
        known = claim.trial._cached_frozen_trial
        for step in [step for step in known.intermediate_values if step > epoch]:
            del known.intermediate_values[step]
        known.system_attrs = dict(self.storage.get_trial(claim.id).system_attrs)

    def config_of(self, trial: FrozenTrial) -> TrialConfig:
        """Return the configuration of a stored trial, from its parameters and the definition, with its own split.

        Raises:
            SpaceError: parameters are missing, because the trial was added by others or has not begun.
        """
        return self.resplit_config(self.space_config_of(trial), trial)

    def resplit_config(self, config: TrialConfig, trial: FrozenTrial) -> TrialConfig:
        """Return the configuration of a stored trial with the split that it is trained on, if each has its own."""
        number = read_whole(trial.user_attrs, SPLIT_NUMBER)
        return self.definition.resplit_config(config, trial.number if number is None else number)

    def space_config_of(self, trial: FrozenTrial) -> TrialConfig:
        """Return the configuration that the space gives a stored trial, whatever its split.

        Raises:
            SpaceError: as `config_of`.
        """
        if self.is_baseline(trial.number):
            return self.definition.baseline_config(self.space)
        return self.definition.config(self.space.values(trial.params))

    def asked_params(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the parameters that the training loop of a trial asked for itself, which the space does not have."""
        if self.definition.learned:
            return {}
        known = {dimension.key for dimension in self.space.dimensions}
        return {name: value for name, value in trial.params.items() if name not in known}

    def retry(self, numbers: Collection[int] | None = None) -> list[int]:
        """Let FAIL trials wait again under their own numbers, without their reports.

        Args:
            numbers: the trials to retry, among them RUNNING ones that no worker of ours holds, because another tool
                left them so. None means all that failed.

        Returns:
            The numbers of the trials that wait again.

        Raises:
            RequestError: one of them has not failed, or does not exist.
        """
        trials = {trial.number: trial for trial in self.trials()}
        held = {trial_id for worker in self.storage.read_workers(self.id) for trial_id in worker.trial_ids}
        for number in numbers or ():
            trial = trials.get(number)
            orphaned = trial is not None and trial.state == TrialState.RUNNING and trial._trial_id not in held
            if trial is None or not (trial.state == TrialState.FAIL or orphaned):
                state = "not there" if trial is None else trial.state.name
                raise RequestError(f"study '{self.name}': trial {number} is {state}; only FAIL trials can be retried")
        return self.storage.retry(self.id, numbers)

    def stop_reason(self) -> str | None:
        """Return why no more trials are begun: the time is up, the target is reached, the study has settled, or its
        objective function has stopped it; None if they are.
        """
        attrs = self._attrs
        return self._stop_reason(attrs, self._read_budget(attrs), self.trials)

    def _stop_reason(self, attrs: StudyAttributes, budget: Budget, read: Callable[[], list[FrozenTrial]]) -> str | None:
        deadline = attrs.deadline
        if deadline == STOPPED:
            return "its objective function has stopped it"
        if (settled := self._settle(attrs, budget, read)) is not None:  # the time that is left is spent on seeds
            return f"it has settled: {settled.describe()}"
        if deadline is not None and self.storage.read_clock() >= deadline:
            return "its time is up"
        if budget.target is not None and self._reached(budget.target):
            return f"its target {budget.target:g} is reached"
        return None

    def _settle(self, attrs: StudyAttributes, budget: Budget, read: Callable[[], list[FrozenTrial]]) -> Outlook | None:
        """Return the outlook at which the study has settled before its last trial, if it is to end then."""
        if budget.until != SETTLED:
            return None
        outlook = self._outlook.update(read(), budget, attrs.data_facts)
        return outlook if outlook is not None and outlook.settled and outlook.left else None

    def has_settled(self) -> bool:
        """Return true if the study is to end once it has settled, and has before its last trial."""
        attrs = self._attrs
        return self._settle(attrs, self._read_budget(attrs), self.trials) is not None

    def has_ended(self) -> bool:
        """Return true if no more trials are begun, and none is in training."""
        return self.stop_reason() is not None and not self.storage.count_trials(self.id)[TrialState.RUNNING]

    def read_outlook(self, trials: Sequence[FrozenTrial] | None = None) -> StudyOutlook:
        """Return the outlook of the study after each of its trials.

        Args:
            trials: all of them, if they have been read.
        """
        attrs = self._attrs
        self._outlook.update(self.trials() if trials is None else trials, self._read_budget(attrs), attrs.data_facts)
        return self._outlook

    @cached_property
    def _outlook(self) -> StudyOutlook:
        return StudyOutlook(self)

    def _reached(self, target: float) -> bool:
        best = self.best()
        if best is None or best.value is None:
            return False
        return best.value >= target if self.maximize else best.value <= target

    def best(self) -> FrozenTrial | None:
        """Return the COMPLETE trial with the best finite first objective, of equals the first; None without any."""
        complete = [
            t for t in self.trials() if t.state == TrialState.COMPLETE and t.values and math.isfinite(t.values[0])
        ]
        sign = -1 if self.maximize else 1
        return min(complete, key=lambda trial: (sign * trial.values[0], trial.number), default=None)

    def remaining(self) -> int:
        """Count the trials of the budget that are not finished."""
        counts = self.storage.count_trials(self.id)
        unfinished = counts[TrialState.WAITING] + counts[TrialState.RUNNING]
        return unfinished if self.definition.fixed else max(self.budget.trials - sum(counts.values()), 0) + unfinished
