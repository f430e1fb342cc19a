"""How many models a device trains well at once: a short measurement, bounded by memory."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hpo.config.cohort_key import stack_key
from hpo.config.model_size import resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.training.data import Data
from hpo.training.learner import EVALUATION_BATCH
from hpo.training.member import Member
from hpo.training.stacked.learner import BLOCK, StackedLearner

__all__ = ["measure_cohort_size"]

LARGEST = 128
ENOUGH = 0.95  # share of the best speed that will do
LONGEST = 2.0  # seconds after which no larger cohort is measured
FEW = 8  # models from whose size the others' is guessed
ROOMS = 6  # numbers of a unit and sample that a step or an evaluation keeps
COPIES = 6  # of a model's numbers: weights, gradients, two moments, the best epoch's, and a checkpoint's
UNKNOWN = 4 << 30  # bytes that are taken for free where the system does not say
MEMORY = 0.25  # share of what is free that a cohort may take


def measure_cohort_size(
    configs: Sequence[TrialConfig], data: Data, most: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """How many of these configurations to train at once, at least 1: the least that is about as fast as any number.

    A cohort is measured against its two halves, one after the other, for models differ in what they take; then one of
    twice the size, until two in a row are no faster.

    Args:
        configs: that may be one cohort, each a run of its own.
        data: what they are trained on.
        most: an upper bound.
        clock: seconds that only grow.
    """
    most = min(most, len(configs), LARGEST)
    if most <= 1 or stack_key(configs[0]) is None:
        return 1
    spread, begun = _spread(configs), clock()
    most = min(most, _fitting(_learner(spread[:FEW], data), data))
    size, cost = 1, {1: 1.0}  # of a model's step, by the cohort's size; alone it is 1
    while size < most and clock() - begun < LONGEST:
        half, size = size, min(2 * size, most)
        parts = spread[:size], spread[:half], spread[half:size]
        spent, *apart = (_seconds(_learner(part, data), configs[0].batch_size, data, clock) for part in parts)
        cost[size] = cost[half] * spent / sum(apart)
        if len(cost) > 2 and min(cost, key=cost.__getitem__) not in list(cost)[-2:]:
            break
    return min(size for size, each in cost.items() if each * ENOUGH <= min(cost.values()))


def _spread(configs: Sequence[TrialConfig]) -> list[TrialConfig]:
    """In an order of which every beginning is spread evenly: neighbours in a grid are alike."""
    golden = (5**0.5 - 1) / 2
    return [config for _, config in sorted(enumerate(configs), key=lambda each: each[0] * golden % 1)]


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
    """How many such models the memory has room for: weights, activations, and the outputs of an evaluation."""
    configs = [member.config for member in learner.members]
    numbers = sum(member.parameter_count for member in learner.members) / len(configs)
    # Narrower ones are padded.
    units = max(sum(resolve_width(config, data.shape, data.classes).hidden_widths) for config in configs)
    kept = 2 * len(data.y_val) * data.classes
    if configs[0].reconstructs:  # outputs as large as samples are not kept
        units, kept = units + math.prod(data.shape), 0
    samples = 2 * configs[0].batch_size + EVALUATION_BATCH
    each = 4 * (COPIES * numbers + ROOMS * units * samples + kept)
    return max(1, int(MEMORY * _free(data.device) / each))


def _free(device: torch.device) -> int:
    """Bytes of memory that are free: on a CPU those of the machine, or of the container where that has fewer."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = re.search(r"MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"))
    bounds = [int(available[1]) * 1024] if available else []
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        bounds.append(int(limit) - int(used))
    return min(bounds, default=UNKNOWN)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
