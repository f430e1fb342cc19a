"""Checks of trust: noise, budget, order of exploration, record."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

import numpy as np

from hpo.report.checks.finding import Finding
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import candidate_text, count_text, metric_text, number_of
from hpo.report.stats.evaluation_stats import Comparison, compare_candidates
from hpo.report.stats.null_result import explain_null_result
from hpo.report.stats.trial_stats import (
    count_validation_samples,
    difference_error,
    estimate_retraining_noise,
    is_adaptive,
    own_error,
    standard_error,
)
from hpo.study import Definition
from hpo.utils.text import format_rough

__all__ = ["TRUST_CHECKS", "advise_on_noise"]

Evaluations = Sequence[EvaluationResults]
RESAMPLES = 500  # quartiles are steady to a few percent of their spread
FEWEST = 10  # trials: halves of fewer say nothing
STARTUP = 10  # trials before adaptation: Optuna's own default


def budget(results: Results, _: Evaluations) -> list[Finding]:
    """Check 4: the best of k trials over the budget, bootstrapped."""
    values = np.array([row.value for row in results.ranked], dtype=float)
    if len(values) < FEWEST:
        return []
    rng, count = np.random.default_rng(0), len(values)
    # Of trials in the order of rank, the best of k draws is the smallest of k positions: 1 - (1 - u)^(1/k).
    picks = np.minimum((count * (1 - (1 - rng.random(RESAMPLES)) ** (2 / count))).astype(int), count - 1)
    low, half, high = np.quantile(values[picks], [0.25, 0.5, 0.75])
    reach = max(standard_error(results) or 0.0, 0.05 * abs(float(np.median(values)) - values[0]))
    more = bool(abs(half - values[0]) > reach)
    evidence = (
        f"half of the {count} trials would have found {half:.4g} (quartiles {low:.4g} and {high:.4g}) "
        f"instead of {values[0]:.4g}"
    )
    return [
        Finding(
            "budget",
            "size of the budget",
            "note" if more else "ok",
            evidence,
            "run more trials: the best value still depends on the budget" if more else "",
        )
    ]


def retraining(results: Results, evaluations: Evaluations) -> list[Finding]:
    """Check 20: a gain counts only if it exceeds the retraining noise of both sides."""
    findings = [_retraining_finding(each) for each in evaluations if each.on_own_data]
    if not any(findings):
        return [
            Finding(
                "retraining",
                "retraining noise",
                "unknown",
                "no configuration has been retrained from at least two seeds",
                f"retrain the best from several seeds: `hpo evaluate {shlex.quote(results.name)}`",
            )
        ]
    return [finding for finding in findings if finding]


def _retraining_finding(evaluation: EvaluationResults) -> Finding | None:
    """Compare the best with the rival, or the rival with the next if it is the best; None of single seeds."""
    stats = compare_candidates(evaluation)
    best, rival = stats.best, evaluation.rival
    if best is None:
        return None
    paired = [each for each in stats.comparisons if each.difference.count >= 2]
    if rival is not None and best.candidate.label == rival.label and paired:
        return _loss_finding(min(paired, key=lambda each: each.difference.mean))
    with_rival = [each for each in paired if rival is not None and each.second == rival.label]
    if with_rival:
        return _gain_finding(with_rival[0])
    score = best.test or best.validation
    if score is None or score.count < 2:
        return None
    other = "it has no baseline to be compared with"
    if rival is not None:
        other = f"{candidate_text(rival.label)} has no such seeds"
    return Finding(
        "retraining",
        "retraining noise",
        "unknown",
        f"{candidate_text(best.candidate.label)} has been retrained from {score.count} fresh seeds, with a standard "
        f"deviation of {format_rough(score.deviation)}; {other}",
    )


def _gain_finding(comparison: Comparison) -> Finding:
    """Report what the best gains over the rival, paired over seeds and samples."""
    better = comparison.significant and comparison.difference.mean > 0
    if better:
        advice = ""
    elif comparison.significant:
        advice = f"keep {candidate_text(comparison.second)}, which is better"
    elif comparison.difference.mean < 0:
        advice = f"run more seeds: so far nothing is gained over {candidate_text(comparison.second)}"
    else:
        advice = "run more seeds: this gain may be noise"
    return Finding(
        "retraining",
        "retraining noise",
        "ok" if better else "warning",
        f"{candidate_text(comparison.first)} {_difference_text(comparison)}",
        advice,
    )


def _loss_finding(comparison: Comparison) -> Finding:
    """Report that the rival is the best by its validation scores, and by how much, on the test set if that was read."""
    advice, says = (
        f"keep {candidate_text(comparison.first)}: the search has found nothing better",
        "is the best of those retrained: it",
    )
    if comparison.difference.mean < 0:
        says = "has the best validation score of those retrained, but"
    if not comparison.significant:
        advice = "run more seeds, or search on: no configuration has been found that is better"
    elif comparison.difference.mean < 0:
        advice = "run more seeds: validation and test scores disagree on which is better"
    return Finding(
        "retraining",
        "retraining noise",
        "warning",
        f"{candidate_text(comparison.first)} {says} {_difference_text(comparison)}",
        advice,
    )


def _difference_text(comparison: Comparison) -> str:
    """Say by how much the first is better, or worse, with the interval of that."""
    difference = comparison.difference
    worse = difference.mean < 0
    low, high = (-difference.high, -difference.low) if worse else (difference.low, difference.high)
    by, second = f"{abs(difference.mean):.4g}", candidate_text(comparison.second)
    lead = f"is worse than {second} by {by}" if worse else f"gains {by} over {second}"
    return f"{lead} from {difference.count} fresh seeds (interval {format_rough(low)} to {format_rough(high)})"


def search_seed(results: Results, _: Evaluations) -> list[Finding]:
    """Check 21: would another search have found the same: the best of random halves of the trials."""
    values = np.array([row.value for row in results.ranked], dtype=float)
    if len(values) < 2 * FEWEST:
        return [
            Finding(
                "search_seed", "repeatability", "unknown", f"{len(values)} comparable trials are too few to be halved"
            )
        ]
    rng = np.random.default_rng(0)
    # One half holds the best trial; the other one's best is the first trial in rank that fell to it.
    positions = np.minimum(rng.geometric(0.5, RESAMPLES), len(values) - 1)
    distance = float(np.quantile(np.abs(values[positions] - values[0]), 0.75))
    reach = max(standard_error(results) or 0.0, 0.05 * abs(float(np.median(values)) - values[0]))
    bad = distance > reach
    caution = "; halves of an adaptive search are not independent" if is_adaptive(results) else ""
    return [
        Finding(
            "search_seed",
            "repeatability",
            "note" if bad else "ok",
            f"the best values of random halves of the trials differ by up to {format_rough(distance, 3)} (upper "
            f"quartile; an estimate of how much another seed would differ{caution})",
            "repeat the study with another seed, or run more trials" if bad else "",
        )
    ]


def noise(results: Results, evaluations: Evaluations) -> list[Finding]:
    """Check 26: the standard error, and whether a winner can be named."""
    from scipy.stats import norm  # half a second to import

    alone = standard_error(results)
    # That of a single run: a mean over fits has measured its own.
    retraining = None if results.definition.several_fits else estimate_retraining_noise(evaluations)
    if alone is None and retraining is None:
        return [
            Finding(
                "noise",
                "noise of the objective",
                "unknown",
                f"the standard error of {metric_text(results.objective.metric)} cannot be computed from the number of "
                "samples alone",
                f"retrain the best from several seeds: `hpo evaluate {shlex.quote(results.name)}`",
            )
        ]
    error = math.hypot(alone or 0.0, retraining or 0.0)
    values = np.array([row.value for row in results.ranked], dtype=float)
    samples = count_validation_samples(results)
    head = f"the standard error is {format_rough(error)}" + (
        f" ({count_text(samples)} validation samples)" if samples else ""
    )
    if len(values) < 2:
        return [Finding("noise", "noise of the objective", "ok", head)]
    paired = np.array([_difference_noise(results, row, retraining) for row in results.ranked[1:]])
    lone = own_error(results)
    own = error if lone is None else math.hypot(lone, retraining or 0.0)
    lead = abs(float(values[0] - np.median(values)))
    # What the best of so many equals leads their median by, and a standard error more.
    chance = own * (float(norm.ppf(1 - 1 / (len(values) + 1))) + 1)
    ties = int((np.abs(values[1:] - values[0]) <= paired).sum())
    near = f"{number_of(ties, 'other trial')} {'lies' if ties == 1 else 'lie'} within one standard error of the best"
    if results.corrected is not None or not results.definition.shares_validation:
        others = f"{number_of(ties, 'other trial')} {'is' if ties == 1 else 'are'}"
        near = f"{others} within one standard error of the difference from the best"
    null = explain_null_result(results)
    if null is not None or lead <= chance:
        why = null or (
            f"the best leads the median of {len(values)} trials by {format_rough(lead)}, where chance alone "
            f"reaches {format_rough(chance)}"
        )
        advice = f"{advise_on_noise(results.definition)}, or vary parameters that matter more"
        return [Finding("noise", "no winner among single runs", "warning", f"{head}; {why}", advice)]
    return [
        Finding(
            "noise",
            "noise of the objective",
            "note" if ties else "ok",
            f"{head}; {near}",
            "choose among them by cost, or evaluate them from more seeds" if ties else "",
        )
    ]


def _difference_noise(results: Results, row: TrialRow, retraining: float | None) -> float:
    """Return the standard error of a trial's difference from the best; 0 where nothing is known of it."""
    return math.hypot(difference_error(results, row) or 0.0, math.sqrt(2) * (retraining or 0.0))


def advise_on_noise(definition: Definition) -> str:
    """Say what makes a value less noisy: where folds divide all training samples, no larger validation set."""
    resampling = definition.resampling
    if resampling is not None and resampling.folds is not None:
        return "draw the folds more often (repeats)"
    if resampling is not None and resampling.holdout is not None:
        return f"take more random splits (holdout = {2 * resampling.holdout})"
    if resampling is not None and resampling.seeds > 1:
        return f"take more seeds (seeds = {2 * resampling.seeds}), or a larger validation set"
    return "use a larger validation set"


def order(results: Results, evaluations: Evaluations) -> list[Finding]:
    """Check 27: explore first, and the test set comes last."""
    findings = []
    startup = results.definition.sampler.options.get("n_startup_trials", STARTUP)
    if is_adaptive(results) and isinstance(startup, int) and startup < STARTUP:
        findings.append(
            Finding(
                "order",
                "exploration",
                "note",
                f"the sampler adapts after only {startup} random trials",
                'explore with sampler = "qmc" first',
                'sampler = "qmc"',
            )
        )
    first_read = min(
        (each.test_set_read_at for each in evaluations if each.on_own_data and each.test_set_read_at is not None),
        default=None,
    )
    after = (
        0 if first_read is None else sum(row.started is not None and row.started > first_read for row in results.trials)
    )
    left = 0 if results.stop_reason else results.remaining_trials  # none is begun in a study that has ended
    if after or (first_read is not None and left):
        findings.append(
            Finding(
                "order",
                "test set",
                "warning",
                f"the test set was first read with {max(after, left)} trials still to run",
                "finish a study before its test set is read, and choose nothing by what it shows",
            )
        )
    return findings or [
        Finding(
            "order",
            "exploration first, test set last",
            "ok",
            f"sampler {results.definition.sampler.name}; the test set was not read early",
        )
    ]


def record(results: Results, _: Evaluations) -> list[Finding]:
    """Check 28: the record of the study."""
    best = results.best
    value = "none" if best is None or best.value is None else f"{best.value:.6g} (trial {best.number})"
    left = f"{results.remaining_trials} left"
    if results.remaining_trials and results.stop_reason:
        left += f", and none is begun: {results.stop_reason}"
    unfinished = results.remaining_trials > 0 and not results.stop_reason
    seed = "" if results.definition.foreign else f"; seed {results.definition.seed}"
    return [
        Finding(
            "record",
            "record",
            "note" if unfinished or best is None else "ok",
            f"study {results.name}: {number_of(len(results.trials), 'trial')}, {left}; best "
            f"{metric_text(results.objective.metric)} {value}{seed}",
            f"finish it: `{format_command(results, 'launch')}`" if unfinished else "",
        )
    ]


TRUST_CHECKS = (budget, retraining, search_seed, noise, order, record)
