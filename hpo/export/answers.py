"""Answers of an exported model: what its outputs say of a sample, by task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hpo.export.format import Array, Preprocessing

__all__ = ["answer"]

THRESHOLD = 0.5
DIGITS = 7  # significant ones of a target: float32 has no more
TAKEN = ("file", "row", "labels")  # columns of our own, which a label or target may be called as well
Row = dict[str, Any]


def answer(outputs: Array, inputs: Preprocessing) -> Iterator[Row]:
    """Yield a row for each sample, from outputs (N, outputs); targets are in their own units.

    Of a classification it has `class` and `probability`, and of the runner-up `second` and `second_probability`; of
    several labels `labels`, those that are predicted, and the probability of each; of a regression each target, and
    under gaussian_nll its standard deviation. A number that is not finite is None.
    """
    if inputs.task == "regression":
        return _targets(outputs, inputs)
    return _labels(outputs, inputs) if inputs.task == "multilabel" else _classes(outputs, inputs)


def _classes(logits: Array, inputs: Preprocessing) -> Iterator[Row]:
    values = inputs.output_names or range(inputs.classes)
    for sample in _softmax(logits):
        first, *others = (int(k) for k in np.argsort(-sample, kind="stable")[:2])
        row: Row = {"class": values[first], "probability": _probability(sample[first])}
        if others:
            row |= {"second": values[others[0]], "second_probability": _probability(sample[others[0]])}
        yield row


def _labels(logits: Array, inputs: Preprocessing) -> Iterator[Row]:
    columns = _name_columns("label", inputs)
    thresholds = np.array(inputs.thresholds or [THRESHOLD] * inputs.classes)
    for sample in _sigmoid(logits):
        chosen = [inputs.names[k] for k in np.flatnonzero(sample >= thresholds).tolist()]
        yield {"labels": "|".join(chosen), **dict(zip(columns, map(_probability, sample), strict=True))}


def _targets(targets: Array, inputs: Preprocessing) -> Iterator[Row]:
    columns = _name_columns("target", inputs)
    for sample in targets:
        row = {name: _quantity(value) for name, value in zip(columns, sample, strict=False)}
        deviations = sample[inputs.classes :]
        if len(deviations):
            row |= {f"{name}_std": _quantity(value) for name, value in zip(columns, deviations, strict=True)}
        yield row


def _name_columns(what: str, inputs: Preprocessing) -> list[str]:
    """Return the names of a row's columns: those of the labels or targets, unless they are ours."""
    if not inputs.output_names and inputs.classes == 1:
        return [what]
    return [f"{what} {name}" if name in TAKEN or not inputs.output_names else name for name in inputs.names]


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities: Array = powers / powers.sum(1, keepdims=True)
    return probabilities


def _sigmoid(logits: Array) -> Array:
    probabilities: Array = (1 + np.tanh(logits.astype(np.float64) / 2)) / 2  # which does not overflow
    return probabilities


def _probability(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _quantity(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
