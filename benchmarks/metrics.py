"""Benchmark of metrics: epochs that record five metrics beside the usual ones, against epochs that record none.

    python -m benchmarks.metrics [--rounds 5] [--device cpu] [--samples 20000]

On MNIST, a cohort of 25 MLPs (128-64) at batch 128, and one CNN at batch 128; both in turns, with the same seed, an
epoch and its validation on 10,000 samples. A ratio is that of the epochs' seconds, the median over the rounds, with the
least and the largest; the second figure is the time that the metrics themselves take, as a share of the epoch, which
does not drown in how much epochs differ. At most 3 % is what is promised.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.training import load
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.training import stack_run
from hpo.training.data import Data
from hpo.training.loop import train
from hpo.training.member import Metrics
from hpo.training.metrics import measure_metrics
from hpo.training.settings import TrainSettings

METRICS = ("val_f1_macro", "val_balanced_accuracy", "val_mcc", "val_log_loss", "val_top5_accuracy")
RANKED = ("val_roc_auc", "val_average_precision")  # these sort the probabilities


class Clock:
    """Time that is spent in measuring metrics."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def measure(self, *arguments: Any) -> list[Metrics]:
        """Measure metrics, and add the time it takes; they end with reading values back, which waits for the device."""
        started = time.perf_counter()
        result = measure_metrics(*arguments)
        self.seconds += time.perf_counter() - started
        return result


def seconds(configs: Sequence[TrialConfig], data: Data, names: Sequence[str]) -> tuple[float, float]:
    """Return the seconds of an epoch, and of measuring its metrics."""
    clock, settings = Clock(), TrainSettings(metrics=[registry.metrics.get(name) for name in names])
    with patch.object(stack_run, "measure_metrics", clock.measure):
        started = time.perf_counter()
        train(configs, data, settings)
        return time.perf_counter() - started, clock.seconds


def compare(title: str, configs: Sequence[TrialConfig], data: Data, names: Sequence[str], rounds: int) -> None:
    """Print a row: ratio of the epochs, and the metrics' share of them."""
    seconds(configs, data, names)  # imports, and caches that fill
    ratios, shares, epochs = [], [], []
    for place in range(rounds):
        order = ((), names) if place % 2 else (names, ())
        found = {bool(each): seconds(configs, data, each) for each in order}
        ratios.append(found[True][0] / found[False][0])
        shares.append(found[True][1] / found[False][0])
        epochs.append(found[False][0])
    ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    share = f"{100 * statistics.median(shares):.2f} % ({100 * max(shares):.2f} % at most)"
    print(f"{title:<34} {statistics.median(epochs):8.2f} s   {ratio:<26} {share}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=0, help="of the training split; 0 is all of them")
    options = parser.parse_args()
    data, _ = load(torch.device(options.device))
    if options.samples:
        data = replace(data, x_train=data.x_train[: options.samples], y_train=data.y_train[: options.samples])
    mlps = [TrialConfig(widths="128-64", learning_rate=0.001 * 1.1**i, epochs=1) for i in range(25)]
    cnn = [TrialConfig(model="cnn", conv_layers=2, channels=16, epochs=1)]
    print(
        f"{len(data.y_train):,} training and {len(data.y_val):,} validation samples, {torch.get_num_threads()} threads"
    )
    print(f"{'':<34} {'epoch':>8}     {'with metrics / without':<26} {'metrics / epoch'}")
    for title, configs in (("25 MLPs 128-64", mlps), ("CNN 16-32", cnn)):
        compare(f"{title}, 5 metrics", configs, data, METRICS, options.rounds)
        compare(f"{title}, {' and '.join(each[4:] for each in RANKED)}", configs, data, RANKED, options.rounds)


if __name__ == "__main__":
    main()
