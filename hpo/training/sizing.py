"""How many models a device trains well at once: a short measurement, bounded by memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import torch

from hpo.cohorts import shared
from hpo.config import TrialConfig
from hpo.training.data import Data
from hpo.training.member import Member
from hpo.training.stacked import BLOCK, StackedLearner

__all__ = ["cohort_size"]

LARGEST = 128
ENOUGH = 0.95  # share of the best speed that will do
LONGEST = 1.0  # seconds of one measurement, after which no larger one is begun
COPIES = 6  # of a model's numbers: weights, gradients, two moments, the best epoch's, and a checkpoint's
MEMORY = 0.25  # share of what is free that a cohort may take


def cohort_size(
    configs: Sequence[TrialConfig], data: Data, most: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """How many of these configurations to train at once, at least 1: the least that is about as fast as any number.

    Sizes are doubled until two in a row bring nothing.

    Args:
        configs: that may be one cohort, each a run of its own.
        data: what they are trained on.
        most: an upper bound.
        clock: seconds that only grow.
    """
    most = min(most, len(configs), LARGEST)
    if most <= 1 or shared(configs[0]) is None:
        return 1
    seconds: dict[int, float] = {}  # of one model's step, by the cohort's size
    size = 1
    while len(seconds) < 3 or min(seconds, key=seconds.__getitem__) in list(seconds)[-2:]:
        learner = _learner(configs[:size], data)
        spent = _seconds(learner, configs[0].batch_size, data, clock)
        seconds[size] = spent / size
        largest = min(most, _fitting(learner, data))
        if size >= largest or spent * BLOCK > LONGEST:
            break
        size = min(2 * size, largest)
    return min(size for size, each in seconds.items() if each * ENOUGH <= min(seconds.values()))


def _learner(configs: Sequence[TrialConfig], data: Data) -> StackedLearner:
    members = [Member(config, number) for number, config in enumerate(configs)]
    return StackedLearner(members, data.shape, data.classes, data.device)


def _seconds(learner: StackedLearner, batch_size: int, data: Data, clock: Callable[[], float]) -> float:
    """Of a step of all models: from the fastest of three blocks, for the first warms up, and others use the machine."""
    x, y = next(data.batches(batch_size, 1))
    blocks: list[float] = []
    for _ in range(3):
        learner.begin_epoch(0, [[0.0] * BLOCK] * len(learner.members))
        begun = clock()
        for _ in range(BLOCK):
            learner.step(x, y)
        learner.end_epoch()  # which waits for the device
        blocks.append((clock() - begun) / BLOCK)
    return min(blocks)


def _fitting(learner: StackedLearner, data: Data) -> int:
    """How many such models the memory has room for, the outputs of an evaluation included."""
    numbers = sum(member.parameter_count for member in learner.members) / len(learner.members)
    each = 4 * (COPIES * numbers + 2 * len(data.y_val) * data.classes)
    return max(1, int(MEMORY * _free(data.device) / each))


def _free(device: torch.device) -> int:
    """Bytes of memory that are free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
