"""Cohort sizes that a device trains well: short measurements, and what fits in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from itertools import chain

import torch

from hpo.config import registry
from hpo.config.cohort_key import stack_key
from hpo.config.model_size import count_units, is_dense, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.training.data import Data, samples_key
from hpo.training.learner import EVALUATION_BATCH, Learner
from hpo.training.member import Member
from hpo.training.models import build_model, parameter_count
from hpo.training.process_state import contain_user_code
from hpo.training.stack_run import make_learner
from hpo.training.stacked.learner import BLOCK, CLASS
from hpo.training.stacked.optimizers import optimizer_family
from hpo.utils.memory import free_memory

__all__ = ["count_fitting", "likeness", "measure_cohort_size", "measure_speeds"]

LARGEST = 128  # that is tried on a CPU; a GPU is filled by many more small models, as long as they fit in its memory
NEARLY_BEST = 0.95  # share of the best speed that will do
# Seconds after which no larger cohort is measured: this share of the training that it is for, within these bounds.
SHARE, LEAST, TIME_LIMIT = 0.05, 0.2, 2.0
PROBES = 8  # models from whose size, or speed, the others' is guessed
BUFFERS = 6  # numbers of a unit and sample that a step or an evaluation keeps
COPIES = 6  # of a model's numbers: weights, gradients, two moments, the best epoch's, and a checkpoint's
MEMORY = 0.25  # share of what is free that a cohort may take


def likeness(config: TrialConfig, shape: tuple[int, ...], classes: int, device: str = "cpu") -> Hashable:
    """Return a key that is equal for stackable configurations whose models make a stack that pays.

    They share an optimizer's family and a loss. Dense networks have about one width, other models the same parts.

    Args:
        config: of a model that can be stacked.
        shape: of one sample.
        classes: of the data.
        device: the type of the device that trains it.
    """
    common = stack_key(config, device), optimizer_family(config), config.averaging, config.loss
    values = config.effective()
    if is_dense(config, shape):
        widest = max(resolve_width(config, shape, classes).hidden_widths, default=0)
        return *common, values.get("batch_norm"), -(-widest // CLASS)
    entry = registry.models.get(config.model)
    parts = entry.uses - {"dropout"}
    return *common, *((name, str(value)) for name, value in values.items() if name in parts)


@contain_user_code()
def measure_cohort_size(
    configs: Sequence[TrialConfig], data: Data, most: int, clock: Callable[[], float] | None = None
) -> int:
    """Measure how many of these configurations to train at once: the least, from 1 on, that is about as fast as any.

    A cohort is measured against its two halves, one after the other, for models differ in what they take; then one of
    twice the size, until two in a row are no faster.

    Args:
        configs: may be one stack, each a run of its own.
        data: what they are trained on.
        most: an upper bound.
        clock: returns seconds that only grow; by default the best that the device allows.
    """
    most = min(most, len(configs))
    if data.device.type == "cpu":
        most = min(most, LARGEST)
    if most <= 1 or stack_key(configs[0], data.device.type) is None:
        return 1
    most = min(most, count_fitting(configs, data))
    clock = clock or _choose_clock(data.device)
    spread, time_limit = _spread_evenly(configs), TimeLimit(clock)
    size, cost = 1, {1: 1.0}  # of a model's epoch, by the cohort's size; alone it is 1
    while size < most and not time_limit.reached:
        half, size = size, min(2 * size, most)
        parts = spread[:size], spread[:half], spread[half:size]
        whole, *halves = (_seconds_per_epoch(part, data, clock) for part in parts)
        time_limit.estimate(halves[0] / half, configs)
        cost[size] = cost[half] * whole / sum(halves)
        if len(cost) > 2 and min(cost, key=cost.__getitem__) not in list(cost)[-2:]:
            break
    return min(size for size, each in cost.items() if each * NEARLY_BEST <= min(cost.values()))


@contain_user_code()
def measure_speeds(
    draws: Sequence[Sequence[TrialConfig]],
    data: Data,
    most: int,
    trials: int,
    clock: Callable[[], float] | None = None,
) -> dict[int, float]:
    """Measure how many times as fast as one at a time cohorts of random configurations are trained, by their size.

    Args:
        draws: of trials drawn at random, whose models can be stacked, the configuration of each fit; at least `most`.
        data: what they are trained on.
        most: the largest size.
        trials: how many are to be trained, which bounds the time that measuring is worth.
        clock: returns seconds that only grow; by default the best that the device allows.

    Returns:
        The speeds of 1, 2, 4, … up to `most`; fewer where the time is up, or two in a row are no faster.
    """
    clock = clock or _choose_clock(data.device)
    time_limit, speeds = TimeLimit(clock), {1: 1.0}
    alone: list[float] = []
    while len(speeds) < 3 or max(speeds, key=speeds.__getitem__) in list(speeds)[-2:]:
        size = min(2 * list(speeds)[-1], most)
        count = max(size, PROBES // size * size)
        if size in speeds or count > len(draws):
            break
        for fits in draws[len(alone) : count]:
            alone.append(_seconds_per_epoch(fits, data, clock))
            time_limit.estimate(sum(alone) / len(alone), [fits[0]] * trials)
            if time_limit.reached:
                return speeds
        cohorts = (list(chain(*draws[start : start + size])) for start in range(0, count, size))
        speeds[size] = sum(alone[:count]) / sum(_seconds_per_epoch(cohort, data, clock) for cohort in cohorts)
        if time_limit.reached:
            break
    return speeds


def _choose_clock(device: torch.device) -> Callable[[], float]:
    """Return the clock to use: this thread's own, if it does all the work, stands still while other processes run."""
    return time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


class TimeLimit:
    """Time limit of a measurement, from now on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._started, self._seconds = clock, clock(), TIME_LIMIT

    def estimate(self, seconds: float, configs: Sequence[TrialConfig]) -> None:
        """Set it to a share of the training of these configurations, of which an epoch takes so many seconds each."""
        share = SHARE * seconds * sum(config.epochs for config in configs)
        self._seconds = min(TIME_LIMIT, max(LEAST, share))

    @property
    def reached(self) -> bool:
        """True once the time is up."""
        return self._clock() - self._started >= self._seconds


def _seconds_per_epoch(configs: Sequence[TrialConfig], data: Data, clock: Callable[[], float]) -> float:
    """Return the seconds that the steps of an epoch take, stack after stack."""
    stacks: dict[object, list[TrialConfig]] = {}
    for config in configs:
        stacks.setdefault(stack_key(config, data.device.type), []).append(config)
    return sum(
        data.steps(stack[0].batch_size)
        * _seconds_per_step(_make_learner(stack, data), stack[0].batch_size, data, clock)
        for stack in stacks.values()
    )


def _make_learner(configs: Sequence[TrialConfig], data: Data) -> Learner:
    return make_learner([Member(config, number) for number, config in enumerate(configs)], data)


def _seconds_per_step(learner: Learner, batch_size: int, data: Data, clock: Callable[[], float]) -> float:
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


@contain_user_code()
def count_fitting(configs: Sequence[TrialConfig], data: Data) -> int:
    """Return how many such models fit in memory: weights, activations, the outputs of an evaluation, and the splits of
    the data that differ.
    """
    configs = _spread_evenly(configs)[:PROBES]
    counts = [parameter_count(build_model(config, data.shape, data.classes)) for config in configs]
    numbers = sum(counts) / len(configs)
    # Narrower ones are padded.
    units = max(count_units(resolve_width(config, data.shape, data.classes), data.shape) for config in configs)
    kept = 2 * len(data.y_val) * data.classes
    if configs[0].reconstructs:  # outputs as large as samples are not kept
        units, kept = units + math.prod(data.shape), 0
    samples = 2 * max(config.batch_size for config in configs) + EVALUATION_BATCH
    # Where all are trained on the same split, it is there already.
    splits = (len({samples_key(config) for config in configs}) - 1) / max(1, len(configs) - 1)
    each = 4 * (COPIES * numbers + BUFFERS * units * samples + kept) + splits * data.nbytes
    return max(1, int(MEMORY * _free_memory(data.device) / each))


def _spread_evenly(configs: Sequence[TrialConfig]) -> list[TrialConfig]:
    """Return configurations in an order of which every beginning is spread evenly: neighbours in a grid are alike."""
    golden = (5**0.5 - 1) / 2
    return [config for _, config in sorted(enumerate(configs), key=lambda each: each[0] * golden % 1)]


def _free_memory(device: torch.device) -> int:
    """Return the bytes of free memory of a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
