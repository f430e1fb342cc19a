"""Benchmark of own models in stacks: beside the same ones one at a time and beside ModelBatch, in turns in one process.

    python -m benchmarks.own_models [--rounds 9] [--models 16] [--width 64] [--batch 32]

A tabular network (linear layers, batch normalisation, a residual block with dropout) and a small transformer, neither
of which the toolkit knows. All do the same steps of Adam on the same batches, each model with its own learning rate, on
one thread. Ours records losses and scores, as training does; one at a time is our own loop with one module, and
ModelBatch (`pip install modelbatch`) its own documented loop: `compute_loss`, and an optimizer of its factory. Figures
are processor time of a step of one model, medians of the rounds, and ratios of the same round with the least and the
largest. First the largest difference in float64 of a stack from the modules alone, with dropout masks given.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpo
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.training.data import Data, prepare_data
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.member import Member
from hpo.training.memory import keep_freed_memory
from hpo.training.models import build_model
from hpo.training.stacked.check import why_modules_alone
from hpo.training.stacked.learner import StackedLearner

FEATURES, CLASSES, STEPS = 24, 3, 10
CPU = torch.device("cpu")


class Tabular(nn.Module):
    """Network of a table's numbers, with one residual block."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(FEATURES, width), nn.BatchNorm1d(width)
        self.inner, self.drop = nn.Linear(width, width), nn.Dropout(dropout)
        self.leave = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, classes) of samples (n, features)."""
        h = self.enter(x)
        outputs: Tensor = self.leave(torch.relu(h + self.drop(torch.relu(self.inner(self.norm(h))))))
        return outputs


class Transformer(nn.Module):
    """Transformer over the features in groups of four."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(4, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.leave = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, classes) of samples (n, features)."""
        outputs: Tensor = self.leave(self.layers(self.enter(x.view(len(x), -1, 4))).mean(1))
        return outputs


hpo.model("own_tabular", uses=["width", "dropout"])(lambda config, *_: Tabular(config.width, config.dropout))
hpo.model("own_transformer", uses=["width", "dropout"])(lambda config, *_: Transformer(config.width, config.dropout))


def learner_steps(learners: list[Learner], x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return a function that does an epoch of `STEPS` steps with learners, one after the other."""

    def run() -> None:
        for learner in learners:
            rates = [[member.config.learning_rate] * STEPS for member in learner.members]
            learner.begin_epoch(STEPS * len(x), rates)
            for _ in range(STEPS):
                learner.step(x, y)
            learner.end_epoch()

    return run


def modelbatch_steps(configs: list[TrialConfig], data: Data, x: Tensor, y: Tensor) -> Callable[[], None] | None:
    """Return a function that does as many steps with ModelBatch; None where it is not installed."""
    try:
        from modelbatch import ModelBatch  # type: ignore[import-untyped,import-not-found,unused-ignore]
        from modelbatch.optimizer import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
            OptimizerFactory,
        )
    except ImportError:
        return None
    batch = ModelBatch([build_model(config, data.shape, CLASSES) for config in configs], shared_input=True)
    rates = [{"lr": config.learning_rate} for config in configs]
    optimizer = OptimizerFactory(torch.optim.Adam).create_optimizer(batch, rates)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            batch.compute_loss(batch(x), y, F.cross_entropy).backward()
            optimizer.step()

    return run


def measure(model: str, arguments: argparse.Namespace) -> None:
    """Print the figures of one model."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(512, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, 512)
    width = arguments.width if model == "own_tabular" else arguments.width // 2
    settings = {"model": model, "width": width, "dropout": 0.1, "batch_size": arguments.batch, "validation": 64}
    configs = [TrialConfig(**settings, learning_rate=0.001 * (1 + i / 8)) for i in range(arguments.models)]
    data = prepare_data(Dataset((x, y), classes=CLASSES), configs[0], CPU)
    batch, labels = data.x_train[: arguments.batch], data.y_train[: arguments.batch]
    why = why_modules_alone([build_model(each, data.shape, CLASSES) for each in configs[:2]], batch, data.shape)
    print(f"{model}, width {width}, batch {arguments.batch}, {arguments.models} models: "
          f"{'float64 difference at most 1e-9' if why is None else why}")  # fmt: skip
    members = [Member(config, number) for number, config in enumerate(configs)]
    contenders: dict[str, Callable[[], None] | None] = {
        "stack": learner_steps([StackedLearner(members, data.shape, CLASSES, CPU)], batch, labels),
        "one at a time": learner_steps(
            [ModuleLearner(Member(config), data.shape, CLASSES, CPU) for config in configs], batch, labels
        ),
        "ModelBatch": modelbatch_steps(configs, data, batch, labels),
    }
    seconds: dict[str, list[float]] = {name: [] for name, run in contenders.items() if run is not None}
    for turn in range(1 + arguments.rounds):
        for name in seconds:
            run = contenders[name]
            assert run is not None
            begun = time.process_time()
            run()
            if turn:  # the first warms up
                seconds[name].append((time.process_time() - begun) / STEPS / arguments.models)
    for name, each in seconds.items():
        ratios = sorted(other / own for other, own in zip(each, seconds["stack"], strict=True))
        times = f"{statistics.median(ratios):.1f} times the stack's ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"  {name:14} {1e6 * statistics.median(each):8.0f} us a model and step   {times}")


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 9), ("models", 16), ("width", 64), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread, processor time")
    for model in ("own_tabular", "own_transformer"):
        measure(model, arguments)


if __name__ == "__main__":
    main()
