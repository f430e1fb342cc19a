"""Rows of `benchmarks.cohorts` for a GPU: what stacks and their graphs compute first, then how fast they are.

Contenders do the same steps on the same batches, in turns: `graph` is a stack whose steps are recorded as a CUDA graph,
`eager` the same without, `alone` our own loop with one model, and `loader` the loop that people write (see
`benchmarks.cohorts`). A figure is microseconds of a step of one model, the median of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks import own_models
from benchmarks.training import Ours, Pictures, Rival, seconds
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.training.data import Data, prepare_data
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.member import Member
from hpo.training.models import build_model, parameter_count
from hpo.training.stacked.check import why_alone
from hpo.training.stacked.learner import StackedLearner

__all__ = ["ROWS", "print_equality"]

TURN = 0.5  # seconds
STEPS = 12  # that are compared: some as they are, some recorded
CLOSE = 1e-9
ADAM_BYTES = 40  # per parameter and step: weight, gradient and two moments of 4 bytes, read or written 10 times
OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw", "nadam")


class Loop(Protocol):
    """Something that trains."""

    def run(self, steps: int) -> float: ...


def rates(count: int) -> list[float]:
    """Return learning rates that float32 has exactly: torch's fused Adam on CUDA reads a stack's in that type."""
    return [float(np.float32(rate)) for rate in np.geomspace(1e-4, 1e-2, count)]


def dense(count: int) -> list[TrialConfig]:
    return [TrialConfig(widths="512-256", batch_size=128, learning_rate=rate) for rate in rates(count)]


def convolutional(count: int, channels: int) -> list[TrialConfig]:
    return [TrialConfig(model="cnn", channels=channels, batch_size=128, learning_rate=rate) for rate in rates(count)]


def own(model: str, count: int) -> list[TrialConfig]:
    return [TrialConfig(model=model, width=64, batch_size=128, learning_rate=rate) for rate in rates(count)]


def table(device: torch.device, config: TrialConfig) -> Data:
    """Return a table of random numbers, for the models of `benchmarks.own_models`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, own_models.FEATURES)).astype(np.float32)
    return prepare_data(Dataset((x, rng.integers(0, own_models.CLASSES, len(x))), classes=3), config, device)


def make_stack(configs: Sequence[TrialConfig], data: Data, *, graph: bool) -> StackedLearner:
    members = [Member(config, number) for number, config in enumerate(configs)]
    return StackedLearner(members, data.shape, data.classes, data.device, graph=graph)


# Equality.


def print_equality(data: Data) -> None:
    """Print how far stacks are from their models alone in float64; end with an error where that is too far.

    Raises:
        SystemExit: a stack computes something else.
    """
    shapes = [{"widths": "64-32"}, {"widths": "48"}, {"widths": "64-32", "activation": "tanh"}]
    mixed = [{"learning_rate": rate, **shape} for rate, shape in zip(rates(3), shapes, strict=True)]
    kinds = {f"mlp, {name}": [TrialConfig(optimizer=name, **each) for each in mixed] for name in OPTIMIZERS}
    kinds["mlp with batch norm"] = [TrialConfig(batch_norm=True, optimizer="momentum", **each) for each in mixed]
    kinds["cnn"] = convolutional(3, 4)
    kinds |= {model: own(model, 3) for model in ("own_tabular", "own_transformer")}
    wrong: list[str] = []
    print("largest difference from the models alone, in float64, without and with graphs:")
    for name, configs in kinds.items():
        plain = [config.model_copy(update={"dropout": 0.0, "batch_size": 32}) for config in configs]
        on = table(data.device, plain[0]) if name.startswith("own") else data
        found = [compare(plain, on, graph=graph) for graph in (False, True)]
        print(f"    {name:20} {found[0]:9.1e} {found[1]:9.1e}", flush=True)
        wrong += [name] if not max(found) <= CLOSE else []
    if wrong:
        raise SystemExit(f"benchmarks.cohorts: {', '.join(wrong)}: differ by more than {CLOSE:g} from the models alone")


@contextmanager
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def compare(configs: Sequence[TrialConfig], data: Data, *, graph: bool) -> float:
    """Return the largest difference of weights after some steps, as a share of the largest weight where that is > 1."""
    with float64():
        doubled = replace(data, x_train=data.x_train[:1024].double(), y_train=data.y_train[:1024])
        stack = make_stack(configs, doubled, graph=graph)
        run_steps(stack, doubled)
        worst = 0.0
        for member in stack.members:
            alone = ModuleLearner(Member(member.config), doubled.shape, doubled.classes, doubled.device)
            run_steps(alone, doubled)
            expected, found = alone.weights(alone.members[0]), stack.weights(member)
            worst = max(worst, *(difference(found[name], each) for name, each in expected.items()))
    return worst


def difference(found: Tensor, expected: Tensor) -> float:
    gap = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1)
    return float(gap) if gap.isfinite() else float("inf")


def run_steps(learner: Learner, data: Data) -> None:
    learner.begin_epoch(len(data.y_train), [[member.config.learning_rate] * STEPS for member in learner.members])
    batches = data.batches(learner.members[0].config.batch_size, 1, learner.room)
    for _, batch in zip(range(STEPS), batches, strict=False):
        learner.step(*batch)
    learner.end_epoch()


# Speed.


def time_in_turns(contenders: Mapping[str, tuple[Loop, int]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a step of one model of each contender, by round; each is a loop and its models."""
    steps: dict[str, int] = {}
    for name, (loop, _) in contenders.items():
        loop.run(8)  # which records
        steps[name] = max(2, min(400, round(8 * TURN / max(1e-6, seconds(partial(loop.run, 8))))))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders) if turn % 2 else reversed(list(contenders)):
            loop, models = contenders[name]
            times[name].append(seconds(partial(loop.run, steps[name])) / steps[name] / models)
    return times


def print_row(name: str, times: Mapping[str, Sequence[float]], first: str) -> None:
    """Print the medians, and how many times the first one's each other is, with the least and the largest round."""
    parts = [f"{each} {statistics.median(own) * 1e6:.1f}" for each, own in times.items()]
    for each, own in times.items():
        if each != first:
            ratios = sorted(other / fast for other, fast in zip(own, times[first], strict=True))
            middle = statistics.median(ratios)
            parts.append(f"{each}/{first} {middle:.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f})")
    print(f"{name}: {', '.join(parts)}", flush=True)


def dense_row(data: Data, pictures: Pictures, rounds: int) -> None:
    """64 MLPs 512-256 with Adam at batch 128, and what the memory's bandwidth allows."""
    cohort = dense(64)
    contenders: dict[str, tuple[Loop, int]] = {
        "graph": (Ours(make_stack(cohort, data, graph=True), data), len(cohort)),
        "eager": (Ours(make_stack(cohort, data, graph=False), data), len(cohort)),
        "alone": (Ours(ModuleLearner(Member(cohort[32]), data.shape, data.classes, data.device), data), 1),
        "loader": (Rival(cohort[32], pictures, data.shape, data.device), 1),
    }
    times = time_in_turns(contenders, rounds)
    print_row("64 MLPs 512-256, batch 128", times, "graph")
    if data.device.type == "cuda":
        parameters = parameter_count(build_model(cohort[0], data.shape, 10))
        bound = copy_bandwidth(data.device) / (ADAM_BYTES * parameters)
        reached = 1 / statistics.median(times["graph"])
        print(
            f"    steps of a model per second: {reached:.0f} of {bound:.0f} by bytes, {reached / bound:.0%}", flush=True
        )


def convolution_rows(data: Data, _: Pictures, rounds: int) -> None:
    """Stacks of small CNNs, also with their samples in the layout channels last."""
    for count, channels in ((16, 8), (16, 32), (64, 8)):
        compare_modules(f"{count} CNNs, {channels} channels, batch 128", convolutional(count, channels), data, rounds)


def own_rows(data: Data, _: Pictures, rounds: int) -> None:
    """Models of one's own: the tabular network and the transformer of `benchmarks.own_models`."""
    for model in ("own_tabular", "own_transformer"):
        cohort = own(model, 16)
        compare_modules(f"16 of {model}, width 64, batch 128", cohort, table(data.device, cohort[0]), rounds)


def compare_modules(name: str, cohort: Sequence[TrialConfig], data: Data, rounds: int) -> None:
    contenders: dict[str, tuple[Loop, int]] = {
        "graph": (Ours(make_stack(cohort, data, graph=True), data), len(cohort)),
        "eager": (Ours(make_stack(cohort, data, graph=False), data), len(cohort)),
        "alone": (Ours(ModuleLearner(Member(cohort[0]), data.shape, data.classes, data.device), data), 1),
    }
    if len(data.shape) == 3:
        stack = make_stack(cohort, data, graph=True)
        stack.set_layout(torch.channels_last)
        contenders["channels last"] = Ours(stack, data), len(cohort)
    print_row(name, time_in_turns(contenders, rounds), "graph")
    why = why_alone(cohort[0], data)
    print(f"    a worker stacks them: {'yes' if why is None else f'no, {why}'}", flush=True)


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second that a copy within the device's memory reads and writes: the best of ten."""
    source = torch.empty(1 << 28, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize(device)

    copy()
    return 2 * source.nbytes / min(seconds(copy) for _ in range(10))


ROWS: Mapping[str, Callable[[Data, Pictures, int], None]] = {
    "dense": dense_row,
    "convolutions": convolution_rows,
    "own": own_rows,
}
