"""Candidates of a choice: the epochs of a study's trials, with their scores on any draw of the validation samples.

The best epoch is chosen as the best trial is, so that each epoch is a candidate of its own. A trial's value is the mean
over its fits, each of which has validation samples of its own. What two fits have in common, they draw together: a
sample is known by its row in the data set.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from hpo.datasets.sample_scores import SampleScores, ValidationSplit, measure
from hpo.report.stats.selection_bias import Resamples

__all__ = ["Candidates", "count_samples", "draw_counts", "make_candidates"]

Array = np.ndarray[Any, Any]
PILOT = 50  # draws that tell which candidates are never chosen
NEVER = 8  # standard errors behind the best: once in 1e15 draws
MOST_DRAWS, FEWEST_DRAWS = 1000, 200
FEWEST_CANDIDATES = 20
AT_ONCE = 2**22  # counts of samples in memory: 16 MB
IN_CACHE = 2**14  # counts that are made at once
# Numbers (candidates x draws x samples) in which a few seconds go, by what a metric is a function of.
MEANS = ("correct", "loss")  # kinds of scores whose metrics are means over the samples
WORK = {"correct": 2e10, "loss": 1e10, "squared_error": 1e10, "absolute_error": 1e9, "prediction": 1e9, "rank": 1e8}


@dataclass(frozen=True, eq=False)
class Part:
    """Scores of some candidates on the same validation samples.

    Attributes:
        split: the samples.
        rows: their positions among all samples of the candidates, (N,).
        members: positions of the candidates, (M,).
        scores: (M, N), or (M, N, columns).
    """

    split: ValidationSplit
    rows: Array
    members: Array
    scores: Array


@dataclass(frozen=True, eq=False)
class Candidates:
    """Epochs of trials among which the best is chosen.

    Attributes:
        metric: by which it is chosen.
        sign: 1 where larger is better, else -1.
        numbers: of the trials, (K,), ascending.
        epochs: (K,).
        fits: of each trial, (K,).
        parts: one for each set of validation samples and each fit.
        rows: how many samples there are in all.
        kind: what the scores are.
        values: the recorded scores, larger is better, (K,); NaN where they are those of `measure`. They differ where a
            part of the samples is kept.
        groups: the group of each sample, as a number from 0, (rows,), where samples are drawn by group; else None.
    """

    metric: str
    sign: int
    numbers: Array
    epochs: Array
    fits: Array
    parts: tuple[Part, ...]
    rows: int
    kind: str
    values: Array
    groups: Array | None = None

    @cached_property
    def kept(self) -> Array:
        """Scores on the samples that are kept, (K,)."""
        return self.measure()

    @cached_property
    def whole(self) -> Array:
        """Scores on all samples, (K,); equals stay equal, which rounding would tell apart."""
        same = np.isnan(self.values) | np.isclose(self.values, self.kept, rtol=1e-6, atol=0)
        return np.where(same, self.kept, self.values)

    def measure(self, counts: Array | None = None) -> Array:
        """Return the scores, larger is better: (K,), or under counts of the samples (B, rows) (B, K).

        NaN where a draw has none of the samples that a fit needs.
        """
        total = np.zeros((1 if counts is None else len(counts), len(self.numbers)))
        for part in self.parts:
            total[:, part.members] += _measure(self.metric, part, counts)
        scores: Array = self.sign * total / self.fits
        return scores[0] if counts is None else scores

    def keep(self, kept: Array) -> Candidates:
        """Return the candidates at these positions, ascending."""
        place = np.full(len(self.numbers), -1)
        place[kept] = np.arange(len(kept))
        parts = []
        for part in self.parts:
            found = place[part.members] >= 0
            if found.any():
                parts.append(replace(part, members=place[part.members[found]], scores=part.scores[found]))
        chosen = {name: getattr(self, name)[kept] for name in ("numbers", "epochs", "fits", "values")}
        return replace(self, parts=tuple(parts), **chosen)

    def leaders(self) -> Candidates:
        """Return the candidates that can be chosen at all, and where a metric takes long the best of them."""
        return self._best(PILOT)._near()._best(FEWEST_DRAWS)

    def _near(self) -> Candidates:
        pilot, best = self._score(self._draw_counts(PILOT, seed=1)), int(self.whole.argmax())
        errors = (pilot - pilot[:, [best]]).std(0)
        return self.keep(np.flatnonzero(self.whole[best] - self.whole <= NEVER * errors))

    def _best(self, draws: int) -> Candidates:
        """Return as many of the best candidates as so many draws can be made of in a few seconds."""
        most = max(FEWEST_CANDIDATES, int(WORK[self.kind] / (draws * self._samples)))
        if len(self.numbers) <= most:
            return self
        return self.keep(np.sort(np.argsort(-self.whole, kind="stable")[:most]))

    @property
    def _samples(self) -> int:
        """Numbers of a candidate: of each sample one, or one for each class, label or target."""
        return max(1, sum(part.scores.size for part in self.parts) // len(self.numbers))

    def resample(self, seed: int = 0) -> Resamples:
        """Draw the samples again and choose by each draw: up to 1,000 times, fewer where a metric takes long."""
        in_bag, out_of_bag = [], []
        for counts in self._draw(seed):
            in_bag.append(self._score(counts))
            out_of_bag.append(self._score_left_out(in_bag[-1].argmax(1), counts))
        return Resamples(self.whole, np.concatenate(in_bag), np.concatenate(out_of_bag))

    def difference_errors(self, number: int, seed: int = 0) -> dict[int, float]:
        """Return by number the standard errors of the differences from one trial, of which each has one candidate.

        Where a metric takes long they are of the best trials alone.
        """
        best = self._best(FEWEST_DRAWS)
        if number not in best.numbers:
            return {}
        scores = np.concatenate([best._score(counts) for counts in best._draw(seed)])
        errors = (scores - scores[:, best.numbers == number]).std(0)
        return dict(zip(best.numbers.tolist(), errors.tolist(), strict=True))

    def _draw(self, seed: int) -> Iterator[Array]:
        """Yield counts of the drawn samples, (draws, rows), of as many draws as take a few seconds."""
        size = max(1, AT_ONCE // self.rows)
        count = int(min(MOST_DRAWS, max(FEWEST_DRAWS, WORK[self.kind] / (len(self.numbers) * self._samples))))
        for begin in range(0, count, size):
            yield self._draw_counts(min(size, count - begin), seed=[seed, begin])

    def _draw_counts(self, draws: int, seed: int | Sequence[int]) -> Array:
        """Draw the samples, or whole groups of them, and return how often each is drawn, (draws, rows)."""
        if self.groups is None:
            return draw_counts(self.rows, draws, seed)
        counts: Array = draw_counts(int(self.groups.max()) + 1, draws, seed)[:, self.groups]
        return counts

    def _score_left_out(self, winners: Array, counts: Array) -> Array:
        """Return each draw's best candidate's score on the samples that the draw leaves out.

        They are a third of the samples. A metric that is no mean over samples is another one there, whoever is chosen:
        R2 of a third is lower. By what a candidate loses so, on average over all draws, its score is raised.
        """
        scores = np.empty(len(winners))
        left_out = (counts == 0).astype(np.float32)
        for winner in np.unique(winners):
            draws, candidate = np.flatnonzero(winners == winner), self.keep(np.array([winner]))
            if self.kind in MEANS:
                scores[draws] = candidate._score(left_out[draws])[:, 0]
            else:
                each = candidate._score(left_out)[:, 0]
                scores[draws] = each[draws] + (self.whole[winner] - each.mean())
        return scores

    def _score(self, counts: Array) -> Array:
        """Return the scores under counts of the samples, (B, K): those on all samples where a draw has none.

        Of a large split a part of the samples is kept. A draw of that part moves a score further than a draw of all.
        """
        kept = sum(len(part.members) * len(part.rows) for part in self.parts)
        count = sum(len(part.members) * part.split.count for part in self.parts)
        scores = self.measure(counts)
        scores = np.where(np.isnan(scores), self.kept, scores)
        if kept < count:
            scores = self.kept + (scores - self.kept) * math.sqrt(kept / count)
        shifted: Array = scores + (self.whole - self.kept)
        return shifted


def _measure(metric: str, part: Part, counts: Array | None) -> Array:
    """Return the scores of a part's candidates: (draws, M)."""
    weights = counts
    if counts is not None and len(part.rows) < counts.shape[1]:
        weights = counts[:, part.rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = measure(metric, part.scores, part.split, weights)
    assert values is not None
    return values[None] if counts is None else values.T


def draw_counts(rows: int, draws: int, seed: int | Sequence[int]) -> Array:
    """Draw rows with replacement, and return how often each is drawn: (draws, rows) of float32."""
    rng = np.random.default_rng(seed)
    counts, group = np.empty((draws, rows), np.float32), max(1, IN_CACHE // rows)
    for begin in range(0, draws, group):
        size = min(group, draws - begin)
        drawn = rng.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        counts[begin : begin + size] = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
    return counts


def make_candidates(
    metric: str,
    sign: int,
    trials: Mapping[int, Sequence[SampleScores]],
    splits: Mapping[str, ValidationSplit],
    values: Mapping[tuple[int, int], float] = MappingProxyType({}),
) -> Candidates:
    """Make the candidates of trials with sample scores; an epoch is one where all fits of its trial have it.

    Args:
        metric: by which the best is chosen.
        sign: 1 where larger is better, else -1.
        trials: the fits of each trial, at least one, by its number.
        splits: by digest.
        values: the recorded metric by number and epoch.
    """
    numbers: list[int] = []
    epochs: list[int] = []
    fits: list[int] = []
    stacks: dict[tuple[str, int], list[tuple[Array, Array]]] = defaultdict(list)
    for number in sorted(trials):
        scores = trials[number]
        common = _common_epochs(scores)
        members = len(numbers) + np.arange(len(common[0]))
        for fit, positions in zip(scores, common, strict=True):
            stacks[fit.split, fit.fit].append((members, fit.scores[positions]))
        numbers += [number] * len(members)
        epochs += [int(epoch) for epoch in scores[0].epochs[common[0]]]
        fits += [len(scores)] * len(members)
    found = {digest: splits[digest] for digest, _ in stacks}
    places, rows = _place_samples(found)
    parts = tuple(
        Part(splits[digest], places[digest], *map(np.concatenate, zip(*stack, strict=True)))
        for (digest, _), stack in stacks.items()
    )
    kind = next(iter(trials.values()))[0].kind
    recorded = np.array([sign * values.get(key, math.nan) for key in zip(numbers, epochs, strict=True)])
    columns = np.array(numbers), np.array(epochs), np.array(fits)
    return Candidates(metric, sign, *columns, parts, rows, kind, recorded, _group_rows(found, places, rows))


def _group_rows(splits: Mapping[str, ValidationSplit], places: Mapping[str, Array], rows: int) -> Array | None:
    """Return the group of each row as a number from 0; None where a split has no groups."""
    numbers = np.zeros(rows, np.int64)
    for digest, split in splits.items():
        if split.groups is None:
            return None
        numbers[places[digest]] = split.groups
    groups: Array = np.unique(numbers, return_inverse=True)[1].reshape(-1)
    return groups


def _common_epochs(fits: Sequence[SampleScores]) -> list[Array]:
    """Return for each fit the positions of the epochs that all have; where there is none, of its best epoch."""
    common = set(fits[0].epochs.tolist()).intersection(*(fit.epochs.tolist() for fit in fits))
    if not common:
        return [np.array([fit.best]) for fit in fits]
    return [np.flatnonzero(np.isin(fit.epochs, list(common))) for fit in fits]


def _place_samples(splits: Mapping[str, ValidationSplit]) -> tuple[dict[str, Array], int]:
    """Return where the samples of each split stand among all samples, and how many these are."""
    indexed = [split.index for split in splits.values() if split.index is not None]
    known = np.unique(np.concatenate(indexed)) if indexed else np.empty(0, np.int64)
    places, rows = {}, len(known)
    for digest, split in splits.items():
        if split.index is not None:
            places[digest] = np.searchsorted(known, split.index)
        else:  # validation samples of the data set's own
            places[digest] = rows + np.arange(len(split.labels))
            rows += len(split.labels)
    return places, rows


def count_samples(fits: Iterable[SampleScores], splits: Mapping[str, ValidationSplit]) -> int:
    """Count the samples that a trial was validated on, each once."""
    found = [splits[digest] for digest in dict.fromkeys(fit.split for fit in fits)]
    indices = [split.index for split in found if split.index is not None]
    known = len(np.unique(np.concatenate(indices))) if indices else 0
    own = sum(len(split.labels) for split in found if split.index is None)
    scale = sum(split.count for split in found) / sum(len(split.labels) for split in found)
    return round((known + own) * scale)
