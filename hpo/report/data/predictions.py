"""Predictions of a model for the samples of a split, by task, read from the file that an evaluation left.

See `hpo.training.predictions.SplitPredictions` for what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hpo.errors import DataError
from hpo.utils.arrays import ArrayArchive, open_npz

__all__ = [
    "AGAIN",
    "ARTIFACT_LIMIT",
    "FeatureImportance",
    "FeatureResiduals",
    "LabelPredictions",
    "Predictions",
    "Reconstructions",
    "TargetPredictions",
    "WorstRows",
    "read_importance",
    "read_label_predictions",
    "read_predictions",
    "read_reconstructions",
    "read_target_predictions",
]

Array = np.ndarray[Any, Any]
ARTIFACT_LIMIT = 2**30  # bytes of one array
AGAIN = "delete the file, and run hpo evaluate again"


@dataclass(frozen=True)
class WorstRows:
    """Rows of the worst predictions of a split, the worst first.

    Attributes:
        rows: (K,) in their file, from 1; else positions in the data set's array, from 0.
        in_file: whether they are rows of a file.
    """

    rows: Array
    in_file: bool


@dataclass(frozen=True)
class Predictions:
    """Predictions of classes.

    Attributes:
        labels: (N,), whole numbers.
        probabilities: (N, classes), softmax of the outputs, float32.
        mistakes: the samples that it got wrong with the highest probability: (K,), positions in the split.
        pictures: of the mistakes: (K, H, W) or (K, H, W, 3) of uint8; None where samples are no images.
        worst: rows of the mistakes; None where they are not known.
    """

    labels: Array
    probabilities: Array
    mistakes: Array
    pictures: Array | None
    worst: WorstRows | None = None

    @property
    def consistent(self) -> bool:
        """True if the arrays have the shapes and numbers that belong together."""
        if self.probabilities.ndim != 2 or self.labels.shape != self.probabilities.shape[:1] or self.mistakes.ndim != 1:
            return False
        samples, classes = self.probabilities.shape
        inside = _within(self.labels, classes) and _within(self.mistakes, samples)
        listed = self.worst is None or self.worst.rows.shape == self.mistakes.shape
        return inside and listed and (self.pictures is None or self.pictures.shape[:1] == self.mistakes.shape)

    @property
    def correct(self) -> Array:
        """(N,) of bool: whether the most probable class is the label."""
        hits: Array = self.probabilities.argmax(1) == self.labels
        return hits


@dataclass(frozen=True)
class LabelPredictions:
    """Predictions of several labels of each sample.

    Attributes:
        labels: (n, labels) of 0 and 1.
        probabilities: (n, labels), float32.
        count: samples of the split, of which n are stored.
    """

    labels: Array
    probabilities: Array
    count: int

    @property
    def consistent(self) -> bool:
        """True if the arrays have the shapes and numbers that belong together."""
        return self.labels.ndim == 2 and self.labels.shape == self.probabilities.shape and _within(self.labels, 2)

    @property
    def correct(self) -> Array:
        """(n,): the share of each sample's labels that are right at a probability of 0.5."""
        shares: Array = ((self.probabilities > 0.5) == (self.labels > 0)).mean(1)
        return shares


@dataclass(frozen=True)
class FeatureResiduals:
    """Residuals over the bins of one feature.

    Attributes:
        feature: its name.
        labels: what the bins are called.
        counts: samples of each.
        means, deviations: of the residuals, (bins, targets), in the targets' own units.
    """

    feature: str
    labels: Sequence[str]
    counts: Array
    means: Array
    deviations: Array


@dataclass(frozen=True)
class TargetPredictions:
    """Predictions of real numbers, in the targets' own units.

    Attributes:
        targets, predictions: (n, T), float64.
        deviations: standard deviations that the model predicts, (n, T); None where it has none.
        count: samples of the split, of which n are stored.
        worst: rows of the worst predictions; None where they are not known.
        worst_targets, worst_predictions: (K, T), the worst first.
        features: residuals by feature; empty where samples are no table.
    """

    targets: Array
    predictions: Array
    deviations: Array | None
    count: int
    worst: WorstRows | None
    worst_targets: Array
    worst_predictions: Array
    features: Sequence[FeatureResiduals] = ()

    @property
    def residuals(self) -> Array:
        """(n, T): targets less predictions."""
        difference: Array = self.targets - self.predictions
        return difference

    @property
    def consistent(self) -> bool:
        """True if the arrays have the shapes that belong together."""
        shape = self.targets.shape
        same = len(shape) == 2 and self.predictions.shape == shape
        worst = self.worst_targets.shape
        listed = len(worst) == 2 and worst[1:] == shape[1:] and self.worst_predictions.shape == worst
        numbered = self.worst is None or self.worst.rows.shape == worst[:1]
        spread = self.deviations is None or self.deviations.shape == shape
        return same and listed and numbered and spread and bool(np.isfinite(self.residuals).all())


@dataclass(frozen=True)
class FeatureImportance:
    """Permutation importance of a table's features; see `hpo.training.permutation_importance`.

    Attributes:
        features: their names.
        losses: how much worse the score is, (repeats, features).
        score: of the samples as they are.
        samples: how many were used.
    """

    features: tuple[str, ...]
    losses: Array
    score: float
    samples: int


@dataclass(frozen=True)
class Reconstructions:
    """Reconstructions of samples of a split.

    Attributes:
        labels: (M,), whole numbers.
        codes: (M, 2), on a plane; None of a model without an encoder.
        explained: the share of the variance of the latent numbers that the plane has.
        originals, reconstructions: (K, H, W) or (K, H, W, 3) of uint8; None where samples are no images.
    """

    labels: Array
    codes: Array | None
    explained: float
    originals: Array | None
    reconstructions: Array | None


def read_predictions(file: Path, split: str) -> Predictions | None:
    """Read predictions of classes for the split `validation` or `test`; None where the file has none.

    Raises:
        DataError: the file is damaged.
    """
    with open_npz(file, ARTIFACT_LIMIT, AGAIN) as arrays:
        if f"{split}_probabilities" not in arrays.names or f"{split}_count" in arrays.names:
            return None
        found = Predictions(
            _read_numbers(arrays, f"{split}_labels").astype(np.int64),
            _read_numbers(arrays, f"{split}_probabilities").astype(np.float32),
            _read_numbers(arrays, f"{split}_mistakes").astype(np.int64),
            _read_optional(arrays, f"{split}_pictures"),
            _read_worst(arrays, split),
        )
    return _check(file, found)


def read_label_predictions(file: Path, split: str) -> LabelPredictions | None:
    """Read predictions of several labels for the split `validation` or `test`; None where the file has none.

    Raises:
        DataError: the file is damaged.
    """
    with open_npz(file, ARTIFACT_LIMIT, AGAIN) as arrays:
        if not {f"{split}_probabilities", f"{split}_count"} <= arrays.names:
            return None
        labels = _read_numbers(arrays, f"{split}_labels").astype(np.int64)
        probabilities = _read_numbers(arrays, f"{split}_probabilities").astype(np.float32)
        found = LabelPredictions(labels, probabilities, int(_read_scalar(arrays, f"{split}_count")))
    return _check(file, found)


def read_target_predictions(file: Path, split: str) -> TargetPredictions | None:
    """Read predictions of real numbers for the split `validation` or `test`; None where the file has none.

    Raises:
        DataError: the file is damaged.
    """
    with open_npz(file, ARTIFACT_LIMIT, AGAIN) as arrays:
        if f"{split}_targets" not in arrays.names:
            return None
        targets, predictions, worst_targets, worst_predictions = (
            _read_numbers(arrays, f"{split}_{name}").astype(np.float64)
            for name in ("targets", "predictions", "worst_targets", "worst_predictions")
        )
        deviations = _read_optional(arrays, f"{split}_deviations")
        found = TargetPredictions(
            targets,
            predictions,
            None if deviations is None else deviations.astype(np.float64),
            int(_read_scalar(arrays, f"{split}_count")),
            _read_worst(arrays, split),
            worst_targets,
            worst_predictions,
            _read_residuals(arrays, split, targets.shape[-1] if targets.ndim else 0),
        )
    return _check(file, found)


def read_importance(file: Path) -> FeatureImportance | None:
    """Read the permutation importance on the validation split; None where the file has none.

    Raises:
        DataError: the file is damaged.
    """
    with open_npz(file, ARTIFACT_LIMIT, AGAIN) as arrays:
        if "validation_importance_losses" not in arrays.names:
            return None
        names = _read_texts(arrays, "validation_importance_features")
        losses = _read_numbers(arrays, "validation_importance_losses").astype(np.float64)
        if losses.ndim != 2 or losses.shape[1] != len(names) or len(losses) < 2 or not np.isfinite(losses).all():
            raise _damage(file)
        score, samples = (_read_scalar(arrays, f"validation_importance_{name}") for name in ("score", "samples"))
    return FeatureImportance(tuple(names), losses, score, int(samples))


def read_reconstructions(file: Path, split: str) -> Reconstructions | None:
    """Read reconstructions for the split `validation` or `test`; None where the file has none.

    Raises:
        DataError: the file is damaged.
    """
    with open_npz(file, ARTIFACT_LIMIT, AGAIN) as arrays:
        if not {f"{split}_codes", f"{split}_originals"} & arrays.names:
            return None
        labels, explained = (_read_optional(arrays, f"{split}_{name}") for name in ("labels", "explained"))
        return Reconstructions(
            np.zeros(0, np.int64) if labels is None else labels,
            _read_optional(arrays, f"{split}_codes"),
            1.0 if explained is None or explained.size != 1 else float(explained.item()),
            _read_optional(arrays, f"{split}_originals"),
            _read_optional(arrays, f"{split}_reconstructions"),
        )


Found = TypeVar("Found", Predictions, LabelPredictions, TargetPredictions)


def _damage(file: Path) -> DataError:
    return DataError(f"{file}: its arrays do not belong together; {AGAIN}")


def _check(file: Path, found: Found) -> Found:
    if not found.consistent:
        raise _damage(file)
    return found


def _read_numbers(arrays: ArrayArchive, name: str) -> Array:
    array = arrays.read(name)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{arrays.path}: {name} holds {array.dtype}, not numbers; {AGAIN}")
    return array


def _read_scalar(arrays: ArrayArchive, name: str) -> float:
    array = _read_numbers(arrays, name)
    if array.size != 1 or not np.isfinite(array).all():
        raise _damage(arrays.path)
    return float(array.item())


def _read_texts(arrays: ArrayArchive, name: str) -> list[str]:
    array = arrays.read(name)
    if array.dtype.kind != "U" or array.ndim != 1:
        raise DataError(f"{arrays.path}: {name} holds {array.dtype}, not texts; {AGAIN}")
    return [str(text) for text in array]


def _read_optional(arrays: ArrayArchive, name: str) -> Array | None:
    return _read_numbers(arrays, name) if name in arrays.names else None


def _read_worst(arrays: ArrayArchive, split: str) -> WorstRows | None:
    if f"{split}_worst_rows" not in arrays.names:
        return None
    rows = _read_numbers(arrays, f"{split}_worst_rows").astype(np.int64)
    return WorstRows(rows, bool(_read_scalar(arrays, f"{split}_worst_in_file")))


def _read_residuals(arrays: ArrayArchive, split: str, targets: int) -> tuple[FeatureResiduals, ...]:
    if f"{split}_bin_features" not in arrays.names:
        return ()
    names, labels = (_read_texts(arrays, f"{split}_{name}") for name in ("features", "bin_labels"))
    places, counts, means, deviations = (
        _read_numbers(arrays, f"{split}_bin_{name}") for name in ("features", "counts", "means", "deviations")
    )
    shape = (len(labels), targets)
    if means.shape != shape or deviations.shape != shape or places.shape != shape[:1] or counts.shape != shape[:1]:
        raise _damage(arrays.path)
    if not _within(places, len(names)) or not np.isfinite(means).all() or not np.isfinite(deviations).all():
        raise _damage(arrays.path)
    of = [(name, np.flatnonzero(places == i)) for i, name in enumerate(names)]
    return tuple(
        FeatureResiduals(name, [labels[i] for i in rows], counts[rows], means[rows], deviations[rows])
        for name, rows in of
        if len(rows)
    )


def _within(numbers: Array, bound: int) -> bool:
    return not numbers.size or (int(numbers.min()) >= 0 and int(numbers.max()) < bound)
