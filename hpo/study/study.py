"""Study: a definition with a budget, and its trials in SQL."""

from __future__ import annotations

import math
import secrets
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

from hpo.config import registry
from hpo.config.declaration import NONE_DECLARED
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.errors import (
    RequestError,
    StudyConflictError,
    StudyDeletedError,
    StudyForeignError,
    StudyNotFoundError,
    find_closest,
)
from hpo.space import LearnedSpace, Space
from hpo.storage.identity import KEY
from hpo.storage.leases import WorkerInfo
from hpo.storage.study_storage import LeaseGrant, StudyStorage
from hpo.study.attributes import BUDGET, DEADLINE, DEFINITION, SLOTS, StudyAttributes
from hpo.study.definition import Budget, ComponentSpec, Definition, Objective, default_metrics, longest_epochs
from hpo.study.pruners import build_pruner
from hpo.study.samplers import UNKNOWN, build_sampler
from hpo.study.slots import fixed_trials

__all__ = ["ClaimedTrial", "Study", "study_names"]


@dataclass(frozen=True)
class ClaimedTrial:
    """Trial that this worker has claimed. `Study.suggest_config` gives its configuration.

    Attributes:
        trial: Optuna's handle on the trial.
        sampler: the trial's own sampler, which suggests its parameters.
        attempt: the number of this attempt, from 1.
        taken_over: whether the worker of the last attempt died or was cut off.
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
    """Return the names of all studies in a storage, whoever made them."""
    return [study.study_name for study in storage.get_all_studies()]


class Study:
    """Study in a storage. The object holds its identity and cached constants alone: the storage has the truth.

    A study that another tool has made has a definition, too: what its rows say. Its space is learned from its trials,
    its budget is the trials that it has, and nothing can train it.

    Raises:
        StudyNotFoundError: the storage has no study of that name.
    """

    trial_type = optuna.trial.Trial  # of the handles on its claimed trials

    def __init__(self, storage: StudyStorage, name: str) -> None:
        self.storage = storage
        self.name = name
        try:
            self.id = storage.get_study_id_from_name(name)
        except KeyError:
            raise StudyNotFoundError(self._not_found()) from None
        self._key: object = storage.get_study_user_attrs(self.id).get(KEY)

    def _not_found(self) -> str:
        names = study_names(self.storage)
        near = find_closest(self.name, names)
        content = f"it holds: {', '.join(sorted(names))}" if names else "it holds no studies"
        hint = f"did you mean '{near}'? " if near else ""
        return f"no study '{self.name}' in {self.storage.masked_url}; {hint}{content}"

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

    def adopt(self, definition: Definition, budget: Budget) -> None:
        """Store the definition of a study that another tool made, so that workers can go on with it.
        Its objectives must be the study's.
        """
        attrs = {DEFINITION: definition.model_dump(mode="json"), BUDGET: budget.model_dump(), SLOTS: []}
        self.storage.update_study(self.id, {DEFINITION: None}, attrs)
        self._forget_definition()

    def check_trainable(self) -> None:
        """Refuse to train a study of which only its trials are known.

        Raises:
            StudyForeignError: another tool made the study; the line says how to go on with it.
        """
        if self.definition.foreign:
            raise StudyForeignError(
                f"study '{self.name}' in {self.storage.masked_url} was made by another tool, and its objective "
                "function is not known; go on with it with: "
                f"hpo launch FILE.py:FUNCTION --name {shlex.quote(self.name)} --trials N"
            )

    def check_configured(self, what: str) -> None:
        """Refuse what needs configurations of ours, which trials of an objective function are not.

        Args:
            what: what was asked for, as its error begins.

        Raises:
            RequestError: the trials are calls of an objective function.
            StudyForeignError: another tool made the study.
        """
        self.check_trainable()
        if (function := self.definition.function) is not None:
            raise RequestError(
                f"{what}: is for studies of models and training loops; study '{self.name}' calls the objective "
                f"function {function.label}, which alone knows what its parameters mean"
            )

    def check_definition(self, definition: Definition) -> None:
        """Refuse another definition than the stored one.

        Raises:
            StudyConflictError: names every difference and what to do.
        """
        differences = self.definition.differences(definition)
        if differences:
            raise StudyConflictError(
                f"study '{self.name}' exists with another definition ({'; '.join(differences)}); "
                f"launch this one with --name NEW, or remove the old one with: hpo delete {shlex.quote(self.name)}"
            )

    # Identity.

    @property
    def _attrs(self) -> StudyAttributes:
        """The stored attributes.

        Raises:
            StudyDeletedError: the study was deleted, or its id and name are another study's by now.
        """
        try:
            attrs = self.storage.get_study_user_attrs(self.id)
        except StudyDeletedError:
            raise self._deletion() from None
        key = attrs.get(KEY)
        if self._key is not None and key != self._key:
            raise StudyDeletedError(
                f"study '{self.name}' in {self.storage.masked_url} was deleted while it was in use, and made again"
            )
        self._key = key  # which the first worker has drawn, in a study that was created without one
        return StudyAttributes(self.name, self.storage.masked_url, attrs)

    def replace_key(self, old: str, new: str) -> None:
        """Replace the study's key, unless another worker was faster, and know the study by the one that it has now."""
        self.storage.update_study(self.id, {KEY: old}, {KEY: new})
        self._key = self.storage.get_study_user_attrs(self.id).get(KEY)

    def _deletion(self) -> StudyDeletedError:
        return StudyDeletedError(f"study '{self.name}' is not in {self.storage.masked_url} any more: it was deleted")

    @cached_property
    def definition(self) -> Definition:
        """The stored definition; of a study of another tool, what its rows say.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        attrs = self._attrs
        return attrs.definition if DEFINITION in attrs.values else self._describe_foreign()

    def _describe_foreign(self) -> Definition:
        """Return the definition of a study that another tool has made."""
        directions = self.storage.get_study_directions(self.id)
        names = self.storage.get_study_system_attrs(self.id).get("study:metric_names")
        named = isinstance(names, list) and len(names) == len(directions) and all(isinstance(n, str) for n in names)
        metrics: list[str] = names if named and names else default_metrics(len(directions))
        return Definition(
            dataset=DatasetReference(name=registry.NO_DATA),
            objectives=tuple(
                Objective(metric=metric, direction="maximize" if each == StudyDirection.MAXIMIZE else "minimize")
                for metric, each in zip(metrics, directions, strict=True)
            ),
            sampler=ComponentSpec(name=UNKNOWN),
            pruner=ComponentSpec(name="none"),
            seed=0,
            parameters={},
            foreign=True,
        )

    @property
    def space(self) -> Space:
        """The search space of the definition, or what the trials have shown of it so far.

        Raises:
            StudyDamagedError: the definition has none.
            RegistryError: it uses a model that is not registered.
        """
        if self.definition.learned:
            return LearnedSpace(trial.distributions for trial in self.trials())
        return self._defined_space

    @cached_property
    def _defined_space(self) -> Space:
        return self._attrs.space(self.definition)

    @property
    def budget(self) -> Budget:
        """The stored budget, as it is now; of a study of another tool, the trials that are there.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        return self._read_budget(self._attrs)

    def _read_budget(self, attrs: StudyAttributes) -> Budget:
        if BUDGET in attrs.values or DEFINITION in attrs.values:
            return attrs.budget
        return Budget(trials=sum(self.storage.count_trials(self.id).values()))

    @property
    def maximize(self) -> bool:
        """True if larger values of the first objective are better."""
        return self.definition.objectives[0].direction == "maximize"

    @cached_property
    def optuna_study(self) -> optuna.Study:
        """The same study as Optuna's, with the definition's pruner (Optuna itself forgets it)."""
        pruner = self.definition.pruner
        built = build_pruner(pruner.name, pruner.options, longest_epochs(self.space))
        return optuna.load_study(study_name=self.name, storage=self.storage, pruner=built)

    def check_growth(self, trials: int | None) -> None:
        """Refuse a number of trials that was asked for and is smaller than the budget, which only grows.

        Raises:
            RequestError: says how to run that many more.
        """
        stored = self.budget.trials
        if trials is not None and trials < stored and not self.definition.foreign:
            raise RequestError(
                f"trials = {trials}: study '{self.name}' has a budget of {stored} trials already, and a budget only "
                f"grows; leave it out to go on, or give {stored + trials} for {trials} more"
            )

    def extend(self, budget: Budget) -> None:
        """Raise the budget; a smaller one changes nothing. Timeout and target stay unless they are given."""
        while True:
            attrs = self._attrs
            stored = attrs.budget
            merged = stored.merge(budget)
            more: list[dict[str, Value]] = []
            start = sum(self.storage.count_trials(self.id).values())
            changed: dict[str, Any] = {BUDGET: merged.model_dump()}
            if self.definition.fixed and merged.trials > stored.trials:
                more = fixed_trials(self.definition, start, start + merged.trials - stored.trials)
                changed[SLOTS] = [*attrs.slots, [start, start + len(more)]]
            held = {BUDGET: attrs.values[BUDGET]}
            if merged == stored or self.storage.update_study(self.id, held, changed, more, start):
                return

    def replace_definition(self, definition: Definition) -> None:
        """Replace the definition. The caller makes sure that it means the same for all existing trials."""
        stored = self._attrs.values[DEFINITION]
        self.storage.update_study(self.id, {DEFINITION: stored}, {DEFINITION: definition.model_dump(mode="json")})
        self._forget_definition()

    def _forget_definition(self) -> None:
        for name in ("definition", "_defined_space"):
            self.__dict__.pop(name, None)

    def start_clock(self) -> None:
        """Start the timeout now: every launch gives the study its full time again."""
        timeout = self.budget.timeout
        self.storage.set_study_user_attr(self.id, DEADLINE, None if timeout is None else time.time() + timeout)

    # Trials.

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, ordered by number.

        Raises:
            StudyDeletedError: the study was deleted.
        """
        try:
            return self.storage.get_all_trials(self.id, deepcopy=False)
        except StudyDeletedError:
            raise self._deletion() from None

    def is_extra(self, number: int) -> bool:
        """Tell whether trial `number` was added by others to a study of fixed slots."""
        return self.definition.fixed and not any(start <= number < stop for start, stop in self._attrs.slots)

    def is_baseline(self, number: int) -> bool:
        """Tell whether trial `number` is the baseline."""
        return number == 0 and self.definition.baseline is not None

    def claim(self, holder: WorkerInfo) -> ClaimedTrial | None:
        """Claim the next trial for a worker, or return None if there is nothing left to begin.

        A trial whose worker is gone comes first, then a waiting one; an adaptive study then adds one, as long as it is
        below its budget.

        Raises:
            StudyDeletedError: the study was deleted.
        """
        try:
            budget, deadline = self._budget_and_deadline()
            if self._stop_reason(budget, deadline):
                self._release_abandoned(holder)
                return None
            grant = self.storage.claim(self.id, holder, None if self.definition.fixed else budget.trials)
        except StudyDeletedError:
            raise self._deletion() from None
        if grant is None:
            return None
        try:
            return self.open_trial(grant)
        except BaseException:  # whatever a sampler raises, we must not hold its trial any longer
            self.storage.release(grant.trial_id)
            raise

    def _budget_and_deadline(self) -> tuple[Budget, float | None]:
        """Read the budget and the deadline at once; a worker attached before any launch starts the clock."""
        attrs = self._attrs
        budget, deadline = self._read_budget(attrs), attrs.deadline
        if budget.timeout is not None and deadline is None:
            self.start_clock()
        return budget, deadline

    def _release_abandoned(self, holder: WorkerInfo) -> None:
        """Let trials whose workers are gone wait for the next launch, so that none stays RUNNING for good."""
        while grant := self.storage.claim(self.id, holder, abandoned=True):
            self.storage.release(grant.trial_id)

    def open_trial(self, grant: LeaseGrant) -> ClaimedTrial:
        """Return the handle on a trial that the storage has claimed."""
        spec = self.definition.sampler
        number = self.storage.get_trial_number_from_id(grant.trial_id)
        sampler = build_sampler(spec.name, spec.options, self.definition.seed, number)
        self._use_sampler(sampler)
        trial = self.trial_type(self.optuna_study, grant.trial_id)
        return ClaimedTrial(trial, sampler, grant.attempt, grant.taken_over)

    def _use_sampler(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Make a trial's own sampler the study's, which is the one that Optuna's trial asks."""
        # As Optuna's own `ask` does: a sampler sees the trials as they were when this cache was last cleared.
        self.optuna_study._thread_local.cached_all_trials = None
        self.optuna_study.sampler = sampler

    def suggest_config(self, claim: ClaimedTrial) -> TrialConfig:
        """Sample and store the parameters of a claimed trial, and return its configuration.

        Raises:
            ConfigError: somebody enqueued impossible values.
        """
        self._use_sampler(claim.sampler)
        values = self.space.suggest(claim.trial) if not self.is_baseline(claim.number) else self._baseline_values(claim)
        return self.definition.config(values)

    def _baseline_values(self, claim: ClaimedTrial) -> dict[str, Any]:
        """Return the baseline's values, and tell Optuna those that the space contains."""
        values = self.definition.baseline_config(self.space).effective()
        params = self.space.params(values)
        for dimension in self.space.varied:
            if dimension.key in params:
                dimension.domain.suggest(claim.trial, dimension.key)
        return values

    def rewind(self, claim: ClaimedTrial, epoch: int) -> None:
        """Let a claimed trial go on after an epoch; its reports of later epochs are discarded."""
        self.storage.discard_reports(claim.id, epoch)
        # Optuna's handle ignores reports of a step that it has seen before.
        reported = claim.trial._cached_frozen_trial.intermediate_values
        for step in [step for step in reported if step > epoch]:
            del reported[step]

    def config_of(self, trial: FrozenTrial) -> TrialConfig:
        """Return the configuration of a stored trial, from its parameters and the definition.

        Raises:
            SpaceError: parameters are missing, because the trial was added by others or has not begun.
        """
        if self.is_baseline(trial.number):
            return self.definition.baseline_config(self.space)
        return self.definition.config(self.space.values(trial.params))

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
        """Return why no more trials are begun: the time is up, or the target is reached; None if they are."""
        attrs = self._attrs
        return self._stop_reason(self._read_budget(attrs), attrs.deadline)

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
