"""Null results: studies in which no configuration is better than chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hpo.report.data.corrected_score import describe_corrected
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import gain_text, metric_text, number_of, values_text
from hpo.report.stats.trial_stats import own_error, read_value_curve
from hpo.study.settled import chance_lead

__all__ = ["NullResult", "explain_null_result", "list_leaders"]

MOST = 5  # leaders
# What a model scores that predicts the same of every sample.
CONSTANT_SCORES = {"val_r2": 0.0, "val_roc_auc": 0.5, "val_mcc": 0.0, "val_cohen_kappa": 0.0, "val_spearman": 0.0}


def list_leaders(results: Results, noise: float, rows: Sequence[TrialRow] | None = None) -> tuple[TrialRow, ...]:
    """Return the trials that the noise cannot tell from the best: those within it, and the first; at most five.

    Args:
        results: of the study.
        noise: standard error of a value.
        rows: the trials in the order in which they are of use; by default the best first.
    """
    best = results.best
    if best is None or best.value is None:
        return ()
    sign, of_use = results.signs[0], results.ranked if rows is None else rows
    near = [row for row in of_use[1:] if sign * ((row.value or 0.0) - best.value) <= noise]
    return (*of_use[:1], *near)[:MOST]


@dataclass(frozen=True)
class NullResult:
    """Finding that a study's best is no better than chance makes it.

    Attributes:
        claim: what is not better than what, a clause.
        reason: the numbers, another one.
    """

    claim: str
    reason: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.reason}"


def explain_null_result(results: Results) -> NullResult | None:
    """Explain that the best is no better than chance makes it; None where it is, or may be.

    The best of n equal configurations is above them by chance. It is compared with what a model reaches that always
    predicts the same, where that is known: not to be better means that nothing was found. Nor is anything where it is
    better as it stands, but its corrected score, which allows for the choice of its epoch too, may not be. Without such
    a model it is compared with the median of the trials, by the noise of what differs between them; where others are
    further below it than chance makes them, configurations do differ, however many are as good as the best.
    """
    outlook, best = results.outlooks[-1] if results.outlooks else None, results.best
    if outlook is None or not math.isfinite(outlook.noise) or best is None or best.value is None:
        return None
    values = [row.value for row in results.ranked if row.value is not None]
    metric, sign = results.objective.metric, -results.signs[0]
    name, trials = metric_text(metric), number_of(len(values), "trial")
    shown = f"the best {name} of {trials}, {values_text(metric, best.value)},"
    if (constant := _constant_score(results)) is not None:
        lead = chance_lead(len(values), outlook.noise)
        if best.value - constant > lead:
            return _explain_corrected(results, shown, constant)
        return NullResult(
            "nothing was found",
            f"{shown} cannot be told from always predicting the same, {values_text(metric, constant)}: the best of as "
            f"many guesses is up to {gain_text(metric, lead)} better by chance",
        )
    lead, median = chance_lead(len(values), own_error(results) or outlook.noise), statistics.median(values)
    behind = (sign * (median - value) for value in values)
    if sign * (best.value - median) > lead or max((*behind, *_measure_pruned(results, median))) > lead:
        return None
    return NullResult(
        "no configuration is better than the others",
        f"{shown} is {gain_text(metric, abs(best.value - median))} better than their median, and the best of as many "
        f"equal configurations is up to {gain_text(metric, lead)} better by chance",
    )


def _measure_pruned(results: Results, median: float) -> list[float]:
    """Measure how far each pruned trial was behind the median of the others after as many epochs, if these are known.

    Args:
        results: of the study.
        median: of the values of complete trials.
    """
    sign, behind = -results.signs[0], []
    curves = [sign * read_value_curve(results, row) for row in results.ranked]
    for row in results.trials:
        if row.state != "PRUNED" or row.failure is not None or row.value is None:
            continue
        epochs = len(read_value_curve(results, row))
        others = [float(curve[:epochs].max()) for curve in curves if 0 < epochs <= len(curve)]
        behind.append((statistics.median(others) if others else sign * median) - sign * row.value)
    return behind


def _explain_corrected(results: Results, shown: str, constant: float) -> NullResult | None:
    score = results.corrected
    if score is None or score.low > constant:
        return None
    return NullResult(
        "nothing was found",
        f"{shown} is {describe_corrected(score)} once corrected for that choice, which cannot be told from always "
        f"predicting the same, {values_text(score.metric, constant)}",
    )


def _constant_score(results: Results) -> float | None:
    """Return the score of always predicting the most frequent class, or the mean; None where it is not known."""
    facts, metric = results.data_facts, results.objective.metric
    if metric in CONSTANT_SCORES:
        return CONSTANT_SCORES[metric]
    if facts is None or facts.task != "classification" or facts.classes is None:
        return None
    shares = {"val_accuracy": facts.classes.largest_share, "val_balanced_accuracy": 1 / facts.classes.classes}
    return shares.get(metric)
