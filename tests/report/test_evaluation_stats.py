"""What evaluations say, against simulations in which the truth is known, and scipy's own bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hpo.config.trial_config import TrialConfig
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.stats.evaluation_stats import (
    bootstrap_interval,
    compare_candidates,
    explain_columns,
    summarize_evaluation,
)
from hpo.study import Objective


def candidate(
    label: str,
    test: Sequence[float],
    *,
    validation: Sequence[float] | None = None,
    chosen: float | None = None,
    files: Sequence[Path | None] | None = None,
) -> CandidateRuns:
    files = files or [None] * len(test)
    runs = tuple(
        EvaluationRun(label, i, i + 1, "COMPLETE", {"val_accuracy": v}, {"test_accuracy": t}, file=file)
        for i, (t, v, file) in enumerate(zip(test, validation or test, files, strict=True))
    )
    trial = int(label.split()[1]) if " " in label else None
    return CandidateRuns(label, trial, trial is None, TrialConfig(), {}, chosen, runs)


def evaluation(*candidates: CandidateRuns, direction: str = "maximize") -> EvaluationResults:
    objective = Objective(metric="val_accuracy", direction=direction)  # type: ignore[arg-type]
    return EvaluationResults(("e",), "mnist", True, False, objective, candidates, 0)


def predictions(folder: Path, name: str, correct: np.ndarray) -> Path:
    """Two classes, every label 0: a sample is right where class 0 has more."""
    path = folder / f"{name}.npz"
    share = np.where(correct, 0.9, 0.1)
    table = np.stack([share, 1 - share], 1).astype(np.float16)
    parts = {"labels": np.zeros(len(correct)), "probabilities": table, "mistakes": np.flatnonzero(~correct)[:4]}
    np.savez(path, **{f"{split}_{key}": value for split in ("validation", "test") for key, value in parts.items()})
    return path


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = sum(found.low <= 0 <= found.high for found in (bootstrap_interval(rng.normal(size=5)) for _ in range(400)))
    assert 0.92 <= hits / 400 <= 0.98


def test_with_many_values_it_is_scipys_percentile_interval() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=400)
    ours = bootstrap_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=3).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)
    assert ours.deviation == pytest.approx(values.std(ddof=1))


def test_samples_count_where_seeds_agree() -> None:
    """Five models that are right on the same 900 of 1,000 samples: the binomial error is left."""
    rows = np.tile(np.arange(1000) < 900, (5, 1)).astype(np.int8)
    found = bootstrap_interval(rows.mean(1), rows)
    assert found.deviation == 0
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.9 * 0.1 / 1000), rel=0.06)


def test_differences_that_cancel_each_other_have_a_mean_of_zero() -> None:
    assert bootstrap_interval([0.1, 0.2, -0.3]).mean == 0.0
    assert bootstrap_interval([0.1, 0.2, -0.299]).mean == pytest.approx(0.001 / 3)


def test_a_single_seed_has_no_interval() -> None:
    found = bootstrap_interval([0.9])
    assert found.mean == 0.9
    assert math.isnan(found.low)
    said = compare_candidates(evaluation(candidate("trial 1", [0.9]), candidate("baseline", [0.1])))
    assert said.winner is None
    assert said.beats_rival is None
    assert said.tied == ("baseline",)


def test_no_tie_is_said_of_runs_without_a_common_seed() -> None:
    later = candidate("trial 7", [0.5, 0.5, 0.5])
    later = replace(later, runs=tuple(replace(run, seed=run.seed + 100) for run in later.runs))
    runs = evaluation(candidate("trial 1", [0.9, 0.91, 0.92]), candidate("baseline", [0.9, 0.92, 0.91]), later)
    said = compare_candidates(runs)
    assert said.winner is None
    assert said.tied == ("baseline",)
    assert said.uncompared == ("trial 7",)
    assert "trial 1 was run from no seed of trial 7, so they cannot be compared" in summarize_evaluation(runs, said)


def test_a_clear_winner_and_its_bias() -> None:
    best = candidate("trial 4", [0.95, 0.951, 0.949, 0.95, 0.952], validation=[0.96] * 5, chosen=0.975)
    said = compare_candidates(
        evaluation(best, candidate("trial 2", [0.90] * 5), candidate("baseline", [0.8, 0.81, 0.8, 0.8, 0.79]))
    )
    assert said.winner is best
    assert said.beats_rival is True
    assert said.tied == ()
    assert said.scores[0].bias == pytest.approx(0.015)
    assert [each.second for each in said.comparisons] == ["trial 2", "baseline"]


def test_no_difference_is_larger_than_a_metric_allows() -> None:
    wide, low = candidate("trial 4", [1.0, 0.9, 0.3]), candidate("trial 2", [0.05, 0.3, 0.1])
    (found,) = compare_candidates(evaluation(wide, low)).comparisons
    assert found.difference.high == 1.0
    assert -1.0 <= found.difference.low < found.difference.mean


def test_only_columns_that_are_there_are_explained() -> None:
    chosen, other = candidate("trial 4", [0.95], validation=[0.96], chosen=0.97), candidate("trial 4", [0.9])
    own, elsewhere = explain_columns(evaluation(chosen)), explain_columns(evaluation(other))
    assert own.startswith("chosen: the score in the study; bias: how much better chosen is than validation")
    assert elsewhere.startswith("deviation: over seeds; ")


def test_a_bias_that_is_the_rounding_of_a_mean_is_none() -> None:
    seeds, chosen = [0.95, 0.951, 0.949], 0.95
    assert bootstrap_interval(seeds).mean != chosen  # but the next number but one
    for direction in ("minimize", "maximize"):
        one = candidate("trial 4", seeds, validation=seeds, chosen=chosen)
        [score] = compare_candidates(evaluation(one, direction=direction)).scores
        assert str(score.bias) == "0.0"


def test_the_order_is_by_fresh_validation_and_not_by_the_test_set() -> None:
    one = candidate("trial 1", [0.99] * 3, validation=[0.90, 0.91, 0.92])
    other = candidate("trial 2", [0.10] * 3, validation=[0.93, 0.94, 0.95])
    assert [score.candidate.label for score in compare_candidates(evaluation(one, other)).scores] == [
        "trial 2",
        "trial 1",
    ]


def test_what_is_paired_can_be_told_apart_where_the_seeds_vary_more_than_the_difference() -> None:
    seeds = np.array([0.90, 0.93, 0.91, 0.95, 0.92])
    said = compare_candidates(evaluation(candidate("trial 1", seeds + 0.004), candidate("baseline", seeds)))
    assert said.beats_rival is True
    shuffled = compare_candidates(
        evaluation(candidate("trial 1", seeds + 0.004), candidate("baseline", seeds[[3, 1, 4, 0, 2]]))
    )
    assert shuffled.beats_rival is None


def test_a_smaller_loss_is_better() -> None:
    low, high = candidate("trial 1", [0.10, 0.11, 0.10]), candidate("baseline", [0.50, 0.52, 0.51])
    said = compare_candidates(evaluation(high, low, direction="minimize"))
    assert said.winner is low
    assert said.comparisons[0].difference.mean == pytest.approx(0.4067, abs=1e-3)


def test_noise_has_no_winner(tmp_path: Path) -> None:
    """Four constant classifiers on labels that are a coin's: each is the same whatever its seed, and none is better."""
    wrong = 0
    for study in range(40):
        rng = np.random.default_rng(study)
        rows = [rng.random(300) < 0.5 for _ in range(4)]
        files = [predictions(tmp_path, f"{study}-{i}", row) for i, row in enumerate(rows)]
        names = ["trial 1", "trial 2", "trial 3", "baseline"]
        each = [candidate(n, [r.mean()] * 5, files=[f] * 5) for n, r, f in zip(names, rows, files, strict=True)]
        said = compare_candidates(evaluation(*each))
        wrong += said.winner is not None or said.beats_rival is not None
    assert wrong <= 4


def test_nothing_is_said_before_anything_is_done() -> None:
    waiting = CandidateRuns("trial 1", 1, False, TrialConfig(), {}, 0.9, (EvaluationRun("e", 0, 1, "WAITING"),))
    said = compare_candidates(evaluation(waiting))
    assert said.best is None
    assert said.winner is None
    assert said.scores[0].test is None
