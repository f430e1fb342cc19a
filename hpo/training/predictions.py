"""Predictions of a trained model on a split: scores, probabilities, and images of its worst mistakes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpo.config.registry import MetricEntry
from hpo.training.cohort_run import make_learner
from hpo.training.data import Batch, Data
from hpo.training.learner import EvalResult, ModuleLearner
from hpo.training.losses import reconstruct
from hpo.training.member import Member, TrainResult
from hpo.training.memory import translate_memory_errors
from hpo.training.metrics import measure_metrics
from hpo.training.models import build_model
from hpo.training.process_state import contain_user_code

__all__ = ["SplitPredictions", "evaluate_weights", "pack_predictions", "predict_split"]

Array = np.ndarray[Any, Any]
MISTAKES = 32
CODES = 2000
PICTURES = 16


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of a model on the samples of a split.

    Attributes:
        scores: see `hpo.training.learner.EvalResult`.
        metrics: the built-in and registered ones that were asked for, by name.
        arrays: `labels` (N,), `probabilities` (N, classes) in float16, `mistakes` (K,): positions of the samples that
            it got wrong with the highest probability, and, where samples are images, `pictures` of them in uint8.
            Of a model that reconstructs: where it has an `encoder`, `codes` (M, 2) of the first samples, their latent
            numbers or the first two principal components of these, with `labels` (M,) and `explained`, the share of
            their variance; and where samples are images, `originals` and `reconstructions` in uint8.
    """

    scores: Mapping[str, float]
    metrics: Mapping[str, float]
    arrays: Mapping[str, Array]


@contain_user_code()
def predict_split(
    outcome: TrainResult, data: Data, batch: Batch, metrics: Sequence[MetricEntry] = ()
) -> SplitPredictions:
    """Predict samples x (N, *shape) with labels y (N,), by the model of a result with its kept weights.

    Raises:
        RunError: a metric raised, or the device has too little memory.
    """
    x, y = batch
    evaluation = evaluate_weights(outcome, data, x, y)
    (values,) = measure_metrics(metrics, outcome.config, data, x, y, [evaluation.outputs])
    assert evaluation.outputs is not None
    if outcome.config.reconstructs:
        return SplitPredictions(
            evaluation.scores, values, _reconstruction_arrays(outcome, data, batch, evaluation.outputs)
        )
    probabilities = evaluation.outputs.softmax(1)
    wrong = _worst_mistakes(probabilities, y)
    arrays = {
        "labels": y.cpu().numpy(),
        "probabilities": probabilities.cpu().numpy().astype(np.float16),
        "mistakes": wrong.cpu().numpy(),
    }
    if x.ndim == 4 and x.shape[1] in (1, 3):
        arrays["pictures"] = _to_images(x[wrong], data)
    return SplitPredictions(evaluation.scores, values, arrays)


def _reconstruction_arrays(outcome: TrainResult, data: Data, batch: Batch, outputs: Tensor) -> dict[str, Array]:
    x, y = batch
    arrays = _latent_codes(outcome, data, x[:CODES], y[:CODES])
    if x.ndim == 4 and x.shape[1] in (1, 3):
        first = torch.tensor([int((y == label).nonzero()[0]) for label in torch.unique(y)[:PICTURES]], device=x.device)
        arrays["originals"] = _to_images(x[first], data)
        arrays["reconstructions"] = _to_images(reconstruct(outcome.config, outputs)[first].view_as(x[first]), data)
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
    assert outcome.weights is not None
    with translate_memory_errors():
        member = Member(outcome.config)
        learner = (
            make_learner([member], data)
            if outcome.module is None
            else ModuleLearner(member, data.shape, data.classes, data.device, outcome.module)
        )
        learner.load(member, outcome.weights)
        return learner.evaluate(x, y)[0]


def pack_predictions(predictions: Mapping[str, SplitPredictions]) -> bytes:
    """Return the content of an .npz file that holds each split's arrays under `<split>_<name>`."""
    file = io.BytesIO()
    arrays = {f"{split}_{name}": array for split, each in predictions.items() for name, array in each.arrays.items()}
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its first keyword is a flag
    return file.getvalue()


def _worst_mistakes(probabilities: Tensor, y: Tensor) -> Tensor:
    confidence, predicted = probabilities.max(1)
    wrong = torch.nonzero(predicted != y).flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:MISTAKES]]


def _to_images(x: Tensor, data: Data) -> Array:
    """Return scaled images (K, channels, H, W) as they were, or where their scaling is unknown between their extremes.

    They are uint8, (K, H, W) or (K, H, W, 3).
    """
    values = x.cpu().numpy().astype(np.float64)
    if data.scaling is not None:
        shape = (1, -1, 1, 1)
        values = values * data.scaling.scale.reshape(shape) + data.scaling.shift.reshape(shape)
    if data.scaling is None or not data.raw_bytes:
        low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
        values = 255 * (values - low) / max(high - low, 1e-12)
    images: Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
