"""Loss functions of single models, their targets, and registered metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training.memory import is_out_of_memory
from hpo.training.numbers import to_number
from hpo.utils.text import first_line

__all__ = ["LossFunction", "compute_metric", "loss_function", "loss_target", "reconstruct"]

LossFunction = Callable[[Tensor, Tensor], Tensor]


def loss_function(config: TrialConfig, *, smoothing: bool = True) -> LossFunction:
    """Return the mean loss of outputs (n, classes) against labels (n,), or (n, numbers) against the samples themselves.

    cross_entropy: -sum_k t_k log softmax(outputs)_k with t = (1 - s) * one-hot + s / classes, s = label_smoothing.
    mse: the mean over samples and classes of (softmax(outputs) - one-hot)^2; of a model that reconstructs its input x,
    the mean over samples and their numbers of (outputs - x)^2.
    binary_cross_entropy: the mean over those of -x log sigmoid(outputs) - (1 - x) log(1 - sigmoid(outputs)).
    """
    if config.reconstructs:
        return F.binary_cross_entropy_with_logits if config.loss == "binary_cross_entropy" else F.mse_loss
    if config.loss == "mse":
        return _squared_error
    share = config.label_smoothing if smoothing else 0.0
    return lambda outputs, y: F.cross_entropy(outputs, y, label_smoothing=share)


def _squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(outputs.softmax(1), F.one_hot(y, outputs.shape[1]).to(outputs.dtype))


def loss_target(config: TrialConfig, x: Tensor, y: Tensor) -> Tensor:
    """Return what outputs for samples x (n, *shape) are compared with: the labels y (n,), or x as (n, numbers)."""
    return x.flatten(1) if config.reconstructs else y


def reconstruct(config: TrialConfig, outputs: Tensor) -> Tensor:
    """Return the samples (n, numbers) that outputs of a model that reconstructs stand for: logits through a sigmoid."""
    return outputs.sigmoid() if config.loss == "binary_cross_entropy" else outputs


def compute_metric(name: str, metric: Callable[..., Any], outputs: Tensor | None, y: Tensor) -> float:
    """Return a registered metric's value for outputs, against labels, or samples (n, numbers) to reconstruct.

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
