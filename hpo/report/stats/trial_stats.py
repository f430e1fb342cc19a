"""Statistics shared by the checks: noise of a score, a parameter's trials, curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from hpo.config.parameter import Value
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.space import Dimension
from hpo.space.domains import Range
from hpo.study import Objective, outlook

__all__ = [
    "CHANGE",
    "adaptive_caveat",
    "choose_curve_objective",
    "count_validation_samples",
    "difference_error",
    "estimate_retraining_noise",
    "expected_epochs",
    "fit_values",
    "is_adaptive",
    "list_top_trials",
    "loss_margin",
    "own_error",
    "read_curve",
    "read_value_curve",
    "standard_error",
    "to_unit_interval",
    "trials_with_value",
]


LEADERS = 5
CHANGE = 0.05  # of a loss from which it has risen, or still falls


def is_adaptive(results: Results) -> bool:
    """Return whether trials were chosen by the results of earlier ones."""
    return not (results.definition.fixed or results.definition.sampler.name == "random")


def adaptive_caveat(results: Results) -> str:
    """Return what evidence from adaptively sampled trials must say."""
    return " (weaker evidence: the sampler chose these trials by earlier results)" if is_adaptive(results) else ""


def list_top_trials(results: Results) -> Sequence[TrialRow]:
    """List the trials whose curves count: one alone may be odd, and the worse half is bad for reasons of its own."""
    return results.top(min(LEADERS, math.ceil(len(results.ranked) / 2)))


def count_validation_samples(results: Results) -> int | None:
    """Count the samples that the best trial was validated on, once each in folds; None where that is not known."""
    best = results.best
    if best is None or best.config is None:
        return None
    definition = results.definition
    return outlook.count_validation_samples(
        definition, best.config, lambda: definition.baseline_config(results.space), results.data_facts
    )


def standard_error(results: Results) -> float | None:
    """Return the standard error of the best trial's value.

    Of several fits it is that of their mean, and no less than that of their validation samples: the spread of a few
    fits may be small by chance. Else it is that of the chance in the validation samples alone: of any metric by the
    bootstrap where the trial has sample scores, or as it was recorded; else of an accuracy p over n samples,
    sqrt(p (1 - p) / n). None of other metrics, which the number of samples alone does not tell.
    """
    count, best, corrected = count_validation_samples(results), results.best, results.corrected
    of_fits = best.standard_error if best is not None and best.standard_error else 0.0
    if corrected is not None and corrected.sample_error > 0:
        return max(corrected.sample_error, of_fits if corrected.fits > 1 else 0.0)
    if of_fits:
        return of_fits
    if count is None or best is None or best.value is None or results.objective.metric != "val_accuracy":
        return None
    return outlook.binomial_error(best.value, count)


def difference_error(results: Results, row: TrialRow | None = None) -> float | None:
    """Return the standard error by which a trial is told from the best; None as of `standard_error`.

    Where both have sample scores it is that of their difference, sample by sample. Else it is that of one trial where
    all have the same validation samples, for what is hard in these is hard for all; where each has a split of its own,
    that of the difference of two independent scores.

    Args:
        results: of the study.
        row: the trial; None for any.
    """
    paired = results.corrected.difference_errors if results.corrected is not None else {}
    if row is not None and (known := paired.get(row.number)):  # of 0 the samples that are kept are too few
        return known
    error = standard_error(results)
    return error if error is None or results.definition.shares_validation else math.sqrt(2) * error


def own_error(results: Results) -> float | None:
    """Return the standard error of what a trial's value has of its own: what is hard in its samples is hard for all.

    Where trials have sample scores it follows from their differences from the best. None where it is not known.
    """
    errors = list(results.corrected.difference_errors.values()) if results.corrected is not None else []
    known = [error for error in errors if error > 0]
    return statistics.median(known) / math.sqrt(2) if known else None


def fit_values(results: Results, row: TrialRow) -> dict[int, float]:
    """Return the first objective of each fit of a trial, as its loop returned it or at the trial's best epoch, by the
    fit's number.
    """
    if row.fit_returns:
        return dict(row.fit_returns)
    metric, found = results.objective.metric, dict[int, float]()
    for number, epochs in row.fits.items():
        at_best = next((epoch for epoch in epochs if epoch.get("epoch") == row.best_epoch), {})
        if metric in at_best and math.isfinite(at_best[metric]):
            found[number] = at_best[metric]
    return found


def expected_epochs(results: Results, row: TrialRow) -> int:
    """Return after how many epochs a trial that was stopped is taken to have ended by itself: all that it may have.

    With patience, as large a part of them as the complete trials had on average.
    """
    assert row.config is not None
    whole: float = row.config.epochs
    if row.config.patience:
        ended = [each for each in results.trials if each.state == "COMPLETE" and each.config and each.epochs]
        parts = [len(each.epochs) / each.config.epochs for each in ended if each.config]
        whole *= statistics.fmean(parts) if parts else 1.0
    return max(round(whole), len(row.epochs))


def estimate_retraining_noise(evaluations: Sequence[EvaluationResults]) -> float | None:
    """Estimate the standard deviation of the validation score over seeds, pooled; None without two seeds."""
    groups = []
    for evaluation in evaluations:
        metric = (evaluation.validation_metric if evaluation.on_own_data else None) or ""
        for candidate in evaluation.candidates if metric else ():
            scores = [run.validation.get(metric, math.nan) for run in candidate.runs if run.state == "COMPLETE"]
            groups.append([score for score in scores if math.isfinite(score)])
    squares = [(len(g) - 1, float(np.var(g, ddof=1))) for g in groups if len(g) > 1]
    freedom = sum(n for n, _ in squares)
    return math.sqrt(sum(n * v for n, v in squares) / freedom) if freedom else None


def trials_with_value(rows: Sequence[TrialRow], dimension: Dimension) -> list[tuple[TrialRow, Value]]:
    """Return trials with their values of the dimension, in order; values outside its domain are left out."""
    pairs = [(row, row.params[dimension.key]) for row in rows if not row.extra and dimension.key in row.params]
    return [(row, value) for row, value in pairs if _is_in_domain(dimension, value)]


def _is_in_domain(dimension: Dimension, value: Value) -> bool:
    try:
        return dimension.domain.contains(value)
    except (TypeError, ValueError):
        return False


def to_unit_interval(domain: Range, value: float) -> float:
    """Return the place of a value between the bounds on the parameter's own scale, from 0 to 1."""
    if domain.high == domain.low:
        return 0.5
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def read_curve(row: TrialRow, metric: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a metric by epoch; epochs that lack it, or where it is not finite, are left out."""
    values = [epoch.get(metric) for epoch in row.epochs]
    return np.array([float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)], dtype=np.float64)


def loss_margin(loss: float) -> float:
    """Return by how much another loss must differ from one to be told from it; a loss of densities may be negative."""
    return CHANGE * abs(loss)


def read_value_curve(results: Results, row: TrialRow) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the curve of the first objective that ends in a trial's value; empty if the value is of something else.

    A function, or a training loop, may report one thing and return another. What it reported says something about the
    value only if that is the last or the best of it.
    """
    curve = read_curve(row, results.objective.metric)
    returned = not results.definition.configured or row.value_from == "returned"
    if not returned or not len(curve) or row.value is None:
        return curve
    best = curve.min() if results.signs[0] == 1 else curve.max()
    return curve if any(math.isclose(row.value, each, rel_tol=1e-6) for each in (curve[-1], best)) else curve[:0]


def choose_curve_objective(results: Results) -> Objective | None:
    """Return the metric whose curves are shown, with its direction; None before the first epoch.

    It is the first objective that is recorded by epoch, or else `val_accuracy`, `val_r2` or `val_loss`.
    """
    recorded = {key for row in results.trials for epoch in row.epochs[:1] for key in epoch}
    accuracy = Objective(metric="val_accuracy", direction="maximize")
    r2 = Objective(metric="val_r2", direction="maximize")
    loss = Objective(metric="val_loss", direction="minimize")
    return next((each for each in (*results.objectives, accuracy, r2, loss) if each.metric in recorded), None)
