"""Checks of the choice: whether the search has tuned to its validation samples."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.checks.finding import Finding
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results
from hpo.report.format import gain_text, metric_text, percent_text, values_text

__all__ = ["SELECTION_CHECKS"]

RISE = 0.5  # standard errors by which the score must rise for the question to arise


def overtuning(results: Results, _: Sequence[EvaluationResults]) -> list[Finding]:
    """Check that what more trials gained on the validation samples is not their luck alone.

    Schneider, Bischl and Feurer, "Overtuning in Hyperparameter Optimization", 2025.
    """
    score = results.corrected
    if score is None or len(score.history) < 2:
        return []
    half, last = score.history[len(score.history) // 2 - 1], score.history[-1]
    sign, metric = -results.signs[0], score.metric
    rise, gain = sign * (last.chosen - half.chosen), sign * (last.corrected - half.corrected)
    name = metric_text(metric)
    evidence = (
        f"the best {name} of the first {half.trials} trials is {values_text(metric, half.chosen)}, and of all "
        f"{last.trials} {values_text(metric, last.chosen)}; corrected for the choice these are "
        f"{values_text(metric, half.corrected)} and {values_text(metric, last.corrected)}"
    )
    if rise <= RISE * score.sample_error or gain > 0:
        return [Finding("overtuning", "overtuning", "ok", evidence)]
    again = percent_text(score.chosen_again)
    return [
        Finding(
            "overtuning",
            "overtuning",
            "warning" if -gain > score.sample_error else "note",
            f"{evidence}: the gain of {gain_text(metric, rise)} is luck with these validation samples; with others of "
            f"the same kind trial {score.number} would have been the best in {again} of the draws",
            "validate on more samples, or on folds, or choose from fresh seeds: "
            f"`{format_command(results, 'evaluate')}`",
        )
    ]


SELECTION_CHECKS = (overtuning,)
