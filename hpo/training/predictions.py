"""Predictions of a trained model on a split: its scores, and the arrays that reports are made of."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hpo.config.choices import Direction
from hpo.config.registry import MetricEntry
from hpo.datasets import is_split
from hpo.training.data import Batch, Data
from hpo.training.learner import EvalResult, Learner, ModuleLearner
from hpo.training.losses import reconstruct
from hpo.training.member import Member, TrainResult
from hpo.training.memory import translate_memory_errors
from hpo.training.metrics import measure_metrics
from hpo.training.models import build_model
from hpo.training.permutation_importance import PermutationImportance, compute_importance, list_feature_columns
from hpo.training.prediction_arrays import (
    RawSplit,
    classification_arrays,
    multilabel_arrays,
    regression_arrays,
    to_images,
)
from hpo.training.process_state import contain_user_code
from hpo.training.stack_run import make_learner

__all__ = [
    "SplitName",
    "SplitPredictions",
    "evaluate_weights",
    "measure_importance",
    "pack_predictions",
    "predict_split",
]

Array = np.ndarray[Any, Any]
SplitName = Literal["validation", "test"]
CODES = 2000
PICTURES = 16


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of a model on the samples of a split.

    Attributes:
        scores: see `hpo.training.learner.EvalResult`.
        metrics: the built-in and registered ones that were asked for, by name.
        arrays: of a classification `labels` (N,), `probabilities` (N, classes) in float16, `mistakes` (K,): positions
            of the samples that it got wrong with the highest probability, and, where samples are images, `pictures` of
            them in uint8. Of several labels `labels` and `probabilities` (n, labels) of n samples, at most 20,000,
            chosen once for all runs, and `count`, their number before. Of a regression, in the targets' own units,
            `targets`, `predictions` and, where the model has them, `deviations` (n, T) of as many, `count`,
            `worst_targets` and `worst_predictions` (K, T), and of a table the means and deviations of the residuals
            over `BINS` bins of each feature. Where they are known, `worst_rows` (K,) are the rows of the worst
            predictions or mistakes: in their file, if `worst_in_file`.
            Of a model that reconstructs: where it has an `encoder`, `codes` (M, 2) of the first samples, their latent
            numbers or the first two principal components of these, with `labels` (M,) and `explained`, the share of
            their variance; and where samples are images, `originals` and `reconstructions` in uint8.
    """

    scores: Mapping[str, float]
    metrics: Mapping[str, float]
    arrays: Mapping[str, Array]


@contain_user_code()
def predict_split(
    outcome: TrainResult,
    data: Data,
    batch: Batch,
    metrics: Sequence[MetricEntry] = (),
    split: SplitName = "test",
) -> SplitPredictions:
    """Predict samples x (N, *shape) with labels y (N,) or (N, columns), by the model of a result with its kept weights.

    Raises:
        RunError: a metric raised, or the device has too little memory.
    """
    evaluation = evaluate_weights(outcome, data, *batch)
    (values,) = measure_metrics(metrics, outcome.config, data, *batch, [evaluation.outputs])
    return SplitPredictions(evaluation.scores, values, _make_arrays(outcome, data, batch, evaluation, split))


def _make_arrays(
    outcome: TrainResult, data: Data, batch: Batch, evaluation: EvalResult, split: SplitName
) -> dict[str, Array]:
    outputs = evaluation.outputs
    assert outputs is not None
    if outcome.config.reconstructs:
        return _reconstruction_arrays(outcome, data, batch, outputs)
    if data.task == "multilabel":
        return multilabel_arrays(outputs, batch[1])
    if data.task == "regression":
        raw = _read_raw(data, split, batch, samples=True)
        return regression_arrays(outputs, batch[1], data, raw, deviations=outcome.config.loss == "gaussian_nll")
    return classification_arrays(outputs, batch, data, _read_raw(data, split, batch, samples=False))


def _read_raw(data: Data, split: SplitName, batch: Batch, *, samples: bool) -> RawSplit:
    """Return the rows of a split's samples, and of a table these, as the data set has them."""
    dataset, chosen = data.dataset, data.val_index
    drawn = split == "validation" and chosen is not None
    numbers = dataset.rows.get("train" if drawn else split)
    samples_of_part = len(data.y_train) + len(data.y_val) if drawn else len(batch[1])
    rows = np.arange(samples_of_part) if numbers is None else np.asarray(numbers)
    rows = rows[chosen] if drawn else rows
    if len(rows) != len(batch[1]):  # training and validation samples are one, or a data set's function is at fault
        return RawSplit()
    x = _read_table(data, split) if samples and batch[0].ndim == 2 else None
    return RawSplit(x, data.features, rows, numbers is not None)


def _read_table(data: Data, split: SplitName) -> Array | None:
    """Return the samples of a split as the data set has them, (N, features)."""
    part: Any = data.dataset.validation if split == "validation" else data.dataset.test
    part = part() if callable(part) else part
    if split == "validation" and data.val_index is not None:
        part = data.dataset.train
    if not is_split(part):
        return None
    x = np.asarray(part[0].detach().cpu() if isinstance(part[0], Tensor) else part[0])
    return x[data.val_index] if split == "validation" and data.val_index is not None else x


@contain_user_code()
def measure_importance(
    outcome: TrainResult, data: Data, entry: MetricEntry, direction: Direction
) -> PermutationImportance | None:
    """Return the permutation importance of a table's features on the validation split, by an objective's metric.

    None where samples are no tables, the metric is not of the predictions, or it would take too long.

    Args:
        outcome: a trained model.
        data: its data.
        entry: the metric.
        direction: of the objective.

    Raises:
        RunError: the metric raised, or the device has too little memory.
    """
    x, y = data.x_val, data.y_val
    if x.ndim != 2 or not len(y) or outcome.config.reconstructs or entry.reported:
        return None
    if data.integers and not data.features:  # places in a sequence are no features
        return None
    learner = _load_learner(outcome, data)

    def score(samples: Tensor, labels: Tensor) -> float:
        with translate_memory_errors():
            evaluation = learner.evaluate(samples, labels)[0]
        if entry.measured:
            return evaluation.scores[entry.name.removeprefix("val_")]
        (values,) = measure_metrics([entry], outcome.config, data, samples, labels, [evaluation.outputs])
        return values[entry.name]

    features = list_feature_columns(data.features, x.shape[1])
    return compute_importance(features, x, y, score, maximize=direction == "maximize")


def _reconstruction_arrays(outcome: TrainResult, data: Data, batch: Batch, outputs: Tensor) -> dict[str, Array]:
    x, y = batch
    arrays = _latent_codes(outcome, data, x[:CODES], y[:CODES])
    if x.ndim == 4 and x.shape[1] in (1, 3):
        first = torch.tensor([int((y == label).nonzero()[0]) for label in torch.unique(y)[:PICTURES]], device=x.device)
        arrays["originals"] = to_images(x[first], data)
        arrays["reconstructions"] = to_images(reconstruct(outcome.config, outputs)[first].view_as(x[first]), data)
    return arrays


@torch.no_grad()
def _latent_codes(outcome: TrainResult, data: Data, x: Tensor, y: Tensor) -> dict[str, Array]:
    model = build_model(outcome.config, data.shape, data.classes)
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, nn.Module) or outcome.weights is None:
        return {}
    model.load_state_dict(outcome.weights)
    codes = encoder.eval().to(x.device)(x).flatten(1).double()
    centred = codes - codes.mean(0)
    explained = 1.0
    if codes.shape[1] > 2:
        _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
        codes = centred @ axes[:2].T
        explained = float((sizes[:2].square().sum() / sizes.square().sum()).nan_to_num())
    plane = nn.functional.pad(codes, (0, 2 - codes.shape[1]))
    return {
        "codes": plane.cpu().numpy().astype(np.float32),
        "labels": y.cpu().numpy(),
        "explained": np.array(explained),
    }


@contain_user_code()
def evaluate_weights(outcome: TrainResult, data: Data, x: Tensor, y: Tensor) -> EvalResult:
    """Evaluate the model of a result, with the weights of its best epoch, on samples x (N, *shape) and labels y (N,).

    Raises:
        OutOfMemoryError: the device has too little memory.
    """
    with translate_memory_errors():
        return _load_learner(outcome, data).evaluate(x, y)[0]


def _load_learner(outcome: TrainResult, data: Data) -> Learner:
    """Return a learner that has the model of a result, with the weights of its best epoch."""
    assert outcome.weights is not None
    member = Member(outcome.config.model_copy(update={"pretrained": None}))  # whose file may be gone by now
    learner: Learner = (
        make_learner([member], data)
        if outcome.module is None
        else ModuleLearner(member, data.shape, data.classes, data.device, outcome.module)
    )
    learner.load(member, outcome.weights)
    return learner


def pack_predictions(predictions: Mapping[str, SplitPredictions]) -> bytes:
    """Return the content of an .npz file that holds each split's arrays under `<split>_<name>`."""
    file = io.BytesIO()
    arrays = {f"{split}_{name}": array for split, each in predictions.items() for name, array in each.arrays.items()}
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its first keyword is a flag
    return file.getvalue()
