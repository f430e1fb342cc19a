"""Benchmark of cohorts, in trials an hour: each row beside two rivals, in one process, in turns, on real MNIST.

    python -m benchmarks.cohorts [--rounds 5] [--rows steps,random,grid,tpe,sgemm,folds,seeds] [--threads 2]
        [--device cpu]

The rivals train the same configurations one at a time: `loader` is the loop people write (see benchmarks/training.py: a
`Dataset` of single samples, `DataLoader(shuffle=True)`, torch's own optimizer, `loss.item()` at every step; it has no
schedule and no evaluation, which is to its favour); `alone` is our own loop with one model, as it was before cohorts. A
turn of each lasts about half a second, batches and the record of outputs included; a figure is the time of a step of
one model: of a cohort's step, the share of each member. Ratios are medians over the rounds, with the least and the
largest. Each contender trains with one thread or with all, whichever a first turn found faster; the number is said.

Rows: steps (MLPs of one size, learning rates apart), random (a cohort drawn from the template mlp), grid (trials per
hour of a part of grid_2700, from measured steps and evaluations), tpe (the study mnist_mlp with TPE and median pruning,
launched for real, `--cohort 8` against `--cohort 1`), sgemm (the share of the machine's own rate of matrix products),
folds and seeds (five models of one configuration, each with batches of its own, as one stack: against one of them, and
against five one after the other; whole trainings with validation, in processor time on one thread).
With --device cuda stacks are first compared with their models alone, in float64, without and with CUDA graphs; then the
rows are dense (64 MLPs 512-256, beside the rate that reading and writing their weights allows), convolutions and own
(models of one's own), each with graphs, without, and one model at a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch

from benchmarks import cuda_cohorts
from benchmarks.training import Ours, Rival, load, mlp_flops, seconds, sgemm_rate
from hpo.config.cohort_key import run_key
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.space import Space
from hpo.study.input import templates
from hpo.study.input.study_file import read_study
from hpo.training.data import Data, prepare_data
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.memory import keep_freed_memory
from hpo.training.stacked.learner import StackedLearner
from hpo.utils.documents import read_document

TURN = 0.5  # seconds
MODELS = 5  # of the rows folds and seeds
TPE_TRIALS, TPE_EPOCHS, TPE_COHORT = 24, 4, 8


class Loop(Protocol):
    """Something that trains: `Ours` or `Rival`."""

    def run(self, steps: int) -> float: ...


@dataclass
class Contender:
    """Loops that are timed one after the other, as one.

    Attributes:
        loops: what trains.
        models: how many models they train in all.
        threads: of torch; chosen by `settle`.
        steps: of each loop in a turn; chosen by `settle`.
        times: seconds of a step of one model, by round.
    """

    loops: Sequence[Loop]
    models: int
    threads: int = 1
    steps: int = 2
    times: list[float] = field(default_factory=list)

    def turn(self) -> float:
        """Return the seconds of a step of one model."""
        torch.set_num_threads(self.threads)
        spent = sum(seconds(partial(loop.run, self.steps)) for loop in self.loops)
        return spent / (self.steps * self.models)

    def settle(self, most_threads: int, most_steps: int) -> None:
        """Warm up; then take the threads that are faster, and as many steps as fill a turn."""
        self.turn()
        self.steps = self._fill(4 * self.turn(), most_steps)
        tried: dict[int, float] = {}
        for self.threads in dict.fromkeys((1, most_threads)):
            self.turn()
            tried[self.threads] = min(self.turn() for _ in range(2))
        self.threads = min(tried, key=tried.__getitem__)
        self.steps = self._fill(tried[self.threads], most_steps)

    def _fill(self, step: float, most: int) -> int:
        return max(2, min(most, round(TURN / (step * self.models))))

    @property
    def median(self) -> float:
        return statistics.median(self.times)


class Bench:
    """Setting that all rows share: the data, the device, the threads and the numbers of rounds."""

    def __init__(self, device: torch.device, arguments: argparse.Namespace) -> None:
        self.data, self.pictures = load(device)
        self.device = device
        self.rounds, self.threads = arguments.rounds, arguments.threads
        self.launches, self.trials = arguments.launches, arguments.trials

    def contenders(self, cohort: Sequence[TrialConfig], rivals: Sequence[TrialConfig]) -> list[Contender]:
        """Return the cohort, and each rival with its configurations."""
        data, device = self.data, self.device
        stacked = StackedLearner(members(cohort), data.shape, data.classes, device)
        alone = [Ours(ModuleLearner(Member(config), data.shape, data.classes, device), data) for config in rivals]
        loader = [Rival(config, self.pictures, data.shape, device) for config in rivals]
        found = [
            Contender([Ours(stacked, data)], len(cohort)),
            Contender(loader, len(rivals)),
            Contender(alone, len(rivals)),
        ]
        for contender in found:
            contender.settle(self.threads, data.steps(cohort[0].batch_size))
        for turn in range(self.rounds):
            for contender in found if turn % 2 else reversed(found):
                contender.times.append(contender.turn())
        return found


def members(configs: Sequence[TrialConfig]) -> list[Member]:
    return [Member(config, number) for number, config in enumerate(configs)]


def ratio(slow: Sequence[float], fast: Sequence[float], target: float | None) -> str:
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    middle, least, most = (f"{each(ratios):.1f}" for each in (statistics.median, min, max))
    aim = "" if target is None else f"{target:g}"
    return f"{middle:>8}{f'{least}-{most}':>14}{aim:>7}"


HEADER = (
    f"{'us per step of one model':30}{'cohort':>12}{'loader':>12}{'alone':>12}"
    f"{'loader/cohort':>22}{'aim':>7}{'alone/cohort':>22}{'aim':>7}"
)


def print_row(name: str, found: Sequence[Contender], against_loader: float | None, against_alone: float | None) -> None:
    cohort, loader, alone = found
    times = "".join(f"{f'{each.median * 1e6:.1f} ({each.threads}t)':>12}" for each in found)
    ratios = ratio(loader.times, cohort.times, against_loader) + ratio(alone.times, cohort.times, against_alone)
    print(f"{name:30}{times}{ratios}", flush=True)


# The rows.


def steps_row(bench: Bench) -> None:
    """Measure MLPs of one size under sgd, each with its own learning rate."""
    targets = {(1, 10): (80, 120, 200), (2, 50): (20, 28, 36)}
    for (depth, width), aims in targets.items():
        for batch, aim in zip((4, 32, 128), aims, strict=True):
            for members in (25, 100):
                rates = np.geomspace(0.001, 0.1, members).tolist()
                cohort = [same_size(depth, width, batch, rate) for rate in rates]
                found = bench.contenders(cohort, [same_size(depth, width, batch, 0.01)])
                print_row(f"{depth}x{width}, batch {batch}, {members} models", found, aim, None)


def same_size(depth: int, width: int, batch: int, rate: float) -> TrialConfig:
    return TrialConfig(depth=depth, width=width, batch_size=batch, optimizer="sgd", learning_rate=rate)


def random_row(bench: Bench) -> None:
    """25 configurations drawn from the template mlp; the rivals train all of them."""
    literals = read_document(templates.find_template("search_spaces", "mlp"))
    literals |= {"width": [width for width in literals["width"] if width <= 128], "batch_size": 32}
    space, rng = Space(literals), np.random.default_rng(0)
    cohort = [TrialConfig(**space.values(space.draw(rng.random(len(space.varied)).tolist()))) for _ in range(25)]
    print_row("random 25 of mlp, batch 32", bench.contenders(cohort, cohort), 8, 1.5)


def grid_row(bench: Bench) -> None:
    """Adam and sgd, batches 4 and 128, every depth and width, epochs 1 to 8: a run to 8 epochs answers the others."""
    sets = {"optimizer": ["adam", "sgd"], "batch_size": [4, 128], "epochs": [1, 2, 4, 8]}
    space = read_study("grid_2700", sets)[1].space
    points = [TrialConfig(**space.values(params)) for params in space.grid()]
    longest = {run_key(point): point for point in points}  # the last of each, for epochs rise
    hours = np.zeros((bench.rounds, 3))
    for batch in (4, 128):
        runs = [run for run in longest.values() if run.batch_size == batch]
        found = bench.contenders(runs, [run for run in runs if run.width == 30])
        print_row(f"grid, batch {batch}, {len(runs)} models", found, None, None)
        # The rivals train every trial by itself; those of one width stand for all, for depth costs more than width.
        ours, theirs = (sum(point.epochs for point in some if point.batch_size == batch) for some in (runs, points))
        for column, (contender, epochs) in enumerate(zip(found, (ours, theirs, theirs), strict=True)):
            spent = np.array(contender.times) * bench.data.steps(batch) + evaluation(bench, contender)
            hours[:, column] += spent * epochs / 3600
    cohort, loader, alone = np.median(len(points) / hours, 0)
    print(f"    {len(points)} trials, per hour: cohort {cohort:.0f}, loader {loader:.1f}, alone {alone:.1f};", end=" ")
    ours, against_loader, against_alone = hours.T.tolist()
    print(f"ratios and aim:{ratio(against_loader, ours, 60)}{ratio(against_alone, ours, None)}", flush=True)


def evaluation(bench: Bench, contender: Contender) -> float:
    """Return the seconds to evaluate one model on the validation split; the rival's loop has no evaluation."""
    torch.set_num_threads(contender.threads)
    learners = [loop.learner for loop in contender.loops if isinstance(loop, Ours)]
    spent = [evaluate_all(learners, bench.data) for _ in range(3)]
    return min(spent) / contender.models


def evaluate_all(learners: Sequence[Learner], data: Data) -> float:
    return sum(seconds(partial(learner.evaluate, data.x_val, data.y_val)) for learner in learners)


def sgemm_row(bench: Bench) -> None:
    """25 MLPs 2x50 at batch 128 on one thread; floating-point operations of the models as they are, unpadded."""
    cohort = [same_size(2, 50, 128, rate) for rate in np.geomspace(0.001, 0.1, 25).tolist()]
    contender = Contender([Ours(StackedLearner(members(cohort), bench.data.shape, 10, bench.device), bench.data)], 25)
    contender.settle(1, bench.data.steps(128))
    peaks, shares = list[float](), list[float]()
    for _ in range(bench.rounds):
        peaks.append(sgemm_rate())  # on the thread of the last turn
        contender.times.append(contender.turn())
        shares.append(mlp_flops((784, 50, 50, 10), 128) / contender.times[-1] / peaks[-1])
    reached, spread = statistics.median(shares), f"{min(shares):.0%}-{max(shares):.0%}"
    print("2x50, batch 128, 25 models, one thread:", end=" ")
    print(f"{reached:.0%} ({spread}) of {statistics.median(peaks) / 1e9:.0f} Gflop/s SGEMM, aim 80%", flush=True)


def tpe_row(bench: Bench) -> None:
    """Measure the study mnist_mlp, launched with cohorts and without, each round with another seed."""
    rates: list[tuple[float, float]] = []
    for seed in range(bench.launches):
        order = (TPE_COHORT, 1) if seed % 2 else (1, TPE_COHORT)
        rate = {cohort: launched(cohort, seed, bench.trials) for cohort in order}
        rates.append((rate[TPE_COHORT], rate[1]))
    together, alone = (statistics.median(column) for column in zip(*rates, strict=True))
    ratios = ratio([pair[0] for pair in rates], [pair[1] for pair in rates], 1)
    print(f"mnist_mlp, {bench.trials} trials of {TPE_EPOCHS} epochs, TPE, median, per hour: ", end="")
    print(f"--cohort {TPE_COHORT} {together:.0f}, --cohort 1 {alone:.0f}, ratio and aim{ratios}", flush=True)


def launched(cohort: int, seed: int, trials: int) -> float:
    """Return the trials per hour of a launch with a database of its own, from the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HPO_HOME": folder, "OPTUNA_STORAGE": f"sqlite:///{folder}/studies.db"}
        options = ["--cohort", str(cohort), "--seed", str(seed), "--trials", str(trials)]
        command = [sys.executable, "-m", "hpo", "launch", "mnist_mlp", *options, "--set", f"epochs={TPE_EPOCHS}"]
        results: list[subprocess.CompletedProcess[str]] = []

        def run() -> None:
            results.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=False))

        spent = seconds(run)
    if results[0].returncode:
        raise SystemExit(f"{' '.join(command[1:])}: {(results[0].stderr.strip().splitlines() or ['failed'])[-1]}")
    return trials * 3600 / spent


def folds_row(bench: Bench) -> None:
    """Five folds of an MLP 2x50 on scikit-learn's digits."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    x, y = load_digits(return_X_y=True)
    config = TrialConfig(depth=2, width=50, batch_size=32, epochs=10)
    folds = [
        prepare_data(Dataset((x[train], y[train]), validation=(x[test], y[test])), config, bench.device)
        for train, test in StratifiedKFold(MODELS, shuffle=True, random_state=0).split(x, y)
    ]
    compare_own_batches("5 folds of digits, 2x50", [config] * MODELS, folds, bench, aim=2)


def seeds_row(bench: Bench) -> None:
    """Five seeds of an MLP 2x50 on a fifth of MNIST, each of which decides split, order and weights."""
    configs = [TrialConfig(depth=2, width=50, batch_size=128, epochs=2, seed=seed) for seed in range(MODELS)]
    x, y = bench.data.dataset.train
    dataset = Dataset((x[::5], y[::5]), classes=10)
    data = [prepare_data(dataset, config, bench.device) for config in configs]
    compare_own_batches("5 seeds of MNIST, 2x50", configs, data, bench, aim=None)


def compare_own_batches(
    name: str, configs: Sequence[TrialConfig], data: Sequence[Data], bench: Bench, *, aim: float | None
) -> None:
    """Train as one stack, one after the other, and the first alone, in turns; print seconds, and how often they fit."""
    torch.set_num_threads(1)
    runs: dict[str, Callable[[], object]] = {
        "stack": lambda: train(configs, data),
        "one by one": lambda: [train([config], each) for config, each in zip(configs, data, strict=True)],
        "one": lambda: train(configs[:1], data[:1]),
    }
    spent: dict[str, list[float]] = {run: [] for run in runs}
    for turn in range(bench.rounds + 1):
        for run in list(runs) if turn % 2 else reversed(list(runs)):
            started = time.process_time()
            runs[run]()
            spent[run].append(time.process_time() - started)
    stack, apart, one = (times[1:] for times in spent.values())  # the first turns warm up
    seconds_of = ", ".join(f"{run} {statistics.median(times[1:]):.2f} s" for run, times in spent.items())
    print(f"{name}: {seconds_of}; stack / one{ratio(stack, one, aim)}", end="")
    print(f"; one by one / stack{ratio(apart, stack, None)}", flush=True)


ROWS = {
    "steps": steps_row,
    "random": random_row,
    "grid": grid_row,
    "sgemm": sgemm_row,
    "tpe": tpe_row,
    "folds": folds_row,
    "seeds": seeds_row,
}


def main() -> None:
    arguments = parse()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("benchmarks.cohorts: --device cuda: there is no CUDA device here; leave the option out")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    names = tuple(cuda_cohorts.ROWS if device.type == "cuda" else ROWS)
    chosen = arguments.rows.split(",") if arguments.rows else names
    if wrong := set(chosen) - set(names):
        raise SystemExit(f"benchmarks.cohorts: --rows {','.join(sorted(wrong))}: must be of {', '.join(names)}")
    # Other programs' load: two threads on a busy machine wait for each other.
    print(f"{where}, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, {arguments.threads} threads", end=", ")
    print(f"{arguments.rounds} rounds\n")
    keep_freed_memory()
    bench = Bench(device, arguments)
    if device.type == "cuda":
        cuda_cohorts.print_equality(bench.data)
        print("microseconds of a step of one model:")
        for name in chosen:
            cuda_cohorts.ROWS[name](bench.data, bench.pictures, bench.rounds)
        return
    print(HEADER)
    for name in chosen:
        ROWS[name](bench)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", help="names of rows, separated by commas; by default all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that a contender may use")
    parser.add_argument("--launches", type=int, default=2, help="rounds of the row tpe")
    parser.add_argument("--trials", type=int, default=TPE_TRIALS, help="of each launch of the row tpe")
    return parser.parse_args()


if __name__ == "__main__":
    main()
