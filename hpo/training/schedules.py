"""Learning rates of steps."""

from __future__ import annotations

from hpo.config.choices import SCHEDULES
from hpo.config.trial_config import TrialConfig

__all__ = ["epoch_rates", "rate_at"]


def rate_at(config: TrialConfig, step: int, steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`; `step == steps` is the step after the last.

    The first W = warmup * steps steps rise linearly, rate * (step + 1) / W; the schedule runs over the rest. Where it
    decays, the step after the last has exactly `config.final_rate`.
    """
    schedule = SCHEDULES[config.schedule]
    warmup = min(round(config.warmup * steps), steps - 1) if schedule.takes_warmup else 0
    if step < warmup:
        return config.learning_rate * ((step + 1) / warmup)
    return schedule.rate(config.learning_rate, config.final_rate, (step - warmup) / (steps - warmup))


def epoch_rates(config: TrialConfig, which: range, steps: int) -> list[float]:
    """Return the learning rates of the steps in `which`, of `steps` in all."""
    if config.schedule == "constant" and not config.warmup:
        return [config.learning_rate] * len(which)
    return [rate_at(config, step, steps) for step in which]
