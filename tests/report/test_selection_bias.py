"""Corrected scores are right where the truth is known, and so are their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.selection import METRIC, Setting, run_setting
from hpo.datasets.sample_scores import SampleScores, ValidationSplit
from hpo.report.stats.candidates import make_candidates
from hpo.report.stats.selection_bias import Resamples, score_interval

STUDIES = 30


@pytest.mark.parametrize(
    "setting",
    [
        Setting(10, 5, 100, 0.85, "equal", 0.5),
        Setting(30, 2, 200, 0.85, "apart 1", 0.5),
        Setting(20, 3, 100, 0.9, "skewed", 0.5),
    ],
    ids=lambda setting: f"{setting.trials}-{setting.epochs}-{setting.spread}",
)
def test_the_corrected_score_is_unbiased_and_its_interval_holds_the_truth(setting: Setting) -> None:
    outcomes = run_setting(setting, STUDIES)
    chosen, corrected = (np.array([getattr(each, name) for each in outcomes]) for name in ("chosen", "corrected"))
    chance = 3 * corrected.std() / np.sqrt(STUDIES)
    assert chosen.mean() > 0.8  # the fault that is corrected
    assert abs(corrected.mean()) < chance + 0.1 * chosen.mean()
    assert abs(corrected.mean()) < chosen.mean() / 2
    assert np.mean([each.corrected_holds for each in outcomes]) >= 0.88  # three deviations of a share of 0.95
    assert np.mean([each.width for each in outcomes]) < 1.5  # not by being wide


def draws(rng: np.random.Generator, scores: np.ndarray, count: int = 400) -> Resamples:
    samples = scores.shape[1]
    counts = rng.multinomial(samples, np.full(samples, 1 / samples), count)
    in_bag = counts @ scores.T / samples
    left_out = counts == 0
    best = in_bag.argmax(1)
    out_of_bag = np.array([scores[i, out].mean() for i, out in zip(best, left_out, strict=True)])
    return Resamples(scores.mean(1), in_bag, out_of_bag)


def test_a_clear_winner_is_not_flattered() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.random((5, 400)) < np.array([0.95, 0.5, 0.5, 0.4, 0.3])[:, None]).astype(float)
    correction = draws(rng, scores).correct()
    assert correction.bias == 0
    assert correction.error == correction.sample_error
    assert correction.error == pytest.approx(np.sqrt(0.95 * 0.05 / 400), rel=0.3)


def test_identical_trials_do_not_flatter_each_other() -> None:
    rng = np.random.default_rng(0)
    scores = np.repeat((rng.random((1, 300)) < 0.9).astype(float), 20, axis=0)
    correction = draws(rng, scores).correct()
    assert correction.bias < 0.002
    assert correction.error == pytest.approx(correction.sample_error, rel=0.2)


@pytest.mark.parametrize(("score", "samples"), [(1.0, 50), (0.0, 50), (0.5, 10_000)])
def test_an_interval_stays_within_the_bounds_and_has_a_width(score: float, samples: int) -> None:
    low, high = score_interval(score, samples, (0, 1))
    assert 0 <= low < high <= 1
    assert low - 1e-9 <= score <= high + 1e-9
    assert high - low == pytest.approx(4 * np.sqrt(0.25 / samples), rel=0.1) or score in (0, 1)


def fit(scores: np.ndarray, split: ValidationSplit, number: int = 0) -> SampleScores:
    epochs = np.arange(1, len(scores) + 1)
    best = int(scores.mean(1).argmax())
    return SampleScores(number, split.digest, epochs, best, scores.astype(np.float32), "correct", METRIC)


def split_of(rows: np.ndarray) -> ValidationSplit:
    return ValidationSplit.of(np.zeros(len(rows), np.int64), rows, len(rows))


def test_a_trials_score_is_the_mean_over_its_folds_and_a_row_is_drawn_once_for_all() -> None:
    rng = np.random.default_rng(0)
    first, second = split_of(np.arange(0, 40, 2)), split_of(np.arange(1, 41, 2))
    right = rng.random((3, 2, 20)) < 0.8
    trials = {number: (fit(each[:1], first), fit(each[1:], second, 1)) for number, each in enumerate(right)}
    candidates = make_candidates(METRIC, 1, trials, {each.digest: each for each in (first, second)})
    assert candidates.rows == 40
    assert candidates.measure() == pytest.approx(right.mean(2).mean(1))
    counts = rng.integers(0, 3, (4, 40)).astype(np.float32)
    by_hand = [[np.mean([np.average(each[i], weights=row[i::2]) for i in (0, 1)]) for each in right] for row in counts]
    assert candidates.measure(counts) == pytest.approx(np.array(by_hand))


def test_trials_on_splits_of_their_own_share_the_draws_of_the_rows_that_they_share() -> None:
    rng = np.random.default_rng(0)
    splits = [split_of(np.sort(rng.choice(100, 50, replace=False))) for _ in range(6)]
    trials = {number: (fit(rng.random((2, 50)) < 0.8, split),) for number, split in enumerate(splits)}
    candidates = make_candidates(METRIC, 1, trials, {split.digest: split for split in splits})
    counts = rng.integers(1, 3, (3, 100)).astype(np.float32)
    known = np.unique(np.concatenate([split.index for split in splits if split.index is not None]))
    scores = candidates.measure(counts[:, : candidates.rows])
    for number, split in enumerate(splits):
        weights = counts[:, np.searchsorted(known, split.index)]
        expected = [np.average(trials[number][0].scores[1], weights=row) for row in weights]
        assert scores[:, 2 * number + 1] == pytest.approx(np.array(expected))
    correction = candidates.leaders().resample().correct()
    assert correction.bias > 0


def test_where_a_part_of_the_samples_is_kept_the_recorded_score_counts_and_the_noise_is_of_all() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(500)
    whole = ValidationSplit.of(np.zeros(500, np.int64), rows, 500)
    part = ValidationSplit.of(np.zeros(500, np.int64), rows, 5000)
    right = rng.random((1, 500)) < 0.9
    errors = {}
    for split in (whole, part):
        candidates = make_candidates(METRIC, 1, {0: (fit(right, split),)}, {split.digest: split}, {(0, 1): 0.9})
        assert candidates.whole == pytest.approx(0.9)
        errors[split.count] = candidates.resample().correct().error
    assert errors[5000] == pytest.approx(errors[500] / np.sqrt(10))
