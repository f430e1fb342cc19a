"""Sources of variance: how much split, order of the data and initial weights each contribute to the spread of a score.

Each source is varied alone while the others stay as they were in the study, and then all together (Bouthillier et al.,
"Accounting for Variance in Machine Learning Benchmarks", 2021). The variances of several configurations are pooled.
They share their seeds, so they are not independent: the degrees of freedom are those of Box ("Some Theorems on
Quadratic Forms", 1954), of few seeds rather too few. Intervals are those of variances and their ratios under the normal
distribution (chi-squared and F).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.report.data.evaluations import EvaluationResults
from hpo.report.format import percent_text
from hpo.report.stats.evaluation_stats import LEVEL
from hpo.study.definition import Source
from hpo.study.operations.candidates import SOURCES

__all__ = [
    "Share",
    "Spread",
    "VarianceSources",
    "describe_variance",
    "measure_spread",
    "measure_variance_sources",
    "ratio_interval",
    "tabulate_variance",
]

Array = np.ndarray[Any, Any]
PARTS: tuple[Source, ...] = ("split", "order", "init", "seed")  # of what varies together


@dataclass(frozen=True)
class Spread:
    """Variance of a score over runs that differ in seeds alone, pooled over configurations.

    Attributes:
        variance: in squared units of the metric.
        freedom: degrees of freedom; fewer than the runs say, for the configurations share their seeds.
        runs: how many runs it is of.
    """

    variance: float
    freedom: float
    runs: int

    @property
    def deviation(self) -> float:
        """Standard deviation, in units of the metric."""
        return math.sqrt(self.variance)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the standard deviation."""
        from scipy.stats import chi2  # half a second to import

        low, high = chi2.isf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], self.freedom)
        return math.sqrt(self.variance * self.freedom / low), math.sqrt(self.variance * self.freedom / high)


@dataclass(frozen=True)
class Share:
    """Share of a source in the variance of all together; above 1 where others make up for it.

    Attributes:
        share: its variance over that of all together.
        low, high: 95 % interval.
    """

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class VarianceSources:
    """Variance of a score by source.

    Attributes:
        metric: the score.
        spreads: by source, the largest first; `all` last.
        shares: by source, of those in `spreads` but `all`; empty before the runs of all together are complete, or where
            these do not differ.
        leader: the source that contributes most; None where it is not known, or nothing varies. The seed of training
            is one source unless both of its parts, order and initial weights, were varied. None of a single source.
        clear: whether the leader's variance is significantly larger than that of each other part (F test, 5 %).
    """

    metric: str
    spreads: Mapping[Source, Spread]
    shares: Mapping[Source, Share]
    leader: Source | None
    clear: bool

    @property
    def verdict(self) -> str:
        """The conclusion, in a sentence or two."""
        if self.leader is None:
            return self._describe_without_leader()
        share = self.shares.get(self.leader)
        words = SOURCES[self.leader]
        contributes = (
            "Most of the spread comes" if share is not None and share.share > 0.5 else "The largest part comes"
        )
        if not self.clear:
            return f"{contributes} from the {words}, but not significantly more than from the others: run more seeds."
        return f"{contributes} from the {words}: {ADVICE[self.leader]}."

    def _describe_without_leader(self) -> str:
        """Say why no source is named: nothing varies, or a single source is measured, or they vary together alone."""
        if not any(spread.variance for spread in self.spreads.values()):
            return "The runs do not differ, so there is nothing to tell apart."
        parts = [source for source in self.spreads if source != "all"]
        if len(parts) > 1:
            return "The runs differ where all sources vary together, and no source alone explains it."
        share = self.shares.get(parts[0])
        of = "" if share is None else f" ({percent_text(share.share)} of the variance of all together)"
        return f"Only the {SOURCES[parts[0]]} varied alone{of}: there is no other source to compare with."


ADVICE: Mapping[Source, str] = {
    "split": "more folds help more than more seeds",
    "order": "more seeds help more than more folds, and so may a smaller learning rate or larger batches",
    "init": "more seeds help more than more folds, and so may another initialisation or a warm-up",
    "seed": "more seeds help more than more folds",
}


def measure_variance_sources(evaluation: EvaluationResults, metric: str | None = None) -> VarianceSources | None:
    """Measure how much each source contributes; None where none but the seed was varied, or there are too few runs.

    Args:
        evaluation: with the evaluations that vary other sources.
        metric: of the runs; by default the validation score, by which configurations are chosen.
    """
    name = metric or evaluation.validation_metric
    if not evaluation.varied or name is None:
        return None
    found = {
        source: spread
        for source, each in ((evaluation.vary, evaluation), *evaluation.varied.items())
        if (spread := measure_spread([candidate.scores(name) for candidate in each.candidates])) is not None
    }
    if len(found) < 2:
        return None
    parts = sorted((source for source in found if source != "all"), key=lambda source: -found[source].variance)
    ordered: list[Source] = [*parts, *(source for source in found if source == "all")]
    spreads = {source: found[source] for source in ordered}
    total = spreads.get("all")
    shares: dict[Source, Share] = {}
    if total is not None and total.variance > 0:
        shares = {source: Share(*ratio_interval(spreads[source], total)) for source in parts}
    leader, clear = _find_leader(spreads)
    return VarianceSources(name, spreads, shares, leader, clear)


def _find_leader(spreads: Mapping[Source, Spread]) -> tuple[Source | None, bool]:
    """Return the part that varies most, and whether it is clear."""
    whole = {"order", "init"} <= spreads.keys()  # then the seed of both is no part of its own
    parts = [source for source in PARTS if source in spreads and not (whole and source == "seed")]
    ranked = sorted(parts, key=lambda source: -spreads[source].variance)
    if len(ranked) < 2 or spreads[ranked[0]].variance == 0:
        return None, False
    first = spreads[ranked[0]]
    others = [spreads[source] for source in ranked[1:]]
    return ranked[0], all(not other.variance or ratio_interval(first, other)[1] > 1 for other in others)


def measure_spread(scores: Sequence[Mapping[int, float]]) -> Spread | None:
    """Pool the variances of several configurations, each of which has a score by seed; None without two seeds.

    The deviations of configurations from their means are correlated, for they share splits and seeds. Their covariance
    S (configurations by configurations, over the n seeds that all have) has n - 1 times tr(S)^2 / tr(S S) degrees of
    freedom, from n - 1 to that many of each configuration.
    """
    measured = [each for each in scores if len(each) > 1]
    if not measured:
        return None
    squares = [(len(each) - 1, float(np.var(list(each.values()), ddof=1))) for each in measured]
    variance = sum(n * square for n, square in squares) / sum(n for n, _ in squares)
    shared = sorted(set.intersection(*(set(each) for each in measured)))
    runs = sum(len(each) for each in measured)
    if len(shared) < 2:
        return Spread(variance, max(n for n, _ in squares), runs)
    table = np.array([[each[seed] for seed in shared] for each in measured])
    covariance = np.atleast_2d(np.cov(table))
    trace, square = float(np.trace(covariance)), float((covariance**2).sum())
    freedom = (len(shared) - 1) * (trace**2 / square if square > 0 else 1.0)
    return Spread(variance, freedom, runs)


def ratio_interval(one: Spread, other: Spread) -> tuple[float, float, float]:
    """Return the ratio of two variances and its 95 % interval, that of the F distribution."""
    from scipy.stats import f

    ratio = one.variance / other.variance
    high, low = f.isf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], one.freedom, other.freedom)
    return ratio, float(ratio / low), float(ratio / high)


# In words.


def describe_variance(evaluation: EvaluationResults, found: VarianceSources) -> list[str]:
    """Say in lines what follows, and how many runs are left."""
    left = sum(each.remaining_runs for each in evaluation.varied.values())
    return [found.verdict, *([f"{left} runs are left; the same command resumes them"] if left else [])]


def tabulate_variance(found: VarianceSources) -> list[dict[str, Any]]:
    """Return a flat row per source, the largest first, all together last; numbers that are not known are None.

    Keys: `varied`, `deviation` (standard deviation of the score) with its 95 % interval `deviation_low` and
    `deviation_high`, `share` of the variance of all together with its 95 % interval `low` and `high`, `runs`.
    """
    return [_row(found, source) for source in found.spreads]


def _row(found: VarianceSources, source: Source) -> dict[str, Any]:
    spread, share = found.spreads[source], found.shares.get(source)
    low, high = spread.interval
    return {
        "varied": SOURCES[source],
        "deviation": spread.deviation,
        "deviation_low": low,
        "deviation_high": high,
        "share": share.share if share else None,
        "low": share.low if share else None,
        "high": share.high if share else None,
        "runs": spread.runs,
    }
