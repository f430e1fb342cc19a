"""Tests of sample scores: metrics under counts of the samples, against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics

from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.datasets.sample_scores import KINDS, ValidationSplit, measure

pytestmark = pytest.mark.unit
Array = np.ndarray[Any, Any]
MODELS, SAMPLES, DRAWS = 3, 60, 5


def draw(seed: int = 0) -> tuple[np.random.Generator, Array]:
    """Return a generator, and counts of samples, (draws, samples), as a bootstrap draws them."""
    rng = np.random.default_rng(seed)
    return rng, rng.multinomial(SAMPLES, [1 / SAMPLES] * SAMPLES, DRAWS)


def dense_ranks(values: Array) -> Array:
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.float32)


def check(metric: str, scores: Array, labels: Array, counts: Array, expect: Callable[[int, Array], float]) -> None:
    """Check a metric under counts against its value for each model, given the samples repeated by their counts."""
    split = ValidationSplit.of(labels, None, len(labels))
    found = measure(metric, scores, split, counts)
    assert found is not None
    assert found.shape == (MODELS, DRAWS)
    rows = [np.repeat(np.arange(SAMPLES), draw) for draw in counts]
    expected = [[expect(model, row) for row in rows] for model in range(MODELS)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    once = measure(metric, scores, split)
    assert once is not None
    np.testing.assert_allclose(once, [expect(model, np.arange(SAMPLES)) for model in range(MODELS)], rtol=1e-6)


def by_class(name: str, average: str) -> Callable[[Array, Array], float]:
    function = getattr(metrics, f"{name}_score")
    return partial(function, average=average, zero_division=0)


DECISIONS = {
    "val_balanced_accuracy": metrics.balanced_accuracy_score,
    "val_mcc": metrics.matthews_corrcoef,
    "val_cohen_kappa": metrics.cohen_kappa_score,
    **{
        f"val_{name}_{average}": by_class(name, average)
        for name in ("precision", "recall", "f1")
        for average in ("macro", "micro", "weighted")
    },
}


@pytest.mark.parametrize("metric", DECISIONS)
def test_metrics_of_decisions_are_scikit_learns(metric: str) -> None:
    rng, counts = draw()
    labels, scores = rng.integers(0, 4, SAMPLES), rng.integers(0, 4, (MODELS, SAMPLES))
    scores = np.where(rng.random(scores.shape) < 0.6, labels, scores)
    check(metric, scores, labels, counts, lambda model, row: DECISIONS[metric](labels[row], scores[model, row]))


@pytest.mark.parametrize("metric", [name for name in DECISIONS if name.endswith(("macro", "micro", "weighted"))])
def test_metrics_of_several_labels_are_scikit_learns(metric: str) -> None:
    rng, counts = draw(1)
    labels, scores = (rng.random((SAMPLES, 3)) < 0.4).astype(np.uint8), rng.random((MODELS, SAMPLES, 3)) < 0.5
    check(metric, scores, labels, counts, lambda model, row: DECISIONS[metric](labels[row], scores[model, row]))


def test_means_are_weighted_means() -> None:
    rng, counts = draw(2)
    labels = rng.integers(0, 3, SAMPLES)
    for metric, scores in (
        ("val_accuracy", (rng.random((MODELS, SAMPLES)) < 0.7).astype(np.float32)),
        ("val_top5_accuracy", (rng.random((MODELS, SAMPLES)) < 0.9).astype(np.float32)),
        ("val_loss", rng.random((MODELS, SAMPLES), np.float32)),
        ("val_log_loss", rng.random((MODELS, SAMPLES), np.float32)),
        ("val_reconstruction_error", rng.random((MODELS, SAMPLES), np.float32)),
    ):
        check(metric, scores, labels, counts, lambda m, row, of=scores: of[m, row].astype(float).mean())


def test_accuracy_of_several_labels_is_the_share_of_right_ones() -> None:
    rng, counts = draw(3)
    labels, scores = (rng.random((SAMPLES, 3)) < 0.4).astype(np.uint8), rng.random((MODELS, SAMPLES, 3)) < 0.5
    check("val_accuracy", scores, labels, counts, lambda m, row: (scores[m, row] == labels[row]).mean())


@pytest.mark.parametrize("metric", ["val_roc_auc", "val_average_precision"])
@pytest.mark.parametrize("kind", ["two classes", "four classes", "labels"])
def test_metrics_of_ranks_are_scikit_learns(metric: str, kind: str) -> None:
    rng, counts = draw(4)
    function = metrics.roc_auc_score if metric == "val_roc_auc" else metrics.average_precision_score
    if kind == "two classes":
        labels = rng.integers(0, 2, SAMPLES)
        values = np.round(rng.normal(labels, 1, (MODELS, SAMPLES)), 1)  # some are equal
        truth = labels
    elif kind == "four classes":
        labels = rng.integers(0, 4, SAMPLES)
        truth = np.eye(4, dtype=int)[labels]
        values = np.round(rng.normal(truth, 1, (MODELS, SAMPLES, 4)), 1)
    else:
        labels = truth = (rng.random((SAMPLES, 3)) < 0.4).astype(np.uint8)
        values = np.round(rng.normal(truth, 1, (MODELS, SAMPLES, 3)), 1)
    expect = lambda m, row: function(truth[row], values[m, row])  # noqa: E731
    check(metric, dense_ranks(values), labels, counts, expect)


def test_a_draw_of_one_class_has_no_roc_auc() -> None:
    labels, ranks = np.array([0, 0, 1, 1]), np.array([[0, 1, 2, 3]], np.float32)
    split = ValidationSplit.of(labels, None, 4)
    found = measure("val_roc_auc", ranks, split, np.array([[2, 2, 0, 0], [1, 1, 1, 1]]))
    assert found is not None
    assert np.isnan(found[0, 0])
    assert found[0, 1] == 1


@pytest.mark.parametrize("metric", KINDS)
def test_a_draw_without_samples_has_no_value(metric: str) -> None:
    rng, kind = np.random.default_rng(7), KINDS[metric]
    of_targets = kind in ("squared_error", "absolute_error") or metric == "val_spearman"
    labels = rng.normal(3, 2, (4, 2)).astype(np.float32) if of_targets else np.array([0, 1, 1, 0])
    scores = rng.integers(0, 2, (MODELS, *labels.shape)).astype(np.float32)
    found = measure(metric, scores, ValidationSplit.of(labels, None, 4), np.array([[0, 0, 0, 0], [1, 1, 0, 2]]))
    assert found is not None
    assert np.isnan(found).tolist() == [[True, False]] * MODELS


TARGETS: dict[str, Callable[..., float]] = {
    "val_r2": metrics.r2_score,
    "val_mae": metrics.mean_absolute_error,
    "val_mape": metrics.mean_absolute_percentage_error,
    "val_rmse": metrics.root_mean_squared_error,
    "val_median_absolute_error": metrics.median_absolute_error,
}


@pytest.mark.parametrize("metric", TARGETS)
def test_metrics_of_targets_are_scikit_learns(metric: str) -> None:
    rng, counts = draw(5)
    labels = rng.normal(3, 2, (SAMPLES, 2)).astype(np.float32)
    predicted = labels + rng.normal(0, 1, (MODELS, SAMPLES, 2))
    errors = np.abs(predicted - labels)
    scores = errors**2 if KINDS[metric] == "squared_error" else errors
    check(metric, scores, labels, counts, lambda m, row: TARGETS[metric](labels[row], predicted[m, row]))


def test_spearman_is_scipys() -> None:
    rng, counts = draw(6)
    labels = np.round(rng.normal(3, 2, (SAMPLES, 2)), 1).astype(np.float32)
    predicted = np.round(labels + rng.normal(0, 2, (MODELS, SAMPLES, 2)), 1)
    ranks = np.stack([np.stack([dense_ranks(each[:, i]) for i in range(2)], 1) for each in predicted])
    expect = lambda m, row: np.mean([spearmanr(labels[row, i], predicted[m, row, i])[0] for i in range(2)])  # noqa: E731
    check("val_spearman", ranks, labels, counts, expect)


def test_r2_of_a_constant_target_is_one_without_errors_and_else_zero() -> None:
    labels = np.array([[1.0], [1.0], [2.0]], np.float32)
    scores = np.array([[[0.0], [0.0], [0.0]], [[1.0], [0.0], [0.0]]])
    found = measure("val_r2", scores, ValidationSplit.of(labels, None, 3), np.array([[1, 2, 0]]))
    assert found is not None
    assert found[:, 0].tolist() == [1, 0]


def test_every_metric_of_validation_samples_but_calibration_has_scores() -> None:
    measured = {name for name in BUILTIN_METRICS if name.startswith("val_")}
    assert measured - set(KINDS) == {"val_calibration_error"}
    assert measure("val_calibration_error", np.zeros((1, 3)), ValidationSplit.of(np.zeros(3), None, 3)) is None
