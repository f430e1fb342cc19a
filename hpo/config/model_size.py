"""Size of dense models: number of weights, and the width that follows from a `parameter_budget`. No torch."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise

from hpo.config.trial_config import TrialConfig

__all__ = ["count_dense_parameters", "count_outputs", "resolve_width"]

MAX_WIDTH = 65536


def count_outputs(config: TrialConfig, shape: tuple[int, ...], classes: int) -> int:
    """Return a model's number of outputs: one per value of a sample that it reconstructs, else per class or target.

    Under gaussian_nll there are two per target: all means, then all logarithms of variances.
    """
    if config.reconstructs:
        return math.prod(shape)
    return 2 * classes if config.loss == "gaussian_nll" else classes


def count_dense_parameters(config: TrialConfig, features: int, outputs: int) -> int:
    """Count what a dense model learns: weights and biases, or scale and shift of a batch norm in place of a bias."""
    layers = features, *config.hidden_widths, outputs
    normalised = bool(config.effective().get("batch_norm"))
    beside = sum(layers[1:]) + (sum(config.hidden_widths) if normalised else 0)
    return sum(above * below for above, below in pairwise(layers)) + beside


def resolve_width(config: TrialConfig, shape: tuple[int, ...], classes: int) -> TrialConfig:
    """Return the configuration with the `width` that follows from its `parameter_budget`; unchanged without a budget.

    It is the width whose number of parameters is nearest to the budget, the smaller one of two; at least 1.

    Args:
        config: a configuration, of any model.
        shape: of one sample.
        classes: number of classes of the data.
    """
    if "parameter_budget" not in config.effective():
        return config
    budget, features, outputs = config.parameter_budget, math.prod(shape), count_outputs(config, shape, classes)
    assert budget is not None

    def count(width: int) -> int:
        return count_dense_parameters(config.model_copy(update={"width": width}), features, outputs)

    wider = max(2, 1 + bisect_left(range(1, MAX_WIDTH), budget, key=count))
    width = min((wider - 1, wider), key=lambda each: abs(count(each) - budget))
    return config.model_copy(update={"width": width})
