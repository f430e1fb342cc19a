"""Optuna's study of a pruner that pauses trials, as samplers are to see it."""

from __future__ import annotations

import copy
from collections.abc import Container

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.study.definition import Definition
from hpo.study.halving import AshaPruner
from hpo.study.paused import find_best, paused_epoch

__all__ = ["HalvingStudy", "explain_idle_sampler"]
LEARN = ("cmaes", "gp", "nsga2")  # from COMPLETE trials alone


def explain_idle_sampler(definition: Definition) -> str | None:
    """Return a line on a sampler that learns next to nothing from what a pruner leaves; None of any other."""
    sampler, pruner = definition.sampler.name, definition.pruner
    pauses = definition.configured and pruner.name == "asha" and pruner.options.get("promote", True)
    if not pauses or sampler not in LEARN:
        return None
    return (
        f"sampler {sampler} learns from complete trials alone, of which pruner asha leaves few before the end; take "
        'sampler = "tpe", or pruner = "median"'
    )


class HalvingStudy(optuna.Study):
    """Study in which samplers learn from trials that wait at a rung of `AshaPruner`, or have come past one.

    Optuna's samplers ignore WAITING trials, and TPE counts RUNNING ones as poor, so that others do not ask for the same
    meanwhile. Under this pruner the promising ones run longest. Both are shown to TPE as PRUNED with their values so
    far. The other samplers of Optuna learn from COMPLETE trials alone, and see all trials as they are.
    """

    pruner: AshaPruner

    @override
    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials as they are; see Optuna."""
        return super()._get_trials(deepcopy, states)

    @override
    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return the trials as samplers see them, which ask here."""
        shown = [self._show(trial) for trial in super()._get_trials(deepcopy=False, use_cache=use_cache)]
        chosen = [trial for trial in shown if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _show(self, trial: FrozenTrial) -> FrozenTrial:
        if not isinstance(self.sampler, optuna.samplers.TPESampler) or not self._is_judged(trial):
            return trial
        best = find_best(trial, maximize=self.direction == StudyDirection.MAXIMIZE)
        shown = copy.copy(trial)  # what it holds stays shared: nobody writes to it
        shown.state, shown.values = TrialState.PRUNED, None if best is None else [best]
        return shown

    def _is_judged(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is paused, or is in training and has reached a rung."""
        if trial.state != TrialState.RUNNING:
            return paused_epoch(trial) is not None
        last = trial.last_step
        return last is not None and self.pruner.rule.rung(last) is not None
