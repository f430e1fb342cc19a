"""Benchmark of adaptive samplers in finite spaces: asking again for a repeat against training it once more.

    python -m benchmarks.repeats [--samplers tpe,nsga2,cmaes] [--trials 24] [--seeds 30]

The space has 96 configurations: 4 choices, 4 whole numbers and 6 multiples. Each seed has an objective of its own: a
sum of an effect of each value and one of each pair of values, drawn from normal distributions of deviation 1 and 0.5.
Nothing is trained: a trial's value is the objective, without noise, as two trainings from one seed are equal. Both
studies of a seed have the same objective and the same sampler's seed. `rank` is the mean rank of the best configuration
found, where 1 is the best of all 96, with its standard error; `difference` is taken seed by seed, and negative where
asking again is better; `repeats` is the mean number of trials that repeat an earlier one; `ms` is the mean time of a
suggestion.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from typing_extensions import override

from hpo.storage.leases import WorkerInfo
from hpo.study import ClaimedTrial, Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from hpo.study.repeats import find_repeats

SPACE = {
    "optimizer": ["adam", "sgd", "rmsprop", "nadam"],
    "depth": {"low": 1, "high": 4},
    "width": {"low": 32, "high": 192, "step": 32},
}
Objective = Callable[[Mapping[str, Any]], float]


class RepeatingStudy(Study):
    """Study that takes what a sampler suggests, as plain Optuna does."""

    @override
    def _suggest_new(self, claim: ClaimedTrial) -> None:
        return


def make_objective(seed: int) -> Objective:
    """Return a function of parameters whose effects are drawn from the seed."""
    rng = np.random.default_rng([seed, 1])
    single: dict[Any, float] = {}
    pairs: dict[Any, float] = {}

    def effect(known: dict[Any, float], key: object, scale: float) -> float:
        return known.setdefault(key, float(rng.normal(0, scale)))

    def objective(params: Mapping[str, Any]) -> float:
        items = sorted(params.items())
        alone = sum(effect(single, item, 1.0) for item in items)
        return alone + sum(effect(pairs, pair, 0.5) for pair in itertools.combinations(items, 2))

    return objective


def run(kind: type[Study], sampler: str, trials: int, seed: int, folder: Path, data: Path) -> tuple[int, int, float]:
    """Return the rank of the best configuration that a study finds, its repeats, and the ms of a suggestion."""
    table = {"dataset": str(data), "objective": "val_loss", "sampler": sampler, "seed": seed, "parameters": SPACE}
    _, definition, budget = parse_definition({**table, "trials": trials}, f"{kind.__name__}-{sampler}-{seed}", folder)
    objective = make_objective(seed)
    everything = sorted(objective(params) for params in definition.space.grid())  # drawn in the grid's order
    study = kind.create(
        StudyStorage(f"sqlite:///{folder}/studies.db"), f"{kind.__name__}-{sampler}-{seed}", definition, budget
    )
    worker, seconds, best = WorkerInfo("w", "here", 1, "cpu", 600.0), 0.0, float("inf")
    while (claim := study.claim(worker)) is not None:
        started = time.perf_counter()
        study.suggest_config(claim)
        seconds += time.perf_counter() - started
        value = objective(claim.trial.params)
        best = min(best, value)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
    repeats = find_repeats((trial.number, trial.params) for trial in study.trials())
    return everything.index(best) + 1, len(repeats), 1000 * seconds / trials


def main() -> None:
    """Run both kinds of studies for each sampler and seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", default="tpe,nsga2,cmaes")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=30)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("hpo").setLevel(logging.ERROR)
    print(f"{'sampler':8} {'study':14} {'rank':>12} {'difference':>14} {'repeats':>8} {'ms':>6}")
    for sampler in arguments.samplers.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = folder / "data.npz"
            labels = np.arange(20) % 2
            np.savez(data, x_train=np.zeros((20, 2)), y_train=labels, x_test=np.zeros((20, 2)), y_test=labels)
            rows = {
                kind: np.array(
                    [run(kind, sampler, arguments.trials, seed, folder, data) for seed in range(arguments.seeds)]
                )
                for kind in (RepeatingStudy, Study)
            }
        first = rows[RepeatingStudy][:, 0]
        for kind, found in rows.items():
            ranks, change = found[:, 0], found[:, 0] - first
            text = f"{change.mean():+.2f} ± {_error(change):.2f}" if kind is Study else ""
            label = "asked again" if kind is Study else "as suggested"
            print(
                f"{sampler:8} {label:14} {ranks.mean():5.2f} ± {_error(ranks):4.2f} {text:>14} "
                f"{found[:, 1].mean():8.1f} {found[:, 2].mean():6.1f}"
            )


def _error(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
