"""Measurement of what a stack of own models gains over training them one at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.data import Data
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.member import Member
from hpo.training.models import parameter_count
from hpo.training.process_state import contain_user_code
from hpo.training.stacked.learner import StackedLearner

__all__ = ["Clock", "Timing", "change_seed", "measure_gain"]

MEMBERS = 8  # that are measured
LARGE = 4_000_000  # numbers of a model that keeps a processor busy on its own
STEPS, ROUNDS, SECONDS = 4, 3, 1.0  # of a measurement
Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """Timing of a step of one member.

    Attributes:
        alone: seconds of a step of one model alone.
        stacked: seconds of a step of a stack, divided by its members.
    """

    alone: float
    stacked: float

    @property
    def gain(self) -> float:
        """Speed of a stack, against one at a time."""
        return self.alone / self.stacked


def change_seed(config: TrialConfig, index: int) -> TrialConfig:
    """Return a configuration with other initial weights and noise, for an index above 0."""
    seed = (config.seed_of_init + index) % 2**32
    return config.model_copy(update={"seed": seed, "init_seed": None, "order_seed": None})


@contain_user_code()
def measure_gain(config: TrialConfig, data: Data, x: Tensor, y: Tensor, clock: Clock | None = None) -> Timing | None:
    """Measure steps alone and in a stack, in turns, the fastest of three each; None for a model too large to ask.

    Args:
        config: of the model.
        data: gives the shapes and the device.
        x, y: a batch.
        clock: see `why_alone`.
    """
    clock = clock or (time.process_time if data.device.type == "cpu" else time.perf_counter)
    alone = ModuleLearner(Member(config), data.shape, data.classes, data.device)
    if parameter_count(alone.module) > LARGE and data.device.type == "cpu":
        return None
    members = [Member(change_seed(config, index), index) for index in range(MEMBERS)]
    stacked = StackedLearner(members, data.shape, data.classes, data.device)
    learners: tuple[Learner, Learner] = alone, stacked
    best = [math.inf, math.inf]
    begun = clock()
    for turn in range(1 + ROUNDS):
        for index, learner in enumerate(learners):
            steps = STEPS if turn else 1  # the first warms up
            seconds = _seconds_per_step(learner, x, y, steps, clock) / len(learner.members)
            best[index] = min(best[index], seconds)
        if clock() - begun > SECONDS:
            break
    return Timing(*best)


def _seconds_per_step(learner: Learner, x: Tensor, y: Tensor, steps: int, clock: Clock) -> float:
    learner.begin_epoch(steps * len(x), [[1e-6] * steps] * len(learner.members))
    begun = clock()
    for _ in range(steps):
        learner.step(x, y)
    learner.end_epoch()  # which waits for the device
    return (clock() - begun) / steps
