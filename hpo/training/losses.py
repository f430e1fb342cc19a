"""Loss functions of single models, their targets, and registered metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training.memory import is_out_of_memory
from hpo.training.numbers import to_number
from hpo.utils.text import first_line

__all__ = [
    "SMALLEST_VARIANCE",
    "LossFunction",
    "column_loss",
    "compute_metric",
    "loss_function",
    "loss_target",
    "reconstruct",
]

SMALLEST_VARIANCE = 1e-6  # of gaussian_nll, torch's own


class LossFunction(Protocol):
    """Mean loss of outputs against what `loss_target` returns."""

    def __call__(self, outputs: Tensor, y: Tensor, w: Tensor | None = None, /) -> Tensor:
        """Return the loss, a scalar; w are weights of the samples (n,), or of each of their labels (n, L)."""


def loss_function(config: TrialConfig, *, smoothing: bool = True) -> LossFunction:
    """Return the mean loss of outputs against classes (n,), labels or targets (n, T), or the samples (n, numbers).

    Of classes:
    cross_entropy: -sum_k t_k log softmax(outputs)_k with t = (1 - s) * one-hot + s / classes, s = label_smoothing.
    mse: the mean over samples and classes of (softmax(outputs) - one-hot)^2.

    Of several labels, y of 0 and 1, and of models that reconstruct their input, y = x, the mean over all of
    binary_cross_entropy: -y log sigmoid(outputs) - (1 - y) log(1 - sigmoid(outputs)).

    Of real numbers, and mse of models that reconstruct, the mean over samples and targets, where d = outputs - y, of
    mse: d^2;
    mae: |d|;
    huber: d^2 / 2 where |d| < huber_delta, else huber_delta (|d| - huber_delta / 2);
    gaussian_nll: (log v + d^2 / v) / 2 with v = max(exp(s), 1e-6), where the outputs (n, 2T) are T means and T
    logarithms of variances s. As in torch's GaussianNLLLoss, the bound does not stop the gradient: dv/ds is exp(s).

    Weights have mean 1 over the training samples: the loss is the mean of weight times loss.
    """
    if config.reconstructs or config.task != "classification":
        each = column_loss(config)
        return lambda outputs, y, w=None: (
            each(outputs, y, "mean") if w is None else _weigh_columns(each(outputs, y, "none"), w)
        )
    if config.loss == "mse":
        return _squared_error
    share = config.label_smoothing if smoothing else 0.0
    return lambda outputs, y, w=None: (
        F.cross_entropy(outputs, y, label_smoothing=share)
        if w is None
        else (F.cross_entropy(outputs, y, label_smoothing=share, reduction="none") * w).mean()
    )


def _squared_error(outputs: Tensor, y: Tensor, w: Tensor | None = None, /) -> Tensor:
    p, target = outputs.softmax(1), F.one_hot(y, outputs.shape[1]).to(outputs.dtype)
    return F.mse_loss(p, target) if w is None else (F.mse_loss(p, target, reduction="none").mean(1) * w).mean()


def column_loss(config: TrialConfig) -> Callable[[Tensor, Tensor, str], Tensor]:
    """Return the loss of outputs (n, columns) against y (n, columns), of which gaussian_nll has half as many.

    Its last argument is torch's `reduction`: `none` or `mean`.
    """
    if config.loss == "binary_cross_entropy":
        return lambda outputs, y, reduction: F.binary_cross_entropy_with_logits(outputs, y, reduction=reduction)
    if config.loss == "mae":
        return lambda outputs, y, reduction: F.l1_loss(outputs, y, reduction=reduction)
    if config.loss == "huber":
        return lambda outputs, y, reduction: F.huber_loss(outputs, y, reduction=reduction, delta=config.huber_delta)
    if config.loss == "gaussian_nll":
        return _gaussian_nll
    return lambda outputs, y, reduction: F.mse_loss(outputs, y, reduction=reduction)


def _gaussian_nll(outputs: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Return the losses (n, T), or their mean; torch's function would wait for the device to check the variances."""
    mean, log_variance = outputs.chunk(2, 1)
    variance = log_variance.exp().clone()
    with torch.no_grad():
        variance.clamp_(min=SMALLEST_VARIANCE)
    losses = (variance.log() + (mean - y).square() / variance) / 2
    return losses.mean() if reduction == "mean" else losses


def _weigh_columns(losses: Tensor, w: Tensor) -> Tensor:
    """Return the mean of losses (n, columns), each times its weight: (n,) or (n, columns)."""
    return (losses * (w if w.ndim == losses.ndim else w[:, None])).mean()


def loss_target(config: TrialConfig, x: Tensor, y: Tensor) -> Tensor:
    """Return what outputs for samples x (n, *shape) are compared with: y, or x as (n, numbers)."""
    return x.flatten(1) if config.reconstructs else y


def reconstruct(config: TrialConfig, outputs: Tensor) -> Tensor:
    """Return the samples (n, numbers) that outputs of a model that reconstructs stand for: logits through a sigmoid."""
    return outputs.sigmoid() if config.loss == "binary_cross_entropy" else outputs


def compute_metric(name: str, metric: Callable[..., Any], outputs: Tensor | None, y: Tensor) -> float:
    """Return a registered metric's value for outputs, against classes, labels, targets, or samples to reconstruct.

    Raises:
        RunError: the metric raised, or returned something other than one real number.
    """
    try:
        value = metric(outputs, y)
    except Exception as error:  # a metric of the user's can raise anything
        if is_out_of_memory(error):
            raise
        raise RunError(f"metric '{name}': {type(error).__name__}: {first_line(error)}") from error
    return to_number(value, f"metric '{name}'")
