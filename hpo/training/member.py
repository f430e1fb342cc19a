"""Members of a cohort: trials in training, and their results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hpo.config.parameter import Value
from hpo.config.registry import Direction
from hpo.config.trial_config import TrialConfig
from hpo.training.divergence import find_divergence
from hpo.training.sample_log import SampleLog
from hpo.training.stagnation import count_stagnant_epochs

__all__ = ["Member", "Metrics", "Origin", "Scores", "State", "Status", "TrainResult", "Weights"]

Metrics = dict[str, float]
Scores = dict[str, float]  # of a model on some samples: loss, and accuracy, r2 or reconstruction_error
Weights = dict[str, Tensor]
State = dict[str, Any]  # tensors and plain values, as torch reads back with weights_only
Status = Literal["completed", "early_stopped", "pruned", "paused", "diverged", "interrupted"]
Origin = Literal["best epoch", "last report", "returned"]  # of a trial's values


@dataclass(eq=False)
class Member:
    """Trial in training.

    Attributes:
        config: its configuration.
        number: its position among the configurations that `train` was given.
        parameter_count: how many numbers its model learns; 0 until that is built.
        seconds: of training and validation so far; a cohort's are divided evenly among its trials.
        history: a row of metrics per epoch; see `hpo.training.loop.train`.
        steps: of each epoch of the history, where steps are recorded: see `record`.
        best_epoch: the epoch of the best value of the monitor, as its row numbers it; None while there is none.
        best_weights: the weights of that epoch, on the CPU.
        stopped: why it ended, or None while it trains.
        cause: what was not finite, of a trial that diverged.
        origin: where its values come from; a loop of the user's own decides.
        returned: metrics that such a loop returned; they count before those of any epoch.
        stack: how many models its stack began with.
        alone: why its model is trained one at a time by a loop that could stack it; None if it does not, or none does.
        resumed_from: how many epochs of the history came from a checkpoint; callbacks are told of later ones only.
        resumable: whether it may end as paused: a checkpoint is then written, from which it can go on.
        sample_log: of the scores of its validation samples; None where they are not kept.
    """

    config: TrialConfig
    number: int = 0
    parameter_count: int = 0
    seconds: float = 0.0
    history: list[Metrics] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    best_epoch: int | None = None
    best_weights: Weights | None = None
    stopped: Status | None = None
    cause: str = ""
    origin: Origin = "best epoch"
    returned: Metrics = field(default_factory=dict)
    stack: int = 1
    alone: str | None = None
    resumed_from: int = 0
    resumable: bool = False
    sample_log: SampleLog | None = None

    @property
    def params(self) -> Mapping[str, Value]:
        """The parameters that have an effect, by name, as loggers show them."""
        return self.config.effective()

    def stop(self, reason: Status) -> None:
        """End this trial after the present epoch; the first reason counts."""
        self.stopped = self.stopped or reason

    def diverge(self, cause: str) -> None:
        """End this trial as diverged, for whatever else it may have ended."""
        self.stopped, self.cause = "diverged", cause

    def end_epoch(
        self,
        row: Metrics,
        monitor: str,
        direction: Direction,
        weights: Callable[[], Weights],
        objectives: Collection[str] = (),
    ) -> None:
        """Add an epoch's row, keep the weights of a better one, and end where divergence or patience says so.

        Args:
            row: of metrics; see `hpo.training.loop.train`.
            monitor, direction: of the metric that decides which epoch is the best.
            weights: returns the weights of the epoch; called only if it is the best.
            objectives: the study's, which must be finite, as the monitor and every loss must.
        """
        self.history.append(row)
        if cause := find_divergence(row, (monitor, *objectives)):
            self.diverge(f"{cause} in epoch {int(row['epoch'])}")
            return
        if self.improves(monitor, direction):
            self.best_epoch, self.best_weights = int(row["epoch"]), weights()
        if self.config.patience:
            values = [each[monitor] for each in self.history if monitor in each]
            if count_stagnant_epochs(values, direction, self.config.min_delta or 0.0) >= self.config.patience:
                self.stop("early_stopped")

    def record(self, losses: Tensor) -> None:
        """Keep the steps of an epoch before its row: (2, steps) in float32 on the CPU.

        The first row has the mean loss at each step, measured before it. The second has the seconds of training at its
        end: those of the epoch, without its validation, are divided evenly among its steps, for a device, or a stack
        that does several steps at once, could only be waited for.

        Args:
            losses: (steps,).
        """
        before = self.train_seconds
        shares = torch.arange(1, len(losses) + 1, dtype=torch.float64) / len(losses)
        self.steps.append(torch.stack([losses.double(), before + (self.seconds - before) * shares]).float())

    def steps_of(self, epoch: int) -> Tensor | None:
        """Return what `record` kept of an epoch (from 1), or None where steps are not recorded."""
        return self.steps[epoch - 1] if self.steps else None

    @property
    def best(self) -> Metrics | None:
        """The row of metrics of the best epoch."""
        return next((row for row in self.history if row["epoch"] == self.best_epoch), None)

    @property
    def final_metrics(self) -> Metrics:
        """The metrics that its values are of: those of its best epoch, and what its loop returned."""
        return {**(self.best or {}), **self.returned}

    @property
    def train_seconds(self) -> float:
        """Seconds of training and validation so far, to the end of the last whole epoch."""
        return self.history[-1]["seconds"] if self.history else 0.0

    def improves(self, monitor: str, direction: Direction) -> bool:
        """Return whether the last epoch is the best so far: the first of equals."""
        best, value = self.best, self.history[-1][monitor]
        if best is None:
            return True
        rival = best[monitor]
        return value > rival if direction == "maximize" else value < rival


@dataclass(frozen=True)
class TrainResult:
    """Result of a trial.

    Attributes:
        config: its configuration.
        status: why it ended. completed and early_stopped are full results; the others hold what there is. One that is
            interrupted or paused may go on from its checkpoint.
        history: a row of metrics per whole epoch.
        best_epoch: the epoch of the best value of the monitor, or another one that its values are from; None if no
            epoch has one.
        best: the row of metrics of that epoch.
        parameter_count: how many numbers the model learns.
        train_seconds: of training and validation.
        weights: of the best epoch, a state dict on the CPU.
        cause: what was not finite, of a trial that diverged.
        origin: where its values come from.
        returned: metrics that a loop of the user's own returned.
        steps: of each whole epoch, where steps are recorded: see `Member.record`.
        module: the model, where a loop of the user's own trained it; its present weights are those of the last epoch.
        sample_logs: of the scores of its validation samples, one for each fit; empty where they are not kept.
    """

    config: TrialConfig
    status: Status
    history: list[Metrics]
    best_epoch: int | None
    best: Metrics | None
    parameter_count: int
    train_seconds: float
    weights: Weights | None
    cause: str = ""
    origin: Origin = "best epoch"
    returned: Mapping[str, float] = field(default_factory=dict)
    steps: Sequence[Tensor] = ()
    module: nn.Module | None = None
    sample_logs: Sequence[SampleLog] = ()

    @property
    def summary(self) -> Mapping[str, float]:
        """The best epoch's metrics and the costs, by name, as trackers show them."""
        best = {f"best_{name}": value for name, value in (self.best or {}).items()}
        return {**best, "parameter_count": float(self.parameter_count), "train_seconds": self.train_seconds}

    @classmethod
    def of(cls, member: Member, module: nn.Module | None = None) -> TrainResult:
        """Return the result of a trial that has ended, with the model where a loop of the user's own trained it."""
        return cls(
            member.config,
            member.stopped or "completed",
            member.history,
            member.best_epoch,
            member.best,
            member.parameter_count,
            member.train_seconds,
            member.best_weights or None,  # a loop of the user's own may never have named its model
            member.cause,
            member.origin,
            member.returned,
            member.steps,
            module,
            () if member.sample_log is None else (member.sample_log,),
        )
