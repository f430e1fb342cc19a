"""What those trials cost that are trained one by one: a few steps of some of them, timed, times the steps of all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from hpo.config.cohort_key import run_key
from hpo.config.trial_config import TrialConfig
from hpo.training.data import Data
from hpo.training.learner import ModuleLearner
from hpo.training.member import Member
from hpo.training.schedules import rate_at

__all__ = ["StepCost", "distinct_runs", "estimate_step_cost", "seconds_per_step", "total_seconds"]

SAMPLE = 30  # runs that are measured, at most
STEPS = 5  # of each, after one to warm up
LIMIT = 4.0  # seconds after which no further run is measured


@dataclass(frozen=True)
class StepCost:
    """What trials cost.

    Attributes:
        trials: how many.
        runs: how many runs answer them.
        measured: how many of the runs were measured.
        seconds: of training, all runs one after the other.
    """

    trials: int
    runs: int
    measured: int
    seconds: float


def estimate_step_cost(
    configs: Sequence[TrialConfig],
    data: Data,
    measure: Callable[[TrialConfig, Data], float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> StepCost:
    """What it costs to train configurations one by one, on that device with as many threads as torch has now.

    Args:
        configs: at least one.
        data: what they would be trained on; its split and scaling need not be theirs.
        measure: gives the seconds of a step; by default `seconds_per_step`.
        clock: seconds, from any start.
    """
    runs = sorted(distinct_runs(configs), key=_cost)
    begun, seconds = clock(), dict[int, float]()
    for index in _sample(len(runs)):
        if seconds and clock() - begun > LIMIT:
            break
        seconds[index] = (measure or seconds_per_step)(runs[index], data)
    return StepCost(len(configs), len(runs), len(seconds), total_seconds(runs, data.steps, seconds))


def distinct_runs(configs: Iterable[TrialConfig]) -> list[TrialConfig]:
    """The runs that answer all the configurations: of those that one run answers, the longest."""
    longest: dict[object, TrialConfig] = {}
    for config in configs:
        known = longest.setdefault(run_key(config), config)
        if config.epochs > known.epochs:
            longest[run_key(config)] = config
    return list(longest.values())


def total_seconds(
    runs: Sequence[TrialConfig], steps: Callable[[int], int], seconds_per_step: Mapping[int, float]
) -> float:
    """Seconds of all runs.

    Args:
        runs: in an order in which neighbours cost about the same.
        steps: of an epoch, by batch size.
        seconds_per_step: of the runs that were measured, by index; the others cost as much as the nearest one.
    """
    total = 0.0
    for i, run in enumerate(runs):
        nearest = min(seconds_per_step, key=lambda measured: (abs(measured - i), measured))
        total += seconds_per_step[nearest] * steps(run.batch_size) * run.epochs
    return total


def seconds_per_step(config: TrialConfig, data: Data) -> float:
    """The mean seconds of a configuration's first steps, its batches included."""
    learner = ModuleLearner(Member(config), data.shape, data.classes, data.device)
    total = config.epochs * data.steps(config.batch_size)
    learner.begin_epoch(len(data.y_train), [[rate_at(config, step, total) for step in range(1 + STEPS)]])
    batches = data.batches(config.batch_size, 1)
    learner.step(*next(batches))
    begun, done = time.perf_counter(), 0
    for batch in islice(batches, STEPS):
        learner.step(*batch)
        done += 1
    learner.end_epoch()  # waits for the device
    return (time.perf_counter() - begun) / max(done, 1)


def _cost(config: TrialConfig) -> tuple[object, ...]:
    """What a step's cost depends on most, first."""
    widths = config.hidden_widths
    return config.batch_size, config.model, config.conv_layers, config.channels, len(widths), sum(widths)


def _sample(count: int) -> list[int]:
    """Indices spread evenly over `count`, in an order of which any beginning is spread as well as chance has it."""
    size = min(SAMPLE, count)
    return random.Random(0).sample([(2 * i + 1) * count // (2 * size) for i in range(size)], size)
