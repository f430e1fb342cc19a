"""Learning rates of steps.

A schedule begins where the warm-up ends, as in torch's `SequentialLR`. `linear`, `exponential`, `cosine`, `one_cycle`
and `polynomial` run over all steps that are left; the others count epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from hpo.config.choices import FINAL, SCHEDULES
from hpo.config.parameter_table.schedule_parameters import ScheduleParameters
from hpo.config.registry import Direction
from hpo.config.trial_config import TrialConfig
from hpo.training.stagnation import count_falls

__all__ = ["epoch_rates", "falls_so_far", "plateau_patience", "rate_at", "rate_key"]


def rate_at(config: TrialConfig, step: int, steps: int, falls: int = 0) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`; `step == steps` is the step after the last.

    The first W steps rise linearly, rate * (step + 1) / W. Where a schedule decays to it, the step after the last has
    exactly `config.final_rate`.

    Args:
        config: with the schedule and the warm-up.
        step: of the optimizer.
        steps: of all epochs, each of which has as many.
        falls: how often the rate has fallen so far, under `reduce_on_plateau`; see `falls_so_far`.
    """
    warmup = _warmup_steps(config, steps)
    rising = (step + 1) / warmup if step < warmup else 1.0
    if config.schedule == "reduce_on_plateau":
        # It falls to the final rate; one that begins below that stays where it is.
        lowest = min(config.final_learning_rate or 0.0, config.learning_rate)
        return max(_fallen_rate(config, falls), lowest) * rising
    if step < warmup:
        return config.learning_rate * rising
    if config.schedule == "constant":
        return config.learning_rate
    if config.ends_at_final_rate:
        return CURVES[config.schedule](config, (step - warmup) / max(1, steps - warmup))
    return EPOCH_RATES[config.schedule](config, step - warmup, _steps_per_epoch(config, steps))


def epoch_rates(config: TrialConfig, which: Sequence[int], steps: int, falls: int = 0) -> list[float]:
    """Return the learning rates of the steps in `which`, of `steps` in all; see `rate_at`."""
    if config.schedule == "constant" and not _warmup_steps(config, steps):
        return [config.learning_rate] * len(which)
    return [rate_at(config, step, steps, falls) for step in which]


def falls_so_far(config: TrialConfig, rows: Iterable[Mapping[str, float]], monitor: str, direction: Direction) -> int:
    """Return how often the rate of `reduce_on_plateau` has fallen, and 0 under another schedule.

    Args:
        config: with its patience.
        rows: of metrics, one an epoch.
        monitor, direction: what is watched. Where that is `epoch`, for there are no validation samples, it is the loss
            of training.
    """
    if config.schedule != "reduce_on_plateau":
        return 0
    if monitor == "epoch":
        monitor, direction = "train_loss", "minimize"
    values = (row[monitor] for row in rows if monitor in row)
    return count_falls(values, direction, config.min_delta or 0.0, plateau_patience(config))


def plateau_patience(config: TrialConfig) -> int:
    """Return the epochs without an improvement that `reduce_on_plateau` allows."""
    return -(-config.epochs // 10) if config.plateau_patience is None else config.plateau_patience


def rate_key(config: TrialConfig) -> Hashable | None:
    """Return a key that is equal for trials of the same rates at each step.

    None where the rates are a trial's own: under `reduce_on_plateau`, and in a loop of the user's own, which may give
    them at each step.
    """
    if config.schedule == "reduce_on_plateau" or config._models.get(config.model).loop:
        return None
    names = [name for name in ScheduleParameters.model_fields if name not in FINAL]
    return config.learning_rate, config.final_rate, config.epochs, *(getattr(config, name) for name in names)


def _warmup_steps(config: TrialConfig, steps: int) -> int:
    """Return the steps of the warm-up; given as steps or epochs, it may be longer than training."""
    if not SCHEDULES[config.schedule].takes_warmup:
        return 0
    if config.warmup_steps is not None:
        return config.warmup_steps
    if config.warmup_epochs is not None:
        return round(config.warmup_epochs * _steps_per_epoch(config, steps))
    return min(round(config.warmup * steps), steps - 1)


def _steps_per_epoch(config: TrialConfig, steps: int) -> int:
    return max(1, steps // config.epochs)


def _third(config: TrialConfig) -> int:
    return -(-config.epochs // 3)


# Over all steps: of progress, which is 0 at the first step and 1 one past the last. Each is a weighted form that
# returns the final rate exactly at progress 1, in floating point too.


def _linear(config: TrialConfig, progress: float) -> float:
    return config.learning_rate * (1 - progress) + config.final_rate * progress


def _exponential(config: TrialConfig, progress: float) -> float:
    falling: float = config.learning_rate ** (1 - progress) * config.final_rate**progress
    return falling


def _cosine(config: TrialConfig, progress: float) -> float:
    return _half_cosine(config.learning_rate, config.final_rate, progress)


def _half_cosine(start: float, final: float, progress: float) -> float:
    weight = (1 + math.cos(math.pi * progress)) / 2
    return start * weight + final * (1 - weight)


def _one_cycle(config: TrialConfig, progress: float) -> float:
    """Rise by a cosine from 1/25 of the rate in the first 30 % of the steps, then fall (Smith and Topin, 2018)."""
    peak = 0.3
    if progress < peak:
        return _half_cosine(config.learning_rate / 25, config.learning_rate, progress / peak)
    return _half_cosine(config.learning_rate, config.final_rate, (progress - peak) / (1 - peak))


def _polynomial(config: TrialConfig, progress: float) -> float:
    """Decay as `torch.optim.lr_scheduler.PolynomialLR`, to a final rate of any size."""
    weight: float = (1 - progress) ** config.polynomial_power
    return config.learning_rate * weight + config.final_rate * (1 - weight)


CURVES: Mapping[str, Callable[[TrialConfig, float], float]] = {
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "polynomial": _polynomial,
}


# By epochs: of the step, from the end of the warm-up, and the steps of an epoch.


def _decay_by_gamma(config: TrialConfig, step: int, per_epoch: int) -> float:
    """Decay from epoch to epoch as `torch.optim.lr_scheduler.ExponentialLR`."""
    return _fallen_rate(config, step // per_epoch)


def _fall_in_steps(config: TrialConfig, step: int, per_epoch: int) -> float:
    """Decay as `torch.optim.lr_scheduler.StepLR`."""
    return _fallen_rate(config, step // per_epoch // (config.step_epochs or _third(config)))


def _fallen_rate(config: TrialConfig, falls: int) -> float:
    factor: float = (config.gamma or 1.0) ** falls
    return config.learning_rate * factor


def _restart(config: TrialConfig, step: int, per_epoch: int) -> float:
    """Decay and restart as `CosineAnnealingWarmRestarts` of torch, from step to step (Loshchilov and Hutter, 2017)."""
    length = (config.restart_epochs or _third(config)) * per_epoch
    if config.restart_factor == 1:
        step %= length
    while step >= length:
        step, length = step - length, length * config.restart_factor
    return _half_cosine(config.learning_rate, config.final_rate, step / length)


EPOCH_RATES: Mapping[str, Callable[[TrialConfig, int, int], float]] = {
    "exponential": _decay_by_gamma,
    "step": _fall_in_steps,
    "cosine_restarts": _restart,
}
