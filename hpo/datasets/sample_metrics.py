"""Metrics of sample scores under counts of the samples, such as a bootstrap draws.

Definitions are those of `hpo.training.metrics`, hence scikit-learn's: a sample that is counted twice counts as two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hpo.datasets.sample_scores import ValidationSplit

__all__ = ["measure"]

Array = np.ndarray[Any, Any]
SMALLEST = float(np.finfo(np.float64).eps)  # of a target that MAPE divides by, scikit-learn's
GROUP = 2**24  # numbers of draws and samples at once, where a metric needs several of that size


def measure(metric: str, scores: Array, split: ValidationSplit, weights: Array | None = None) -> Array | None:
    """Return a metric of models under counts of the samples.

    Args:
        metric: its name, such as `val_accuracy`.
        scores: of each model, such as the epochs of `SampleScores.scores`: (M, N) or (M, N, columns), of the kind that
            `hpo.datasets.sample_scores.score_kind` names for the metric.
        split: the samples.
        weights: how often each sample counts in each draw, whole numbers, (B, N); None for once.

    Returns:
        The metric, (M, B), or (M,) where no weights are given; NaN where a draw has no value: of no sample no
        metric has one, and of samples of one class ROC AUC has none. None of a metric that has no sample scores.
    """
    function = FUNCTIONS.get(metric)
    if function is None:
        return None
    counts = np.ones((1, scores.shape[1])) if weights is None else weights
    empty = counts.sum(1) == 0
    if empty.any():  # no metric divides by nothing, or looks for the middle of it
        counts = np.where(empty[:, None], 1, counts)
    values: Array = function(scores, split.labels, counts)
    values[:, empty] = np.nan
    return values[:, 0] if weights is None else values


def _dot(values: Array, weights: Array) -> Array:
    """Return the sums of values (M, N) under weights (B, N): (M, B), in float64."""
    exact = values.dtype.kind in "bui"  # whole sums below 2^24, which float32 holds
    kind = np.float32 if exact and weights.shape[1] < 2**20 else np.float64
    sums: Array = (values.astype(kind) @ weights.T.astype(kind)).astype(np.float64)
    return sums


def _divide(above: Array, below: Array) -> Array:
    """Return a quotient; 0 where it would divide by 0."""
    quotient: Array = np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
    return quotient


def _average(values: Array, weights: Array) -> Array:
    """Return the mean over the last axis under weights; 0 where all are 0."""
    return _divide((values * weights).sum(-1), np.broadcast_to(weights, values.shape).sum(-1))


# Means.


def _mean(scores: Array, labels: Array, weights: Array) -> Array:  # noqa: ARG001
    whole = scores.astype(bool) if np.isin(scores, (0, 1)).all() else scores
    means: Array = _dot(whole, weights) / weights.sum(1)
    return means


def _accuracy(scores: Array, labels: Array, weights: Array) -> Array:
    """Return the mean of what is right; of several labels that are predicted, of the share that is."""
    return _mean(scores if scores.ndim == 2 else ((scores > 0) == (labels > 0)).mean(2), labels, weights)


def _column_means(scores: Array, weights: Array) -> Array:
    """Return the mean of each column of scores (M, N, columns): (M, B, columns)."""
    sums = np.stack([_dot(scores[:, :, i].astype(np.float64), weights) for i in range(scores.shape[2])], 2)
    means: Array = sums / weights.sum(1)[:, None]
    return means


def _over_targets(values: Array) -> Array:
    """Return the mean over the last axis, (M, B)."""
    means: Array = values.mean(2)
    return means


# Decisions.


def _count_decisions(scores: Array, labels: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return right positives and predicted ones, (M, B, classes), and true ones, (B, classes).

    Classes are those that occur or are predicted; what a database says of their numbers may be anything.
    """
    if labels.ndim == 2:
        truth, predicted = labels > 0, scores > 0
        columns = range(labels.shape[1])
        right = [_dot(predicted[:, :, i] & truth[:, i], weights) for i in columns]
        found = [_dot(predicted[:, :, i], weights) for i in columns]
        return np.stack(right, 2), np.stack(found, 2), weights.astype(np.float64) @ truth
    right, found = [], []
    classes = np.union1d(labels, scores)
    for each in classes:
        chosen = scores == each
        own, some = np.flatnonzero(labels == each), np.flatnonzero(chosen.any(0))
        right.append(_dot(chosen[:, own], weights[:, own]))
        found.append(_dot(chosen[:, some], weights[:, some]))
    support = np.stack([weights[:, labels == each].sum(1) for each in classes], 1).astype(np.float64)
    return np.stack(right, 2), np.stack(found, 2), support


def _by_class(name: str, average: str, scores: Array, labels: Array, weights: Array) -> Array:
    """Return precision, recall or F1; macro is over the classes that occur or are predicted, and over all labels."""
    right, predicted, support = _count_decisions(scores, labels, weights)
    if average == "micro":
        right, predicted = right.sum(2, keepdims=True), predicted.sum(2, keepdims=True)
        support = support.sum(1, keepdims=True)
    below = {"precision": predicted, "recall": np.broadcast_to(support, right.shape), "f1": (predicted + support) / 2}
    values = _divide(right, below[name])
    if average == "weighted":
        return _average(values, support)
    return values.mean(2) if labels.ndim == 2 else _average(values, (predicted + support > 0).astype(float))


def _balanced_accuracy(scores: Array, labels: Array, weights: Array) -> Array:
    right, _, support = _count_decisions(scores, labels, weights)
    return _average(_divide(right, support), (support > 0).astype(float))


def _mcc(scores: Array, labels: Array, weights: Array) -> Array:
    right, predicted, support = _count_decisions(scores, labels, weights)
    total = weights.sum(1).astype(np.float64)
    both = total * right.sum(2) - (predicted * support).sum(2)
    spreads = (total**2 - (predicted**2).sum(2)) * (total**2 - (support**2).sum(1))
    return _divide(both, np.sqrt(spreads))


def _cohen_kappa(scores: Array, labels: Array, weights: Array) -> Array:
    right, predicted, support = _count_decisions(scores, labels, weights)
    total = weights.sum(1).astype(np.float64)
    by_chance = (predicted * support).sum(2)
    return _divide(total * right.sum(2) - by_chance, total**2 - by_chance)


# Ranks.


def _group_counts(ranks: Array, weights: Array) -> Iterator[tuple[slice, Array, Array, Array]]:
    """Yield, a few draws at a time, their slice, the order by rank, where each group of equals starts, and the ordered
    weights, (draws, N).
    """
    order = np.argsort(ranks, kind="stable")
    ordered = ranks[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    size = max(1, GROUP // max(1, len(ranks)))
    for begin in range(0, len(weights), size):
        part = slice(begin, begin + size)
        yield part, order, starts, weights[part][:, order].astype(np.float64)


def _roc_auc_of(ranks: Array, truth: Array, weights: Array) -> Array:
    """Return the ROC AUC of one column, (B,); NaN where a draw has samples of one kind only."""
    values = np.empty(len(weights))
    for part, order, starts, ordered in _group_counts(ranks, weights):
        hit = truth[order]
        positives = np.add.reduceat(ordered * hit, starts, axis=1)
        negatives = np.add.reduceat(ordered * ~hit, starts, axis=1)
        below = negatives.cumsum(1) - negatives / 2
        pairs = positives.sum(1) * negatives.sum(1)
        values[part] = np.where(pairs > 0, _divide((positives * below).sum(1), pairs), np.nan)
    return values


def _average_precision_of(ranks: Array, truth: Array, weights: Array) -> Array:
    """Return the average precision of one column, (B,); NaN where a draw has no positive sample."""
    values = np.empty(len(weights))
    for part, order, starts, ordered in _group_counts(ranks, weights):
        positives = np.add.reduceat(ordered * truth[order], starts, axis=1)[:, ::-1]
        found = np.add.reduceat(ordered, starts, axis=1)[:, ::-1].cumsum(1)
        total = positives.sum(1)
        areas = (positives * _divide(positives.cumsum(1), found)).sum(1)
        values[part] = np.where(total > 0, _divide(areas, total), np.nan)
    return values


def _by_column(of: Callable[[Array, Array, Array], Array], scores: Array, truth: Array, weights: Array) -> Array:
    """Return a function of ranks of each column of each model, (M, B, columns)."""
    return np.stack(
        [np.stack([of(each[:, i], truth[:, i], weights) for i in range(each.shape[1])], 1) for each in scores]
    )


def _truth(scores: Array, labels: Array) -> tuple[Array, Array]:
    """Return ranks (M, N, columns), and which samples are positive (N, columns); of two classes the second."""
    if labels.ndim == 2:
        return scores, labels > 0
    if scores.ndim == 2:
        return scores[:, :, None], (labels == 1)[:, None]
    return scores, labels[:, None] == np.arange(scores.shape[2])


def _nan_mean(values: Array) -> Array:
    """Return the mean of what is not NaN over the last axis; NaN where all is."""
    known = ~np.isnan(values)
    counts = known.sum(-1)
    return np.where(counts > 0, _divide(np.where(known, values, 0).sum(-1), counts), np.nan)


def _roc_auc(scores: Array, labels: Array, weights: Array) -> Array:
    return _nan_mean(_by_column(_roc_auc_of, *_truth(scores, labels), weights))


def _average_precision(scores: Array, labels: Array, weights: Array) -> Array:
    values = _by_column(_average_precision_of, *_truth(scores, labels), weights)
    return np.nan_to_num(values).mean(2) if labels.ndim == 2 else np.nan_to_num(_nan_mean(values))


def _centred_ranks(order: Array, starts: Array, ordered: Array) -> Array:
    """Return the ranks of the samples in each draw, (draws, N), less their mean; equals have their mean rank."""
    groups = np.add.reduceat(ordered, starts, axis=1)
    middles = groups.cumsum(1) - (groups - 1) / 2
    sizes = np.diff(np.append(starts, len(order)))
    ranks = np.empty_like(ordered)
    ranks[:, order] = np.repeat(middles, sizes, axis=1)
    centred: Array = ranks - (ordered.sum(1, keepdims=True) + 1) / 2
    return centred


def _spearman_of(ranks: Array, targets: Array, weights: Array) -> Array:
    values = np.empty(len(weights))
    pairs = zip(_group_counts(ranks, weights), _group_counts(targets, weights), strict=True)
    for (part, *one), (_, *other) in pairs:
        first, second, counts = _centred_ranks(*one), _centred_ranks(*other), weights[part]
        spreads = (counts * first**2).sum(1) * (counts * second**2).sum(1)
        values[part] = (counts * first * second).sum(1) / np.maximum(np.sqrt(spreads), SMALLEST)
    return values


def _spearman(scores: Array, labels: Array, weights: Array) -> Array:
    return _over_targets(_by_column(_spearman_of, scores, labels, weights))


# Errors of real targets.


def _r2(scores: Array, labels: Array, weights: Array) -> Array:
    """Return R², the mean over targets; of one that is constant 1 where there is no error and else 0."""
    errors = _column_means(scores, weights)
    centred = labels.astype(np.float64) - labels.mean(0, dtype=np.float64)
    counts, total = weights.astype(np.float64), weights.sum(1)[:, None]
    deviations = np.maximum(counts @ centred**2 / total - (counts @ centred / total) ** 2, 0)
    deviations[deviations <= SMALLEST * centred.var(0)] = 0
    return _over_targets(np.where(deviations > 0, 1 - _divide(errors, deviations), (errors == 0).astype(float)))


def _rmse(scores: Array, labels: Array, weights: Array) -> Array:  # noqa: ARG001
    return _over_targets(np.sqrt(_column_means(scores, weights)))


def _mae(scores: Array, labels: Array, weights: Array) -> Array:  # noqa: ARG001
    return _over_targets(_column_means(scores, weights))


def _mape(scores: Array, labels: Array, weights: Array) -> Array:
    sizes = np.maximum(np.abs(labels.astype(np.float64)), SMALLEST)
    return _over_targets(_column_means(scores / sizes, weights))


def _median_absolute_error(scores: Array, labels: Array, weights: Array) -> Array:  # noqa: ARG001
    return np.stack(
        [np.stack([_median(each[:, i], weights) for i in range(each.shape[1])], 1).mean(1) for each in scores]
    )


def _median(values: Array, weights: Array) -> Array:
    """Return the median of values (N,) in each draw, (B,)."""
    order = np.argsort(values)
    ordered, total = values[order].astype(np.float64), weights.sum(1)
    medians = np.empty(len(weights))
    size = max(1, GROUP // max(1, len(values)))
    for begin in range(0, len(weights), size):
        part = slice(begin, begin + size)
        reached = weights[part][:, order].cumsum(1)
        lower, upper = ((reached <= place[part, None]).sum(1) for place in ((total - 1) // 2, total // 2))
        medians[part] = (ordered[lower] + ordered[upper]) / 2
    return medians


FUNCTIONS: Mapping[str, Callable[[Array, Array, Array], Array]] = MappingProxyType(
    {
        "val_accuracy": _accuracy,
        "val_top5_accuracy": _mean,
        "val_loss": _mean,
        "val_log_loss": _mean,
        "val_reconstruction_error": _mean,
        "val_balanced_accuracy": _balanced_accuracy,
        **{
            f"val_{name}_{average}": partial(_by_class, name, average)
            for name in ("precision", "recall", "f1")
            for average in ("macro", "micro", "weighted")
        },
        "val_mcc": _mcc,
        "val_cohen_kappa": _cohen_kappa,
        "val_roc_auc": _roc_auc,
        "val_average_precision": _average_precision,
        "val_spearman": _spearman,
        "val_r2": _r2,
        "val_rmse": _rmse,
        "val_mae": _mae,
        "val_mape": _mape,
        "val_median_absolute_error": _median_absolute_error,
    }
)
