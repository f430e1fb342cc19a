"""Errors of a model of several labels: a table by label, with thresholds chosen on validation data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpo.report.chapters.blocks import Block, Subtitle, Table, Text
from hpo.report.data.evaluations import EvaluationRun
from hpo.report.data.predictions import LabelPredictions
from hpo.report.figures.precision_recall import CURVES_LIMIT, precision_recall_figure
from hpo.report.format import NONE, count_text
from hpo.report.stats.precision_recall import Decision, best_threshold, decide, trace_precision_recall

__all__ = ["choose_thresholds", "label_blocks"]

LABELS_LIMIT = 200
USUAL = 0.5


def choose_thresholds(validation: LabelPredictions) -> list[float | None]:
    """Return for each label the probability with the best F1; None where no sample has it, or all have."""
    curves = (
        trace_precision_recall(validation.labels[:, i] > 0, validation.probabilities[:, i])
        for i in range(validation.labels.shape[1])
    )
    return [None if curve is None else best_threshold(curve) for curve in curves]


def label_blocks(
    run: EvaluationRun, split: str, predictions: LabelPredictions, name: Callable[[int], str]
) -> list[Block]:
    """Write how well each label is predicted.

    Args:
        run: whose validation predictions the thresholds are chosen on.
        split: the predictions are of.
        predictions: of the split.
        name: returns what a label is called, by its number.
    """
    validation = run.label_predictions("validation") if split == "test" else None
    same = validation is not None and validation.labels.shape[1] == predictions.labels.shape[1]
    thresholds = choose_thresholds(validation) if validation is not None and same else None
    order = sorted(range(predictions.labels.shape[1]), key=lambda i: (_average_precision(predictions, i), i))
    return [
        Subtitle("By label"),
        *_table_blocks(predictions, thresholds, order[:LABELS_LIMIT], name),
        *_curve_blocks(predictions, order, name),
    ]


def _average_precision(predictions: LabelPredictions, label: int) -> float:
    curve = trace_precision_recall(predictions.labels[:, label] > 0, predictions.probabilities[:, label])
    return np.inf if curve is None else curve.average_precision


def _table_blocks(
    predictions: LabelPredictions, thresholds: list[float | None] | None, order: list[int], name: Callable[[int], str]
) -> list[Block]:
    rows = []
    for i in order:
        positive, probabilities = predictions.labels[:, i] > 0, predictions.probabilities[:, i]
        usual, average = decide(positive, probabilities, USUAL), _average_precision(predictions, i)
        row = [
            name(i),
            count_text(int(positive.sum())),
            f"{average:.3f}" if np.isfinite(average) else NONE,
            *_decision_cells(usual),
        ]
        if thresholds is not None:
            threshold = thresholds[i]
            chosen = Decision(None, None, None) if threshold is None else decide(positive, probabilities, threshold)
            row += [NONE if threshold is None else f"{threshold:.2f}", *_decision_cells(chosen)]
        rows.append(row)
    columns = ["label", "positives", "average precision", "precision", "recall", "F1"]
    columns += [] if thresholds is None else ["threshold", "precision there", "recall there", "F1 there"]
    note = f"The worst average precision first. Precision, recall and F1 are at a probability of {USUAL}"
    note += (
        "."
        if thresholds is None
        else "; there: at the threshold with the best F1 on the validation data, which is not chosen by these samples."
    )
    total = predictions.labels.shape[1]
    cut = f" {LABELS_LIMIT} of {total} labels are shown." if total > LABELS_LIMIT else ""
    return [Table(columns, rows, columns[1:]), Text(note + cut, quiet=True)]


def _decision_cells(decision: Decision) -> list[str]:
    return [
        NONE if share is None else f"{100 * share:.1f} %"
        for share in (decision.precision, decision.recall, decision.f1)
    ]


def _curve_blocks(predictions: LabelPredictions, order: list[int], name: Callable[[int], str]) -> list[Block]:
    curves = [
        (name(i), curve, float((predictions.labels[:, i] > 0).mean()))
        for i in order
        if (curve := trace_precision_recall(predictions.labels[:, i] > 0, predictions.probabilities[:, i])) is not None
    ]
    figure = precision_recall_figure("labels", curves[:CURVES_LIMIT])
    if len(curves) <= CURVES_LIMIT:
        return [figure]
    return [figure, Text(f"The {CURVES_LIMIT} labels with the worst average precision are drawn.", quiet=True)]
