"""Settings of a training run: what it measures, whom it tells, and when it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hpo.config import registry
from hpo.config.builtin_metrics import default_metric
from hpo.config.registry import Direction, MetricEntry
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
            metric that does not tell one epoch from another (parameter_count, train_seconds), leave that to the
            default of the task: val_accuracy, val_f1_macro or val_r2; or to val_loss where the model reconstructs its
            input.
        direction: whether a larger or a smaller monitor is better.
        objectives: names of the study's objectives, the first one first; by default the monitor alone. A trial whose
            monitor, objective or loss is not finite ends as diverged, see `hpo.training.divergence`.
        metrics: built-in and registered metrics, computed over the validation split after every epoch.
        callbacks: called at the start, after every epoch and at the end of each trial, in this order. A trial that has
            ended is reported before the next epoch of its cohort.
        should_stop: called before every step; once it returns true, every trial ends as interrupted and keeps its whole
            epochs.
        record_steps: keep the loss of every step as well, see `Member.record`: callbacks find those of the epoch in
            `member.steps`.
        sample_scores: keep what the monitor needs of each validation sample, see `hpo.training.sample_scores`.
        may_stack: whether trials of a configuration may be stacked, asked of the user's own models that two
            or more trials share before they are checked.
    """

    monitor: str | None = None
    direction: Direction = "maximize"
    objectives: Sequence[str] = ()
    metrics: Sequence[MetricEntry] = ()
    callbacks: Sequence[Callback] = ()
    should_stop: Callable[[], bool] = _never
    record_steps: bool = False
    sample_scores: bool = False
    may_stack: Callable[[TrialConfig], bool] | None = None

    def resolve(self, config: TrialConfig, validation_samples: int) -> TrainSettings:
        """Return settings whose monitor tells epochs apart, and whose metrics are those that have a function.

        Args:
            config: one of the configurations in training.
            validation_samples: with none, no metric tells one epoch from another, and the last epoch is the best.
        """
        settings = self.choose_monitor(config) if self.monitor is None or self.monitor in COST_METRICS else self
        if not validation_samples:
            settings = replace(settings, monitor="epoch", direction="maximize")
        return replace(settings, metrics=[entry for entry in settings.metrics if not entry.measured])

    def choose_monitor(self, config: TrialConfig) -> TrainSettings:
        """Return settings whose monitor is the default metric of the configuration's task, and among the metrics."""
        entry = registry.metrics.get(default_metric(config.task, reconstructs=config.reconstructs))
        known = entry.measured or entry in self.metrics or registry.models.get(config.model).loop
        metrics = self.metrics if known else (*self.metrics, entry)
        return replace(self, monitor=entry.name, direction=entry.direction, metrics=metrics)
