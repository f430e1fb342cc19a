"""What a worker takes along with a trial that it has claimed, to train them as one cohort."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.config.cohort_key import COHORT_PARAMETERS, cohort_key, run_key, stack_key
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import HpoError, LeaseLostError
from hpo.storage.leased_storage import ClaimOffer, LeaseGrant
from hpo.storage.leases import WorkerInfo
from hpo.storage.statements import FIXED
from hpo.study.study import ClaimedTrial, Study

__all__ = ["CohortClaimer"]

SUSPECT = 2  # deaths in a row after which a trial is tried alone: it may have killed its cohort's workers


@dataclass(frozen=True)
class Key:
    """What decides whether trials fit: equal `cohort_key` are trained at the same time, equal `run` even in one run."""

    together: int
    run: int
    config: TrialConfig


class CohortClaimer:
    """The trials of one study as candidates for a cohort.

    A slot's parameters never change while it waits: each is looked at once, also where there are thousands of them.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._slots: dict[int, Key | None] = {}
        self._numbered: dict[Any, int] = {}

    def configs(self, claim: ClaimedTrial, config: TrialConfig) -> list[TrialConfig]:
        """What could be trained along, this configuration first: the longest of each run."""
        first = self._key(config)
        longest: dict[int, TrialConfig] = {first.run: config}
        for key in self._candidates(claim).values():
            if key.together == first.together and key.config.epochs > getattr(longest.get(key.run), "epochs", 0):
                longest[key.run] = key.config
        return list(longest.values())

    def claim(self, holder: WorkerInfo, claim: ClaimedTrial, config: TrialConfig, size: int) -> list[ClaimedTrial]:
        """Claim what is trained along with a trial, in one transaction: together not more than `size` runs.

        Trials that one run answers come along free. Of what fits, a worker takes its share and no more: the rest is
        for the others that live. Those whose workers are gone are taken along with their like alone.

        Args:
            holder: for whom.
            claim: the trial.
            config: its configuration.
            size: how many runs at the same time.

        Raises:
            KeyError: the study was deleted.
        """
        first = self._key(config)
        if claim.taken_over and self._suspect(claim.id):
            return []
        candidates = self._candidates(claim)
        adapts = not (claim.taken_over or self.study.definition.fixed or stack_key(config) is None)
        pins = self._pins(config) if adapts else None
        budget = None if pins is None or size == 1 else self.study.budget.trials
        if (budget is None or len(self.study.trials()) >= budget) and not _fitting(first, candidates, candidates):
            return []
        claimed = self.study.storage.claim_more(
            self.study.id,
            holder,
            lambda offer: _chosen(first, candidates, offer, size),
            budget,
            abandoned=claim.taken_over,
        )
        return self._claims(claimed, pins or {})

    def _claims(self, claimed: Sequence[LeaseGrant], pins: Mapping[str, Value]) -> list[ClaimedTrial]:
        """The handles on trials; new ones are asked with the pins. One that is lost already is left out."""
        storage = self.study.storage
        claims = []
        try:
            for each in claimed:
                with suppress(LeaseLostError):
                    if each.made and pins:
                        storage.set_trial_system_attr(each.trial_id, FIXED, dict(pins))
                    claims.append(self.study.open_trial(each))
        except BaseException:  # whatever a sampler raises, its trials are not to stay with us
            storage.release_all([each.trial_id for each in claimed])
            raise
        return claims

    def _key(self, config: TrialConfig) -> Key:
        # Numbers in place of the keys themselves: thousands are compared at each claim.
        numbered = self._numbered
        fits = numbered.setdefault(("together", cohort_key(config)), len(numbered))
        return Key(fits, numbered.setdefault(("run", run_key(config)), len(numbered)), config)

    def _candidates(self, claim: ClaimedTrial) -> Mapping[int, Key]:
        """What may be taken along, as far as is known here, by id: what waits, or what others have begun."""
        state = TrialState.RUNNING if claim.taken_over else TrialState.WAITING
        trials = [t for t in self.study.trials() if t.state == state and t._trial_id != claim.id]
        keys = {t._trial_id: self._key_of(t) for t in trials if not (claim.taken_over and self._suspect(t._trial_id))}
        return {trial_id: key for trial_id, key in keys.items() if key is not None}

    def _key_of(self, trial: FrozenTrial) -> Key | None:
        if not self.study.definition.fixed:
            return self._read_key(trial)
        if trial._trial_id not in self._slots:
            self._slots[trial._trial_id] = self._read_key(trial)
        return self._slots[trial._trial_id]

    def _read_key(self, trial: FrozenTrial) -> Key | None:
        """None also where parameters are missing or cannot be, as others may have enqueued them."""
        params = {**trial.system_attrs.get(FIXED, {}), **trial.params}
        study = self.study
        try:
            if study.is_baseline(trial.number):
                return self._key(study.config_of(trial))
            possible = all(d.domain.contains(params[d.key]) for d in study.space.varied if d.key in params)
            return self._key(study.definition.config(study.space.values(params))) if possible else None
        except (HpoError, TypeError, ValueError):
            return None

    def _suspect(self, trial_id: int) -> bool:
        deaths = self.study.storage.get_trial(trial_id).user_attrs.get("deaths", {})
        return int(deaths.get("count", 0)) >= SUSPECT

    def _pins(self, config: TrialConfig) -> dict[str, Value] | None:
        """What new trials must be asked with to fit; None where the space does not hold it, as of a baseline."""
        pins: dict[str, Value] = {}
        default = self.study.definition.config({})
        for name in COHORT_PARAMETERS:
            value: Value = getattr(config, name)
            dimensions = [d for d in self.study.space.dimensions if d.parameter.name == name]
            holding = [d for d in dimensions if d.domain.contains(value)]
            if not holding and (dimensions or value != getattr(default, name)):
                return None
            # Of several under conditions, whichever a trial will have: the others are not looked at.
            pins |= {d.key: value for d in holding if d in self.study.space.varied}
        return pins


def _chosen(first: Key, candidates: Mapping[int, Key], offer: ClaimOffer, size: int) -> tuple[Collection[int], int]:
    """Which trials to take along, and how many new ones."""
    fitting = _fitting(first, candidates, offer.trial_ids)
    runs = list(dict.fromkeys([first.run, *(candidates[i].run for i in fitting)]))
    most = min(size, math.ceil((len(runs) + offer.new) / offer.workers))
    taken = set(runs[:most])
    return [i for i in fitting if candidates[i].run in taken], min(offer.new, most - len(taken))


def _fitting(first: Key, candidates: Mapping[int, Key], trial_ids: Iterable[int]) -> list[int]:
    return [i for i in trial_ids if i in candidates and candidates[i].together == first.together]
