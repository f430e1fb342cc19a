"""Cohort size that a device trains well: a short measurement, bounded by memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from hpo.config.cohort_key import stack_key
from hpo.config.model_size import count_units, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.training.data import Data
from hpo.training.learner import EVALUATION_BATCH
from hpo.training.member import Member
from hpo.training.process_state import contain_user_code
from hpo.training.stacked.learner import BLOCK, StackedLearner
from hpo.utils.memory import free_memory

__all__ = ["measure_cohort_size"]

LARGEST = 128
NEARLY_BEST = 0.95  # share of the best speed that will do
TIME_LIMIT = 2.0  # seconds after which no larger cohort is measured
PROBES = 8  # models from whose size the others' is guessed
BUFFERS = 6  # numbers of a unit and sample that a step or an evaluation keeps
COPIES = 6  # of a model's numbers: weights, gradients, two moments, the best epoch's, and a checkpoint's
MEMORY = 0.25  # share of what is free that a cohort may take


@contain_user_code()
def measure_cohort_size(
    configs: Sequence[TrialConfig], data: Data, most: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Measure how many of these configurations to train at once: the least, from 1 on, that is about as fast as any.

    A cohort is measured against its two halves, one after the other, for models differ in what they take; then one of
    twice the size, until two in a row are no faster.

    Args:
        configs: may be one cohort, each a run of its own.
        data: what they are trained on.
        most: an upper bound.
        clock: returns seconds that only grow.
    """
    most = min(most, len(configs), LARGEST)
    if most <= 1 or stack_key(configs[0]) is None:
        return 1
    spread, started = _spread_evenly(configs), clock()
    most = min(most, _count_fitting(_make_learner(spread[:PROBES], data), data))
    size, cost = 1, {1: 1.0}  # of a model's step, by the cohort's size; alone it is 1
    while size < most and clock() - started < TIME_LIMIT:
        half, size = size, min(2 * size, most)
        parts = spread[:size], spread[:half], spread[half:size]
        whole, *halves = (
            _seconds_per_step(_make_learner(part, data), configs[0].batch_size, data, clock) for part in parts
        )
        cost[size] = cost[half] * whole / sum(halves)
        if len(cost) > 2 and min(cost, key=cost.__getitem__) not in list(cost)[-2:]:
            break
    return min(size for size, each in cost.items() if each * NEARLY_BEST <= min(cost.values()))


def _spread_evenly(configs: Sequence[TrialConfig]) -> list[TrialConfig]:
    """Return configurations in an order of which every beginning is spread evenly: neighbours in a grid are alike."""
    golden = (5**0.5 - 1) / 2
    return [config for _, config in sorted(enumerate(configs), key=lambda each: each[0] * golden % 1)]


def _make_learner(configs: Sequence[TrialConfig], data: Data) -> StackedLearner:
    members = [Member(config, number) for number, config in enumerate(configs)]
    return StackedLearner(members, data.shape, data.classes, data.device)


def _seconds_per_step(learner: StackedLearner, batch_size: int, data: Data, clock: Callable[[], float]) -> float:
    """Return the seconds of a step of all models, from the fastest of three blocks: the first warms up the machine."""
    batch = next(data.batches(batch_size, 1))
    blocks: list[float] = []
    for _ in range(3):
        learner.begin_epoch(0, [[0.0] * BLOCK] * len(learner.members))
        started = clock()
        for _ in range(BLOCK):
            learner.step(*batch)
        learner.end_epoch()  # which waits for the device
        blocks.append((clock() - started) / BLOCK)
    return min(blocks)


def _count_fitting(learner: StackedLearner, data: Data) -> int:
    """Return how many such models fit in memory: weights, activations, and the outputs of an evaluation."""
    configs = [member.config for member in learner.members]
    numbers = sum(member.parameter_count for member in learner.members) / len(configs)
    # Narrower ones are padded.
    units = max(count_units(resolve_width(config, data.shape, data.classes), data.shape) for config in configs)
    kept = 2 * len(data.y_val) * data.classes
    if configs[0].reconstructs:  # outputs as large as samples are not kept
        units, kept = units + math.prod(data.shape), 0
    samples = 2 * configs[0].batch_size + EVALUATION_BATCH
    each = 4 * (COPIES * numbers + BUFFERS * units * samples + kept)
    return max(1, int(MEMORY * _free_memory(data.device) / each))


def _free_memory(device: torch.device) -> int:
    """Return the bytes of free memory of a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
