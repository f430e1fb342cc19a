"""Racing: a trial of several fits is dropped once it is worse than a rival, on the fits that both have, beyond noise.

The test is Wilcoxon's of signed ranks, one-sided, as in Optuna's `WilcoxonPruner`. It is exact, so that few fits cannot
drop anything by chance: of n differences the smallest p is 2**-n.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hpo.config.resampling import Resampling
from hpo.storage.study_storage import EpochMetrics
from hpo.study.attributes import read_fit_returns, read_whole
from hpo.study.fit_pruner import FitPruner

if TYPE_CHECKING:
    from hpo.study.definition import Definition
    from hpo.study.study import Study

__all__ = ["FIRST_FITS", "Loss", "Race", "compare_fits", "count_stages", "explain_idle_pruner", "rename_rival"]

FIRST_FITS = 3  # that a trial begins with, where it earns the others
RIVAL = re.compile(r"(?<=^worse than trial )\d+")  # in a loss in words
Values = Mapping[int, float]  # of a metric, by fit
Curves = Mapping[int, Sequence[EpochMetrics]]  # rows of metrics, by fit


@dataclass(frozen=True)
class Loss:
    """Loss of a trial against a rival: why it is dropped.

    Attributes:
        rival: the number of the other trial.
        fits: how many fits both have.
        p: of the test, that differences like these come by chance.
    """

    rival: int
    fits: int
    p: float

    @property
    def text(self) -> str:
        """The loss in words."""
        return f"worse than trial {self.rival} on {self.fits} shared fits (p = {self.p:.2g})"


def explain_idle_pruner(definition: Definition) -> str | None:
    """Return a line on a pruner of fits that can drop no trial, for these have too few; None of any other."""
    resampling = definition.resampling
    if definition.pruner.name != "wilcoxon" or resampling is None:
        return None
    pruner, fits = FitPruner(**definition.pruner.options), resampling.count
    lead = f"pruner wilcoxon will drop nothing: each trial has {fits} fits, "
    if fits < pruner.least_fits:
        return f"{lead}and n_startup_steps = {pruner.least_fits} asks for more; lower it"
    p = 0.5**fits
    if p <= pruner.p_threshold or resampling.intensify:  # which drops what is worse on each fit all the same
        return None
    return f"{lead}of which the smallest p is {p:g}, above p_threshold = {pruner.p_threshold:g}; take more, or raise it"


def rename_rival(text: str, numbers: Mapping[int, int], study: str) -> str:
    """Return a loss in words as another study has it, which has kept some trials.

    Args:
        text: the loss, as `study` has it.
        numbers: those of the trials that are kept, by the number that each has in `study`.
        study: the study's name.
    """

    def name(found: re.Match[str]) -> str:
        number = numbers.get(int(found[0]))
        return f"{found[0]} of study {study}" if number is None else str(number)

    return RIVAL.sub(name, text)


def count_stages(resampling: Resampling) -> list[int]:
    """Return how many fits a trial has at each stage: all at once, or a few and then twice as many each time."""
    whole = resampling.count
    if not resampling.intensify:
        return [whole]
    stages = [min(FIRST_FITS, whole)]
    while stages[-1] < whole:
        stages.append(min(2 * stages[-1], whole))
    return stages


def compare_fits(
    values: Values, rivals: Mapping[int, Values], p_threshold: float, *, maximize: bool, least: bool = False
) -> Loss | None:
    """Return the loss of a trial against the best of its rivals; None where it may still be as good.

    Args:
        values: of the trial, by the number of the fit.
        rivals: those of others, by the number of the trial, at the same place.
        p_threshold: p below which it is dropped.
        maximize: whether larger values are better.
        least: whether it is dropped as well where it is worse on every shared fit, though these are too few for a p as
            small as that; with less than two it never is.
    """
    shared = {number: sorted(values.keys() & rival.keys()) for number, rival in rivals.items()}
    sign = 1 if maximize else -1
    means = {n: sum(rivals[n][fit] for fit in fits) / len(fits) for n, fits in shared.items() if len(fits) > 1}
    means = {number: mean for number, mean in means.items() if math.isfinite(mean)}  # without those that diverged
    if not means:
        return None
    best = max(means, key=lambda number: (len(shared[number]), sign * means[number]))
    behind = [sign * (rivals[best][fit] - values[fit]) for fit in shared[best]]
    if not all(map(math.isfinite, behind)) or math.fsum(behind) <= 0:
        return None
    p = _signed_ranks(behind)
    limit = max(p_threshold, 0.5 ** len(behind)) if least else p_threshold
    return Loss(best, len(behind), p) if p <= limit else None


def _signed_ranks(differences: Sequence[float]) -> float:
    """Return the p of Wilcoxon's test that differences are not above zero; zeros are shared."""
    from scipy.stats import wilcoxon  # late: it takes long to import

    if not any(differences):
        return 1.0
    return float(wilcoxon(np.asarray(differences), alternative="greater", zero_method="zsplit").pvalue)


class Race:
    """Race of a study's trials: those in training here against each other, and against the best that is COMPLETE.

    Args:
        study: whose trials.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._metric = study.definition.objectives[0].metric
        self.prunes = study.definition.pruner.name == "wilcoxon"
        self._best: tuple[int, Curves] | None = None  # id and curves of the last incumbent

    @cached_property
    def _pruner(self) -> FitPruner:
        pruner = self._study.optuna_study.pruner
        return pruner if isinstance(pruner, FitPruner) else FitPruner()

    def judge(self, number: int, position: int, curves: Mapping[int, Curves]) -> Loss | None:
        """Return the loss of a trial that has done an epoch; None where it goes on.

        Args:
            number: of the trial.
            position: of the epoch among its rows, from 0.
            curves: those of this trial and others in training here, by number; see `hpo.training.fits.JointTrial`.
        """
        if position < self._pruner.warmup:
            return None
        mates = {each: self._values(those, position) for each, those in curves.items()}
        rivals = {each: values for each, values in mates.items() if each != number and values}
        if (best := self._incumbent(number)) is not None:
            rivals[best[0]] = self._values(best[1], position, ended=True)
        return self._compare(mates[number], rivals)

    def judge_stage(self, number: int, values: Values, mates: Mapping[int, Values]) -> Loss | None:
        """Return the loss of a trial that has trained its first fits to their end; None where it earns more.

        Args:
            number: of the trial.
            values: those that its own is the mean of, by fit.
            mates: those of the others that have come as far with it, by number.
        """
        rivals = {each: those for each, those in mates.items() if each != number}
        if (best := self._incumbent(number)) is not None:
            trial = self._study.best()
            attrs = {} if trial is None else trial.user_attrs
            epoch = read_whole(attrs, "best_epoch")
            rows = {fit: [row for row in curve if row.get("epoch") == epoch] for fit, curve in best[1].items()}
            rivals[best[0]] = {**self._values(rows, 0), **read_fit_returns(attrs, rows)}
        return self._compare(values, rivals, least=True)

    def _compare(self, values: Values, rivals: Mapping[int, Values], *, least: bool = False) -> Loss | None:
        pruner = self._pruner
        enough = {each: those for each, those in rivals.items() if len(those.keys() & values) >= pruner.least_fits}
        return compare_fits(values, enough, pruner.p_threshold, maximize=self._study.maximize, least=least)

    def _values(self, curves: Curves, position: int, *, ended: bool = False) -> Values:
        """Return the fits' values at a position; of curves that have ended before, the last ones."""
        places = {fit: min(position, len(rows) - 1) if ended else position for fit, rows in curves.items() if rows}
        rows = {fit: curves[fit][place] for fit, place in places.items() if place < len(curves[fit])}
        return {fit: row[self._metric] for fit, row in rows.items() if self._metric in row}

    def _incumbent(self, number: int) -> tuple[int, Curves] | None:
        """Return the number and the curves of the best COMPLETE trial; its curves are read once."""
        best = self._study.best()
        if best is None or best.number == number:
            return None
        if self._best is None or self._best[0] != best._trial_id:
            found = self._study.storage.read_fits(self._study.id, best._trial_id)
            self._best = best._trial_id, found.get(best._trial_id, {})
        return best.number, self._best[1]
