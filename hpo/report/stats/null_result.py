"""Null results: studies in which no configuration is better than chance."""

from __future__ import annotations

import math
import statistics

from hpo.report.data.results import Results, TrialRow
from hpo.report.format import gain_text, metric_text, number_of, values_text
from hpo.study.settled import chance_lead

__all__ = ["explain_null_result", "list_leaders"]

MOST = 5  # leaders


def list_leaders(results: Results, noise: float, chosen: TrialRow | None = None) -> tuple[TrialRow, ...]:
    """Return the best trials that the noise cannot tell apart: those within it of the best; at most five.

    Args:
        results: of the study.
        noise: standard error of a value.
        chosen: the trial that is exported, which is a leader in any case.
    """
    best = results.best
    if best is None or best.value is None:
        return ()
    sign = results.signs[0]
    near = [row for row in results.ranked if sign * ((row.value or 0.0) - best.value) <= noise][:MOST]
    if chosen is None or chosen.number in [row.number for row in near]:
        return tuple(near)
    return (*near[: MOST - 1], chosen)


def explain_null_result(results: Results) -> str | None:
    """Say that nothing was found, where the best is no better than chance makes it; None where it is, or may be.

    The best of n equal configurations is above them by chance. It is compared with what a model reaches that always
    predicts the same, where that is known, and else with the median of the trials.
    """
    outlook, best = results.outlooks[-1] if results.outlooks else None, results.best
    if outlook is None or not math.isfinite(outlook.noise) or best is None or best.value is None:
        return None
    values = [row.value for row in results.ranked if row.value is not None]
    lead = chance_lead(len(values), outlook.noise)
    metric, sign = results.objective.metric, -results.signs[0]
    name, trials = metric_text(metric), number_of(len(values), "trial")
    shown = f"the best {name} of {trials}, {values_text(metric, best.value)},"
    constant = _constant_score(results)
    if constant is not None:
        if best.value - constant > lead:
            return None
        return (
            f"{shown} is no better than always predicting the same, {values_text(metric, constant)}: the best of as "
            f"many guesses is up to {gain_text(metric, lead)} better by chance"
        )
    median = statistics.median(values)
    if sign * (best.value - median) <= lead:
        return (
            f"{shown} is {gain_text(metric, best.value - median)} better than their median, and the best of as many "
            f"equal configurations is up to {gain_text(metric, lead)} better by chance"
        )
    return None


def _constant_score(results: Results) -> float | None:
    """Return the score of always predicting the most frequent class, or the mean; None where it is not known."""
    facts, metric = results.data_facts, results.objective.metric
    if metric == "val_r2":
        return 0.0
    if metric != "val_accuracy" or facts is None or facts.task != "classification" or facts.classes is None:
        return None
    return facts.classes.largest_share
