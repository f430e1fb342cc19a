"""Checks of trials of several fits. They say nothing of a study whose trials have one each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpo.config.resampling import Fit
from hpo.report.checks.finding import Finding
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results
from hpo.report.format import metric_text, values_text
from hpo.report.stats.trial_stats import fit_values

__all__ = ["FIT_CHECKS"]

Evaluations = Sequence[EvaluationResults]
Array = np.ndarray[Any, np.dtype[np.float64]]
SIGNIFICANCE = 0.05
FEWEST_TRIALS, FEWEST_FITS = 3, 3
MORE = {"fold": "more folds or repeats", "split": "more random splits", "seed": "more seeds"}


def folds(results: Results, _: Evaluations) -> list[Finding]:
    """Check whether folds agree: on how well models do, and on which configurations are better."""
    if not results.definition.several_fits or not results.definition.shares_validation:
        return []  # trials with folds of their own have none in common
    fits = results.definition.fits
    values = {row.number: fit_values(results, row) for row in results.trials if row.comparable}
    whole = {number: each for number, each in values.items() if len(each) == len(fits)}
    if len(whole) < FEWEST_TRIALS or len(fits) < FEWEST_FITS:
        return []
    table = np.array([[each[fit.number] for fit in fits] for each in whole.values()])
    return [*_odd_fold(results, fits, table), _ranking(results, list(whole), table)]


def _odd_fold(results: Results, fits: Sequence[Fit], table: Array) -> list[Finding]:
    """Find a fold whose scores are unlike those of all others, whatever the configuration."""
    from scipy.stats import t  # late: it takes long to import

    names: dict[str, list[int]] = {}
    for position, fit in enumerate(fits):
        if fit.division is not None and not fit.repeat:
            names.setdefault(fit.name.split(",")[0], []).append(position)
    means = {name: float(table[:, positions].mean()) for name, positions in names.items()}
    if len(means) < FEWEST_FITS + 1:
        return []
    found = {}
    for name, mean in means.items():
        others = np.array([other for each, other in means.items() if each != name])
        spread = float(others.std(ddof=1)) * math.sqrt(1 + 1 / len(others))
        away = abs(mean - float(others.mean()))
        if away > 0:
            found[name] = float(2 * t.sf(away / spread, len(others) - 1)) if spread > 0 else 0.0
    odd = min(found, key=found.__getitem__, default=None)
    if odd is None or found[odd] * len(means) > SIGNIFICANCE:
        return []
    metric, rest = results.objective.metric, [mean for name, mean in means.items() if name != odd]
    kind = _kind(results)
    together = '; folds = { by = "group" } keeps what belongs together in one fold' if kind == "fold" else ""
    return [
        Finding(
            "folds",
            f"a {kind} unlike the others",
            "note",
            f"over all trials, {odd} has a mean {metric_text(metric)} of {values_text(metric, means[odd])}, the others "
            f"from {values_text(metric, min(rest))} to {values_text(metric, max(rest))} (p = "
            f"{min(1.0, found[odd] * len(means)):.2g})",
            f"look at the samples of that {kind}: they may be of another source, group or time, or be labelled "
            f"otherwise{together}",
        )
    ]


def _ranking(results: Results, numbers: Sequence[int], table: Array) -> Finding:
    """Tell whether fits rank configurations alike: Friedman's test, with Kendall's coefficient of concordance."""
    from scipy.stats import chi2, rankdata

    trials, fits = table.shape
    ranks = np.apply_along_axis(rankdata, 0, table * results.signs[0])
    ties = sum(float(((counts := np.unique(column, return_counts=True)[1]) ** 3 - counts).sum()) for column in ranks.T)
    sums = ranks.sum(axis=1)
    most = fits * (trials**3 - trials) - ties
    agreement = 12 * float(((sums - sums.mean()) ** 2).sum()) / (fits * most) if most > 0 else 0.0
    p = float(chi2.sf(fits * (trials - 1) * agreement, trials - 1))
    best = numbers[int(np.argmin(table.mean(axis=1) * results.signs[0]))]
    if results.best is not None and results.best.number in numbers:
        best = results.best.number  # of equals but for rounding, the one that the report calls so
    wins = _count_wins(numbers, ranks)
    first = f"trial {best} is the best of all, and the best in {wins.get(best, 0)} of {fits} fits"
    evidence = f"{first}; the fits' rankings of {trials} trials agree by {agreement:.2f} (Kendall's W; p = {p:.2g})"
    kind = _kind(results)
    if p <= SIGNIFICANCE:
        return Finding("folds", f"{kind}s that agree", "ok", evidence, "")
    return Finding(
        "folds",
        f"{kind}s that disagree",
        "warning",
        f"{evidence}: which configuration is better depends on the {kind}",
        f"take none of these trials for better than another; use {MORE[kind]}, or a wider space",
    )


def _kind(results: Results) -> str:
    """Say what the fits of a trial are, if nothing else of several kinds: folds, random splits, or seeds."""
    division = results.definition.fits[0].division
    if division is None:
        return "seed"
    return "fold" if division.kind == "fold" else "split"


def _count_wins(numbers: Sequence[int], ranks: Array) -> Mapping[int, int]:
    """Return in how many fits each trial has the best rank; ties count for each."""
    return {number: int((ranks[place] == ranks.min(axis=0)).sum()) for place, number in enumerate(numbers)}


FIT_CHECKS = (folds,)
