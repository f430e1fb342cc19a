"""Comparison of configurations across several data sets, as one table.

Scores: the interquartile mean of all runs, and the probability that one configuration is better than another, each with
the interval of a bootstrap that draws the runs of each data set again (Agarwal et al., "Deep Reinforcement Learning at
the Edge of the Statistical Precipice", 2021). Ranks: the test of Friedman, exact where the
possible rankings are few and else in the form of Iman and Davenport, and the critical difference of Nemenyi; of two
configurations Wilcoxon's signed ranks (Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", 2006).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from hpo.config.metric_range import metric_range
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.stats.evaluation_stats import LEVEL

__all__ = [
    "AcrossDatasets",
    "Estimate",
    "RankTest",
    "average_ranks",
    "compare_across",
    "critical_difference",
    "describe_across",
    "interquartile_mean",
    "mean_improvement",
    "rank_test",
    "tabulate_across",
]

Array = np.ndarray[Any, Any]
Runs = Sequence[Array]  # the runs of one configuration, (runs,) of each data set
RESAMPLES = 10_000
FEWEST_DATASETS = 2
BLOCK = 1000  # resamples at a time
RANKINGS = 100_000  # that are counted one by one


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval; the bounds are NaN where a data set has a single run."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RankTest:
    """Test of whether configurations differ in their ranks over data sets.

    Attributes:
        name: `friedman`, or `wilcoxon` of two configurations.
        statistic: chi-squared of Friedman, or Wilcoxon's sum of ranks.
        p: the probability of ranks as far apart where all are equal.
        critical_difference: of average ranks (Nemenyi, 5 %); None of two configurations.
    """

    name: str
    statistic: float
    p: float
    critical_difference: float | None


@dataclass(frozen=True)
class AcrossDatasets:
    """Configurations on several data sets; every list of them is in the order of `labels`, the best rank first.

    Attributes:
        metric: of the test set.
        labels: the configurations.
        datasets: names of the data sets.
        scores: mean over runs by configuration and data set.
        ranks: average rank of each; 1 is the best.
        interquartile: mean of the middle half of all runs; of scores from 0 (the worst run of a data set) to 1 (the
            best) if `scaled`.
        improvement: probability that the first is better than each other one on a data set; None of the first.
        scaled: whether the scores were scaled, for the metric has no range of its own.
        test: of the ranks; None where there is nothing to test.
        same: by configuration, whether its rank is within the critical difference of the first one's, or None.
    """

    metric: str
    labels: tuple[str, ...]
    datasets: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    ranks: Mapping[str, float]
    interquartile: Mapping[str, Estimate]
    improvement: Mapping[str, Estimate]
    scaled: bool
    test: RankTest | None
    same: Mapping[str, bool]


def compare_across(evaluations: Sequence[EvaluationResults]) -> AcrossDatasets | None:
    """Compare the configurations that have runs on every one of several data sets; None of fewer than two of them.

    Args:
        evaluations: one per data set, all refit or all not.
    """
    metric = next((each.test_metric for each in evaluations if each.test_metric), None)
    if len(evaluations) < FEWEST_DATASETS or metric is None:
        return None
    runs = [
        {each.label: np.array(list(values.values())) for each in found.candidates if (values := each.scores(metric))}
        for found in evaluations
    ]
    labels = [label for label in runs[0] if all(label in each for each in runs)]
    if len(labels) < 2:
        return None
    sign = 1 if evaluations[0].objective.direction == "maximize" else -1
    table = np.array([[each[label].mean() for label in labels] for each in runs])
    ranks = average_ranks(sign * table)
    order = [labels[place] for place in np.argsort(ranks, kind="stable")]
    by_label = dict(zip(labels, ranks.tolist(), strict=True))
    scaled = not all(map(math.isfinite, metric_range(metric)))
    by_configuration = {label: [sign * each[label] for each in runs] for label in labels}
    shown = _scale(by_configuration) if scaled else {label: [each[label] for each in runs] for label in labels}
    test = rank_test(sign * table)
    first, difference = order[0], test.critical_difference if test else None
    names = _name_apart(evaluations)
    return AcrossDatasets(
        metric,
        tuple(order),
        names,
        {label: {name: float(each[label].mean()) for name, each in zip(names, runs, strict=True)} for label in order},
        by_label,
        {label: interquartile_mean(shown[label]) for label in order},
        {label: mean_improvement(by_configuration[first], by_configuration[label]) for label in order[1:]},
        scaled,
        test,
        {} if difference is None else {label: by_label[label] - by_label[first] <= difference for label in order[1:]},
    )


def _name_apart(evaluations: Sequence[EvaluationResults]) -> tuple[str, ...]:
    names = [each.dataset for each in evaluations]
    return tuple(name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names))


def _scale(runs: Mapping[str, Runs]) -> dict[str, list[Array]]:
    """Scale the runs of each data set, of which higher ones are better, from 0 (the worst) to 1 (the best)."""
    everything = [np.concatenate(parts) for parts in zip(*runs.values(), strict=True)]
    lows, spans = [float(each.min()) for each in everything], [float(np.ptp(each)) or 1.0 for each in everything]
    return {
        label: [(each - low) / span for each, low, span in zip(of, lows, spans, strict=True)]
        for label, of in runs.items()
    }


# Agarwal et al.


def interquartile_mean(runs: Runs) -> Estimate:
    """Return the mean of the middle half of all runs of all data sets, with its interval."""
    from scipy.stats import trim_mean  # half a second to import

    value = float(trim_mean(np.concatenate(runs), 0.25))
    draws = [trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1) for drawn in _resample(runs)]
    return _estimate(value, draws, [runs])


def mean_improvement(first: Runs, second: Runs) -> Estimate:
    """Return the probability that a run of the first is better than one of the second on a data set drawn at random.

    It is Mann and Whitney's U over the pairs of runs, averaged over the data sets; ties count half.

    Args:
        first, second: runs of each data set, higher ones better.
    """
    value = float(np.mean([_improvement(x[None], y[None])[0] for x, y in zip(first, second, strict=True)]))
    draws = [
        np.mean([_improvement(x, y) for x, y in zip(one, other, strict=True)], axis=0)
        for one, other in zip(_resample(first, 0), _resample(second, 1), strict=True)
    ]
    return _estimate(value, draws, [first, second])


def _improvement(x: Array, y: Array) -> Array:
    """Return the share of pairs in which x (draws, n) is above y (draws, m), ties as half: (draws,)."""
    above = np.sign(x[:, :, None] - y[:, None, :])
    share: Array = (above.mean((1, 2)) + 1) / 2
    return share


def _resample(runs: Runs, stream: int = 0) -> list[list[Array]]:
    """Draw the runs of each data set again with replacement: blocks of arrays (draws, n), one per data set."""
    rng = np.random.default_rng(stream)
    return [
        [each[rng.integers(len(each), size=(BLOCK, len(each)))] for each in runs] for _ in range(RESAMPLES // BLOCK)
    ]


def _estimate(value: float, draws: Sequence[Array], runs: Sequence[Runs]) -> Estimate:
    if min(len(each) for of in runs for each in of) < 2:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(np.concatenate(draws), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


# Demsar.


def average_ranks(scores: Array) -> Array:
    """Return the average rank of each configuration, (configurations,), 1 the best and ties shared.

    Args:
        scores: (data sets, configurations), higher ones better.
    """
    from scipy.stats import rankdata

    ranks: Array = rankdata(-scores, axis=1).mean(0)
    return ranks


def critical_difference(configurations: int, datasets: int, level: float = LEVEL) -> float:
    """Return by how much average ranks must differ to be significant (Nemenyi)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.isf(1 - level, configurations, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(configurations * (configurations + 1) / (6 * datasets))


def rank_test(scores: Array) -> RankTest | None:
    """Test whether configurations differ: Friedman's test, or Wilcoxon's of two; None where all scores are equal.

    Args:
        scores: (data sets, configurations), higher ones better.
    """
    from scipy.stats import friedmanchisquare, rankdata, wilcoxon

    datasets, configurations = scores.shape
    if not np.ptp(scores, axis=1).any():
        return None
    if configurations == 2:
        found = wilcoxon(scores[:, 0], scores[:, 1], zero_method="zsplit")
        return RankTest("wilcoxon", float(found.statistic), float(found.pvalue), None)
    squared = float(friedmanchisquare(*scores.T).statistic)
    few = math.factorial(configurations) ** (datasets - 1) <= RANKINGS
    p = _count_rankings(rankdata(scores, axis=1)) if few else _friedman_p(squared, datasets, configurations)
    return RankTest("friedman", squared, p, critical_difference(configurations, datasets))


def _count_rankings(ranks: Array) -> float:
    """Return the share of rankings, each data set's in any order, whose sums are as far apart as those of the ranks."""
    sums = ranks[:1]  # the order of one data set is of no matter: it only names the configurations
    for row in ranks[1:]:
        sums = (sums[:, None] + np.array(list(permutations(row)))).reshape(-1, ranks.shape[1])
    return float(((sums**2).sum(1) >= (ranks.sum(0) ** 2).sum() - 1e-9).mean())


def _friedman_p(squared: float, datasets: int, configurations: int) -> float:
    """Return the p-value of Iman and Davenport; no less than the chance that all data sets rank alike.

    Where they do, the ratio is infinite and its p-value 0.
    """
    from scipy.stats import f

    rest = datasets * (configurations - 1) - squared
    ratio = (datasets - 1) * squared / rest if rest > 1e-12 else math.inf
    p = float(f.sf(ratio, configurations - 1, (configurations - 1) * (datasets - 1)))
    return max(p, math.exp(-(datasets - 1) * math.lgamma(configurations + 1)))


# In words.


def tabulate_across(found: AcrossDatasets) -> list[dict[str, Any]]:
    """Return a flat row per configuration, the best average rank first; numbers that are not known are None.

    Keys: `configuration`, the mean test score on each data set under its name, `iqm` (interquartile mean) with its 95 %
    interval `iqm_low` and `iqm_high`, `rank` (average), `improvement` (the probability that the first configuration is
    better than this one) with its interval `improvement_low` and `improvement_high`, `same_rank` (whether the rank is
    within the critical difference of the first one's).
    """
    return [
        {
            "configuration": label,
            **found.scores[label],
            **_cells("iqm", found.interquartile[label]),
            "rank": found.ranks[label],
            **_cells("improvement", found.improvement.get(label)),
            "same_rank": found.same.get(label),
        }
        for label in found.labels
    ]


def _cells(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    names = (name, f"{name}_low", f"{name}_high")
    return {
        key: None if value is None or not math.isfinite(value) else value
        for key, value in zip(names, values, strict=True)
    }


def describe_across(found: AcrossDatasets) -> list[str]:
    """Say in lines what follows from the ranks, and how the scores are to be read."""
    lines, least = [_verdict(found)], _least_p(len(found.labels), len(found.datasets))
    difference = None if found.test is None else found.test.critical_difference
    if difference is not None and difference <= len(found.labels) - 1:  # beyond that no two ranks are apart
        lines.append(f"average ranks differ significantly from {difference:.2f} on (Nemenyi, 5 %)")
    if least >= 1 - LEVEL:
        lines.append(
            f"{len(found.datasets)} data sets are too few for a test of ranks: if all agreed on the order, p would be "
            f"{least:.2g}"
        )
    elif len(found.datasets) < 5:
        lines.append(f"{len(found.datasets)} data sets are few for a test of ranks; it sees large differences alone")
    if found.scaled:
        lines.append("iqm: of scores scaled on each data set, from 0 of the worst run to 1 of the best")
    return lines


def _least_p(configurations: int, datasets: int) -> float:
    """Return the smallest p that `rank_test` can give: where all data sets order the configurations alike."""
    if configurations == 2:
        return 2.0 ** (1 - datasets)
    return float(math.factorial(configurations)) ** (1 - datasets)


def _verdict(found: AcrossDatasets) -> str:
    first, test = found.labels[0], found.test
    if test is None:
        return "the configurations have equal scores on every data set"
    name = "Friedman's test" if test.name == "friedman" else "Wilcoxon's test"
    count = len(found.datasets)
    if test.p >= 1 - LEVEL:
        return f"no significant difference over {count} data sets ({name}, p = {test.p:.2g})"
    beaten = [label for label in found.labels[1:] if not found.same.get(label, False)]
    better = f"{first} is better than {', '.join(beaten)}" if beaten else f"none is significantly worse than {first}"
    return f"the configurations differ over {count} data sets ({name}, p = {test.p:.2g}); {better}"
