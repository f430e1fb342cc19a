"""Comparison of a network with a reference model, row by row where the predictions of both are stored.

A reference model is trained once. What chance can do is then in the rows that both are measured on, and in the seeds of
the network; the rows are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hpo.errors import DataError
from hpo.report.data.evaluations import CandidateRuns, EvaluationRun
from hpo.report.data.reference_models import ReferenceModels
from hpo.report.stats.evaluation_stats import FEWEST_SEEDS, LEVEL
from hpo.report.stats.mean_interval import mean_reach
from hpo.report.stats.pairwise import mcnemar_p

__all__ = ["RowGains", "measure_row_gains"]

Array = np.ndarray[Any, Any]
ERRORS: dict[str, Callable[[Array], Array]] = {"r2": np.square, "mse": np.square, "rmse": np.square, "mae": np.abs}


class RowGains:
    """Gain of a reference model on each row over each run of a network; above 0 where it is better.

    Attributes:
        values: (runs, rows), shares of right classes, or errors in units of their deviation.
    """

    def __init__(self, values: Array) -> None:
        self.values = values

    @property
    def apart(self) -> bool:
        """True if the difference is significant: of few seeds over the rows with each of them, else over both."""
        runs, rows = self.values.shape
        if rows < 2:
            return False
        if runs < FEWEST_SEEDS:
            return all(map(_differs, self.values)) and len(set(np.sign(self.values.mean(1)))) == 1
        reach = math.hypot(mean_reach(self.values.mean(1).tolist()), _row_reach(self.values.mean(0)))
        return _leaves_zero(float(self.values.mean()), reach)


def _differs(gains: Array) -> bool:
    """Tell by the rows of a single run: of right and wrong classes by McNemar's exact test, else by Student's t."""
    if np.isin(gains, (-1, 0, 1)).all():
        return mcnemar_p(int((gains > 0).sum()), int((gains < 0).sum())) < 1 - LEVEL
    return _leaves_zero(float(gains.mean()), _row_reach(gains))


def _leaves_zero(mean: float, reach: float) -> bool:
    return abs(mean) > reach


def _row_reach(values: Array) -> float:
    """Return half the interval of the mean gain; its degrees of freedom are of the rows that differ, often a few."""
    from scipy.stats import t  # half a second to import

    freedom = np.count_nonzero(values) - 1
    if freedom < 1:
        return math.inf
    return float(t.isf((1 - LEVEL) / 2, freedom) * values.std(ddof=1) / math.sqrt(len(values)))


def measure_row_gains(
    candidate: CandidateRuns, models: ReferenceModels, place: int, metric: str, split: str
) -> RowGains | None:
    """Return the gains of a reference model; None where predictions are not here, or a metric is no mean over rows.

    Args:
        candidate: a configuration with its runs.
        models: reference models on the same data.
        place: which of them.
        metric: `val_…` or `test_…`.
        split: `validation` or `test`.
    """
    name = metric.partition("_")[2]
    runs = [run for run in candidate.complete_runs if run.seed in candidate.scores(metric)]
    try:
        found = models.predictions(split, place)
        if found is None or not runs:
            return None
        truth, predicted = found
        rows = [_run_gains(run, split, name, truth, predicted) for run in runs]
    except DataError:  # the file of a run is damaged, of which the chapter on errors tells
        return None
    known = [row for row in rows if row is not None]
    return RowGains(np.stack(known)) if len(known) == len(rows) else None


def _run_gains(run: EvaluationRun, split: str, name: str, truth: Array, predicted: Array) -> Array | None:
    if name == "accuracy":
        classes = run.predictions(split)
        if classes is None or not np.array_equal(classes.labels, truth):
            return None
        gains: Array = (predicted == truth).astype(float) - classes.correct
        return gains
    targets = run.target_predictions(split) if name in ERRORS else None
    if targets is None or targets.targets.shape != truth.shape or not np.allclose(targets.targets, truth, rtol=1e-5):
        return None
    spread: Array = truth.std(0)
    errors = [
        ERRORS[name]((truth - each) / np.where(spread > 0, spread, 1)) for each in (targets.predictions, predicted)
    ]
    return _mean_columns(errors)


def _mean_columns(errors: Sequence[Array]) -> Array:
    gains: Array = (errors[0] - errors[1]).mean(1)
    return gains
