"""One trial in training: what a cohort is made of, and what comes out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from hpo.config import TrialConfig
from hpo.registry import Direction

__all__ = ["Member", "Metrics", "Outcome", "Scores", "State", "Status", "Weights"]

Metrics = dict[str, float]
Scores = dict[str, float]  # of a model on some samples: loss, and accuracy or reconstruction_error
Weights = dict[str, Tensor]
State = dict[str, Any]  # tensors and plain values, as torch reads back with weights_only
Status = Literal["completed", "early_stopped", "pruned", "diverged", "interrupted"]


@dataclass(eq=False)
class Member:
    """A trial in training.

    Attributes:
        config: its configuration.
        number: its position among the configurations that `train` was given.
        parameter_count: how many numbers its model learns; 0 until that is built.
        seconds: of training and validation so far; a cohort's are divided evenly among its trials.
        history: a row of metrics per epoch; see `hpo.training.loop.train`.
        best_epoch: the epoch (from 1) of the best value of the monitor; None while there is none.
        best_weights: the weights of that epoch, on the CPU.
        stopped: why it ended, or None while it trains.
        resumed_from: how many epochs of the history came from a checkpoint; callbacks are told of later ones only.
    """

    config: TrialConfig
    number: int = 0
    parameter_count: int = 0
    seconds: float = 0.0
    history: list[Metrics] = field(default_factory=list)
    best_epoch: int | None = None
    best_weights: Weights | None = None
    stopped: Status | None = None
    resumed_from: int = 0

    def stop(self, reason: Status) -> None:
        """End this trial after the present epoch; the first reason counts."""
        self.stopped = self.stopped or reason

    @property
    def best(self) -> Metrics | None:
        """The row of metrics of the best epoch."""
        return None if self.best_epoch is None else self.history[self.best_epoch - 1]

    @property
    def train_seconds(self) -> float:
        """Seconds of training and validation so far, to the end of the last whole epoch."""
        return self.history[-1]["seconds"] if self.history else 0.0

    def improves(self, monitor: str, direction: Direction) -> bool:
        """Whether the last epoch is the best so far. The first of equals is; a value that is not finite never is."""
        value = self.history[-1][monitor]
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        rival = self.best[monitor]
        return value > rival if direction == "maximize" else value < rival


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        config: its configuration.
        status: why it ended. completed and early_stopped are results in full; the others hold what there is.
        history: a row of metrics per whole epoch.
        best_epoch: the epoch (from 1) of the best value of the monitor; None if no epoch has one.
        best: the row of metrics of that epoch.
        parameter_count: how many numbers the model learns.
        train_seconds: of training and validation.
        weights: of the best epoch, a state dict on the CPU.
    """

    config: TrialConfig
    status: Status
    history: list[Metrics]
    best_epoch: int | None
    best: Metrics | None
    parameter_count: int
    train_seconds: float
    weights: Weights | None

    @classmethod
    def of(cls, member: Member) -> Outcome:
        """What came out of a trial that has ended."""
        return cls(
            member.config,
            member.stopped or "completed",
            member.history,
            member.best_epoch,
            member.best,
            member.parameter_count,
            member.train_seconds,
            member.best_weights,
        )
