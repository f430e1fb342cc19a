"""Claims of further trials for the cohort of a trial that a worker has claimed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.config import registry
from hpo.config.cohort_key import UNSTACKABLE, is_measured, run_key, stack_key
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.errors import HpoError, LeaseLostError
from hpo.execution.deaths import is_suspect
from hpo.execution.stack_notes import shape_values
from hpo.storage.leased_storage import ClaimOffer, LeaseGrant
from hpo.storage.leases import WorkerInfo
from hpo.storage.statements import FIXED
from hpo.study.attributes import read_table
from hpo.study.paused import paused_epoch
from hpo.study.study import ClaimedTrial, Study

__all__ = ["CohortClaimer", "CohortSize", "may_stack"]

# Parameters of which each model of a stack has its own, besides all of these groups.
OWN_IN_STACKS = frozenset({"epochs", "patience", "min_delta", "init_seed"})
OWN_GROUPS = frozenset({"optimizer", "schedule"})


def may_stack(config: TrialConfig, device: str = "cpu") -> bool:
    """Return whether a configuration's model can be one of a stack at all, on a device of that type."""
    return stack_key(config, device) is not None


@dataclass(frozen=True)
class CohortSize:
    """Bounds of a cohort.

    Attributes:
        runs: how many runs it has at most, of trials whose parameters are known.
        asked: for how many new trials the sampler is asked at most, given what is offered; None asks for none.
        mixed: whether trials come along that fit into no stack with the first.
    """

    runs: int
    asked: Callable[[ClaimOffer], int] | None = None
    mixed: bool = True


@dataclass(frozen=True)
class TrialKey:
    """Keys of a trial: of equal `stack` are those that may be one stack, of equal `like` those of about equal models
    too, and of equal `run` those that a single run answers.

    They are numbers in place of the keys themselves, because thousands are compared at each claim; `stack` is None for
    a model that trains alone.
    """

    stack: int | None
    like: int
    run: int
    config: TrialConfig

    def distance(self, other: TrialKey) -> int | None:
        """Return how little another trial fits: 0 the same run, 1 and 2 the same stack, 3 another; None not at all."""
        if self.run == other.run:
            return 0
        if self.stack is None or other.stack is None:
            return None
        return 1 if self.like == other.like else 2 if self.stack == other.stack else 3


class CohortClaimer:
    """Claimer of the further trials of cohorts.

    A slot's parameters never change while it waits, so each slot is read once, even if there are thousands of them.

    Args:
        study: whose trials.
        stackable: whether a configuration's model can be stacked.
        likeness: returns a key that is equal for configurations whose models stack well.
        device: the type of the device that trains them.
    """

    def __init__(
        self,
        study: Study,
        stackable: Callable[[TrialConfig], bool] = may_stack,
        likeness: Callable[[TrialConfig], Hashable] = stack_key,
        device: str = "cpu",
    ) -> None:
        self.study, self._device = study, device
        self._stackable, self._likeness = stackable, likeness
        self._slot_keys: dict[int, TrialKey | None] = {}
        self._numbers: dict[Any, int] = {}
        self._calls = itertools.count(-1, -1)  # numbers of runs beside those of `_numbers`

    def candidate_configs(self, claim: ClaimedTrial, config: TrialConfig) -> list[TrialConfig]:
        """Return the configurations whose models stack well with this one's, it first and of each run the longest."""
        first = self._make_key(config)
        longest: dict[int, TrialConfig] = {first.run: config}
        for key in self._candidates(claim).values():
            if key.like == first.like and key.config.epochs > getattr(longest.get(key.run), "epochs", 0):
                longest[key.run] = key.config
        return list(longest.values())

    def has_companions(self, claim: ClaimedTrial, config: TrialConfig, *, mixed: bool) -> bool:
        """Return whether any trial that may be claimed can be in one stack with this one, or is answered by its run.

        If `mixed`, those of other stacks count, too.
        """
        first = self._make_key(config)
        candidates = self._candidates(claim)
        return bool(_matching(first, candidates, candidates, mixed=mixed))

    def claim(
        self, worker: WorkerInfo, claim: ClaimedTrial, config: TrialConfig, size: CohortSize
    ) -> list[ClaimedTrial]:
        """Claim further trials for the cohort of a trial, in one transaction.

        Trials that the same run answers cost nothing and are all claimed. Of the others a worker claims its share, the
        best fits first, and leaves the rest to the other live workers. Trials whose workers are gone make cohorts of
        their own.

        Args:
            worker: the worker that claims them.
            claim: the first trial.
            config: its configuration.
            size: of the cohort.

        Raises:
            KeyError: the study was deleted.
        """
        first = self._make_key(config)
        if claim.attempt > 1 and is_suspect(self.study.storage.get_trial(claim.id).user_attrs):
            return []
        candidates = self._candidates(claim)
        new = size.asked is not None and not (claim.taken_over or self.study.definition.fixed or first.stack is None)
        budget = self.study.budget.trials if new else None
        full = budget is None or len(self.study.trials()) >= budget
        if full and not _matching(first, candidates, candidates, mixed=size.mixed):
            return []
        grants = self.study.storage.claim_more(
            self.study.id,
            worker,
            lambda offer: _select(first, candidates, offer, size),
            budget,
            abandoned=claim.taken_over,
            promoted=claim.promotable,
        )
        return self._to_claims(grants)

    def _to_claims(self, grants: Sequence[LeaseGrant]) -> list[ClaimedTrial]:
        """Return the claimed trials, without those that are lost already."""
        claims = []
        try:
            for grant in grants:
                with suppress(LeaseLostError):
                    claims.append(self.study.open_trial(grant))
        except BaseException:  # whatever a sampler raises, this worker must not keep the trials
            self.study.storage.release_all([grant.trial_id for grant in grants])
            raise
        return claims

    def like(self, config: TrialConfig) -> int:
        """Return a number that is equal for configurations whose models stack well."""
        return self._make_key(config).like

    def _make_key(self, config: TrialConfig) -> TrialKey:
        numbers = self._numbers
        stack = None
        if self._stackable(config):
            shape = _shape_key(config) if is_measured(config) else ()
            stack = numbers.setdefault(("stack", stack_key(config, self._device), *shape), len(numbers))
        like = numbers.setdefault(("like", stack, self._likeness(config)), len(numbers))
        if registry.models.get(config.model).loop:  # which is called for each trial, however alike they are
            return TrialKey(stack, like, next(self._calls), config)
        return TrialKey(stack, like, numbers.setdefault(("run", run_key(config)), len(numbers)), config)

    def _candidates(self, claim: ClaimedTrial) -> Mapping[int, TrialKey]:
        """Return the keys of trials that may be claimed, by id: waiting trials, or those of workers that are gone."""
        state = TrialState.RUNNING if claim.taken_over else TrialState.WAITING
        trials = [t for t in self.study.trials() if t.state == state and t._trial_id != claim.id]
        promoted = {trial_id for trial_id, _ in claim.promotable}
        trials = [t for t in trials if paused_epoch(t) is None or t._trial_id in promoted]
        trials = [t for t in trials if not is_suspect(t.user_attrs)]
        keys = {t._trial_id: self._get_key(t) for t in trials}
        return {trial_id: key for trial_id, key in keys.items() if key is not None}

    def _get_key(self, trial: FrozenTrial) -> TrialKey | None:
        if not self.study.definition.fixed:
            return self._read_key(trial)
        if trial._trial_id not in self._slot_keys:
            self._slot_keys[trial._trial_id] = self._read_key(trial)
        return self._slot_keys[trial._trial_id]

    def _read_key(self, trial: FrozenTrial) -> TrialKey | None:
        """Return a trial's key; None if its parameters are missing or impossible, for others may have enqueued it."""
        params = {**read_table(trial.system_attrs, FIXED), **trial.params}
        study = self.study
        try:
            if study.is_baseline(trial.number):
                return self._make_key(study.config_of(trial))
            possible = all(d.domain.contains(params[d.key]) for d in study.space.varied if d.key in params)
            if not possible:
                return None
            config = study.definition.config(study.space.values(params))
            return self._make_key(study.resplit_config(config, trial))
        except (HpoError, TypeError, ValueError):
            return None


def _shape_key(config: TrialConfig) -> Iterable[tuple[str, object]]:
    """Yield the values that may decide the shapes of a model, by name, but for what each of a stack has itself."""
    table = all_parameters([config.model], config._models)
    for name, value in shape_values(config).items():
        # What a loop's stack refuses fails by itself.
        if value in UNSTACKABLE or not (name in OWN_IN_STACKS or table[name].group in OWN_GROUPS):
            yield name, value


def _select(
    first: TrialKey, candidates: Mapping[int, TrialKey], offer: ClaimOffer, size: CohortSize
) -> tuple[Collection[int], int]:
    """Return the ids of the trials to claim, and the number of new trials to create."""
    matching = _matching(first, candidates, offer.trial_ids, mixed=size.mixed)
    runs = list(dict.fromkeys([first.run, *(candidates[i].run for i in matching)]))
    share = math.ceil((len(runs) + offer.new) / offer.workers)
    own = set(runs[: min(size.runs, share)])
    asked = 0 if size.asked is None else size.asked(offer)
    new = min(offer.new, asked, min(size.runs, share) - len(own))
    return [i for i in matching if candidates[i].run in own], new


def _matching(
    first: TrialKey, candidates: Mapping[int, TrialKey], trial_ids: Iterable[int], *, mixed: bool
) -> list[int]:
    """Return which of these trials may come along, the best fits first."""
    distances = {i: first.distance(candidates[i]) for i in trial_ids if i in candidates}
    fitting = {i: distance for i, distance in distances.items() if distance is not None and (mixed or distance < 3)}
    return sorted(fitting, key=fitting.__getitem__)
