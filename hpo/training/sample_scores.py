"""Scores of validation samples, from the outputs that an epoch's validation computes anyway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.datasets.sample_codec import count_samples, number_type
from hpo.datasets.sample_scores import Kind, ValidationSplit, choose_samples, score_kind
from hpo.training.data import Data
from hpo.training.learner import EvalResult
from hpo.training.member import Member
from hpo.training.metrics import TOP, Decisions, Predictions, count_ahead, dense_ranks, group_members, log_losses
from hpo.training.sample_log import SampleLog
from hpo.training.stacked.losses import find_correct, make_stack_loss

__all__ = ["SampleScorer", "StackScorer", "make_scorer"]

Array = np.ndarray[Any, Any]


class StackScorer:
    """Scorer of the validation samples of a stack's trials, each of which is given an empty log.

    Args:
        members: the trials.
        data: of each of them, by its number.
        monitor: the metric that the scores are of.
    """

    def __init__(self, members: Sequence[Member], data: Mapping[int, Data], monitor: str | None) -> None:
        self._data = data
        self._scorers: dict[int, SampleScorer | None] = {}  # by the identity of data
        for member in members:
            part = data[member.number]
            if id(part) not in self._scorers:
                self._scorers[id(part)] = make_scorer(monitor, member.config, part)
            scorer = self._scorers[id(part)]
            member.sample_log = None if scorer is None else scorer.log()

    def score(self, members: Sequence[Member], results: Sequence[EvalResult]) -> dict[int, Array]:
        """Return the scores of members that keep any, by number, from the results of their validation."""
        scores: dict[int, Array] = {}
        for key, scorer in self._scorers.items():
            pairs = [pair for pair in zip(members, results, strict=True) if id(self._data[pair[0].number]) == key]
            if scorer is not None and pairs:
                found = scorer.score([member.config for member, _ in pairs], [result for _, result in pairs])
                scores |= {member.number: each for (member, _), each in zip(pairs, found, strict=True)}
        return scores


def make_scorer(metric: str | None, config: TrialConfig, data: Data) -> SampleScorer | None:
    """Return the scorer of the validation samples of trials that have the same data.

    Args:
        metric: the monitor.
        config: of one of the trials.
        data: of all of them.

    Returns:
        None where the metric has no sample scores, there are no samples, or they have too many columns.
    """
    samples = len(data.y_val)
    kind = score_kind(metric, data.task) if metric is not None else None
    if metric is None or kind is None or not samples:
        return None
    kind = "loss" if config.reconstructs else kind
    columns = 1
    if kind not in ("correct", "loss"):
        columns = 1 if data.task == "classification" and (kind == "prediction" or data.classes == 2) else data.classes
    labels = data.y_val if data.task != "regression" else data.to_targets(data.y_val)
    array = labels.cpu().numpy()
    kept = count_samples(number_type(kind, array), columns, samples)
    return (
        SampleScorer(metric, kind, data, array.astype(np.uint8) if data.task == "multilabel" else array, kept)
        if kept
        else None
    )


class SampleScorer:
    """Scorer of the validation samples of trials that have the same data.

    Args:
        metric: that the scores are of.
        kind: of the scores.
        data: of the trials.
        labels: of all validation samples, as `ValidationSplit` has them.
        kept: how many of the samples have scores.
    """

    def __init__(self, metric: str, kind: Kind, data: Data, labels: Array, kept: int) -> None:
        chosen = choose_samples(len(labels), kept)
        index, groups = None if data.val_index is None else np.asarray(data.val_index)[chosen], None
        if index is not None and data.dataset.group_numbers is not None:
            groups = data.dataset.group_numbers[index]
        self.split = ValidationSplit.of(labels[chosen], index, len(labels), groups)
        self._metric, self._kind, self._data = metric, kind, data
        self._chosen = None if len(chosen) == len(labels) else torch.from_numpy(chosen).to(data.device)
        self._y = data.y_val if self._chosen is None else data.y_val[self._chosen]
        self._type = number_type(kind, labels)

    def log(self) -> SampleLog:
        """Return an empty log."""
        return SampleLog(self.split, self._metric, self._kind)

    def score(self, configs: Sequence[TrialConfig], results: Sequence[EvalResult]) -> list[Array]:
        """Return the scores of each member's samples, (N,) or (N, columns), from the results of its validation."""
        if configs[0].reconstructs:
            place = 1 if self._metric == "val_reconstruction_error" else 0
            return [self._store(self._choose(each.samples[place])) for each in results if each.samples is not None]
        places: dict[str, list[int]] = {}
        for place, config in enumerate(configs):
            places.setdefault(config.loss, []).append(place)
        rows = {place: row for own in places.values() for place, row in self._score_places(own, configs, results)}
        return [rows[place] for place in range(len(configs))]

    def _score_places(
        self, places: Sequence[int], configs: Sequence[TrialConfig], results: Sequence[EvalResult]
    ) -> Iterator[tuple[int, Array]]:
        """Yield the scores of the members at those places, which have one loss and so outputs of one shape."""
        left = iter(places)
        for group in group_members([each for place in places if (each := results[place].outputs) is not None]):
            own = [next(left) for _ in group]
            stacked = torch.stack([self._choose(each.t()) for each in group])
            scores = self._store(self._compute([configs[place] for place in own], stacked))
            yield from zip(own, scores, strict=True)

    def _choose(self, values: Tensor) -> Tensor:
        return values if self._chosen is None else values[..., self._chosen]

    def _store(self, scores: Tensor) -> Array:
        array: Array = scores.cpu().numpy()
        return np.ascontiguousarray(array.astype(self._type))

    def _compute(self, configs: Sequence[TrialConfig], outputs: Tensor) -> Tensor:
        """Return the scores of outputs (members, outputs, N): (members, N) or (members, N, columns)."""
        y, task = self._y, self._data.task
        if self._metric == "val_loss":
            return make_stack_loss(configs, outputs.shape[1], outputs).samples(outputs, y, smoothing=False)
        if self._kind == "correct" and self._metric == "val_accuracy":
            return find_correct(outputs, y)
        if task == "regression":
            return self._score_targets(outputs).mT
        of = Decisions(outputs, y, task)
        if self._metric == "val_log_loss":
            return log_losses(of)
        if self._kind == "correct":
            return count_ahead(of) < TOP
        if self._kind == "prediction":
            return (outputs > 0).mT if of.several else of.chosen
        ranks = dense_ranks(of.probabilities[:, of.columns])
        return ranks[:, 0] if len(ranks[0]) == 1 and not of.several else ranks.mT

    def _score_targets(self, outputs: Tensor) -> Tensor:
        """Return squared or absolute errors or ranks, (members, targets, N)."""
        means = torch.stack([self._data.to_targets(each.t()) for each in outputs]).mT
        of = Predictions(means, self._data.to_targets(self._y))
        if self._kind == "rank":
            return dense_ranks(of.outputs)
        return of.errors.square() if self._kind == "squared_error" else of.errors
