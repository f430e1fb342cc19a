"""Built-in metrics against scikit-learn, and against torchmetrics where that agrees, on random and degenerate data."""

from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torchmetrics.functional as torchmetrics
from scipy.special import expit, log_softmax, softmax
from scipy.stats import spearmanr
from sklearn import metrics as sklearn

from hpo.config.builtin_metrics import BUILTIN_METRICS, list_fitting
from hpo.errors import RunError
from hpo.training import metrics
from hpo.training.metrics import FUNCTIONS, measure

N, CLASSES = 80, 4
pytestmark = pytest.mark.filterwarnings("ignore")  # of scikit-learn, where a value is a convention


def names_of(task: str) -> list[str]:
    return [name for name in list_fitting(task) if not BUILTIN_METRICS[name].measured]


def test_every_metric_has_a_function_and_no_function_is_without_a_name():
    assert {name for name, metric in BUILTIN_METRICS.items() if not metric.measured} == set(FUNCTIONS)


# Classes.


def averaged(function, average: str):
    return lambda outputs, y: function(y, outputs.argmax(1), average=average, zero_division=0)


def one_against_rest(function, outputs, y):
    """Over the classes that some but not all samples are of; of two classes the second."""
    p, truth = softmax(outputs, 1), np.eye(outputs.shape[1])[y]
    columns = [1] if outputs.shape[1] == 2 else range(outputs.shape[1])
    return np.mean([function(truth[:, k], p[:, k]) for k in columns if truth[:, k].any()])


def roc_auc(outputs, y):
    def auc(truth, p):
        return math.nan if truth.all() else sklearn.roc_auc_score(truth, p)

    p, truth = softmax(outputs, 1), np.eye(outputs.shape[1])[y]
    columns = [1] if outputs.shape[1] == 2 else range(outputs.shape[1])
    return np.nanmean([auc(truth[:, k], p[:, k]) for k in columns if truth[:, k].any()])


def calibration(p, y):
    """Guo et al. 2017: the gap between confidence and accuracy in 15 bins, by their share of the samples."""
    confidence, right = (p.max(1), p.argmax(1) == y) if p.ndim == 2 else (p, y)
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return sum(gaps)


def kappa(outputs, y):
    value = sklearn.cohen_kappa_score(y, outputs.argmax(1))
    return 0.0 if math.isnan(value) else value


CLASS_REFERENCES = {
    "val_balanced_accuracy": lambda outputs, y: sklearn.balanced_accuracy_score(y, outputs.argmax(1)),
    "val_top5_accuracy": lambda outputs, y: (
        sklearn.top_k_accuracy_score(y, outputs, k=5, labels=np.arange(outputs.shape[1]))
        if outputs.shape[1] > 2
        else 1.0
    ),
    **{
        f"val_{name}_{average}": averaged(function, average)
        for name, function in (
            ("precision", sklearn.precision_score),
            ("recall", sklearn.recall_score),
            ("f1", sklearn.f1_score),
        )
        for average in ("macro", "micro", "weighted")
    },
    "val_roc_auc": roc_auc,
    "val_average_precision": partial(one_against_rest, sklearn.average_precision_score),
    "val_log_loss": lambda outputs, y: -log_softmax(outputs, 1)[np.arange(len(y)), y].mean(),
    "val_calibration_error": lambda outputs, y: calibration(softmax(outputs, 1), y),
    "val_mcc": lambda outputs, y: sklearn.matthews_corrcoef(y, outputs.argmax(1)),
    "val_cohen_kappa": kappa,
}


def class_data(kind: str):
    rng = np.random.default_rng(len(kind))
    classes = {"binary": 2, "many classes": 12}.get(kind, CLASSES)
    y = rng.integers(0, classes, N)
    outputs = rng.normal(size=(3, N, classes)) + 1.5 * np.eye(classes)[y]
    if kind == "a class that does not occur":
        y = np.where(y == 2, 0, y)
    elif kind == "equal outputs":
        outputs = np.round(outputs)
    elif kind == "one class is predicted":
        outputs[..., 1] += 50
    elif kind == "constant outputs":
        outputs[:] = 0.0
    elif kind == "all right":
        outputs = np.repeat(4 * np.eye(classes)[y][None], 3, 0)
    elif kind == "all wrong":
        outputs = np.repeat(4 * np.eye(classes)[(y + 1) % classes][None], 3, 0)
    elif kind == "one sample of a class":
        y = np.where(np.arange(N) == 7, 3, y % 3)
    return outputs.astype(np.float64), y


CLASS_KINDS = (
    *("random", "binary", "many classes", "a class that does not occur", "equal outputs", "one class is predicted"),
    *("constant outputs", "all right", "all wrong", "one sample of a class"),
)


@pytest.mark.parametrize("kind", CLASS_KINDS)
def test_metrics_of_classes(kind):
    outputs, y = class_data(kind)
    names = names_of("classification")
    assert set(names) == set(CLASS_REFERENCES)
    found = measure(names, "classification", [torch.from_numpy(each) for each in outputs], torch.from_numpy(y))
    for each, row in zip(outputs, found, strict=True):
        for name, value in row.items():
            assert value == pytest.approx(CLASS_REFERENCES[name](each, y), abs=1e-6), (name, kind)


def test_metrics_of_samples_of_one_class():
    """Whatever is undefined there has no value, and the rest those of scikit-learn."""
    outputs, _ = class_data("random")
    y = np.ones(N, dtype=np.int64)
    given = [torch.from_numpy(outputs[0])], torch.from_numpy(y)
    (found,) = measure([name for name in names_of("classification") if name != "val_roc_auc"], "classification", *given)
    for name, value in found.items():
        assert value == pytest.approx(CLASS_REFERENCES[name](outputs[0], y), abs=1e-6), name
    with pytest.raises(RunError, match=r"^metric 'val_roc_auc': has no value where all samples are of one class; "):
        measure(["val_roc_auc"], "classification", *given)
    right = torch.from_numpy(np.eye(CLASSES)[y])
    assert measure(["val_cohen_kappa", "val_mcc"], "classification", [right], given[1])[0] == {
        "val_cohen_kappa": 0.0,
        "val_mcc": 0.0,
    }


def test_metrics_of_classes_are_those_of_torchmetrics():
    outputs, y = class_data("random")
    names = names_of("classification")
    p, labels = torch.from_numpy(outputs[0]).softmax(1), torch.from_numpy(y)
    (found,) = measure(names, "classification", [torch.from_numpy(outputs[0])], labels)
    same = {"task": "multiclass", "num_classes": CLASSES}
    scores = {"precision": torchmetrics.precision, "recall": torchmetrics.recall, "f1": torchmetrics.f1_score}
    expected = {
        "val_balanced_accuracy": torchmetrics.accuracy(p, labels, average="macro", **same),
        **{
            f"val_{name}_{average}": function(p, labels, average=average, **same)
            for name, function in scores.items()
            for average in ("macro", "micro", "weighted")
        },
        "val_roc_auc": torchmetrics.auroc(p, labels, **same),
        "val_average_precision": torchmetrics.average_precision(p, labels, **same),
        "val_calibration_error": torchmetrics.calibration_error(p, labels, n_bins=15, **same),
        "val_mcc": torchmetrics.matthews_corrcoef(p, labels, **same),
        "val_cohen_kappa": torchmetrics.cohen_kappa(p, labels, **same),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), abs=1e-6), name


# Labels.


def of_labels(function, average: str):
    return lambda outputs, y: function(y, outputs > 0, average=average, zero_division=0)


def label_roc_auc(outputs, y):
    columns = [k for k in range(y.shape[1]) if 0 < y[:, k].sum() < len(y)]
    return np.mean([sklearn.roc_auc_score(y[:, k], expit(outputs[:, k])) for k in columns])


LABEL_REFERENCES = {
    **{
        f"val_{name}_{average}": of_labels(function, average)
        for name, function in (
            ("precision", sklearn.precision_score),
            ("recall", sklearn.recall_score),
            ("f1", sklearn.f1_score),
        )
        for average in ("macro", "micro", "weighted")
    },
    "val_roc_auc": label_roc_auc,
    "val_average_precision": lambda outputs, y: sklearn.average_precision_score(y, expit(outputs)),
    "val_log_loss": lambda outputs, y: np.mean(
        [sklearn.log_loss(y[:, k], expit(outputs[:, k]), labels=[0, 1]) for k in range(y.shape[1])]
    ),
    "val_calibration_error": lambda outputs, y: np.mean(
        [calibration(expit(outputs[:, k]), y[:, k]) for k in range(y.shape[1])]
    ),
}


@pytest.mark.parametrize("kind", ["random", "a label that does not occur", "a label of all", "nothing is predicted"])
def test_metrics_of_labels(kind):
    rng = np.random.default_rng(1)
    y = (rng.random((N, 5)) < 0.4).astype(np.float64)
    outputs = rng.normal(size=(3, N, 5)) + y
    if kind == "a label that does not occur":
        y[:, 2] = 0
    elif kind == "a label of all":
        y[:, 2] = 1
    elif kind == "nothing is predicted":
        outputs -= 30
    names = names_of("multilabel")
    assert set(names) == set(LABEL_REFERENCES)
    found = measure(names, "multilabel", [torch.from_numpy(each) for each in outputs], torch.from_numpy(y))
    for each, row in zip(outputs, found, strict=True):
        for name, value in row.items():
            assert value == pytest.approx(LABEL_REFERENCES[name](each, y), abs=1e-6), (name, kind)


# Targets.


def spearman(outputs, y):
    found = [spearmanr(outputs[:, k], y[:, k]).statistic for k in range(y.shape[1])]
    return np.mean(np.nan_to_num(found))


TARGET_REFERENCES = {
    "val_mae": lambda outputs, y: sklearn.mean_absolute_error(y, outputs),
    "val_rmse": lambda outputs, y: sklearn.root_mean_squared_error(y, outputs),
    "val_mape": lambda outputs, y: sklearn.mean_absolute_percentage_error(y, outputs),
    "val_median_absolute_error": lambda outputs, y: sklearn.median_absolute_error(y, outputs),
    "val_spearman": spearman,
}


@pytest.mark.parametrize("samples", [N, N + 1])
@pytest.mark.parametrize("kind", ["random", "equal values", "constant outputs", "constant targets", "a target of 0"])
def test_metrics_of_targets(kind, samples):
    rng = np.random.default_rng(1)
    y = rng.normal(size=(samples, 2)) * (1.0, 1e6)
    outputs = y + rng.normal(size=(3, samples, 2)) * (0.5, 2e5)
    if kind == "equal values":
        outputs, y = np.round(outputs, -5), np.round(y, -5)
    elif kind == "constant outputs":
        outputs[:] = 2.0
    elif kind == "constant targets":
        y[:] = 2.0
    elif kind == "a target of 0":
        y[3] = 0.0
    names = names_of("regression")
    assert set(names) == set(TARGET_REFERENCES)
    found = measure(names, "regression", [torch.from_numpy(each) for each in outputs], torch.from_numpy(y))
    for each, row in zip(outputs, found, strict=True):
        for name, value in row.items():
            assert value == pytest.approx(TARGET_REFERENCES[name](each, y), rel=1e-9, abs=1e-12), (name, kind)


def test_metrics_of_targets_are_those_of_torchmetrics():
    rng = np.random.default_rng(1)
    y = torch.from_numpy(rng.normal(size=(N, 1)))
    outputs = y + torch.from_numpy(rng.normal(size=(N, 1)))
    (found,) = measure(names_of("regression"), "regression", [outputs], y)
    expected = {
        "val_mae": torchmetrics.mean_absolute_error(outputs, y),
        "val_rmse": torchmetrics.mean_squared_error(outputs, y, squared=False),
        "val_mape": torchmetrics.mean_absolute_percentage_error(outputs, y),
        "val_spearman": torchmetrics.spearman_corrcoef(outputs, y)[0],
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-4), name


# Many members.


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_members_that_are_measured_in_groups_have_the_same_values(task, monkeypatch):
    rng = np.random.default_rng(1)
    outputs = [torch.from_numpy(rng.normal(size=(N, 3))) for _ in range(7)]
    y = torch.from_numpy(
        {
            "classification": rng.integers(0, 3, N),
            "multilabel": rng.integers(0, 2, (N, 3)).astype(float),
            "regression": rng.normal(size=(N, 3)),
        }[task]
    )
    whole = measure(names_of(task), task, outputs, y)
    monkeypatch.setattr(metrics, "GROUP", 2 * N * 3)
    assert measure(names_of(task), task, outputs, y) == whole
    assert [measure(names_of(task), task, [each], y)[0] for each in outputs] == whole


def test_metrics_are_silent():
    outputs, y = class_data("a class that does not occur")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(names_of("classification"), "classification", [torch.from_numpy(outputs[0])], torch.from_numpy(y))
