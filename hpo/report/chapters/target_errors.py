"""Errors of a regression: predictions by targets, residuals by magnitude and by feature, quantiles of the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from hpo.report.chapters.blocks import Block, Subtitle, Table, Text
from hpo.report.chapters.intervals import interval_blocks
from hpo.report.chapters.worst_rows import worst_target_blocks
from hpo.report.data.evaluations import EvaluationResults, EvaluationRun
from hpo.report.data.predictions import FeatureResiduals, TargetPredictions
from hpo.report.figures.plotly_spec import (
    HOVER,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    count_note,
    escape_text,
    make_axis,
    mark_missing,
    shorten,
)
from hpo.report.format import NONE, amount_text, count_text, percent_text

__all__ = ["bin_predictions", "bin_residuals", "explained_share", "target_blocks"]

Array = np.ndarray[Any, Any]
TARGETS_LIMIT = 6  # that have figures
FEATURES_LIMIT = 6  # that have figures, for each target fewer
POINTS_LIMIT = 1500
BINS = 12
FEWEST_BANDED, FEWEST_BINNED = 10, 5  # samples that are shown together, where single rows are not
QUANTILES = (0.5, 0.9, 0.95, 0.99)
SMALL = 0.02  # share of the residuals' variance that is not worth a word


def target_blocks(
    evaluation: EvaluationResults, run: EvaluationRun, split: str, predictions: TargetPredictions, *, show_data: bool
) -> list[Block]:
    """Write where the predictions of a split are wrong, and by how much.

    Args:
        evaluation: the run's.
        run: whose validation predictions the intervals are calibrated on.
        split: `validation` or `test`.
        predictions: of the split.
        show_data: whether rows of the user's data are shown.
    """
    targets = predictions.targets.shape[1]
    name = partial(_target_name, evaluation, targets)
    shown = range(min(targets, TARGETS_LIMIT))
    validation = predictions if split == "validation" else run.target_predictions("validation")
    return [
        *_error_table(predictions, name),
        *((_scatter_figure if show_data else _band_figure)(predictions, i, name(i)) for i in shown),
        *(_residual_figure(predictions, i, name(i), show_data=show_data) for i in shown),
        *_feature_blocks(predictions if show_data else _without_small_bins(predictions), name),
        *interval_blocks(validation, predictions if split == "test" else None, name),
        *worst_target_blocks(evaluation, split, predictions, show_data=show_data),
    ]


def _target_name(evaluation: EvaluationResults, targets: int, place: int) -> str:
    """Return what a target is called: its name, its number, or nothing where it has no name and is the only one."""
    name = evaluation.name_output(place)
    return "" if targets == 1 and name == "0" else name


# How large the errors are.


def _error_table(predictions: TargetPredictions, name: Callable[[int], str]) -> list[Block]:
    several = predictions.targets.shape[1] > 1
    rows = []
    for i in range(predictions.targets.shape[1]):
        residuals, targets = predictions.residuals[:, i], predictions.targets[:, i]
        sizes = np.abs(residuals)
        spread = float(np.square(targets - targets.mean()).sum())
        r2 = 1 - float(np.square(residuals).sum()) / spread if spread > 0 else None
        cells = [
            *(amount_text(float(value)) for value in np.quantile(sizes, QUANTILES)),
            amount_text(float(sizes.max())),
            amount_text(float(sizes.mean())),
            amount_text(float(np.sqrt(np.square(residuals).mean()))),
            _signed_text(-float(residuals.mean())),
            NONE if r2 is None else f"{r2:.4f}",
        ]
        rows.append([*([name(i)] if several else []), *cells])
    quantiles = ["median error", *(f"{100 * q:.0f} %" for q in QUANTILES[1:])]
    columns = [*(["target"] if several else []), *quantiles, "largest", "MAE", "RMSE", "bias", "R²"]
    unit = "the target's own units" if not several else "each target's own units"
    note = (
        f"Quantiles of the absolute error, in {unit}: 90 % of the errors are at most that large. Bias: the mean of "
        "prediction less target."
    )
    return [Table(columns, rows, columns[1:] if several else columns), Text(note, quiet=True)]


def _signed_text(value: float) -> str:
    return f"{'+' if value > 0 else ''}{amount_text(value)}"


# Figures.


def _thin(count: int) -> Array:
    """Choose the points that are drawn, at random but always the same."""
    if count <= POINTS_LIMIT:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, POINTS_LIMIT, replace=False))


def _points(x: Array, y: Array, texts: list[str]) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [float(f"{value:.5g}") for value in x],
        "y": [float(f"{value:.5g}") for value in y],
        "text": texts,
        "hovertemplate": HOVER,
        "showlegend": False,
        "marker": {"color": "@accent", "size": 5, "opacity": 0.45},
    }


def _scatter_figure(predictions: TargetPredictions, target: int, name: str) -> Figure:
    true, predicted = predictions.targets[:, target], predictions.predictions[:, target]
    shown = _thin(len(true))
    texts = [
        f"true {amount_text(a)}, predicted {amount_text(b)}" for a, b in zip(true[shown], predicted[shown], strict=True)
    ]
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    margin = 0.04 * (high - low) or 0.5
    span = {"range": [low - margin, high + margin], "nticks": 6}
    line = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "line": {"color": "@muted", "dash": "dash"}}
    title = escape_text(shorten(name, 30))
    spec = build_spec(
        [_points(true[shown], predicted[shown], texts)],
        300,
        xaxis=make_axis(f"true {title}".strip(), **span),
        yaxis=make_axis(f"predicted {title}".strip(), **span),
        shapes=[line],
    )
    caption = f"On the dashed line predictions are right.{count_note(len(shown), len(true), 'samples')}"
    return attach_spec(Figure(f"predicted-{target}", f"Predicted against true {name}".strip()), spec, caption)


def bin_predictions(true: Array, predicted: Array, bins: int = BINS) -> list[tuple[float, Array, int]]:
    """Return mean target, 10 %, 50 % and 90 % quantiles of the predictions, and count, by bins of the target.

    Bins have about equally many samples, and no fewer than `FEWEST_BANDED`; there are none of fewer samples.
    """
    parts = np.array_split(np.argsort(true, kind="stable"), max(1, min(bins, len(true) // FEWEST_BANDED)))
    return [
        (float(true[part].mean()), np.quantile(predicted[part], (0.1, 0.5, 0.9)), len(part))
        for part in parts
        if len(part) >= FEWEST_BANDED
    ]


def _band_figure(predictions: TargetPredictions, target: int, name: str) -> Figure:
    """Draw predictions against targets by bins, in which no single row can be seen."""
    figure = Figure(f"predicted-{target}", f"Predicted against true {name}".strip())
    bins = bin_predictions(predictions.targets[:, target], predictions.predictions[:, target])
    if not bins:
        return mark_missing(figure, f"Fewer than {FEWEST_BANDED} samples, which would be seen one by one.")
    quantiles = np.array([found for _, found, _ in bins])
    means = [mean for mean, _, _ in bins]
    low, high = float(min(*means, quantiles.min())), float(max(*means, quantiles.max()))
    margin = 0.04 * (high - low) or 0.5
    span = {"range": [low - margin, high + margin], "nticks": 6}
    line = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "line": {"color": "@muted", "dash": "dash"}}
    dots = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [float(f"{mean:.5g}") for mean in means],
        "y": [float(f"{middle:.5g}") for middle in quantiles[:, 1]],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [float(f"{reach:.5g}") for reach in quantiles[:, 2] - quantiles[:, 1]],
            "arrayminus": [float(f"{reach:.5g}") for reach in quantiles[:, 1] - quantiles[:, 0]],
            "color": "@accent",
            "thickness": 1.5,
            "width": 4,
        },
        "text": [
            f"{n} samples, true {amount_text(mean)} on average: predicted {amount_text(q[1])} (80 % of them "
            f"{amount_text(q[0])} to {amount_text(q[2])})"
            for mean, q, n in bins
        ],
        "hovertemplate": HOVER,
        "showlegend": False,
        "line": {"color": "@accent", "width": 1},
        "marker": {"color": "@accent", "size": 7},
    }
    title = escape_text(shorten(name, 30))
    spec = build_spec(
        [dots],
        300,
        xaxis=make_axis(f"true {title}".strip(), **span),
        yaxis=make_axis(f"predicted {title}".strip(), **span),
        shapes=[line],
    )
    count = f"{len(bins)} bins of equally many samples" if len(bins) > 1 else "All samples together"
    caption = (
        f"{count}, by the true value: dots are the mean of what is true and the median prediction, bars hold 80 % of "
        "the predictions. On the dashed line predictions are right. Single rows are left out; "
        "the option --show-data draws them."
    )
    return attach_spec(figure, spec, caption)


def bin_residuals(predicted: Array, residuals: Array, bins: int = BINS) -> list[tuple[float, float, float, int]]:
    """Return mean prediction, mean and deviation of the residuals, and count, by bins of about equal counts."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(bins, max(1, len(predicted) // 5)))
    return [
        (float(predicted[part].mean()), float(residuals[part].mean()), float(residuals[part].std()), len(part))
        for part in parts
        if len(part)
    ]


def _residual_figure(predictions: TargetPredictions, target: int, name: str, *, show_data: bool) -> Figure:
    predicted, residuals = predictions.predictions[:, target], predictions.residuals[:, target]
    shown = _thin(len(predicted))
    texts = [
        f"predicted {amount_text(a)}, residual {amount_text(b)}"
        for a, b in zip(predicted[shown], residuals[shown], strict=True)
    ]
    bins = bin_residuals(predicted, residuals)
    means = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [float(f"{middle:.5g}") for middle, *_ in bins],
        "y": [float(f"{mean:.5g}") for _, mean, _, _ in bins],
        "error_y": {
            "type": "data",
            "array": [float(f"{deviation:.5g}") for _, _, deviation, _ in bins],
            "color": "@second",
            "thickness": 1.2,
            "width": 4,
        },
        "text": [
            f"{n} samples: mean {amount_text(mean)}, deviation {amount_text(deviation)}"
            for _, mean, deviation, n in bins
        ],
        "hovertemplate": HOVER,
        "showlegend": False,
        "line": {"color": "@second", "width": 2},
        "marker": {"color": "@second", "size": 6},
    }
    zero = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "line": {"color": "@muted", "dash": "dash"},
    }
    title = escape_text(shorten(name, 30))
    spec = build_spec(
        [*([_points(predicted[shown], residuals[shown], texts)] if show_data else []), means],
        280,
        xaxis=make_axis(f"predicted {title}".strip(), nticks=6),
        yaxis=make_axis("true less predicted", nticks=6),
        shapes=[zero],
    )
    caption = (
        f"The line is the mean over {len(bins)} bins of equally many samples, its bars are their standard deviation. "
        "A mean off zero is an error that a better model would not make; bars that grow are a noise that grows."
        f"{count_note(len(shown), len(predicted), 'samples') if show_data else ''}"
    )
    return attach_spec(
        Figure(f"residuals-{target}", f"Residuals of {name} by magnitude" if name else "Residuals by magnitude"),
        spec,
        caption,
    )


# By feature.


def explained_share(feature: FeatureResiduals, target: int) -> float:
    """Return the share of the residuals' variance that lies between a feature's bins, less what chance gives.

    That is epsilon squared (Kelley, "An Unbiased Correlation Ratio Measure", 1935).
    """
    counts, means = feature.counts.astype(float), feature.means[:, target].astype(float)
    total, groups = counts.sum(), len(counts)
    inside = float((counts * np.square(feature.deviations[:, target].astype(float))).sum())
    between = float((counts * np.square(means - np.average(means, weights=counts))).sum())
    if total <= groups or inside + between <= 0:
        return 0.0
    return max(0.0, float((between - (groups - 1) * inside / (total - groups)) / (inside + between)))


def _without_small_bins(predictions: TargetPredictions) -> TargetPredictions:
    """Return predictions without the bins of features that have so few samples that they could be single rows."""
    features = []
    for feature in predictions.features:
        kept = np.flatnonzero(feature.counts >= FEWEST_BINNED)
        parts = (each[kept] for each in (feature.counts, feature.means, feature.deviations))
        features.append(FeatureResiduals(feature.feature, [feature.labels[i] for i in kept.tolist()], *parts))
    return replace(predictions, features=features)


def _feature_blocks(predictions: TargetPredictions, name: Callable[[int], str]) -> list[Block]:
    """Draw the features whose bins differ most in their residuals."""
    ranked = sorted(
        (
            (explained_share(feature, target), feature, target)
            for feature in predictions.features
            for target in range(predictions.targets.shape[1])
            if len(feature.labels) > 1
        ),
        key=lambda each: -each[0],
    )
    if not ranked:
        return []
    share, first, target = ranked[0]
    of = f" of {name(target)}" if name(target) and predictions.targets.shape[1] > 1 else ""
    told = (
        f"The bins of {first.feature} explain {percent_text(share)} of the variance of the residuals{of}: what the "
        "model misses depends on this feature."
        if share >= SMALL
        else "No feature's bins explain more than 2 % of the variance of the residuals."
    )
    figures = [_feature_figure(i, *each, name) for i, each in enumerate(ranked[:FEATURES_LIMIT])]
    note = (
        f"The {len(figures)} of {count_text(len(ranked))} "
        f"{'pairs of feature and target' if predictions.targets.shape[1] > 1 else 'features'} whose bins differ most. "
        "Dots are the mean of true less predicted, lines one standard deviation. Numbers are binned by quantiles."
    )
    return [Subtitle("Residuals by feature"), Text(told), *figures, Text(note, quiet=True)]


def _feature_figure(
    index: int, share: float, feature: FeatureResiduals, target: int, name: Callable[[int], str]
) -> Figure:
    means, deviations = feature.means[:, target], feature.deviations[:, target]
    labels = [escape_text(shorten(label, 24)) for label in feature.labels]
    labels = [f"{label} ({i})" if labels.count(label) > 1 else label for i, label in enumerate(labels)]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [float(f"{mean:.5g}") for mean in means],
        "y": labels,
        "error_x": {
            "type": "data",
            "array": [float(f"{deviation:.5g}") for deviation in deviations],
            "color": "@accent",
            "thickness": 1.5,
            "width": 0,
        },
        "text": [
            f"{label}: {n} samples, mean {amount_text(float(mean))}, deviation {amount_text(float(deviation))}"
            for label, n, mean, deviation in zip(labels, feature.counts, means, deviations, strict=True)
        ],
        "hovertemplate": HOVER,
        "marker": {"color": "@accent", "size": 8},
    }
    zero = {
        "type": "line",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": 0,
        "x1": 0,
        "line": {"color": "@muted", "dash": "dash"},
    }
    spec = build_spec(
        [dots],
        70 + 19 * len(labels),
        xaxis=make_axis("true less predicted", nticks=5),
        yaxis=make_axis(type="category", autorange="reversed", ticksuffix="  ", showgrid=False),
        shapes=[zero],
        showlegend=False,
    )
    of = f"{name(target)} by " if name(target) else ""
    title = f"{of}{feature.feature}: {percent_text(share)}"
    return attach_spec(Figure(f"residuals-by-{index}", title), spec, "")
