"""Benchmark of adaptive samplers: the trials that it costs to ask for a whole cohort at once.

    python -m benchmarks.asking [--study mnist_mlp] [--cohorts 1,8,32] [--trials 60] [--seeds 10] [--minutes 20]

A worker that trains a cohort asks the sampler for all of its trials before any of them has a value; the figure is what
`hpo.study.asking_cost` builds on. Each study is run for real, by one worker on one thread, with the template's space,
sampler and baseline, but small: 3 epochs on 3,000 samples of MNIST, no pruner, 2,000 samples for validation. Trials are
those of the same seed for each size of cohort; a difference is taken seed by seed against the first size. Accuracies
are percent, the best of the trials so far, by number; the mean over the seeds with its standard error. The last column
says after how many trials the mean is as good as that of the first size after half of its trials, with the 5th and 95th
percentile of 2,000 draws of as many seeds (bootstrap).
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from hpo import datasets
from hpo.execution.worker import Worker
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import read_study

SAMPLES, VALIDATION, EPOCHS = 3000, 2000, 3
DRAWS = 2000
Curves = NDArray[np.float64]  # the best accuracy so far, by seed and trial


def write_part(path: Path) -> None:
    """Some of MNIST's training data, drawn once; the test data are there because a file must have them."""
    train = datasets.load(datasets.make_reference("mnist")).train
    assert isinstance(train, tuple)
    x, y = (array[np.random.default_rng(0).permutation(60_000)[: SAMPLES + VALIDATION]] for array in train)
    np.savez(path, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])


def best_so_far(template: str, data: Path, cohort: int, trials: int, seed: int) -> list[float]:
    """Run a study; the best accuracy, in percent, after each of its trials."""
    sets = {"epochs": EPOCHS, "validation": VALIDATION}
    _, definition, budget = read_study(template, sets, dataset=str(data), trials=trials, seed=seed, pruner="none")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HPO_HOME"] = folder
        study = Study.create(StudyStorage(f"sqlite:///{folder}/studies.db"), template, definition, budget)
        Worker(study, WorkerOptions(device="cpu", cpus=1, cohort=cohort)).run()
        # One that diverged has no accuracy, or that of the epochs before.
        values = [trial.value if trial.value is not None else 0.0 for trial in study.trials()]
    return [100 * best for best in itertools.accumulate(values, max)]


def measure(arguments: argparse.Namespace, cohorts: list[int], data: Path) -> dict[int, Curves]:
    """Return the curves of each size of cohort; a seed is begun as long as there is time."""
    until = time.monotonic() + 60 * arguments.minutes
    curves: dict[int, list[list[float]]] = {cohort: [] for cohort in cohorts}
    for seed in range(arguments.seeds):
        begun = time.monotonic()
        for cohort in cohorts:
            curves[cohort].append(best_so_far(arguments.study, data, cohort, arguments.trials, seed))
        best = ", ".join(f"{cohort}: {curves[cohort][-1][-1]:.2f}" for cohort in cohorts)
        print(f"seed {seed}: {best} ({time.monotonic() - begun:.0f} s)", flush=True)
        if 2 * time.monotonic() - begun > until:
            break
    return {cohort: np.array(rows) for cohort, rows in curves.items()}


def needed(curves: Curves, first: Curves) -> int:
    """Count the trials until the mean is as good as that of the first after half of its trials; one more if never."""
    aim = first[:, first.shape[1] // 2 - 1].mean()
    reached = np.append(curves.mean(0) >= aim, True)
    return int(reached.argmax()) + 1


def needed_text(curves: Curves, first: Curves) -> str:
    rng, (seeds, trials) = np.random.default_rng(0), curves.shape
    draws = [rng.integers(0, seeds, seeds) for _ in range(DRAWS)]
    low, high = np.percentile([needed(curves[draw], first[draw]) for draw in draws], (5, 95))
    words = [f">{trials}" if number > trials else f"{number:.0f}" for number in (needed(curves, first), low, high)]
    return f"{words[0]} ({words[1]}-{words[2]})"


def mean_text(values: NDArray[np.float64], form: str) -> str:
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{format(values.mean(), form)} ± {error:.2f}"


def print_table(curves: dict[int, Curves]) -> None:
    first = next(iter(curves.values()))
    trials = first.shape[1]
    print(f"\n{'cohort':>6}", end="")
    for after in (trials // 4, trials // 2, trials):
        print(f"{f'best after {after}':>16}{'difference':>15}", end="")
    print(f"   trials to the best after {trials // 2} of the first")
    for cohort, rows in curves.items():
        print(f"{cohort:6}", end="")
        for last in (trials // 4 - 1, trials // 2 - 1, trials - 1):
            difference = "" if rows is first else mean_text(rows[:, last] - first[:, last], "+.2f")
            print(f"{mean_text(rows[:, last], '.2f'):>16}{difference:>15}", end="")
        print(f"   {needed_text(rows, first)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="mnist_mlp", help="a template, or a path to a study file")
    parser.add_argument("--cohorts", default="1,8,32", help="sizes, separated by commas; the first is compared to")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=20, help="begin no seed that would end later")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, optuna {optuna.__version__}"
    print(f"{where}; {arguments.study}, {arguments.trials} trials\n")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "part.npz"
        write_part(data)
        curves = measure(arguments, [int(size) for size in arguments.cohorts.split(",")], data)
    print_table(curves)


if __name__ == "__main__":
    main()
