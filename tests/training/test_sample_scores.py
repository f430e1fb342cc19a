"""Tests of the scores that training keeps of validation samples: the metric that was recorded follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.datasets.sample_scores import KINDS, ValidationSplit, measure
from hpo.training import sample_scores
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.sample_log import SampleLog
from hpo.training.settings import TrainSettings

pytestmark = pytest.mark.unit
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype(np.float32)
NOISE = RNG.normal(size=(300, 3))
LABELS = {
    "classification": np.argmax(X[:, :3] + NOISE, 1),
    "two classes": (X[:, 0] + NOISE[:, 0] > 0).astype(int),
    "multilabel": (X[:, :3] + NOISE > 0).astype(np.float32),
    "regression": (3 * X[:, :2] + NOISE[:, :2] + 5).astype(np.float32),
}
SMALL: dict[str, Any] = {"validation": 120, "epochs": 3, "batch_size": 32, "learning_rate": 0.01, "width": 8}


def config(task: str, **changes: Any) -> TrialConfig:
    task = "classification" if task == "two classes" else task
    return TrialConfig(**{**SMALL, "task": task, **changes})


def make_data(task: str, like: TrialConfig) -> Data:
    kind = "classification" if task == "two classes" else task
    return prepare_data(Dataset((X, LABELS[task]), task=kind), like, torch.device("cpu"))


def fit(metric: str, configs: list[TrialConfig], data: Data | list[Data], **more: Any) -> list[TrainResult]:
    entry = registry.metrics.get(metric)
    settings = TrainSettings(metric, entry.direction, metrics=[entry], sample_scores=True, **more)
    return train(configs, data, settings)


def check(result: TrainResult, metric: str, rel: float = 2e-5) -> None:
    """Check that the metric of every epoch follows from the scores, and which epoch is the best."""
    (log,) = result.sample_logs
    scores = log.result()
    assert scores is not None
    assert scores.epochs.tolist() == [row["epoch"] for row in result.history]
    assert scores.epochs[scores.best] == result.best_epoch
    found = measure(metric, scores.scores, log.split)
    np.testing.assert_allclose(found, [row[metric] for row in result.history], rtol=rel, atol=rel)


CASES = [
    *(("classification", metric) for metric, kind in KINDS.items() if kind in ("correct", "prediction")),
    *(("multilabel", metric) for metric in ("val_accuracy", "val_f1_macro", "val_roc_auc", "val_log_loss")),
    *(("classification", metric) for metric in ("val_loss", "val_log_loss", "val_roc_auc", "val_average_precision")),
    *(("two classes", metric) for metric in ("val_roc_auc", "val_average_precision")),
    *(("regression", metric) for metric in ("val_loss", "val_r2", "val_rmse", "val_mae", "val_mape")),
    *(("regression", metric) for metric in ("val_median_absolute_error", "val_spearman")),
]


@pytest.mark.parametrize(("task", "metric"), CASES)
def test_the_metric_of_a_stack_follows_from_its_sample_scores(task: str, metric: str) -> None:
    configs = [config(task), config(task, width=12, activation="tanh", epochs=2)]
    for result in fit(metric, configs, make_data(task, configs[0])):
        check(result, metric)


@pytest.mark.parametrize(
    ("task", "losses", "metrics"),
    [
        ("regression", ("gaussian_nll", "mse", "huber", "mae", "gaussian_nll"), ("val_loss", "val_rmse")),
        ("classification", ("mse", "cross_entropy", "mse"), ("val_loss", "val_accuracy")),
    ],
)
def test_members_of_several_losses_are_scored_by_their_own(
    task: str, losses: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    configs = [config(task, loss=loss, width=8 + number) for number, loss in enumerate(losses)]
    for metric in metrics:
        for result in fit(metric, configs, make_data(task, configs[0])):
            check(result, metric)


@pytest.mark.parametrize(("task", "metric"), [("classification", "val_accuracy"), ("regression", "val_loss")])
def test_that_of_a_model_alone_does_too(task: str, metric: str) -> None:
    loss = {"loss": "huber"} if task == "regression" else {}
    alone = config(task, optimizer="lbfgs", learning_rate=0.5, **loss)
    check(fit(metric, [alone], make_data(task, alone))[0], metric)


@pytest.mark.parametrize("metric", ["val_loss", "val_reconstruction_error"])
@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("count", [1, 2])
def test_that_of_models_that_reconstruct_does_too(metric: str, loss: str, count: int) -> None:
    scaling = {"input_scaling": "unit"} if loss == "binary_cross_entropy" else {}
    optimizer = "adam" if count > 1 else "lbfgs"
    configs = [config("classification", model="autoencoder", loss=loss, optimizer=optimizer, **scaling)] * count
    for result in fit(metric, configs, make_data("classification", configs[0])):
        check(result, metric)


def test_members_with_samples_of_their_own_have_scores_of_their_own() -> None:
    configs = [config("classification", seed=seed, validation=100 + seed) for seed in (0, 1)]
    data = [make_data("classification", each) for each in configs]
    results = fit("val_accuracy", configs, data)
    for result, each in zip(results, data, strict=True):
        check(result, "val_accuracy")
        np.testing.assert_array_equal(result.sample_logs[0].split.index, each.val_index)
        np.testing.assert_array_equal(result.sample_logs[0].split.labels, each.y_val)
    digests = {result.sample_logs[0].split.digest for result in results}
    assert len(digests) == 2


def test_the_samples_of_a_split_know_their_groups() -> None:
    groups = np.array([f"patient {row // 5}" for row in range(300)])
    made, like = Dataset((X, LABELS["classification"]), groups=groups), config("classification")
    (result,) = fit("val_accuracy", [like], prepare_data(made, like, torch.device("cpu")))
    split = result.sample_logs[0].split
    assert split.index is not None
    assert split.groups is not None
    assert len(np.unique(split.groups)) == 120 // 5
    for row, group in zip(split.index, split.groups, strict=True):
        assert (groups[split.index[split.groups == group]] == groups[row]).all()


def test_of_a_large_split_the_same_samples_are_kept_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_scores, "count_samples", lambda kind, columns, count: 50)
    configs = [config("classification"), config("classification", width=12)]
    data = make_data("classification", configs[0])
    splits = [result.sample_logs[0].split for result in fit("val_accuracy", configs, data)]
    assert [(len(split.labels), split.count) for split in splits] == [(50, 120)] * 2
    assert splits[0].digest == splits[1].digest
    assert data.val_index is not None
    assert set(splits[0].index.tolist()) < set(data.val_index.tolist())


def test_metrics_without_sample_scores_keep_none() -> None:
    one = config("classification")
    assert fit("val_calibration_error", [one], make_data("classification", one))[0].sample_logs == ()
    nothing = config("classification", validation=0)
    assert fit("val_accuracy", [nothing], make_data("classification", nothing))[0].sample_logs == ()


@pytest.mark.parametrize("metric", ["val_accuracy", "val_log_loss", "val_roc_auc"])
def test_an_interrupted_trial_has_the_same_sample_scores(metric: str, tmp_path: Path) -> None:
    configs = [config("classification"), config("classification", width=12)]
    data, entry = make_data("classification", configs[0]), registry.metrics.get(metric)
    whole = fit(metric, configs, data)
    steps = iter(range(100))
    settings = TrainSettings(metric, entry.direction, metrics=[entry], sample_scores=True)
    stopping = TrainSettings(
        metric, entry.direction, metrics=[entry], sample_scores=True, should_stop=lambda: next(steps) > 14
    )
    specs = [CheckpointSpec(tmp_path / f"{i}.pt") for i in range(2)]
    interrupted = train(configs, data, stopping, specs)
    assert {result.status for result in interrupted} == {"interrupted"}
    resumed = train(configs, data, settings, [CheckpointSpec(each.path, resume=True) for each in specs])
    for before, after in zip(whole, resumed, strict=True):
        one, other = (result.sample_logs[0].result() for result in (before, after))
        assert one is not None
        assert other is not None
        assert (one.split, one.best, one.epochs.tolist()) == (other.split, other.best, other.epochs.tolist())
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_log_keeps_every_second_epoch_and_so_on_and_always_the_best_and_the_last() -> None:
    split = ValidationSplit.of(np.zeros(40_000, np.int64), None, 40_000)
    log = SampleLog(split, "val_loss", "loss")  # 120 kB an epoch: two have room
    rows = [np.full(40_000, epoch, np.float32) for epoch in range(1, 12)]
    for epoch, row in enumerate(rows, 1):
        log.add(epoch, row, best=epoch in (1, 4, 6))
    found = log.result()
    assert found is not None
    assert found.epochs.tolist() == [1, 6, 9, 11]
    assert found.best == 1
    assert found.scores[:, 0].tolist() == [1, 6, 9, 11]
