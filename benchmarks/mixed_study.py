"""Benchmark of mixed studies: what `--cohort auto` gains over one trial at a time, in seconds and in the best score.

    python -m benchmarks.mixed_study [--row mixed|random] [--seeds 30] [--workers 2] [--minutes 120]

Row `mixed`: 24 trials of 3 epochs on MNIST, whose depth, width, batch size, learning rate, optimizer and activation
vary; TPE and the median pruner. Row `random`: 160 random trials of the template `mnist_mlp`. Each is launched by the
real command, in a folder of its own, by the two sizes in turns; a seed is the study's, so its random trials are the
same under both. Seconds are those of the whole command, from its start to its end. A difference is taken seed by seed;
the intervals of its mean are of 95 %, from 2,000 draws of as many seeds (bootstrap).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpo.report.data.results import read_results
from hpo.study import Study, StudyStorage

DRAWS = 2000
MIXED = """
dataset = "mnist"
trials = 24
sampler = "tpe"
pruner = "median"

[parameters]
epochs = 3
depth = { low = 1, high = 3 }
width = { low = 32, high = 256, log = true }
batch_size = [64, 128, 256]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
optimizer = ["sgd", "adam"]
activation = ["relu", "tanh"]
"""
ROWS: Mapping[str, Sequence[str]] = {
    "mixed": ("mixed.toml",),
    "random": ("mnist_mlp", "--trials", "160", "--sampler", "random"),
}
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a study: what it took, and what came of it.

    Attributes:
        seconds: of the whole command.
        best: the best validation accuracy, in percent.
        epochs: that were trained.
        pruned: trials.
        cohort: size, on average.
        rate: trials per hour while a worker was there.
    """

    seconds: float
    best: float
    epochs: float
    pruned: float
    cohort: float
    rate: float


def run(row: str, cohort: str, seed: int, workers: int) -> Outcome:
    """Launch a study in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mixed.toml").write_text(MIXED)
        study, *options = ROWS[row]
        command = [sys.executable, "-P", "-m", "hpo", "launch", study, *options]
        command += ["--name", "study", "--seed", str(seed), "--workers", str(workers), "--cohort", cohort]
        environment = {**os.environ, "HPO_HOME": f"{folder}/home"}
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        found = Study(StudyStorage(f"sqlite:///{folder}/home/hpo.db"), "study")
        trials, results, best = found.trials(), read_results(found), found.best()
        assert best is not None
        assert best.value is not None
        assert results.work is not None
        return Outcome(
            seconds=seconds,
            best=100 * best.value,
            epochs=sum(len(trial.intermediate_values) for trial in trials),
            pruned=sum(trial.state.name == "PRUNED" for trial in trials),
            cohort=results.work.cohort_size or 1.0,
            rate=results.work.trials_per_hour or 0.0,
        )


def measure(row: str, seeds: int, workers: int, minutes: float) -> dict[str, list[Outcome]]:
    """Run both sizes in turns, each the first of every second seed; no seed is begun that would end too late."""
    until = time.monotonic() + 60 * minutes
    outcomes: dict[str, list[Outcome]] = {"auto": [], "1": []}
    for seed in range(seeds):
        begun = time.monotonic()
        for cohort in ("auto", "1") if seed % 2 == 0 else ("1", "auto"):
            outcomes[cohort].append(run(row, cohort, seed, workers))
        last = ", ".join(f"{name}: {each[-1].seconds:.1f} s, {each[-1].best:.2f} %" for name, each in outcomes.items())
        print(f"seed {seed}: {last} (load {os.getloadavg()[0]:.1f})", flush=True)
        if 2 * time.monotonic() - begun > until:
            break
    return outcomes


def interval(values: Values, center: Callable[[Values], float] = np.mean) -> str:
    """Return a mean, or another center, with its interval."""
    rng = np.random.default_rng(0)
    draws = [center(values[rng.integers(0, len(values), len(values))]) for _ in range(DRAWS)]
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{center(values):+.2f} ({low:+.2f} to {high:+.2f})"


def print_table(outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    columns = {
        "seconds": "seconds", "trials per hour": "rate", "best, %": "best",
        "epochs": "epochs", "pruned": "pruned", "cohort": "cohort",
    }  # fmt: skip
    table = {
        cohort: {name: np.array([getattr(each, name) for each in of]) for name in columns.values()}
        for cohort, of in outcomes.items()
    }
    print("\nmedians" + "".join(f"{title:>17}" for title in columns))
    for cohort, values in table.items():
        print(f"{cohort:7}" + "".join(f"{np.median(values[name]):17,.2f}" for name in columns.values()))
    auto, alone = table["auto"], table["1"]
    seconds = alone["seconds"] / auto["seconds"]
    print(f"\nmean difference of the best, in points: {interval(auto['best'] - alone['best'])}")
    print(f"times as fast, in seconds: {interval(seconds, lambda each: float(np.median(each)))}")
    print(f"times the trials per hour: {interval(auto['rate'] / alone['rate'], lambda each: float(np.median(each)))}")


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found.group(1) if found else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=list(ROWS), default="mixed")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=120, help="begin no seed that would end later")
    arguments = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}; row {arguments.row}\n")
    print_table(measure(arguments.row, arguments.seeds, arguments.workers, arguments.minutes))


if __name__ == "__main__":
    main()
