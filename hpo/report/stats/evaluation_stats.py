"""Statistics of an evaluation: intervals of scores, and significance of differences.

Two kinds of chance are in a score: the seed that a model was trained from, and the samples that it was measured on.
Both are resampled. Differences are taken seed by seed and sample by sample, for two configurations are trained from the
same seeds and measured on the same samples (Bouthillier et al., "Accounting for Variance in Machine Learning
Benchmarks", 2021; the two-way bootstrap is that of Owen, "The pigeonhole bootstrap", 2007, its parts added).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.config.metric_range import difference_range, metric_range
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun, shared_means

if TYPE_CHECKING:
    from hpo.report.stats.across_datasets import AcrossDatasets
    from hpo.report.stats.study_comparison import PairedScore
    from hpo.report.stats.variance_sources import VarianceSources

__all__ = [
    "FEWEST_SEEDS",
    "LEVEL",
    "Comparison",
    "EvaluationStats",
    "Interval",
    "Score",
    "bootstrap_interval",
    "compare_candidates",
    "explain_columns",
    "list_lost_runs",
    "mean_of",
    "summarize_evaluation",
    "tabulate_scores",
]

Array = np.ndarray[Any, Any]
LEVEL = 0.95
RESAMPLES = 10_000
# From which a score has an interval. Of two, Student's t is 9 of their deviations to each side: an interval that holds
# nearly anything, whatever is measured.
FEWEST_SEEDS = 3
SHARES = ("accuracy", "top5_accuracy")  # of samples, which bound them from two seeds on


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its bootstrap confidence interval.

    Attributes:
        mean: over the seeds.
        low, high: bounds of the interval; NaN of a single seed, which says nothing of the others. A score, which is in
            the units of its metric, has them from three seeds. None is beyond what the metric, or a difference, can be.
        deviation: standard deviation over the seeds; NaN of a single one.
        count: how many seeds.
    """

    mean: float
    low: float
    high: float
    deviation: float
    count: int

    def within(self, least: float, most: float) -> Interval:
        """Return the interval as far as it is between two bounds."""
        return replace(self, low=max(self.low, least), high=min(self.high, most))


@dataclass(frozen=True)
class Score:
    """Scores of a configuration.

    Attributes:
        candidate: the configuration with its runs.
        study_score: the score by which the study chose it; None where it did not.
        validation: the same score from fresh seeds; None of a refit.
        test: on the test set; None before the first look.
        bias: selection bias: `study_score` less the mean of `validation`, positive where the former is better; None
            where the one is a mean over folds, and the other is not.
    """

    candidate: CandidateRuns
    study_score: float | None
    validation: Interval | None
    test: Interval | None
    bias: float | None


@dataclass(frozen=True)
class Comparison:
    """Two configurations, paired over their common seeds and, for accuracies, over the samples.

    Attributes:
        first, second: their labels; the first is the best one.
        metric: what is compared.
        difference: above 0 where the first is better. Its level allows for the number of comparisons (Bonferroni).
        significant: whether the interval leaves 0 out.
    """

    first: str
    second: str
    metric: str
    difference: Interval
    significant: bool


@dataclass(frozen=True)
class EvaluationStats:
    """Scores and comparisons of an evaluation.

    Attributes:
        scores: of every configuration, the best first: by the mean validation score from fresh seeds, for the test set
            is not to choose by; without it as the study ranked them.
        comparisons: of the best with each other one; on the test set where it has been read.
        winner: the best, where it is significantly better than all others, and none of its runs failed or
            diverged; else None.
        tied: labels of those that were compared with the best and do not differ significantly from it.
        beats_rival: whether the best is better than the baseline, or worse; None where the difference is not
            significant, or the best is the baseline.
        variance: how much each source of chance contributes, as `hpo.evaluate(vary=…)` adds it.
        pairs: of two studies, what is paired over seeds and splits, as `hpo.evaluate(compare=…)` adds it.
        across: the comparison over several data sets, as `hpo.evaluate(datasets=…)` adds it.
    """

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    winner: CandidateRuns | None
    tied: tuple[str, ...]
    beats_rival: bool | None
    variance: VarianceSources | None = None
    pairs: tuple[PairedScore, ...] = ()
    across: AcrossDatasets | None = None

    @property
    def best(self) -> Score | None:
        """The first of the scores that has been measured."""
        return next(iter(self._measured), None)

    @property
    def uncompared(self) -> tuple[str, ...]:
        """Labels of those that have scores, but of no seed of the best one's."""
        compared = {each.second for each in self.comparisons}
        return tuple(score.candidate.label for score in self._measured[1:] if score.candidate.label not in compared)

    @property
    def _measured(self) -> list[Score]:
        return [score for score in self.scores if score.validation or score.test]


def compare_candidates(evaluation: EvaluationResults, *, by_validation: bool = False) -> EvaluationStats:
    """Score and compare the candidates of an evaluation; runs that are not finished are left out.

    Args:
        evaluation: with its runs.
        by_validation: whether they are compared by their validation scores even where the test set has been read, as
            whatever decides how many runs there are must be.
    """
    metrics = (
        (evaluation.validation_metric,) if by_validation else (evaluation.test_metric, evaluation.validation_metric)
    )
    sign = 1 if evaluation.objective.direction == "maximize" else -1
    hits = CorrectnessCache(same_split=evaluation.vary not in ("split", "all"))
    scores = [_score_candidate(evaluation, candidate, sign, hits) for candidate in evaluation.candidates]
    if evaluation.validation_metric is not None:
        means = shared_means(evaluation.candidates, evaluation.validation_metric)
        scores.sort(key=lambda score: -sign * means.get(score.candidate.label, -sign * math.inf))
    evaluated = [score.candidate for score in scores if score.validation or score.test]
    if not evaluated:
        return EvaluationStats(tuple(scores), (), None, (), None)
    best, others = evaluated[0], evaluated[1:]
    level = 1 - (1 - LEVEL) / max(len(others), 1)
    found = [_compare(evaluation, best, other, hits, level, metrics) for other in others]
    comparisons = tuple(each for each in found if each is not None)
    significant = {each.second: each.difference.mean > 0 for each in comparisons if each.significant}
    won = bool(others) and not best.failed_count and all(significant.get(other.label, False) for other in others)
    tied = tuple(each.second for each in comparisons if not each.significant)
    rival = next((other.label for other in others if other.baseline), "")
    return EvaluationStats(tuple(scores), comparisons, best if won else None, tied, significant.get(rival))


class CorrectnessCache:
    """Cache of the samples that runs classified right, each read once: accuracies are means of that.

    Args:
        same_split: whether all runs are validated on the same samples; otherwise those of the test set alone are known.
    """

    def __init__(self, *, same_split: bool = True) -> None:
        self._splits = {"test_accuracy": "test"} | ({"val_accuracy": "validation"} if same_split else {})
        self._known: dict[tuple[str, int, str], Array | None] = {}

    def of(self, runs: Sequence[EvaluationRun], metric: str) -> Array | None:
        """Return (runs, samples) of 0 and 1; None of other metrics, and where predictions are missing."""
        rows = [self._one(run, metric) for run in runs]
        known = [row for row in rows if row is not None]
        return np.stack(known) if known and len(known) == len(rows) and len({len(row) for row in known}) == 1 else None

    def _one(self, run: EvaluationRun, metric: str) -> Array | None:
        split = self._splits.get(metric)
        key = (run.study, run.number, metric)
        if key not in self._known:
            predictions = run.predictions(split) if split else None
            self._known[key] = None if predictions is None else predictions.correct.astype(np.int8)
        return self._known[key]


def _score_candidate(
    evaluation: EvaluationResults, candidate: CandidateRuns, sign: int, hits: CorrectnessCache
) -> Score:
    validation, test = (
        None if metric is None else _score_interval(candidate, metric, hits)
        for metric in (evaluation.validation_metric, evaluation.test_metric)
    )
    chosen = candidate.study_score
    bias = None
    if chosen is not None and validation is not None and not evaluation.divided:
        bias = _gain(chosen, validation.mean, sign)
    return Score(candidate, chosen, validation, test, bias)


def _gain(score: float, mean: float, sign: int) -> float:
    """Return how much better a score is than a mean; 0 where they differ by the rounding of the mean alone."""
    return 0.0 if math.isclose(score, mean, rel_tol=1e-12) else sign * (score - mean)


def _score_interval(candidate: CandidateRuns, metric: str, hits: CorrectnessCache) -> Interval | None:
    scores = candidate.scores(metric)
    if not scores:
        return None
    interval = bootstrap_interval(
        list(scores.values()), hits.of([run for run in candidate.complete_runs if run.seed in scores], metric)
    )
    if interval.count < FEWEST_SEEDS and metric.split("_", 1)[-1] not in SHARES:
        return replace(interval, low=math.nan, high=math.nan)
    return interval.within(*metric_range(metric))


def _compare(
    evaluation: EvaluationResults,
    best: CandidateRuns,
    other: CandidateRuns,
    hits: CorrectnessCache,
    level: float,
    metrics: Sequence[str | None],
) -> Comparison | None:
    """Compare two by the first of these metrics that both have; None where they have no seed in common."""
    sign = 1 if evaluation.objective.direction == "maximize" else -1
    for metric in filter(None, metrics):
        best_scores, other_scores = best.scores(metric), other.scores(metric)
        seeds = sorted(best_scores.keys() & other_scores.keys())
        if seeds:
            best_correct, other_correct = (
                hits.of([run for run in each.complete_runs if run.seed in seeds], metric) for each in (best, other)
            )
            samples = (
                best_correct - other_correct
                if best_correct is not None and other_correct is not None and best_correct.shape == other_correct.shape
                else None
            )
            difference = bootstrap_interval(
                [sign * (best_scores[seed] - other_scores[seed]) for seed in seeds], samples, level
            ).within(*difference_range(metric))
            apart = difference.low > 0 or difference.high < 0
            return Comparison(best.label, other.label, metric, difference, apart)
    return None


def bootstrap_interval(values: Sequence[float], samples: Array | None = None, level: float = LEVEL) -> Interval:
    """Compute the mean of a score over seeds and its bootstrap confidence interval (percentiles).

    The part of the seeds is widened for their small number, to what Student's t asks for: Hesterberg's expanded
    percentiles ("What Teachers Should Know About the Bootstrap", 2015). The part of the samples, of which there are
    thousands, is not.

    Args:
        values: one per seed.
        samples: what each value is the mean of, (seeds, samples); without it the samples are taken as given.
        level: of confidence.
    """
    scores = np.asarray(values, dtype=float)
    count, mean = len(scores), mean_of(scores)
    if count < 2:
        return Interval(mean, math.nan, math.nan, math.nan, count)
    rng = np.random.default_rng(0)
    deviations = scores[rng.integers(count, size=(RESAMPLES, count))].mean(1) - mean
    draws = mean + _expansion_factor(count, level) * deviations
    if samples is not None:
        draws += _resample_means(samples.mean(0), rng)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), float(scores.std(ddof=1)), count)


def mean_of(values: Array) -> float:
    """Return the mean; 0 of values that cancel each other but for rounding."""
    mean = float(values.mean())
    return 0.0 if abs(mean) <= 1e-12 * float(np.abs(values).max()) else mean


def _expansion_factor(count: int, level: float) -> float:
    from scipy.stats import norm, t  # half a second to import

    tail = (1 - level) / 2
    return float(math.sqrt(count / (count - 1)) * t.isf(tail, count - 1) / norm.isf(tail))


def _resample_means(means: Array, rng: np.random.Generator) -> Array:
    """Return how far the mean over the samples moves when they are drawn again: (RESAMPLES,).

    Samples have few distinct values, and a draw of all is a draw of how many have each.
    """
    values, counts = np.unique(means, return_counts=True)
    drawn = rng.multinomial(len(means), counts / len(means), size=RESAMPLES)
    moved: Array = drawn @ values / len(means) - means.mean()
    return moved


# In words.


def tabulate_scores(stats: EvaluationStats) -> list[dict[str, Any]]:
    """Return a flat row per configuration, the best first; numbers that are not known are None.

    Keys: `configuration`, `runs` (finished, of all), `chosen` (the study's own score), `validation` and `test` (means
    over seeds; of an objective function, which alone knows its data, `fresh_seeds` stands for both), `deviation` (of
    the test score, or without one of the validation score), `low`, `high` (its interval), `bias` (selection bias of the
    chosen score), `better_by` (of the best over this one, paired), `told_apart`.
    """
    compared = {each.second: each for each in stats.comparisons}
    return [_score_row(score, compared.get(score.candidate.label)) for score in stats.scores]


def explain_columns(evaluation: EvaluationResults) -> str:
    """Explain in a line what the columns of `tabulate_scores` are."""
    fresh = "fresh_seeds" if evaluation.function else "validation"
    scored = "fresh_seeds" if evaluation.function else "test"
    chosen = any(candidate.study_score is not None for candidate in evaluation.candidates)  # none was on other data
    biased = chosen and not (evaluation.refit or evaluation.divided)
    study = "chosen: the score in the study; " if chosen else ""
    bias = f"bias: how much better chosen is than {fresh}, the price of choosing; " if biased else ""
    return (
        f"{study}{bias}deviation: over seeds; low, high: 95 % interval of {scored}; "
        "better_by: what the first row gains over this one"
    )


def _score_row(score: Score, comparison: Comparison | None) -> dict[str, Any]:
    main = score.test or score.validation
    return {
        "configuration": score.candidate.label,
        "runs": f"{len(score.candidate.complete_runs)} of {len(score.candidate.runs)}",
        "chosen": score.study_score,
        **_means(score),
        **({name: _finite_or_none(getattr(main, name)) if main else None for name in ("deviation", "low", "high")}),
        "bias": score.bias,
        "better_by": comparison.difference.mean if comparison else None,
        "told_apart": comparison.significant if comparison else None,
    }


def _means(score: Score) -> dict[str, float | None]:
    validation, test = (None if each is None else each.mean for each in (score.validation, score.test))
    if score.candidate.config is None:
        return {"fresh_seeds": validation}
    return {"validation": validation, "test": test}


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summarize_evaluation(evaluation: EvaluationResults, stats: EvaluationStats) -> list[str]:
    """Summarize in lines: the data, the training, the winner, and differences that are not significant."""
    method = (
        "trained on training and validation data together, for a fixed number of epochs" if evaluation.refit else ""
    )
    lines = [f"{evaluation.dataset}: {method or f'{evaluation.split}, fresh seeds'}"]
    lines[0] += "; the test set was read once per run" if any(score.test for score in stats.scores) else ""
    if evaluation.function:
        lines = [f"{evaluation.function}: called again with the same parameters and fresh seeds"]
    lines += list_lost_runs(evaluation)
    best = stats.best
    if best is None:
        return [*lines, "no run is finished yet"]
    label = best.candidate.label
    if stats.winner is not None:
        lines.append(f"{label} is significantly better than all others (95 %, paired over seeds)")
    worse = [each.second for each in stats.comparisons if each.significant and each.difference.mean < 0]
    if worse:
        where = "" if evaluation.function else " on the test set"
        lines.append(f"{', '.join(worse)} {'is' if len(worse) == 1 else 'are'} better than {label}{where}")
    if stats.tied:
        lines.append(f"no significant difference between {label} and {', '.join(stats.tied)} (95 %, paired over seeds)")
    if stats.uncompared:
        lines.append(f"{label} was run from no seed of {', '.join(stats.uncompared)}, so they cannot be compared")
    if evaluation.remaining_runs:
        lines.append(f"{evaluation.remaining_runs} runs are left; the same command resumes them")
    return lines


def list_lost_runs(evaluation: EvaluationResults) -> list[str]:
    """List the configurations with runs that failed or diverged, a line each."""
    return [
        f"{each.label} failed or diverged with {each.failed_count} of {len(each.runs)} seeds"
        for each in evaluation.candidates
        if each.failed_count
    ]
