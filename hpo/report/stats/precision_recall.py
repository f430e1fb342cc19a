"""Precision and recall of a binary decision by its threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Decision", "PrecisionRecall", "best_threshold", "decide", "trace_precision_recall"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision-recall curve, one point per distinct probability, the highest threshold first.

    Attributes:
        thresholds: samples of at least this probability are called positive.
        precision, recall: at each threshold.
        average_precision: the sum of the precisions, weighted by the gains in recall.
    """

    thresholds: Array
    precision: Array
    recall: Array
    average_precision: float


@dataclass(frozen=True)
class Decision:
    """Quality of the decision at one threshold; a ratio without a denominator is None."""

    precision: float | None
    recall: float | None
    f1: float | None


def trace_precision_recall(positive: Array, probabilities: Array) -> PrecisionRecall | None:
    """Trace the curve of n samples; None where none or all are positive.

    Args:
        positive: (n,) of bool.
        probabilities: (n,).
    """
    positives = int(positive.sum())
    if positives in (0, len(positive)):
        return None
    order = np.argsort(-probabilities, kind="stable")
    scores, hits = probabilities[order], np.cumsum(positive[order])
    last = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # of equal probabilities all are called, or none
    hits = hits[last]
    precision, recall = hits / (last + 1), hits / positives
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    return PrecisionRecall(scores[last], precision, recall, average)


def best_threshold(curve: PrecisionRecall) -> float:
    """Return the threshold with the best F1, the highest of equals."""
    total = curve.precision + curve.recall
    f1 = 2 * curve.precision * curve.recall / np.where(total > 0, total, 1)
    return float(curve.thresholds[int(np.argmax(f1))])


def decide(positive: Array, probabilities: Array, threshold: float) -> Decision:
    """Return the quality of calling every sample of at least this probability positive."""
    called = probabilities >= threshold
    hits, calls, positives = int((called & positive).sum()), int(called.sum()), int(positive.sum())
    return Decision(
        hits / calls if calls else None,
        hits / positives if positives else None,
        2 * hits / (calls + positives) if calls + positives else None,
    )
