"""Divergence, which ends a trial: the one rule that says of which numbers it is seen."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

__all__ = ["find_divergence"]


def find_divergence(metrics: Mapping[str, float], objectives: Collection[str]) -> str | None:
    """Return the first objective or loss that is not finite, as `val_loss is nan`; None if all are.

    A loss is a metric whose name ends in `loss`. Any other metric is merely recorded, and may be anything.

    Args:
        metrics: of an epoch, or as they were returned.
        objectives: names of the metrics that decide how good a trial is.
    """
    for name, value in metrics.items():
        if not math.isfinite(value) and (name in objectives or name.endswith("loss")):
            return f"{name} is {value}"
    return None
