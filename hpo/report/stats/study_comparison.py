"""Comparison of two studies: their configurations, paired over fresh seeds and splits.

The probability that one is better than the other is the share of pairs in which it is, ties as half of one, with the
interval of Clopper and Pearson (Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks", 2021).
Scores of overlapping splits are correlated, which the interval of a validation score allows for (Nadeau and Bengio,
"Inference for the Generalization Error", 2003).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.config.metric_range import difference_range
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults
from hpo.report.stats.evaluation_stats import LEVEL, CorrectnessCache, Interval, bootstrap_interval, mean_of
from hpo.report.stats.mean_interval import mean_reach

__all__ = [
    "PairedScore",
    "Probability",
    "compare_studies",
    "corrected_interval",
    "describe_comparison",
    "probability_of_improvement",
    "tabulate_comparison",
]

MEANINGFUL = 0.75  # a probability of improvement that is worth having, as Bouthillier et al. propose
FEW = 29  # pairs that tell a probability of 0.75 from 0.5, by the same authors (5 % level, power 95 %; Noether, 1987)


@dataclass(frozen=True)
class Probability:
    """Probability that the first is better in a pair, with its 95 % interval, and the number of pairs."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedScore:
    """Two configurations by one metric.

    Attributes:
        metric: the metric, `test_…` or `val_…`.
        first, second: their means over the pairs, in units of the metric.
        difference: the mean of first less second, above 0 where the first is better, with its 95 % interval.
        probability: that the first is better.
    """

    metric: str
    first: float
    second: float
    difference: Interval
    probability: Probability

    @property
    def significant(self) -> bool:
        """True if the interval of the difference leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


def compare_studies(comparison: EvaluationResults) -> list[PairedScore]:
    """Compare the configurations of two studies, on the test set and on validation splits; empty before a pair is run.

    Args:
        comparison: of two configurations, that of the other study last.
    """
    if len(comparison.candidates) != 2:
        return []
    first, second = comparison.candidates
    sign = 1 if comparison.objective.direction == "maximize" else -1
    metrics = filter(None, (comparison.test_metric, comparison.validation_metric))
    return [found for metric in metrics if (found := _compare(comparison, first, second, metric, sign)) is not None]


def _compare(
    comparison: EvaluationResults, first: CandidateRuns, second: CandidateRuns, metric: str, sign: int
) -> PairedScore | None:
    one, other = first.scores(metric), second.scores(metric)
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    pairs = np.array([[one[seed], other[seed]] for seed in seeds])
    differences = sign * (pairs[:, 0] - pairs[:, 1])
    if metric.startswith("test_"):
        hits = CorrectnessCache()
        right = [hits.of([run for run in each.complete_runs if run.seed in seeds], metric) for each in (first, second)]
        samples = None if right[0] is None or right[1] is None else right[0] - right[1]
        interval = bootstrap_interval(differences.tolist(), samples)
    else:
        interval = corrected_interval(differences.tolist(), _share_of_validation(comparison, first))
    means = pairs.mean(0)
    found = probability_of_improvement(differences.tolist())
    within = interval.within(*difference_range(metric))
    return PairedScore(metric, float(means[0]), float(means[1]), within, found)


def _share_of_validation(comparison: EvaluationResults, candidate: CandidateRuns) -> float:
    """Return the validation samples of a split over its training samples; 0 where the split is always the same."""
    config, data = candidate.config, comparison.data
    if config is None or data is None or not config.validation:
        return 0.0
    if data.source is not None and (data.source.validation or data.source.time):
        return 0.0
    validation = config.validation
    if validation >= 1:
        validation = validation / data.samples if data.samples else 0.0
    return validation / (1 - validation) if validation < 1 else 0.0


def corrected_interval(differences: Sequence[float], ratio: float, level: float = LEVEL) -> Interval:
    """Return the mean of paired differences over random splits, and its corrected interval (Nadeau and Bengio, 2003).

    Args:
        differences: one per split.
        ratio: samples that a split measures on, over those that it trains on.
        level: of confidence.
    """
    values = np.asarray(differences, dtype=float)
    count, mean = len(values), mean_of(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan, math.nan, count)
    deviation = float(values.std(ddof=1))
    reach = mean_reach(differences, ratio, level)
    return Interval(mean, mean - reach, mean + reach, deviation, count)


def probability_of_improvement(differences: Sequence[float], level: float = LEVEL) -> Probability:
    """Return the share of pairs whose difference is above 0, ties as half, with the interval of Clopper and Pearson."""
    from scipy.stats import beta

    values, tail = np.asarray(differences, dtype=float), (1 - level) / 2
    count, wins = len(values), float((values > 0).sum() + 0.5 * (values == 0).sum())
    low = 0.0 if wins == 0 else float(beta.ppf(tail, wins, count - wins + 1))
    high = 1.0 if wins == count else float(beta.isf(tail, wins + 1, count - wins))
    return Probability(wins / count, low, high, count)


# In words.


def tabulate_comparison(comparison: EvaluationResults, scores: Sequence[PairedScore]) -> list[dict[str, Any]]:
    """Return a flat row per metric; numbers that are not known are None.

    Keys: `metric`, the mean score of each configuration under its name, `better_by` (of the first over the second) with
    its 95 % interval `low` and `high`, `probability` (that the first is better in a pair) with its interval
    `probability_low` and `probability_high`, `pairs`.
    """
    return [_row(comparison, each) for each in scores]


def _row(comparison: EvaluationResults, score: PairedScore) -> dict[str, Any]:
    first, second = (each.label for each in comparison.candidates)
    difference, probability = score.difference, score.probability
    return {
        "metric": score.metric,
        first: score.first,
        second: score.second,
        "better_by": difference.mean,
        "low": difference.low if math.isfinite(difference.low) else None,
        "high": difference.high if math.isfinite(difference.high) else None,
        "probability": probability.value,
        "probability_low": probability.low,
        "probability_high": probability.high,
        "pairs": probability.count,
    }


def describe_comparison(comparison: EvaluationResults, scores: Sequence[PairedScore]) -> list[str]:
    """Say in lines how two studies compare, by the first of the scores."""
    lines = []
    if not scores:
        lines.append("no pair of runs is complete yet")
    else:
        lines.append(_verdict(comparison, scores[0]))
        if scores[0].probability.count < FEW and not scores[0].significant:
            lines.append(f"{scores[0].probability.count} pairs are few; --seeds {FEW} would tell a probability of 0.75")
    if left := comparison.remaining_runs:
        lines.append(f"{left} runs are left; the same command resumes them")
    return lines


def _verdict(comparison: EvaluationResults, score: PairedScore) -> str:
    first, second = (each.label for each in comparison.candidates)
    if not score.significant:
        return f"no significant difference between {first} and {second} (95 %, paired over seeds and splits)"
    probability = score.probability.value
    if score.difference.mean < 0:
        first, second, probability = second, first, 1 - probability
    small = "" if probability >= MEANINGFUL else ", which is little, for the other one often wins"
    return (
        f"{first} is significantly better than {second} (95 %, paired over seeds and splits), "
        f"with a probability of {probability:.2f} in a pair{small}"
    )
