"""Benchmark of one trial's training: our loop beside the loop people write, in one process, on real MNIST.

    python benchmarks/training.py [--rounds 5] [--steps 100]

The rival is a torch `Dataset` that returns one normalised sample from a PIL image, a `DataLoader(shuffle=True)`, and
`loss.item()` at every step. Both train the same model from the same initial weights at batch size 128, in turns:
each round times a number of steps of one, then of the other, and the ratio is the median over the rounds. Seconds per
epoch are extrapolated from those steps to the 391 of an epoch of 50,000 samples; validation is in neither. The
allocator's setting that our loop makes holds for the process, so the rival gains from it too.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from hpo import datasets
from hpo.config import registry
from hpo.config.choices import OPTIMIZERS
from hpo.config.trial_config import TrialConfig
from hpo.training.data import Data, TrainBatch, prepare_data
from hpo.training.learner import Learner
from hpo.training.member import Member
from hpo.training.memory import keep_freed_memory
from hpo.training.models import build_model
from hpo.training.schedules import rate_at
from hpo.training.stack_run import make_learner

CPU = torch.device("cpu")
BATCH = 128
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's pixels, as everybody writes them


@dataclass(frozen=True)
class Case:
    name: str
    config: TrialConfig
    target: float
    steps: int


def cases(steps: int) -> list[Case]:
    sgd = {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": BATCH}
    return [
        Case("MLP 512-256", TrialConfig(widths="512-256", **sgd), 3.5, steps),
        Case("MLP 2x50", TrialConfig(depth=2, width=50, **sgd), 12.0, steps),
        Case("CNN 32-64", TrialConfig(model="cnn", conv_layers=2, channels=32, **sgd), 1.6, max(10, steps // 4)),
    ]


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """Data set that does what torchvision's MNIST with ToTensor and Normalize does for a sample, step for step."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.images = torch.from_numpy(images.copy())
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index].numpy())
        tensor = torch.from_numpy(np.array(picture, np.uint8, copy=True)).view(1, 28, 28).contiguous()
        return normalise(tensor.to(torch.float32).div(255)), int(self.labels[index])


def normalise(tensor: Tensor) -> Tensor:
    mean = torch.as_tensor([MEAN], dtype=tensor.dtype).view(-1, 1, 1)
    deviation = torch.as_tensor([DEVIATION], dtype=tensor.dtype).view(-1, 1, 1)
    return tensor.clone().sub_(mean).div_(deviation)


class Rival:
    """The loop people write."""

    def __init__(
        self, config: TrialConfig, pictures: Pictures, shape: tuple[int, ...], device: torch.device = CPU
    ) -> None:
        self.device = device
        self.loader = DataLoader(pictures, batch_size=config.batch_size, shuffle=True)
        # The layout that torch gives a model; ours chooses a faster one for convolutions.
        self.model = build_model(config, shape, 10).to(  # type: ignore[call-overload]
            device=device, memory_format=torch.contiguous_format
        )
        self.optimizer = plain_optimizer(config, self.model.parameters())
        self.loss = nn.CrossEntropyLoss()
        self.batches = self.forever()

    def forever(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def run(self, steps: int) -> float:
        self.model.train()
        running = 0.0
        for _ in range(steps):
            x, y = (tensor.to(self.device) for tensor in next(self.batches))
            self.optimizer.zero_grad()
            loss = self.loss(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            running += loss.item()
        return running / steps


def plain_optimizer(config: TrialConfig, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer as people do: with torch's own defaults, where ours takes fused kernels."""
    arguments = OPTIMIZERS[config.optimizer].arguments.items()
    keywords = {
        name: getattr(config, source) if isinstance(source, str) else tuple(getattr(config, part) for part in source)
        for name, source in arguments
    }
    fixed = OPTIMIZERS[config.optimizer].fixed
    optimizer: torch.optim.Optimizer = registry.resolve(OPTIMIZERS[config.optimizer].target)(
        parameters, **keywords, **fixed
    )
    return optimizer


class Ours:
    """Step of `hpo.training.loop`, with any learner."""

    def __init__(self, learner: Learner, data: Data) -> None:
        self.learner = learner
        self.data = data
        self.config = learner.members[0].config
        self.epoch = 0
        self.batches = self.forever()

    def forever(self) -> Iterator[TrainBatch]:
        while True:
            self.epoch += 1
            yield from self.data.batches(self.config.batch_size, self.epoch, self.learner.room)

    def run(self, steps: int) -> float:
        total = self.config.epochs * self.data.steps(self.config.batch_size)
        rates = [[rate_at(member.config, step, total) for step in range(steps)] for member in self.learner.members]
        # An epoch for each turn, so that its end reads the steps of this turn alone.
        self.learner.begin_epoch(len(self.data.y_train), rates)
        for _ in range(steps):
            self.learner.step(*next(self.batches))
        return self.learner.end_epoch()[0]["loss"]


def seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def compare(case: Case, data: Data, pictures: Pictures, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds per step of ours and of the rival, by round."""
    ours = Ours(make_learner([Member(case.config)], data), data)
    rival = Rival(case.config, pictures, data.shape)
    ours.run(case.steps // 2)
    rival.run(case.steps // 4)
    pairs = []
    for turn in range(rounds):
        both = [(0, lambda: ours.run(case.steps)), (1, lambda: rival.run(case.steps))]
        timed = {which: seconds(run) / case.steps for which, run in (both if turn % 2 else reversed(both))}
        pairs.append((timed[0], timed[1]))
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def sgemm_rate(size: int = 2048) -> float:
    """Return this machine's own rate of float32 matrix products, in flop/s: the best of five."""
    a = torch.randn(size, size)
    torch.mm(a, a)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, a)) for _ in range(5))


def mlp_flops(widths: tuple[int, ...], batch: int = BATCH) -> int:
    """Floating-point operations of the matrix products of one step: forward, gradients of the weights, and of the
    inputs of each layer but the first, which needs none.
    """
    products = [inputs * outputs for inputs, outputs in pairwise(widths)]
    return 2 * batch * (3 * sum(products) - products[0])


WORKER = """
from hpo import datasets
from hpo.config.trial_config import TrialConfig
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device
from hpo.training.loop import train
data = DataCache(datasets.make_reference("mnist"), select_device("cpu"))
config = TrialConfig(widths="512-256", epochs=1)
train([config], data.get(config))
# Not getrusage: a child begins with the peak of the process that started it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def worker_memory() -> float:
    """Peak resident memory, in MB, of a process that loads MNIST and trains an epoch of the MLP 512-256."""
    done = subprocess.run([sys.executable, "-c", WORKER], check=True, capture_output=True, text=True)
    return float(done.stdout) / 1024


def command_seconds(*arguments: str) -> float | None:
    """Return the best wall time of five runs of `hpo …`; None where it fails."""
    command = shutil.which("hpo", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if command is None:
        return None
    run = [command, *arguments]
    if subprocess.run(run, check=False, capture_output=True).returncode:
        return None
    return min(seconds(lambda: subprocess.run(run, check=True, capture_output=True)) for _ in range(5))


def load(device: torch.device = CPU) -> tuple[Data, Pictures]:
    dataset = datasets.load(datasets.make_reference("mnist"))
    data = prepare_data(dataset, TrialConfig(), device, "mnist")
    assert isinstance(dataset.train, tuple)
    images, labels = dataset.train
    return data, Pictures(images[:50_000], labels[:50_000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="per round; a quarter of it for the CNN")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"batch size {BATCH}, sgd, {arguments.rounds} rounds, seconds per epoch of 50,000 samples (extrapolated)\n")
    keep_freed_memory()
    data, pictures = load()
    steps_per_epoch = data.steps(BATCH)
    print(f"{'model':14}{'ours':>9}{'rival':>9}{'ratio':>8}{'min':>7}{'max':>7}{'target':>8}")
    fastest: dict[str, float] = {}
    for case in cases(arguments.steps):
        ours, rival = compare(case, data, pictures, arguments.rounds)
        ratios = [slow / fast for fast, slow in zip(ours, rival, strict=True)]
        fastest[case.name] = statistics.median(ours)
        mine, theirs = (statistics.median(values) * steps_per_epoch for values in (ours, rival))
        print(
            f"{case.name:14}{mine:8.2f}s{theirs:8.2f}s"
            f"{statistics.median(ratios):8.2f}{min(ratios):7.2f}{max(ratios):7.2f}{case.target:8.1f}"
        )
    peak, reached = sgemm_rate(), mlp_flops((784, 512, 256, 10)) / fastest["MLP 512-256"]
    print(f"\nMLP 512-256: {reached / 1e9:.0f} of {peak / 1e9:.0f} Gflop/s SGEMM, {reached / peak:.0%}")
    print(f"peak memory of one MNIST worker: {worker_memory():.0f} MB (target 900)")
    for words, target in ((["--help"], 0.4), (["list"], 1.0)):
        wall = command_seconds(*words)
        print(f"hpo {words[0]}: " + ("failed" if wall is None else f"{wall:.2f} s (target {target})"))
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
