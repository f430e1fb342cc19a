"""Benchmark of sample scores: the processor time that keeping them takes of training, and the bytes of a trial.

    OMP_NUM_THREADS=1 python -m benchmarks.sample_scores [--rounds 9]

One cohort is trained with and without sample scores in turns, on one thread: 32 MLPs of digits and 8 of MNIST, of 3
epochs. The ratio is the median over the rounds of processor time with to processor time without, and the least and the
most. The bytes are those that the database keeps of the first trial: of all its epochs, and of its best alone.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, mnist
from hpo.datasets.sample_codec import pack_scores
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.settings import TrainSettings

METRICS = ("val_accuracy", "val_f1_macro", "val_loss", "val_roc_auc")
EPOCHS = 3


def make_cohort(name: str) -> tuple[list[TrialConfig], Data]:
    """Return the configurations of a cohort, and their data."""
    if name == "digits":
        from sklearn.datasets import load_digits

        dataset, validation, members = Dataset(load_digits(return_X_y=True)), 360, 32
    else:
        dataset, validation, members = mnist(), 10_000, 8
    rates = np.geomspace(1e-3, 1e-2, members)
    common = {"width": 64, "epochs": EPOCHS, "batch_size": 64, "validation": validation}
    configs = [TrialConfig(**common, learning_rate=float(rate)) for rate in rates]
    return configs, prepare_data(dataset, configs[0], torch.device("cpu"))


def measure(name: str, metric: str, rounds: int) -> str:
    """Return a line of the table."""
    configs, data = make_cohort(name)
    entry = registry.metrics.get(metric)
    plain = TrainSettings(metric, entry.direction, metrics=() if entry.measured else [entry])
    keeping = replace(plain, sample_scores=True)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds + 1):  # the first warms up
        for kept in (False, True) if turn % 2 else (True, False):
            since = time.process_time()
            results = train(configs, data, keeping if kept else plain)
            seconds[kept].append(time.process_time() - since)
            if kept:
                (log,) = results[0].sample_logs
    ratios = np.array(seconds[True][1:]) / np.array(seconds[False][1:])
    scores = log.result()
    assert scores is not None
    one = replace(scores, epochs=scores.epochs[scores.best :][:1], scores=scores.scores[scores.best :][:1], best=0)
    sizes = [len(pack_scores(each, log.split)) for each in (scores, one)]
    return (
        f"| {name} | {metric} | {np.median(seconds[False][1:]):.2f} s | {np.median(ratios):.3f} ({ratios.min():.3f} to "
        f"{ratios.max():.3f}) | {sizes[0]:,} | {sizes[1]:,} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", nargs="+", default=["digits", "mnist"], choices=("digits", "mnist"))
    parser.add_argument("--metrics", nargs="+", default=METRICS, choices=METRICS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| data | metric | a cohort without | with | bytes, 3 epochs | bytes, best epoch |\n" + "|---" * 6 + "|")
    for name in arguments.data:
        for metric in arguments.metrics:
            print(measure(name, metric, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
