"""Asynchronous successive halving, ASHA: rungs, who has reached them, and who goes on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), algorithm 2: at each rung the best
1/eta of the trials that have reached it go on, the others pause there, and are promoted once they belong to the best
1/eta of a rung that has grown. Optuna's pruner of that name stops them instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from typing_extensions import override

from hpo.study.paused import paused_epoch

__all__ = ["AshaPruner", "Halving", "HyperbandPruner"]


@dataclass(frozen=True)
class Halving:
    """Rule of successive halving in one bracket.

    Attributes:
        first: the epoch of the first rung; each further one is `factor` times as far.
        factor: eta, the reduction factor.
        bootstrap: nobody is promoted from a rung that no more trials than this have reached.
    """

    first: int
    factor: int
    bootstrap: int = 0

    def rung(self, epoch: int) -> int | None:
        """Return the epoch of the last rung at or before an epoch; None before the first."""
        if epoch < self.first:
            return None
        rung = self.first
        while rung * self.factor <= epoch:
            rung *= self.factor
        return rung

    def entered(self, trial: FrozenTrial) -> int | None:
        """Return the rung that a trial has entered with its last report; None if it has entered none."""
        steps = sorted(trial.intermediate_values)
        rung = self.rung(steps[-1]) if steps else None
        return None if rung is None or (len(steps) > 1 and steps[-2] >= rung) else rung

    def rank(self, trials: Iterable[FrozenTrial], rung: int, direction: StudyDirection) -> list[FrozenTrial]:
        """Return the trials that have reached a rung, the best first; equals by number.

        A trial is judged by what it reported there; one whose loop reported nothing at that very epoch, by the first
        report after it.
        """
        sign = -1 if direction == StudyDirection.MAXIMIZE else 1
        found = [(sign * value, each.number, each) for each in trials if (value := _value_at(each, rung)) is not None]
        return [each for *_, each in sorted(found, key=lambda entry: entry[:2])]

    def count_best(self, reached: int, least: int) -> int:
        """Return how many of those that have reached a rung go on; `least`, if they are fewer than `factor`."""
        return 0 if reached <= self.bootstrap else max(reached // self.factor, least)

    def keeps(self, trial: FrozenTrial, trials: Collection[FrozenTrial], direction: StudyDirection, least: int) -> bool:
        """Return whether a trial that has just reported goes on, as it does between two rungs.

        Args:
            trial: the trial, which `trials` may contain as it was before.
            trials: all trials of its bracket.
            direction: of the study.
            least: see `count_best`.
        """
        rung = self.entered(trial)
        if rung is None:
            return True
        ranked = self.rank([trial, *(each for each in trials if each.number != trial.number)], rung, direction)
        best = ranked[: self.count_best(len(ranked), least)]
        return any(each.number == trial.number for each in best)


def _value_at(trial: FrozenTrial, rung: int) -> float | None:
    values = trial.intermediate_values
    if rung in values:
        return values[rung]
    later = min((step for step in values if step > rung), default=None)
    return None if later is None else values[later]


class AshaPruner(optuna.pruners.BasePruner):
    """Pruner that pauses trials at rungs and promotes them later; those that cannot be resumed, it stops.

    Args:
        epochs: of the longest trial.
        min_resource: the epoch of the first rung, if no trials stop early; by default a hundredth of `epochs`.
        reduction_factor: eta.
        min_early_stopping_rate: how many rungs are left out at the beginning.
        bootstrap_count: see `Halving.bootstrap`.
        promote: whether trials are paused at all.
    """

    def __init__(
        self,
        epochs: int,
        min_resource: int | None = None,
        reduction_factor: int = 4,
        min_early_stopping_rate: int = 0,
        bootstrap_count: int = 0,
        *,
        promote: bool = True,
    ) -> None:
        first = (max(1, epochs // 100) if min_resource is None else min_resource) * (
            reduction_factor**min_early_stopping_rate
        )
        self.rule = Halving(first, reduction_factor, bootstrap_count)
        self.promotes = promote

    @override
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that cannot be resumed ends here; as in Optuna, the best of a rung never does."""
        return not self._keeps(study, trial, least=1)

    def pauses(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that can be resumed pauses here."""
        return not self._keeps(study, trial, least=0)

    def _keeps(self, study: optuna.Study, trial: FrozenTrial, least: int) -> bool:
        return self.rule.keeps(trial, study.get_trials(deepcopy=False), study.direction, least)

    def find_promotable(
        self, trials: Collection[FrozenTrial], direction: StudyDirection, *, ending: bool = False
    ) -> list[tuple[int, int]]:
        """Return the paused trials that may go on, those of the highest rung first, and of each the best first.

        Args:
            trials: all of the study.
            direction: of the study.
            ending: whether no trial will reach a rung any more: then the best of each goes on even where fewer than
                eta have reached it, or a study of few trials would end without a COMPLETE one.

        Returns:
            The ids, each with the epoch at which it is paused.
        """
        paused = {each.number: epoch for each in trials if (epoch := paused_epoch(each)) is not None}
        rungs = {rung for epoch in paused.values() if (rung := self.rule.rung(epoch)) is not None}
        found: list[tuple[int, int]] = []
        for rung in sorted(rungs, reverse=True):
            ranked = self.rule.rank(trials, rung, direction)
            best = ranked[: max(self.rule.count_best(len(ranked), 0), int(ending))]
            here = [each for each in best if self.rule.rung(paused.get(each.number, 0)) == rung]
            found += [(each._trial_id, paused[each.number]) for each in here]
        return found


class HyperbandPruner(optuna.pruners.HyperbandPruner):
    """Optuna's pruner, for which a trial has reached a rung with its report there, and not first as it is judged.

    So the trials of a cohort, which report all and are judged then, are compared with each other. It stops trials.
    """

    @override
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if not self._pruners:
            self._try_initialization(study)
        bracket = self._get_bracket_id(study, trial)
        peers = [each for each in study.get_trials(deepcopy=False) if self._get_bracket_id(study, each) == bracket]
        first = self._min_resource * self._reduction_factor**bracket
        rule = Halving(first, self._reduction_factor, self._bootstrap_count)
        return not rule.keeps(trial, peers, study.direction, least=1)
