"""Paused trials: WAITING ones that no worker claims before a pruner promotes them."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from hpo.storage.stored_values import PAUSED, is_whole

__all__ = ["PAUSED_STATE", "find_best", "paused_epoch", "state_name"]

PAUSED_STATE = "PAUSED"  # as people read it; Optuna knows no such state


def paused_epoch(trial: FrozenTrial) -> int | None:
    """Return the epoch after which a trial is paused, -1 where that cannot be read; None if it is not paused."""
    if trial.state != TrialState.WAITING or PAUSED not in trial.system_attrs:
        return None
    epoch = trial.system_attrs[PAUSED]
    return epoch if is_whole(epoch) else -1


def state_name(trial: FrozenTrial) -> str:
    """Return the name of a trial's state as people read it: Optuna's, or `PAUSED`."""
    return trial.state.name if paused_epoch(trial) is None else PAUSED_STATE


def find_best(trial: FrozenTrial, *, maximize: bool) -> float | None:
    """Return the best value that a trial has reported, which is its value if it ends; None if it has none."""
    return (max if maximize else min)(trial.intermediate_values.values(), default=None)
