"""Words for a reference model beside a network: by rows, by seeds, and where these are too few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.config.metric_range import metric_range
from hpo.config.trial_config import TrialConfig
from hpo.report.chapters.reference_models import compare_with_evaluated
from hpo.report.chapters.verdict import interval_text
from hpo.report.checks.curves import _advise_fit
from hpo.report.checks.trust import retraining
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.reference_models import ReferenceModel, ReferenceModels
from hpo.report.stats.evaluation_stats import compare_candidates
from hpo.report.stats.reference_comparison import RowGains
from hpo.study import Objective

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(50_000, 10_000, (400, 1)).astype(np.float32)


def r2(predicted: np.ndarray) -> float:
    return float(1 - np.square(TRUTH - predicted).sum() / np.square(TRUTH - TRUTH.mean()).sum())


def network(
    folder: Path, scores: Sequence[float], *, files: bool, noise: float = 4000, label: str = "trial 3"
) -> CandidateRuns:
    runs = []
    for seed, score in enumerate(scores):
        path = folder / f"{label}-{seed}.npz"
        predicted = TRUTH + np.random.default_rng(seed).normal(0, noise, TRUTH.shape).astype(np.float32)
        parts = {"targets": TRUTH, "predictions": predicted, "count": np.array(len(TRUTH))}
        parts |= {"worst_targets": TRUTH[:1], "worst_predictions": predicted[:1]}
        np.savez(path, **{f"test_{name}": array for name, array in parts.items()})
        score = r2(predicted) if files else score
        state = {"val_r2": score}, {"test_r2": score}
        runs.append(EvaluationRun("e", seed, seed, "COMPLETE", *state, file=path if files else None))
    baseline = label == "baseline"
    return CandidateRuns(label, None if baseline else 3, baseline, TrialConfig(), {}, None, tuple(runs))


def evaluation(
    folder: Path, *candidates: CandidateRuns, noise: float | None = None, score: float = 0.951
) -> EvaluationResults:
    file = None
    if noise is not None:
        predicted = TRUTH + np.random.default_rng(99).normal(0, noise, TRUTH.shape).astype(np.float32)
        file, score = folder / "reference.npz", r2(predicted)
        np.savez(file, test_truth=TRUTH, test_0=predicted)
    model = ReferenceModel(name="gradient boosting", scores={"test_r2": score}, seconds=0.01)
    references = ReferenceModels(split="s", samples=1, models=(model,), file=file)
    objective = Objective(metric="val_r2", direction="maximize")
    return EvaluationResults(("e",), "d", True, False, objective, candidates, 0, reference_models=references)


def said(found: EvaluationResults) -> str:
    best = compare_candidates(found).best
    assert best is not None
    return compare_with_evaluated(found, best)


def test_rows_tell_what_two_seeds_cannot(tmp_path: Path) -> None:
    text = said(evaluation(tmp_path, network(tmp_path, [0, 0], files=True), noise=1000))
    assert "better than the best network (significant: paired by row, with each of its 2 seeds)." in text
    assert "trained in" not in text  # in no time that is worth a word


def test_equal_models_are_not_told_apart(tmp_path: Path) -> None:
    text = said(evaluation(tmp_path, network(tmp_path, [0] * 4, files=True), noise=4000))
    assert "no significant difference (" in text
    assert "paired by row, over 4 seeds" in text
    worse = said(evaluation(tmp_path, network(tmp_path, [0] * 4, files=True), noise=9000))
    assert "worse than the best network (significant" in worse


@pytest.mark.parametrize("runs", [1, 2, 5])
@pytest.mark.parametrize(
    ("better", "worse", "apart"),
    [
        (1, 0, False),
        (4, 0, False),
        (5, 0, False),
        (7, 0, True),
        (7, 1, False),
        (8, 1, True),
        (9, 2, False),
        (0, 7, True),
    ],
)
def test_a_few_rows_are_told_apart_as_the_exact_test_tells(runs: int, better: int, worse: int, *, apart: bool) -> None:
    gains = np.zeros(200)
    gains[:better], gains[better : better + worse] = 1, -1
    assert (binomtest(better, better + worse).pvalue < 0.05) == apart
    assert RowGains(np.tile(gains, (runs, 1))).apart == apart  # runs that agree in every row


def test_errors_of_few_rows_are_told_apart_by_students_t() -> None:
    errors = np.array([0.1, 0.5, 0.9])  # normal: 0.5 ± 0.45, which leaves 0; Student's t: ± 0.99
    assert not RowGains(errors[None]).apart
    assert RowGains(np.array([[0.4, 0.5, 0.6]])).apart
    assert not RowGains(np.zeros((1, 3))).apart


def test_rows_of_other_data_are_not_paired(tmp_path: Path) -> None:
    found = evaluation(tmp_path, network(tmp_path, [0, 0], files=True), noise=1000)
    np.savez(tmp_path / "reference.npz", test_truth=TRUTH[::-1], test_0=TRUTH)
    assert said(found).endswith("2 seeds are too few to tell.")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.88, 0.82], "0.101 better than the best network; 2 seeds are too few to tell."),
        ([0.85], "0.101 better than the best network; a single seed is too few to tell."),
        ([0.85, 0.84, 0.86], "0.101 better than the best network, more than the 3 seeds of the network explain."),
        (
            [0.95, 0.5, 1.1],
            "no clear difference (0.101 better than the best network, which the 3 seeds of the network",
        ),
    ],
)
def test_without_rows_it_takes_seeds(scores: list[float], expected: str, tmp_path: Path) -> None:
    assert expected in said(evaluation(tmp_path, network(tmp_path, scores, files=False)))


def test_an_interval_takes_three_seeds_and_stays_within_what_the_metric_can_be(tmp_path: Path) -> None:
    two = compare_candidates(evaluation(tmp_path, network(tmp_path, [0.8, 0.9], files=False))).best
    three = compare_candidates(evaluation(tmp_path, network(tmp_path, [0.7, 0.99, 0.9], files=False))).best
    assert two is not None
    assert two.test is not None
    assert math.isnan(two.test.low)
    assert "2 seeds, too few for an interval" in interval_text("test_r2", two.test)
    assert three is not None
    assert three.test is not None
    assert three.test.high == 1.0


def test_ranges_are_those_of_the_metrics() -> None:
    assert metric_range("val_f1_macro") == metric_range("test_top5_accuracy") == (0.0, 1.0)
    assert metric_range("val_cohen_kappa") == (-1.0, 1.0)
    assert metric_range("test_r2") == (-math.inf, 1.0)
    assert metric_range("val_rmse") == (0.0, math.inf)
    assert metric_range("val_loss") == (-math.inf, math.inf)  # it may be any of the user's
    unbounded = {name for name in BUILTIN_METRICS if metric_range(name) == (-math.inf, math.inf)}
    assert unbounded == {"val_loss", "parameter_count", "train_seconds"}


def test_retraining_tells_that_the_baseline_is_the_best(tmp_path: Path) -> None:
    best = network(tmp_path, [0.9, 0.91], files=False, label="baseline")
    other = network(tmp_path, [0.7, 0.8], files=False)
    (finding,) = retraining(None, [evaluation(tmp_path, other, best)])  # type: ignore[arg-type]  # of no matter here
    assert finding.evidence.startswith("the baseline is the best of those retrained: it gains 0.155 over trial 3")


def test_retraining_of_one_configuration_is_no_comparison(tmp_path: Path) -> None:
    (finding,) = retraining(None, [evaluation(tmp_path, network(tmp_path, [0.7, 0.8], files=False))])  # type: ignore[arg-type]
    assert "trial 3 has been retrained from 2 fresh seeds" in finding.evidence


def test_a_network_behind_a_linear_model_is_not_to_be_regularized_first(tmp_path: Path) -> None:
    found = evaluation(tmp_path, network(tmp_path, [0.7, 0.8], files=False))
    linear = ReferenceModel(name="ridge regression", scores={"val_r2": 0.9}, seconds=0.0)
    behind = replace(found, reference_models=ReferenceModels(split="s", samples=1, models=(linear,)))
    ahead = replace(
        found,
        reference_models=ReferenceModels(
            split="s", samples=1, models=(linear.model_copy(update={"scores": {"val_r2": 0.5}}),)
        ),
    )
    assert _advise_fit([behind]).endswith("ridge regression, a linear model, is better than it")
    assert _advise_fit([ahead]) == _advise_fit([found]) == ""
