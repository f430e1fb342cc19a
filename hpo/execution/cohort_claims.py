"""Claims of further trials for the cohort of a trial that a worker has claimed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.config.cohort_key import run_key, stack_key
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import HpoError, LeaseLostError
from hpo.execution.deaths import is_suspect
from hpo.storage.leased_storage import ClaimOffer, LeaseGrant
from hpo.storage.leases import WorkerInfo
from hpo.storage.statements import FIXED
from hpo.study.attributes import read_table
from hpo.study.study import ClaimedTrial, Study

__all__ = ["CohortClaimer", "cohort_key"]

# Parameters that new trials have in common with the first one of their cohort.
PINNED = (
    *("model", "validation", "split_seed", "input_scaling", "batch_size", "seed"),
    *("numeric_scaling", "task", "class_weight"),
)


def cohort_key(config: TrialConfig) -> tuple[object, ...]:
    """Return the key shared by trials that train in one cohort, as stacked models or in a single run."""
    return stack_key(config) or run_key(config)


@dataclass(frozen=True)
class TrialKey:
    """Keys of a trial: trials of equal `cohort` can be trained at the same time, those of equal `run` even as one run.

    They are numbers in place of the keys themselves, because thousands are compared at each claim.
    """

    cohort: int
    run: int
    config: TrialConfig


class CohortClaimer:
    """Claimer of the trials of one study that fit into a cohort.

    A slot's parameters never change while it waits, so each slot is read once, even if there are thousands of them.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._slot_keys: dict[int, TrialKey | None] = {}
        self._numbers: dict[Any, int] = {}

    def candidate_configs(self, claim: ClaimedTrial, config: TrialConfig) -> list[TrialConfig]:
        """Return the configurations that fit into the cohort, this one first and of each run the longest."""
        first = self._make_key(config)
        longest: dict[int, TrialConfig] = {first.run: config}
        for key in self._candidates(claim).values():
            if key.cohort == first.cohort and key.config.epochs > getattr(longest.get(key.run), "epochs", 0):
                longest[key.run] = key.config
        return list(longest.values())

    def claim(self, worker: WorkerInfo, claim: ClaimedTrial, config: TrialConfig, size: int) -> list[ClaimedTrial]:
        """Claim further trials for the cohort of a trial, in one transaction, so that it has at most `size` runs.

        Trials that the same run answers cost nothing and are all claimed. Of the others that fit, a worker claims its
        share, and leaves the rest to the other live workers. Trials whose workers are gone make cohorts of their own.

        Args:
            worker: the worker that claims them.
            claim: the first trial.
            config: its configuration.
            size: number of runs to train at the same time.

        Raises:
            KeyError: the study was deleted.
        """
        first = self._make_key(config)
        if claim.attempt > 1 and is_suspect(self.study.storage.get_trial(claim.id).user_attrs):
            return []
        candidates = self._candidates(claim)
        adapts = not (claim.taken_over or self.study.definition.fixed or stack_key(config) is None)
        pins = self._pins(config) if adapts else None
        budget = None if pins is None or size == 1 else self.study.budget.trials
        if (budget is None or len(self.study.trials()) >= budget) and not _matching(first, candidates, candidates):
            return []
        grants = self.study.storage.claim_more(
            self.study.id,
            worker,
            lambda offer: _select(first, candidates, offer, size),
            budget,
            abandoned=claim.taken_over,
        )
        return self._to_claims(grants, pins or {})

    def _to_claims(self, grants: Sequence[LeaseGrant], pins: Mapping[str, Value]) -> list[ClaimedTrial]:
        """Return the claimed trials, without those that are lost already; new ones are sampled with the pins."""
        storage = self.study.storage
        claims = []
        try:
            for grant in grants:
                with suppress(LeaseLostError):
                    if grant.made and pins:
                        storage.set_trial_system_attr(grant.trial_id, FIXED, dict(pins))
                    claims.append(self.study.open_trial(grant))
        except BaseException:  # whatever a sampler raises, this worker must not keep the trials
            storage.release_all([grant.trial_id for grant in grants])
            raise
        return claims

    def _make_key(self, config: TrialConfig) -> TrialKey:
        numbers = self._numbers
        cohort = numbers.setdefault(("cohort", cohort_key(config)), len(numbers))
        return TrialKey(cohort, numbers.setdefault(("run", run_key(config)), len(numbers)), config)

    def _candidates(self, claim: ClaimedTrial) -> Mapping[int, TrialKey]:
        """Return the keys of trials that may be claimed, by id: waiting trials, or those of workers that are gone."""
        state = TrialState.RUNNING if claim.taken_over else TrialState.WAITING
        trials = [t for t in self.study.trials() if t.state == state and t._trial_id != claim.id]
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
            return self._make_key(study.definition.config(study.space.values(params))) if possible else None
        except (HpoError, TypeError, ValueError):
            return None

    def _pins(self, config: TrialConfig) -> dict[str, Value] | None:
        """Return the values that new trials must have to fit; None if one is outside the space, as of a baseline."""
        pins: dict[str, Value] = {}
        default = self.study.definition.config({})
        for name in PINNED:
            value: Value = getattr(config, name)
            dimensions = [d for d in self.study.space.dimensions if d.parameter.name == name]
            holding = [d for d in dimensions if d.domain.contains(value)]
            if not holding and (dimensions or value != getattr(default, name)):
                return None
            # Of several dimensions under conditions a trial has one; the sampler ignores the pins of the others.
            pins |= {d.key: value for d in holding if d in self.study.space.varied}
        return pins


def _select(
    first: TrialKey, candidates: Mapping[int, TrialKey], offer: ClaimOffer, size: int
) -> tuple[Collection[int], int]:
    """Return the ids of the trials to claim, and the number of new trials to create."""
    matching = _matching(first, candidates, offer.trial_ids)
    runs = list(dict.fromkeys([first.run, *(candidates[i].run for i in matching)]))
    share = min(size, math.ceil((len(runs) + offer.new) / offer.workers))
    own = set(runs[:share])
    return [i for i in matching if candidates[i].run in own], min(offer.new, share - len(own))


def _matching(first: TrialKey, candidates: Mapping[int, TrialKey], trial_ids: Iterable[int]) -> list[int]:
    return [i for i in trial_ids if i in candidates and candidates[i].cohort == first.cohort]
