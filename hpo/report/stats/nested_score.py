"""Score of a nested evaluation: its mean over outer folds, its interval, and how far what was chosen agrees.

The training parts of the folds overlap, so scores of folds are no independent draws, and an interval from their spread
alone is too narrow. It is widened as Nadeau and Bengio ask ("Inference for the Generalization Error", 2003): the
variance of the mean over k folds is (1/k + n_test/n_train) s² in place of s²/k.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.config.metric_range import difference_range, metric_range
from hpo.config.values import Value, plain_value
from hpo.report.data.nested import NestedResults, OuterResult, read_nested
from hpo.report.data.results import TrialRow, read_results
from hpo.report.data.sample_scores import read_sample_scores
from hpo.report.stats.choice import choose_trial, default_rule
from hpo.report.stats.mean_interval import mean_reach
from hpo.report.stats.trial_stats import to_unit_interval
from hpo.space.domains import Range
from hpo.study import Study

__all__ = [
    "FoldMean",
    "FoldScore",
    "NestedScore",
    "ParameterAgreement",
    "average_folds",
    "choose_outer",
    "read_scores",
    "score_nested",
]

COMMON = 0.8  # share of the folds that have the same choice, from which they agree on it
CLOSE = 0.25  # share of a range within which all folds are, up to which they agree on it


@dataclass(frozen=True)
class FoldMean:
    """A mean over outer folds with its 95 % interval, which allows for the overlap of their training parts.

    Attributes:
        mean: over the folds.
        low, high: bounds of the interval; None of a single fold.
        deviation: standard deviation over the folds; None of a single one.
        count: how many folds.
    """

    mean: float
    low: float | None
    high: float | None
    deviation: float | None
    count: int

    @property
    def contains_zero(self) -> bool:
        """True where it cannot be told from 0."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


@dataclass(frozen=True)
class FoldScore:
    """Scores of one outer fold.

    Attributes:
        fold: its number, from 1.
        study: the name of its study.
        training, testing: number of samples in its training part, and in the fold.
        trial: the trial that its study has chosen; None without a complete one.
        claimed: the score by which it was chosen.
        score: of the chosen configuration on the fold, the mean over its seeds.
        rival: likewise of the baseline, or else of the default configuration.
        seeds: how many seeds the score is the mean of.
    """

    fold: int
    study: str
    training: int
    testing: int
    trial: int | None
    claimed: float | None
    score: float | None
    rival: float | None
    seeds: int


@dataclass(frozen=True)
class ParameterAgreement:
    """Agreement of the chosen configurations on a parameter.

    Attributes:
        parameter: its name.
        values: the chosen one of each fold that has chosen, in order; None where it has no effect.
        common: of choices, the share of the folds that have the most frequent value; None of a range.
        spread: of a range, the share of it, on its own scale, that the chosen values lie within; None of choices.
    """

    parameter: str
    values: tuple[Value | None, ...]
    common: float | None
    spread: float | None

    @property
    def agrees(self) -> bool:
        """True where nearly all folds have the same choice, or all are close to each other in the range."""
        return (self.common or 0.0) >= COMMON if self.spread is None else self.spread <= CLOSE


@dataclass(frozen=True)
class NestedScore:
    """Score of a nested evaluation.

    Attributes:
        of: the study that is nested.
        dataset: the name of its data set.
        count: the number of outer folds.
        by: what they go by: `group`, `time`, or nothing.
        metric: of the scores on the folds.
        claimed_metric: of the scores by which configurations were chosen.
        score: on the folds; None before any is tested. This is what may be published.
        claimed: mean of the scores by which the same folds have chosen.
        optimism: how much better those are than the scores on the folds.
        gain: how much better the chosen configurations are on the folds than the rival.
        rival: what that is: `baseline` or `defaults`.
        refit: whether they were trained on the whole training part of their fold.
        configurations: how many different ones were chosen.
        folds: those that have a study.
        parameters: the varied parameters, those that the folds disagree on first.
        remaining: trials and runs that are not finished.
        lost: folds whose runs failed or diverged, by number.
    """

    of: str
    dataset: str
    count: int
    by: str | None
    metric: str
    claimed_metric: str
    score: FoldMean | None
    claimed: float | None
    optimism: FoldMean | None
    gain: FoldMean | None
    rival: str
    refit: bool
    configurations: int
    folds: tuple[FoldScore, ...]
    parameters: tuple[ParameterAgreement, ...]
    remaining: int
    lost: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """True where every outer fold has a score."""
        return self.score is not None and self.score.count == self.count


def choose_outer(outer: Study) -> TrialRow | None:
    """Return the trial that the study of an outer fold has chosen, as `hpo export` would; None without a complete one.

    Trials that others have added, whose parameters make no configuration, cannot be chosen.
    """
    results = read_results(outer)
    among = {row.number for row in results.ranked if row.config is not None}
    if not among:
        return None
    table = read_sample_scores(outer) if default_rule(results) == "one_se" else None
    return choose_trial(results, table=table, among=among).row


def read_scores(study: Study) -> tuple[NestedScore, ...]:
    """Read the scores of all nested evaluations of a study, those of the fewest folds first."""
    return tuple(map(score_nested, read_nested(study, choose_outer)))


def score_nested(results: NestedResults) -> NestedScore:
    """Compute the score of a nested evaluation; folds that are not tested yet are left out of the means."""
    sign = 1 if results.objective.direction == "maximize" else -1
    rows = [_score_fold(each) for each in results.folds]
    tested = [(row.score, row.claimed) for row in rows if row.score is not None and row.claimed is not None]
    compared = [(row.score, row.rival) for row in rows if row.score is not None and row.rival is not None]
    overlap = float(np.mean([row.testing / row.training for row in rows])) if rows else 0.0
    chosen = [each.settings for each in results.folds if each.settings is not None]
    between = difference_range(results.test_metric)
    return NestedScore(
        results.of,
        results.dataset,
        results.count,
        results.folds[0].fold.by,
        results.test_metric,
        results.objective.metric,
        average_folds([score for score, _ in tested], overlap, metric_range(results.test_metric)),
        _mean([claimed for _, claimed in tested]),
        average_folds([sign * (claimed - score) for score, claimed in tested], overlap, between),
        average_folds([sign * (score - rival) for score, rival in compared], overlap, between),
        results.rival,
        results.refit,
        len({tuple(sorted(each.items(), key=str)) for each in chosen}),
        tuple(rows),
        tuple(sorted(_compare_parameters(results), key=lambda each: each.agrees)),
        results.remaining,
        tuple(each.fold.index + 1 for each in results.folds if each.lost),
    )


def average_folds(
    values: Sequence[float], overlap: float, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> FoldMean | None:
    """Average values of outer folds, with the interval of Nadeau and Bengio (2003); None of no values.

    Args:
        values: one for each fold.
        overlap: samples in a fold for each in its training part.
        bounds: the least and the largest value that a metric can have, beyond which no interval goes.
    """
    if not values:
        return None
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return FoldMean(mean, None, None, None, count)
    deviation, reach = float(np.std(values, ddof=1)), mean_reach(values, overlap)
    low, high = max(mean - reach, bounds[0]), min(mean + reach, bounds[1])
    return FoldMean(mean, low, high, deviation, count)


def _score_fold(result: OuterResult) -> FoldScore:
    scores, rival = result.scores or {}, result.rival_scores or {}
    return FoldScore(
        result.fold.index + 1,
        result.study,
        result.fold.training,
        result.fold.testing,
        result.chosen,
        result.claimed,
        _mean(list(scores.values())),
        _mean(list(rival.values())),
        len(scores),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _compare_parameters(results: NestedResults) -> list[ParameterAgreement]:
    chosen = [each.settings for each in results.folds if each.settings is not None]
    names = dict.fromkeys(name for settings in chosen for name in settings)
    return [_compare(results, name, [settings.get(name) for settings in chosen]) for name in names]


def _compare(results: NestedResults, name: str, values: Sequence[Value | None]) -> ParameterAgreement:
    """Compare what the folds have chosen for a parameter; where it has no effect for some, as a choice."""
    plain = tuple(None if value is None else plain_value(value) for value in values)
    domains = results.space.domains.get(name, ())
    ranges: list[Any] = [each for each in domains if isinstance(each, Range)]
    numbers = [float(value) for value in plain if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(ranges) == len(domains) == 1 and len(numbers) == len(plain):
        (domain,) = ranges
        # A baseline or a default may be beyond the range.
        inside = [min(max(number, domain.low), domain.high) for number in numbers]
        places = [to_unit_interval(domain, number) for number in inside]
        return ParameterAgreement(name, plain, None, max(places) - min(places))
    most = Counter(map(repr, plain)).most_common(1)[0][1]
    return ParameterAgreement(name, plain, most / len(plain), None)
