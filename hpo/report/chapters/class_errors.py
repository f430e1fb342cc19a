"""Errors of a classification: confusion, precision and recall, most confident mistakes, calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hpo.report.chapters.blocks import HIDDEN, Block, Pictures, Subtitle, Table, Text
from hpo.report.data.predictions import Predictions
from hpo.report.figures.plotly_spec import (
    HOVER,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    escape_text,
    make_axis,
    shorten,
)
from hpo.report.figures.png import encode_png
from hpo.report.figures.precision_recall import CURVES_LIMIT, precision_recall_figure
from hpo.report.format import count_text
from hpo.report.stats.precision_recall import trace_precision_recall

__all__ = ["calibration_bins", "class_blocks", "confusion_matrix", "expected_calibration_error"]

Array = np.ndarray[Any, Any]
Name = Callable[[int], str]
NAME_LIMIT = 18
MATRIX_LIMIT = 20  # classes; more squares than 400 say nothing
PAIRS = 20
CLASSES_LIMIT = 200  # rows of the table of classes
PICTURES_LIMIT = 24
BINS = 15
CALIBRATED = 0.02  # an expected calibration error below it needs no repair
QUANTILE = 1.645  # below which a normal variable is in 95 % of cases


def class_blocks(predictions: Predictions, name: Name, *, show_data: bool) -> list[Block]:
    """Write which classes are confused, where the model was sure and wrong, and whether its probabilities hold.

    Args:
        predictions: of a split.
        name: returns what a class is called, by its number.
        show_data: whether samples are shown.
    """
    table = confusion_matrix(predictions)
    matrix: list[Block] = [_matrix_figure(table, name)] if len(table) <= MATRIX_LIMIT else []
    return [
        *matrix,
        *_pair_table(table, name),
        Subtitle("By class"),
        *_class_table(table, name),
        *_imbalance_blocks(predictions, name),
        *_mistake_pictures(predictions, name, show_data=show_data),
        Subtitle("Calibration"),
        *_reliability_blocks(predictions),
    ]


# Which classes it confuses.


def confusion_matrix(predictions: Predictions) -> Array:
    """Count how often a sample of class `row` was predicted as class `column`: (classes, classes)."""
    classes = max(predictions.probabilities.shape[1], int(predictions.labels.max()) + 1)
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (predictions.labels, predictions.probabilities.argmax(1)), 1)
    return table


def _matrix_figure(table: Array, name: Name) -> Figure:
    """Draw the shares of each class as a heatmap; the diagonal is left without colour, for it holds no errors."""
    support = table.sum(1, keepdims=True)
    shares = table / np.maximum(support, 1)
    wrong = np.where(np.eye(len(table), dtype=bool), np.nan, shares)
    names = _tell_apart([escape_text(shorten(name(i), NAME_LIMIT)) for i in range(len(table))])
    texts = [
        [f"{n} samples of {names[r]} predicted as {names[c]}" for c, n in enumerate(row)] for r, row in enumerate(table)
    ]
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in wrong],
        "text": texts,
        "hovertemplate": HOVER,
        "colorscale": [[0, "@surface"], [1, "@fail"]],
        "zmin": 0,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    strong = float(np.nanmax(wrong, initial=0)) / 2
    numbers = [
        _count_label(str(n), c, r, "@muted" if r == c else "@on" if wrong[r, c] > strong else "@ink")
        for r, row in enumerate(table)
        for c, n in enumerate(row)
        if n
    ]
    named: Spec = {"type": "category", "showgrid": False}
    spec = build_spec(
        [heat],
        90 + 28 * len(table) + 5 * max(map(len, names)),
        xaxis=make_axis("predicted", **named, **({"tickangle": -40} if max(map(len, names)) > 3 else {})),
        yaxis=make_axis("label", **named, autorange="reversed"),
        annotations=numbers,
    )
    caption = (
        "Samples of each label (rows) by predicted class (columns); the redder, the larger the share of the label."
    )
    return attach_spec(Figure("confusion", "Confusion matrix"), spec, caption, 28 * len(table) + 80)


def _tell_apart(names: Sequence[str]) -> list[str]:
    """Return names that are all different, as an axis of categories needs them."""
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _count_label(text: str, x: int, y: int, colour: str) -> Spec:
    return {"x": x, "y": y, "text": text, "showarrow": False, "font": {"size": 11, "color": colour}}


def _pair_table(table: Array, name: Name) -> list[Block]:
    """Tabulate the most confused pairs, where a matrix would be too large."""
    off = table - np.diag(np.diag(table))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    confused = [(int(r), int(c)) for r, c in zip(*np.unravel_index(order, off.shape), strict=True) if off[r, c]]
    if len(table) <= MATRIX_LIMIT or not confused:
        return []
    support = table.sum(1)
    rows = [[name(r), name(c), str(off[r, c]), f"{100 * off[r, c] / support[r]:.1f} %"] for r, c in confused]
    columns = ["label", "predicted", "samples", "share of the label"]
    return [Subtitle("Most confused classes"), Table(columns, rows, columns[2:])]


def _class_table(table: Array, name: Name) -> list[Block]:
    """Tabulate precision, recall and F1 of each class, the worst F1 first."""
    hits, predicted, support = np.diag(table), table.sum(0), table.sum(1)
    precision, recall = (hits / np.where(count, count, 1) for count in (predicted, support))
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    present = sorted((i for i in range(len(table)) if predicted[i] or support[i]), key=lambda i: (f1[i], i))
    rows = [
        [
            name(i),
            f"{100 * precision[i]:.1f} %" if predicted[i] else "-",
            f"{100 * recall[i]:.1f} %" if support[i] else "-",
            f"{100 * f1[i]:.1f} %",
            count_text(int(support[i])),
        ]
        for i in present[:CLASSES_LIMIT]
    ]
    columns = ["class", "precision", "recall", "F1", "samples"]
    note = (
        "Worst F1 first. Precision: the share of the samples predicted as the class that belong to it. Recall: the "
        "share of the class that was predicted as it."
    )
    cut = f" {CLASSES_LIMIT} of {len(present)} classes are shown." if len(present) > CLASSES_LIMIT else ""
    return [Table(columns, rows, columns[1:]), Text(note + cut, quiet=True)]


# Where it was sure, and wrong.


def _mistake_pictures(predictions: Predictions, name: Name, *, show_data: bool) -> list[Block]:
    if predictions.pictures is None or not len(predictions.pictures):
        return []
    title = Subtitle("Most confident mistakes")
    if not show_data:
        return [title, Text(HIDDEN, quiet=True)]
    predicted, confidence = predictions.probabilities.argmax(1), predictions.probabilities.max(1)
    samples = predictions.mistakes[:PICTURES_LIMIT]
    captions = [
        f"{name(int(predictions.labels[i]))} as {name(int(predicted[i]))} ({100 * confidence[i]:.0f} %)"
        for i in samples
    ]
    images = [encode_png(picture) for picture in predictions.pictures[:PICTURES_LIMIT]]
    note = Text(
        ("Under each: its label, the class predicted, and the probability of that class. Some labels may be wrong."),
        quiet=True,
    )
    return [title, Pictures("mistakes", images, captions), note]


# Where one class is rare.


def _imbalance_blocks(predictions: Predictions, name: Name) -> list[Block]:
    """Draw precision and recall of the rare classes, where most samples are of one class."""
    support = np.bincount(predictions.labels, minlength=predictions.probabilities.shape[1])
    share, common = support.max() / support.sum(), int(support.argmax())
    present = [i for i in np.argsort(support, kind="stable") if support[i] and i != common]
    if share < (0.6 if len(support) == 2 else 0.5) or not present:
        return []
    rare = [int(i) for i in present[:CURVES_LIMIT]]
    curves = [
        (name(i), curve, support[i] / support.sum())
        for i in rare
        if (curve := trace_precision_recall(predictions.labels == i, predictions.probabilities[:, i])) is not None
    ]
    which = "" if len(present) == len(rare) else f" The {len(rare)} rarest of {len(present)} such classes are drawn."
    text = (
        f"{100 * share:.0f} % of the samples are of class {name(common)}: a model that knows only that has this "
        "accuracy, too. Precision and recall of the other classes tell more."
    )
    return [Subtitle("Rare classes"), Text(text + which), precision_recall_figure("rare", curves)]


# Whether its probabilities mean what they say.


def calibration_bins(predictions: Predictions, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Return mean probability, share correct, and count, by bins of about equal counts.

    Bins of equal mass leave none empty or nearly so (Nixon et al., "Measuring Calibration in Deep Learning", 2019).
    """
    confidence, right = predictions.probabilities.max(1).astype(float), predictions.correct
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(confidence)))
    return [(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def expected_calibration_error(predictions: Predictions, bins: int = BINS) -> float:
    """Return the mean distance of probability and share correct over the bins, weighted by counts."""
    table = calibration_bins(predictions, bins)
    return sum(count * abs(confidence - right) for confidence, right, count in table) / sum(
        count for *_, count in table
    )


def _reliability_blocks(predictions: Predictions) -> list[Block]:
    table, error = calibration_bins(predictions), expected_calibration_error(predictions)
    low = max(0.0, min(min(confidence, right) for confidence, right, _ in table) - 0.05)
    points = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "the model",
        "x": [round(confidence, 5) for confidence, *_ in table],
        "y": [round(right, 5) for _, right, _ in table],
        "text": [f"{n} samples: predicted {100 * s:.1f} %, correct {100 * r:.1f} %" for s, r, n in table],
        "hovertemplate": HOVER,
        "line": {"color": "@accent", "width": 2},
        "marker": {"color": "@accent", "size": 7},
        "showlegend": False,
    }
    diagonal = {"type": "line", "x0": low, "y0": low, "x1": 1, "y1": 1, "line": {"color": "@muted", "dash": "dash"}}
    span = {"range": [low, 1.01], "tickformat": ".0%"}
    spec = build_spec(
        [points],
        320,
        xaxis=make_axis("predicted probability", **span),
        yaxis=make_axis("share correct", **span),
        shapes=[diagonal],
    )
    caption = (
        f"{len(table)} bins of equally many samples. On the dashed line, predictions of 80 % are correct in 80 % of "
        "cases."
    )
    return [
        attach_spec(Figure("calibration", "Reliability diagram"), spec, caption),
        Text(_calibration_text(table, error)),
    ]


def _chance_limit(table: Sequence[tuple[float, float, int]]) -> float:
    """Return what the expected calibration error of a calibrated model stays below in 95 % of cases.

    The share correct of a bin is then about normal around its probability, and its distance from it half-normal.
    """
    total = sum(count for *_, count in table)
    variances = [count * max(0.0, confidence * (1 - confidence)) / total**2 for confidence, _, count in table]
    mean = math.sqrt(2 / math.pi) * sum(map(math.sqrt, variances))
    return mean + QUANTILE * math.sqrt((1 - 2 / math.pi) * sum(variances))


def _calibration_text(table: Sequence[tuple[float, float, int]], error: float) -> str:
    gap = sum(count * (confidence - right) for confidence, right, count in table)
    text = f"Expected calibration error {100 * error:.1f} %: "
    if error < CALIBRATED:
        return text + "its probabilities can be trusted on data like these."
    limit = _chance_limit(table)
    if error <= limit:
        samples = count_text(sum(count for *_, count in table))
        return text + (
            f"with {samples} samples chance alone reaches {100 * limit:.1f} %, so it cannot be told from that of a "
            "calibrated model."
        )
    side = "overconfident" if gap > 0 else "underconfident"
    return text + f"the model is {side}; rescale its outputs (temperature scaling) before relying on its probabilities."
