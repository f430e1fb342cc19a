"""Benchmark of cohorts of models of tables: 25 at once beside the same ones one at a time, in one process, in turns.

    python -m benchmarks.tabular_cohorts [--rounds 7] [--models 25] [--width 64] [--batch 256] [--threads 2] [--cpu]

The rival is our own loop with one model, `ModuleLearner`: torch's autograd and its fused AdamW. Both do the same steps
on the same batches, the record of outputs included. The table has the columns of the census data "adult": 6 numbers,
and 8 categories of 2 to 42 values. A figure is the time of a step of one model: of a cohort's step, the share of each
member. Ratios are medians over the rounds, with the least and the largest. Each contender trains with one thread or
with all, whichever a first turn found faster; the number is said. Other work on the machine falls on both alike. With
`--cpu` the time is that of the processor, on one thread: for a machine that has other work.

Then, with `--cpu`: the floating-point operations of the matrix products of one model's step, the share of this
machine's own rate of matrix products that the cohort reaches, and the bound: the ratio of a cohort that did nothing but
those products at that rate. What keeps a cohort from it at width 64 and batch 256, of 210 us: products of 64 x 64
matrices take 120 where the bound has 72, optimizer 20, embeddings 25, activations 18, losses and scores 13. Tried,
and no faster: fewer members at a time (see `hpo.training.stacked.parts`), embeddings as a product with one-hot codes,
biases as a column of the weights.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cohorts import Contender, members, ratio
from benchmarks.training import CPU, Ours
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, SampleShape
from hpo.training.data import Data
from hpo.training.learner import ModuleLearner
from hpo.training.member import Member
from hpo.training.memory import keep_freed_memory
from hpo.training.stacked.learner import StackedLearner

NUMBERS = 6
CATEGORIES = (10, 17, 8, 16, 7, 6, 3, 43)  # codes, the one for unknown values included
ROWS, CLASSES = 20_480, 2
AIM = 8


class TableData(Data):
    """Table whose last features are codes."""

    @property
    def shape(self) -> SampleShape:
        """The shape of one sample."""
        return SampleShape((NUMBERS + len(CATEGORIES),), CATEGORIES)


def make_data() -> Data:
    """Return a table of random numbers and codes, and classes that follow from some of them."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, count, ROWS) for count in CATEGORIES], 1)
    x = np.concatenate([rng.normal(size=(ROWS, NUMBERS)), codes], 1).astype(np.float32)
    y = (x[:, 0] + (codes[:, 0] % 3) - 1 + rng.normal(size=ROWS) > 0).astype(np.int64)
    samples, labels = torch.from_numpy(x), torch.from_numpy(y)
    none = samples[:0], labels[:0]
    return TableData(samples, labels, *none, CLASSES, CPU, 0, Dataset((x, y)), "adult", "standard")


def cases(width: int, batch: int) -> dict[str, dict[str, object]]:
    """Return the parameters of each row."""
    common = {"optimizer": "adamw", "weight_decay": 0.01, "width": width, "batch_size": batch}
    mlp, resnet = {"model": "mlp"} | common, {"model": "resnet_tabular"} | common
    return {
        "mlp": mlp,
        "mlp, batch norm, dropout": mlp | {"batch_norm": True, "dropout": 0.1},
        "mlp, piecewise linear": mlp | {"numeric_embedding": "piecewise_linear", "numeric_embedding_size": 8},
        "resnet_tabular": resnet,
        "resnet_tabular, dropout": resnet | {"dropout": 0.1, "residual_dropout": 0.1},
    }


class ProcessorContender(Contender):
    """Contender whose time is the processor's."""

    def turn(self) -> float:
        """Return the processor's seconds for a step of one model."""
        torch.set_num_threads(self.threads)
        begun = time.process_time()
        for loop in self.loops:
            loop.run(self.steps)
        return (time.process_time() - begun) / (self.steps * self.models)


def product_rate(size: int = 1024) -> float:
    """Return this machine's rate of matrix products on one thread, in flop/s of the processor's time: the median of
    9.
    """
    a = torch.randn(size, size)
    times = []
    for _ in range(10):  # the first one warms up
        begun = time.process_time()
        torch.mm(a, a)
        times.append(time.process_time() - begun)
    return 2 * size**3 / statistics.median(times[1:])


def count_flops(config: TrialConfig, data: Data) -> int:
    """Return the floating-point operations of the matrix products of one model's step."""
    loop = Ours(ModuleLearner(Member(config), data.shape, data.classes, CPU), data)
    with FlopCounterMode(display=False) as counter:
        loop.run(1)
    return int(counter.get_total_flops())


def products(parameters: dict[str, object], data: Data, cohort: Contender, alone: Contender) -> str:
    """Return the columns on matrix products; none where times are not the processor's."""
    if not isinstance(cohort, ProcessorContender):
        return ""
    flops, rate = count_flops(TrialConfig.model_validate(parameters), data), product_rate()
    return f"{flops / 1e6:>9.1f}{flops / cohort.median / rate:>10.0%}{alone.median * rate / flops:>7.1f}"


def compare(parameters: dict[str, object], data: Data, arguments: argparse.Namespace) -> tuple[Contender, Contender]:
    """Return the cohort and its rival, measured in turns."""
    rates = np.geomspace(3e-4, 3e-3, arguments.models).tolist()
    cohort = [TrialConfig.model_validate({**parameters, "learning_rate": rate}) for rate in rates]
    stacked = StackedLearner(members(cohort), data.shape, data.classes, CPU)
    rival = ModuleLearner(Member(cohort[0]), data.shape, data.classes, CPU)
    kind = ProcessorContender if arguments.cpu else Contender
    found = kind([Ours(stacked, data)], len(cohort)), kind([Ours(rival, data)], 1)
    for contender in found:
        contender.settle(1 if arguments.cpu else arguments.threads, data.steps(arguments.batch))
    for turn in range(arguments.rounds):
        for contender in found if turn % 2 else reversed(found):
            contender.times.append(contender.turn())
    return found


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", type=int, default=25)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that a contender may use")
    parser.add_argument("--cpu", action="store_true", help="take the processor's time, on one thread")
    arguments = parser.parse_args()
    keep_freed_memory()
    how = "processor's time, 1 thread" if arguments.cpu else f"{arguments.threads} threads"
    print(f"{platform.processor() or platform.machine()}, {how}, torch {torch.__version__}")
    print(f"{arguments.models} models of width {arguments.width}, batch {arguments.batch}, adamw\n")
    titles = f"{'alone/cohort':>22}{'aim':>7}" + (f"{'Mflop':>9}{'of SGEMM':>10}{'bound':>7}" if arguments.cpu else "")
    print(f"{'us per step of one model':30}{'cohort':>12}{'alone':>12}{titles}")
    data = make_data()
    for name, parameters in cases(arguments.width, arguments.batch).items():
        cohort, alone = compare(parameters, data, arguments)
        times = "".join(f"{f'{each.median * 1e6:.1f} ({each.threads}t)':>12}" for each in (cohort, alone))
        print(f"{name:30}{times}{ratio(alone.times, cohort.times, AIM)}{products(parameters, data, cohort, alone)}")


if __name__ == "__main__":
    main()
