"""Benchmark of the corrected score: its bias and the coverage of its interval, in studies whose truth is known.

    python -m benchmarks.selection [--studies 200] [--seed 0]

A study is drawn: the true accuracy of each trial and epoch, and which samples each has right. Samples differ in how
hard they are, for all trials alike (the correlation), and the epochs of a trial are right on mostly the same ones. The
best epoch of the best trial is chosen, as a study does, and its score is held against its true accuracy: the chosen
score with Wilson's interval, the mean of BBC-CV with the interval of its percentiles, and the corrected score of the
report. Biases are in standard errors of one score, so that rows can be compared; coverage is the share of studies whose
interval holds the true accuracy of the configuration that was chosen. Spreads: `equal`, all are worth the same;
`apart`, normal with a deviation of one or two standard errors; `skewed`, most are near the best and some far behind;
`half`, one half is worth the same and the other far less. The last line is the time of a study of 200 trials, 5 epochs
and 10,000 samples, in processor seconds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpo.datasets.sample_scores import SampleScores, ValidationSplit
from hpo.report.stats.candidates import Candidates, make_candidates
from hpo.report.stats.selection_bias import score_interval

Array = np.ndarray[Any, Any]
Spread = Literal["equal", "apart 1", "apart 2", "skewed", "half"]
METRIC = "val_accuracy"
EPOCHS_ALIKE = 0.9  # correlation of what two epochs of a trial have right, beside what all trials have
CLIMB = 1.5  # standard errors that a trial gains over its epochs, at most


@dataclass(frozen=True)
class Setting:
    """Studies of one kind.

    Attributes:
        trials, epochs, samples: how many.
        accuracy: of a good trial.
        spread: of the true accuracies.
        correlation: of what two trials have right.
    """

    trials: int
    epochs: int
    samples: int
    accuracy: float
    spread: Spread
    correlation: float


SETTINGS = (
    Setting(2, 1, 50, 0.85, "equal", 0.6),
    Setting(10, 5, 100, 0.85, "equal", 0.6),
    Setting(60, 5, 100, 0.5, "equal", 0.0),
    Setting(60, 1, 300, 0.9, "equal", 0.6),
    Setting(60, 5, 1000, 0.9, "equal", 0.6),
    Setting(200, 1, 1000, 0.1, "equal", 0.0),
    Setting(2, 5, 300, 0.9, "apart 1", 0.6),
    Setting(10, 1, 50, 0.8, "apart 1", 0.6),
    Setting(60, 5, 300, 0.85, "apart 1", 0.6),
    Setting(200, 1, 1000, 0.9, "apart 2", 0.6),
    Setting(60, 5, 1000, 0.9, "apart 2", 0.8),
    Setting(20, 10, 300, 0.9, "skewed", 0.6),
    Setting(60, 5, 1000, 0.95, "skewed", 0.6),
    Setting(60, 1, 100, 0.85, "half", 0.3),
    Setting(60, 1, 10_000, 0.97, "skewed", 0.7),
)


HEADER = (
    "| trials | epochs | samples | spread | correlation | bias of the chosen score | BBC-CV | of the corrected score "
    "| coverage of the chosen score | of BBC-CV | of the corrected score | width |\n" + 12 * "|---" + "|"
)


@dataclass(frozen=True)
class Outcome:
    """A study's estimates: scores less the true accuracy, in standard errors, and whether intervals hold it.

    Attributes:
        chosen, drawn, corrected: the chosen score, the mean of BBC-CV, and the corrected score.
        chosen_holds, drawn_holds, corrected_holds: whether their intervals hold the true accuracy.
        width: of the corrected score's interval, against that of the chosen score.
    """

    chosen: float
    drawn: float
    corrected: float
    chosen_holds: bool
    drawn_holds: bool
    corrected_holds: bool
    width: float


def draw_study(setting: Setting, rng: np.random.Generator) -> tuple[Candidates, Array]:
    """Draw a study's candidates and their true accuracies, (trials, epochs)."""
    from scipy.special import ndtri

    error = math.sqrt(setting.accuracy * (1 - setting.accuracy) / setting.samples)
    truth = setting.accuracy - error * _draw_distances(setting, rng)[:, None] * np.ones(setting.epochs)
    if setting.spread != "equal":
        truth -= error * CLIMB * rng.random((setting.trials, 1)) * np.linspace(1, 0, setting.epochs + 1)[1:]
    truth = np.clip(truth, 0.01, 0.995)
    shape = (setting.trials, setting.epochs, setting.samples)
    samples, trials = rng.standard_normal(shape[2]), rng.standard_normal((shape[0], 1, shape[2]))
    alike = math.sqrt(EPOCHS_ALIKE) * trials + math.sqrt(1 - EPOCHS_ALIKE) * rng.standard_normal(shape)
    hardness = math.sqrt(setting.correlation) * samples + math.sqrt(1 - setting.correlation) * alike
    right = (hardness < ndtri(truth)[..., None]).astype(np.float32)
    split = ValidationSplit.of(np.zeros(shape[2], np.int64), np.arange(shape[2]), shape[2])
    epochs = np.arange(1, setting.epochs + 1)
    fits = {
        number: (SampleScores(0, split.digest, epochs, int(scores.mean(1).argmax()), scores, "correct", METRIC),)
        for number, scores in enumerate(right)
    }
    return make_candidates(METRIC, 1, fits, {split.digest: split}), truth


def _draw_distances(setting: Setting, rng: np.random.Generator) -> Array:
    """Draw how far each trial is behind a good one, in standard errors, (trials,)."""
    count = setting.trials
    if setting.spread == "equal":
        return np.zeros(count)
    if setting.spread == "skewed":
        return 3 * rng.exponential(size=count)
    if setting.spread == "half":
        return np.where(np.arange(count) % 2, 10 * rng.exponential(size=count), 0)
    return float(setting.spread.removeprefix("apart ")) * rng.standard_normal(count)


def correct_study(candidates: Candidates, truth: Array) -> Outcome:
    """Choose a study's best candidate, correct its score, and hold both against its true accuracy."""
    whole = candidates.measure()
    best = int(whole.argmax())
    chosen, worth, samples = float(whole[best]), float(truth.ravel()[best]), candidates.rows
    draws = candidates.leaders().resample(seed=best)
    correction = draws.correct()
    corrected = chosen - correction.bias
    variance, error = chosen * (1 - chosen), correction.error
    low, high = score_interval(corrected, variance / error**2 if error * variance else samples, (0, 1))
    naive = score_interval(chosen, samples, (0, 1))
    percentiles = np.quantile(draws.out_of_bag, [0.025, 0.975])
    unit = math.sqrt(worth * (1 - worth) / samples)
    return Outcome(
        chosen=(chosen - worth) / unit,
        drawn=(float(draws.out_of_bag.mean()) - worth) / unit,
        corrected=(corrected - worth) / unit,
        chosen_holds=naive[0] <= worth <= naive[1],
        drawn_holds=bool(percentiles[0] <= worth <= percentiles[1]),
        corrected_holds=low <= worth <= high,
        width=(high - low) / (naive[1] - naive[0]),
    )


def run_setting(setting: Setting, studies: int, seed: int = 0) -> list[Outcome]:
    """Draw and correct so many studies of a kind."""
    rng = np.random.default_rng(seed)
    return [correct_study(*draw_study(setting, rng)) for _ in range(studies)]


def format_row(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Format a setting's row of the table."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(outcome, name) for outcome in outcomes]))

    spread = float(np.std([outcome.corrected for outcome in outcomes]))
    kind = f"| {setting.trials} | {setting.epochs} | {setting.samples} | {setting.spread} | {setting.correlation} |"
    bias = " | ".join(f"{mean(name):+.2f}" for name in ("chosen", "drawn", "corrected"))
    cover = " | ".join(f"{100 * mean(f'{name}_holds'):.0f} %" for name in ("chosen", "drawn", "corrected"))
    return f"{kind} {bias} ± {spread / math.sqrt(len(outcomes)):.2f} | {cover} | {mean('width'):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(HEADER)
    everything: list[Outcome] = []
    for setting in SETTINGS:
        outcomes = run_setting(setting, options.studies, options.seed)
        everything += outcomes
        print(format_row(setting, outcomes), flush=True)
    chosen, corrected = (
        abs(float(np.mean([getattr(o, name) for o in everything]))) for name in ("chosen", "corrected")
    )
    share = 100 * float(np.mean([outcome.corrected_holds for outcome in everything]))
    print(f"all: bias {corrected:.3f} of {chosen:.3f} standard errors, coverage {share:.1f} %")
    study, _ = draw_study(Setting(200, 5, 10_000, 0.97, "skewed", 0.7), np.random.default_rng(options.seed))
    started = time.process_time()
    study.leaders().resample().correct()
    print(f"a study of 200 trials, 5 epochs and 10,000 samples: {time.process_time() - started:.2f} s")


if __name__ == "__main__":
    main()
