"""Settings of a training run: what it measures, whom it tells, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hpo.config.registry import BUILTIN_METRICS, Direction, MetricEntry
from hpo.config.trial_config import TrialConfig
from hpo.training.callbacks import Callback

__all__ = ["TrainSettings"]

# The same in every epoch, or nearly so: they cannot decide which epoch is the best.
COST_METRICS = ("parameter_count", "train_seconds")


def _never() -> bool:
    return False


@dataclass(frozen=True)
class TrainSettings:
    """Settings shared by all configurations of a call of `hpo.training.loop.train`.

    Attributes:
        monitor: the metric that decides which epoch is the best, for its weights and for patience. None, and a
            metric that does not tell one epoch from another (parameter_count, train_seconds), leave that to
            val_accuracy, or to val_loss where the model reconstructs its input.
        direction: whether a larger or a smaller monitor is better.
        objectives: names of the study's objectives, the first one first; by default the monitor alone. A trial whose
            monitor, objective or loss is not finite ends as diverged, see `hpo.training.divergence`.
        metrics: registered metrics, computed over the validation split after every epoch.
        callbacks: called at the start, after every epoch and at the end of each trial, in this order. A trial that has
            ended is reported before the next epoch of its cohort.
        should_stop: called before every step; once it returns true, every trial ends as interrupted and keeps its whole
            epochs.
        record_steps: keep the loss of every step as well, see `Member.record`: callbacks find those of the epoch in
            `member.steps`.
    """

    monitor: str | None = None
    direction: Direction = "maximize"
    objectives: Sequence[str] = ()
    metrics: Sequence[MetricEntry] = ()
    callbacks: Sequence[Callback] = ()
    should_stop: Callable[[], bool] = _never
    record_steps: bool = False

    def resolve(self, config: TrialConfig, validation_samples: int) -> TrainSettings:
        """Return settings whose monitor tells epochs apart, and whose metrics are the registered ones only.

        Args:
            config: one of the configurations in training.
            validation_samples: with none, no metric tells one epoch from another, and the last epoch is the best.
        """
        monitor, direction = self.monitor, self.direction
        if monitor is None or monitor in COST_METRICS:
            monitor, direction = ("val_loss", "minimize") if config.reconstructs else ("val_accuracy", "maximize")
        if not validation_samples:
            monitor, direction = "epoch", "maximize"
        registered = [entry for entry in self.metrics if entry.name not in BUILTIN_METRICS]
        return replace(self, monitor=monitor, direction=direction, metrics=registered)
