"""Metrics of validation and test samples: the built-in ones, of all members of a cohort at once, and the user's.

Definitions are scikit-learn's, also where a class does not occur or predictions are all the same: such a part counts as
0, or is left out, and is never NaN. Torchmetrics' functions take one model at a time, half a millisecond each, which is
as long as a step of a small cohort: what most metrics need (right answers and predictions by class, ranks) is counted
here once, for all members and all metrics, on the device; only calibration is left to torchmetrics. Everything is read
back in one go at the end of the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config.registry import BUILTIN_METRICS, MetricEntry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training.data import Data
from hpo.training.losses import compute_metric, loss_target
from hpo.training.member import Metrics

__all__ = [
    "FUNCTIONS",
    "TOP",
    "Decisions",
    "Predictions",
    "count_ahead",
    "dense_ranks",
    "group_members",
    "log_losses",
    "measure",
    "measure_metrics",
]

GROUP = 2**22  # numbers of outputs that are measured at once
TOP = 5
BINS = 15  # of probabilities, as in Guo et al. 2017
SMALLEST = torch.finfo(torch.float64).eps  # of a target that MAPE divides by, scikit-learn's


class Decisions:
    """Outputs of a group of members for classes or labels, and what metrics need of them.

    Args:
        outputs: (members, classes or labels, N), before softmax or sigmoid.
        y: classes (N,), or labels (N, L).
        task: classification or multilabel.
    """

    def __init__(self, outputs: Tensor, y: Tensor, task: str) -> None:
        self.outputs, self.y = outputs, y
        self.several = task == "multilabel"
        self.samples = len(y)

    @cached_property
    def probabilities(self) -> Tensor:
        """Probabilities of the classes or labels, (members, classes, N)."""
        return self.outputs.sigmoid() if self.several else self.outputs.softmax(1)

    @cached_property
    def truth(self) -> Tensor:
        """The classes or labels of the samples as booleans, (classes, N)."""
        if self.several:
            return self.y.t() > 0.5
        return F.one_hot(self.y, self.outputs.shape[1]).t() > 0

    @cached_property
    def counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Right positives and predicted ones, (members, classes), and true ones, (classes,), in float64."""
        support = self.truth.sum(1).double()
        if self.several:
            predicted = self.outputs > 0
            return (predicted & self.truth).sum(2).double(), predicted.sum(2).double(), support
        chosen = self.chosen
        predicted = torch.zeros_like(self.outputs[:, :, 0], dtype=torch.int64)
        right = torch.zeros_like(predicted)
        predicted.scatter_add_(1, chosen, torch.ones_like(chosen))
        right.scatter_add_(1, chosen, (chosen == self.y).long())
        return right.double(), predicted.double(), support

    @cached_property
    def chosen(self) -> Tensor:
        """The predicted classes, (members, N): of equal largest outputs the first."""
        return (
            self.outputs.transpose(1, 2).contiguous().argmax(2)
        )  # argmax is slow over another dimension than the last

    @cached_property
    def columns(self) -> slice:
        """The classes that are each told from the rest: of two the second alone, as its scores say it all."""
        return slice(1, 2) if not self.several and self.outputs.shape[1] == 2 else slice(None)

    @cached_property
    def ranking(self) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of `columns` by ascending probability, and what `rank` returns."""
        return rank(self.probabilities[:, self.columns])


class Predictions:
    """Predicted targets of a group of members, and what metrics need of them.

    Args:
        outputs: (members, targets, N), in the targets' own units.
        y: targets (N, T).
    """

    def __init__(self, outputs: Tensor, y: Tensor) -> None:
        self.outputs, self.y = outputs.double(), y.t().double()

    @cached_property
    def errors(self) -> Tensor:
        """Absolute errors, (members, targets, N)."""
        return (self.outputs - self.y).abs()


def rank(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the order of scores (…, N), and of each place in it the first and the last place of its equals."""
    ordered, order = scores.sort(-1)
    places = torch.arange(scores.shape[-1], device=scores.device).expand(order.shape)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = torch.where(new, places, 0).cummax(-1).values
    ends = torch.ones_like(new)
    ends[..., :-1] = new[..., 1:]
    last = torch.where(ends, places, scores.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return order, first, last


def dense_ranks(scores: Tensor) -> Tensor:
    """Return the place of each of scores (…, N) among their different values, from 0."""
    order, first, _ = rank(scores)
    new = first == torch.arange(scores.shape[-1], device=scores.device)
    return torch.empty_like(order).scatter_(-1, order, new.cumsum(-1) - 1)


def _divide(above: Tensor, below: Tensor) -> Tensor:
    """Return a quotient of numbers that are not negative; 0 where it would divide by 0."""
    return above / below.clamp_min(torch.finfo(torch.float64).tiny) * (below > 0)


def _mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over classes, (members,); 0 where all weights are 0."""
    return _divide((values * weights).sum(1), weights.expand_as(values).sum(1))


def _by_class(name: str, average: str, each: Decisions) -> Tensor:
    """Return precision, recall or F1; macro is over the classes that occur or are predicted, and over all labels."""
    right, predicted, support = each.counts
    if average == "micro":
        right, predicted, support = right.sum(1, keepdim=True), predicted.sum(1, keepdim=True), support.sum()[None]
    below = {"precision": predicted, "recall": support.expand_as(predicted), "f1": (predicted + support) / 2}[name]
    values = _divide(right, below)
    if average == "weighted":
        return _mean_over(values, support)
    return values.mean(1) if each.several else _mean_over(values, (predicted + support > 0).double())


def _balanced_accuracy(each: Decisions) -> Tensor:
    right, _, support = each.counts
    return _mean_over(_divide(right, support.expand_as(right)), (support > 0).double())


def count_ahead(each: Decisions) -> Tensor:
    """Return how many classes are ahead of each sample's own, (members, N).

    Of equal outputs those of later classes come first, as in scikit-learn.
    """
    own = each.outputs.gather(1, each.y.expand(len(each.outputs), 1, -1))
    later = torch.arange(each.outputs.shape[1], device=each.y.device)[:, None] > each.y
    ahead = (each.outputs > own) | ((each.outputs == own) & later)
    return ahead.sum(1)


def _top_accuracy(each: Decisions) -> Tensor:
    return (count_ahead(each) < TOP).double().mean(1)


def _roc_auc(each: Decisions) -> Tensor:
    """Return the mean over the classes that some but not all samples are of (Mann and Whitney, 1947).

    Raises:
        RunError: there is no such class.
    """
    truth = each.truth[each.columns]
    order, first, last = each.ranking
    ranks = (first + last).double() / 2 + 1
    positives = truth.sum(1).double()
    pairs = positives * (each.samples - positives)
    if not bool((pairs > 0).any()):
        raise RunError(
            "metric 'val_roc_auc': has no value where all samples are of one class; name another metric, or take more "
            "samples for validation"
        )
    found = truth.expand(len(order), -1, -1).gather(2, order)
    above = (ranks * found).sum(2) - positives * (positives + 1) / 2
    return _mean_over(_divide(above, pairs.expand_as(above)), (pairs > 0).double())


def _average_precision(each: Decisions) -> Tensor:
    """Return the mean over the classes that occur, or over all labels: the precision at each hit's score."""
    truth = each.truth[each.columns]
    order, first, _ = each.ranking
    found = truth.expand(len(order), -1, -1).gather(2, order).long()
    positives = truth.sum(1)
    before = found.cumsum(2) - found  # hits of lower scores, or of equal ones that come earlier
    hits = positives[:, None] - before.gather(2, first)
    precision = hits.double() / (each.samples - first).double()
    values = _divide((precision * found).sum(2), positives.double().expand(len(order), -1))
    return values.mean(1) if each.several else _mean_over(values, (positives > 0).double())


def log_losses(each: Decisions) -> Tensor:
    """Return the log loss of each sample, of several labels their mean: (members, N)."""
    if each.several:
        truth = each.truth.to(each.outputs.dtype).expand_as(each.outputs)
        return F.binary_cross_entropy_with_logits(each.outputs, truth, reduction="none").mean(1)
    return -each.outputs.log_softmax(1).gather(1, each.y.expand(len(each.outputs), 1, -1)).squeeze(1)


def _log_loss(each: Decisions) -> Tensor:
    return log_losses(each).mean(1, dtype=torch.float64)


def _calibration_error(each: Decisions) -> Tensor:
    """Return the expected calibration error of the most probable class, or the mean of that of each label."""
    from torchmetrics.functional import classification  # 2 s to import, for those who measure it

    if each.several:
        truth = each.truth.long()
        pairs = [pair for member in each.probabilities for pair in zip(member, truth, strict=True)]
        binary = classification.binary_calibration_error
        values = [binary(p, y, n_bins=BINS, norm="l1", validate_args=False) for p, y in pairs]
        return torch.stack(values).double().view(len(each.outputs), -1).mean(1)
    multiclass = partial(classification.multiclass_calibration_error, num_classes=each.outputs.shape[1], n_bins=BINS)
    return torch.stack([multiclass(p.t(), each.y, norm="l1", validate_args=False) for p in each.probabilities]).double()


def _mcc(each: Decisions) -> Tensor:
    """Return Matthews' correlation; 0 where all samples, or all predictions, are of one class."""
    right, predicted, support = each.counts
    both = each.samples * right.sum(1) - (predicted * support).sum(1)
    spreads = (each.samples**2 - predicted.square().sum(1)) * (each.samples**2 - support.square().sum())
    return both / spreads.clamp_min(1).sqrt() * (spreads > 0)


def _cohen_kappa(each: Decisions) -> Tensor:
    """Return Cohen's kappa; 0 where all samples are of one class, and so are all predictions."""
    right, predicted, support = each.counts
    by_chance = (predicted * support).sum(1)
    return (each.samples * right.sum(1) - by_chance) / (each.samples**2 - by_chance).clamp_min(1)


def _mae(each: Predictions) -> Tensor:
    return each.errors.mean((1, 2))


def _rmse(each: Predictions) -> Tensor:
    return each.errors.square().mean(2).sqrt().mean(1)


def _mape(each: Predictions) -> Tensor:
    return (each.errors / each.y.abs().clamp_min(SMALLEST)).mean((1, 2))


def _median_absolute_error(each: Predictions) -> Tensor:
    ordered, samples = each.errors.sort(2).values, each.errors.shape[2]
    return ((ordered[..., (samples - 1) // 2] + ordered[..., samples // 2]) / 2).mean(1)


def _spearman(each: Predictions) -> Tensor:
    """Return Spearman's rank correlation, the mean over targets; 0 where predictions or targets are all equal."""
    one, other = (_centred_ranks(values) for values in (each.outputs, each.y))
    below = (one.square().sum(2) * other.square().sum(1)).sqrt()
    return ((one * other).sum(2) / below.clamp_min(SMALLEST)).mean(1)


def _centred_ranks(values: Tensor) -> Tensor:
    """Return the ranks of values (…, N) less their mean; equals have their mean rank."""
    order, first, last = rank(values)
    ranks = torch.empty_like(values).scatter_(-1, order, (first + last).to(values.dtype) / 2)
    return ranks - (values.shape[-1] - 1) / 2


DECISIONS: Mapping[str, Callable[[Decisions], Tensor]] = MappingProxyType(
    {
        "val_balanced_accuracy": _balanced_accuracy,
        "val_top5_accuracy": _top_accuracy,
        **{
            f"val_{name}_{average}": partial(_by_class, name, average)
            for name in ("precision", "recall", "f1")
            for average in ("macro", "micro", "weighted")
        },
        "val_roc_auc": _roc_auc,
        "val_average_precision": _average_precision,
        "val_log_loss": _log_loss,
        "val_calibration_error": _calibration_error,
        "val_mcc": _mcc,
        "val_cohen_kappa": _cohen_kappa,
    }
)
PREDICTIONS: Mapping[str, Callable[[Predictions], Tensor]] = MappingProxyType(
    {
        "val_mae": _mae,
        "val_rmse": _rmse,
        "val_mape": _mape,
        "val_median_absolute_error": _median_absolute_error,
        "val_spearman": _spearman,
    }
)
FUNCTIONS: Mapping[str, Callable[[Any], Tensor]] = MappingProxyType({**DECISIONS, **PREDICTIONS})


def measure(names: Sequence[str], task: str, outputs: Sequence[Tensor], y: Tensor) -> list[Metrics]:
    """Return built-in metrics by name, of each member.

    Args:
        names: of `FUNCTIONS`, which are metrics of the task.
        task: what the outputs are for.
        outputs: of each member (N, classes or labels), before softmax or sigmoid; or predicted targets (N, T).
        y: classes (N,), labels (N, L), or targets (N, T) in the units of the outputs.

    Raises:
        RunError: a metric has no value.
    """
    rows: list[Tensor] = []
    for group in group_members(outputs):
        stacked = torch.stack([each.t() for each in group])
        of = Predictions(stacked, y) if task == "regression" else Decisions(stacked, y, task)
        rows.append(torch.stack([FUNCTIONS[name](of) for name in names], 1))
    return [dict(zip(names, row, strict=True)) for row in torch.cat(rows).tolist()]


def group_members(outputs: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Yield the members' outputs, a few members at a time, so that what is made of them stays small."""
    size = max(1, GROUP // max(1, outputs[0].numel()))
    for start in range(0, len(outputs), size):
        yield outputs[start : start + size]


def measure_metrics(
    entries: Sequence[MetricEntry],
    config: TrialConfig,
    data: Data,
    x: Tensor,
    y: Tensor,
    outputs: Sequence[Tensor | None],
) -> list[Metrics]:
    """Return the metrics of outputs for some samples, of each member, in the order of the entries.

    Args:
        entries: registered metrics; those that the training loop measures itself are passed over.
        config: of one of the members.
        data: undoes the scaling of targets.
        x, y: the samples and what they are compared with, as the model sees them.
        outputs: of each member, (N, outputs).

    Raises:
        RunError: a metric raised, or has no value.
    """
    needed = [entry for entry in entries if not entry.measured]
    if not needed:
        return [{} for _ in outputs]
    target, given = loss_target(config, x, y), list(outputs)
    if config.task == "regression" and not config.reconstructs:
        target = data.to_targets(y)
        given = [None if each is None else data.to_targets(each) for each in outputs]
    ours = [entry.name for entry in needed if entry.name in BUILTIN_METRICS]
    found = _measure_ours(ours, config, given, target) if ours else [{} for _ in given]
    functions = {entry.name: entry.load() for entry in needed if entry.name not in BUILTIN_METRICS}
    return [
        {
            entry.name: metrics[entry.name]
            if entry.name in metrics
            else compute_metric(entry.name, functions[entry.name], each, target)
            for entry in needed
        }
        for metrics, each in zip(found, given, strict=True)
    ]


def _measure_ours(
    names: Sequence[str], config: TrialConfig, outputs: Sequence[Tensor | None], y: Tensor
) -> list[Metrics]:
    for name in names:
        if config.reconstructs or config.task not in BUILTIN_METRICS[name].tasks:
            what = f"model '{config.model}', which reconstructs its input" if config.reconstructs else config.task
            raise RunError(f"metric '{name}': is none of {what}; name another one")
    return measure(names, config.task, [each for each in outputs if each is not None], y)
