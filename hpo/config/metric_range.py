"""Ranges of metrics, which no interval of them leaves."""

from __future__ import annotations

import math

__all__ = ["difference_range", "metric_range"]

FROM_ZERO_TO_ONE = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    "calibration_error",
)
CORRELATIONS = ("mcc", "cohen_kappa", "spearman")
SIZES = ("log_loss", "reconstruction_error", "mae", "mse", "rmse", "mape", "median_absolute_error")


def metric_range(metric: str | None) -> tuple[float, float]:
    """Return the least and the largest value that a metric can have; infinite of one that is not known."""
    name = (metric or "").removeprefix("val_").removeprefix("test_").removeprefix("train_")
    base = name.removesuffix("_macro").removesuffix("_micro").removesuffix("_weighted")
    if base in FROM_ZERO_TO_ONE or base.endswith("_accuracy"):
        return 0.0, 1.0
    if base in CORRELATIONS:
        return -1.0, 1.0
    if base == "r2":
        return -math.inf, 1.0
    return (0.0, math.inf) if base in SIZES else (-math.inf, math.inf)


def difference_range(metric: str | None) -> tuple[float, float]:
    """Return the least and the largest difference that two values of a metric can have."""
    least, most = metric_range(metric)
    return least - most, most - least
