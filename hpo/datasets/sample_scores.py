"""Sample scores: what a trial keeps of each validation sample, from which its metric follows for any draw of samples.

Each metric needs one kind of score:

- `correct`: whether the sample is right, 0 or 1; the mean is the accuracy (or the top-5 accuracy);
- `loss`: the sample's loss, or its reconstruction error; the mean is the metric;
- `prediction`: the predicted class, or of several labels which are predicted, 0 or 1 each;
- `squared_error`, `absolute_error`: of each target, in the targets' own units;
- `rank`: the place of the sample's score among all samples, from 0, equals alike: of each class, label or target.

`val_calibration_error` bins probabilities, a metric of the user's own is a function of whole outputs, and a training
loop of the user's own reports no samples: these have no sample scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from hpo.config.choices import Task
from hpo.datasets.sample_metrics import measure

__all__ = [
    "KINDS",
    "SAMPLES_LIMIT",
    "Kind",
    "SampleScores",
    "ValidationSplit",
    "choose_samples",
    "measure",
    "score_kind",
]

Array = np.ndarray[Any, Any]
Kind = Literal["correct", "loss", "prediction", "squared_error", "absolute_error", "rank"]
SAMPLES_LIMIT = 20_000
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "val_accuracy": "correct",
        "val_top5_accuracy": "correct",
        "val_loss": "loss",
        "val_log_loss": "loss",
        "val_reconstruction_error": "loss",
        "val_balanced_accuracy": "prediction",
        **{f"val_{name}_{of}": "prediction" for name in ("precision", "recall", "f1") for of in ("macro", "micro")},
        **{f"val_{name}_weighted": "prediction" for name in ("precision", "recall", "f1")},
        "val_mcc": "prediction",
        "val_cohen_kappa": "prediction",
        "val_roc_auc": "rank",
        "val_average_precision": "rank",
        "val_spearman": "rank",
        "val_r2": "squared_error",
        "val_rmse": "squared_error",
        "val_mae": "absolute_error",
        "val_mape": "absolute_error",
        "val_median_absolute_error": "absolute_error",
    }
)


def score_kind(metric: str, task: Task) -> Kind | None:
    """Return the kind of scores that a metric is a function of; None of one that has no sample scores."""
    kind = KINDS.get(metric)
    return "prediction" if kind == "correct" and task == "multilabel" else kind


def choose_samples(count: int, limit: int = SAMPLES_LIMIT) -> Array:
    """Return the positions of the samples that are stored: the same in each run, so that runs are paired by sample."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))


@dataclass(frozen=True, eq=False)
class ValidationSplit:
    """Validation samples of a fit, of which at most `SAMPLES_LIMIT` are kept.

    Attributes:
        digest: of the samples: fits with equal digests were validated on the same ones.
        index: the kept samples' positions among the data set's training samples, (N,), ascending; None where the data
            set has validation samples of its own.
        labels: classes (N,) of whole numbers, labels (N, L) of uint8, or targets (N, T) of float32 in their own units.
        count: samples of the split, of which N are kept.
        groups: the kept samples' groups, as numbers that all splits of a data set share, (N,); None without groups.
    """

    digest: str
    index: Array | None
    labels: Array
    count: int
    groups: Array | None = None

    @classmethod
    def of(cls, labels: Array, index: Array | None, count: int, groups: Array | None = None) -> ValidationSplit:
        """Return the split of these samples, with its digest, in which groups have no part."""
        parts = [labels.tobytes(), str(labels.shape).encode(), str(count).encode()]
        parts += [] if index is None else [index.astype(np.int64).tobytes()]
        return cls(hashlib.sha256(b"|".join(parts)).hexdigest()[:16], index, labels, count, groups)

    @property
    def task(self) -> Task:
        """The kind of the labels: classes, several labels, or real targets."""
        if self.labels.ndim == 1:
            return "classification"
        return "regression" if self.labels.dtype.kind == "f" else "multilabel"


@dataclass(frozen=True, eq=False)
class SampleScores:
    """Sample scores of one fit of a trial.

    Attributes:
        fit: its number in the trial, from 0.
        split: digest of the validation samples.
        epochs: those that are kept, (E,), ascending: all of a short trial; else every second, fourth, …, the best, and
            the last.
        best: the position of the best epoch in `epochs`.
        scores: (E, N) of one number a sample; (E, N, columns) of one for each class, label or target. Real numbers are
            float32, others of a type that is as small as they allow: `correct` int8, predictions and ranks unsigned.
        kind: what the numbers are; see the module.
        metric: the metric that is a function of them.
    """

    fit: int
    split: str
    epochs: Array
    best: int
    scores: Array
    kind: Kind
    metric: str
