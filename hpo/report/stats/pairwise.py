"""Comparison of two trials by their scores of the same validation samples.

Both met the same easy and the same hard samples, so that the difference is known far better than either score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hpo.datasets.sample_scores import SampleScores
from hpo.report.data.results import Results, TrialRow
from hpo.report.data.sample_scores import SampleTable
from hpo.report.stats.candidates import Candidates, make_candidates
from hpo.report.stats.evaluation_stats import LEVEL
from hpo.report.stats.trial_stats import fit_values
from hpo.study.standard_error import standard_error

__all__ = ["PairedComparison", "compare_trials", "mcnemar_p", "paired_errors"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PairedComparison:
    """Two trials, compared sample by sample.

    Attributes:
        first, second: numbers of the trials.
        difference: of their scores, in the metric's units; above 0 where the first is better.
        low, high: its interval by the bootstrap; its level allows for the number of comparisons (Bonferroni).
        p_value: of no difference; of an accuracy by McNemar's exact test if all samples are kept, else by the
            bootstrap. Times the number of comparisons, at most 1.
        test: which of the two.
        only_first, only_second: of an accuracy, how many samples only the first classified right, and only the second.
    """

    first: int
    second: int
    difference: float
    low: float
    high: float
    p_value: float
    test: Literal["McNemar", "bootstrap"]
    only_first: int | None = None
    only_second: int | None = None

    @property
    def significant(self) -> bool:
        """True where the difference is more than chance in the samples explains (5 %)."""
        return self.p_value < 1 - LEVEL


def compare_trials(table: SampleTable, results: Results, first: int, others: Sequence[int]) -> list[PairedComparison]:
    """Compare a trial with others at the epochs that their values are from; those without sample scores are left out.

    The p-values are of trials that were named in advance. Of the best of many they are too small, for it is lucky.
    """
    found = _best_epochs(table, results, [first, *others])
    candidates = _candidates(table, results, found)
    if candidates is None or first not in found or len(found) < 2:
        return []
    draws, place = candidates.resample(), {int(number): i for i, number in enumerate(candidates.numbers)}
    rivals = [number for number in others if number in found]
    comparisons = []
    for number in rivals:
        one, other = (float(draws.whole[place[each]]) for each in (first, number))
        difference = 0.0 if math.isclose(one, other, rel_tol=1e-12) else one - other  # means over fits are rounded
        differences = draws.in_bag[:, place[first]] - draws.in_bag[:, place[number]]
        tail = (1 - LEVEL) / len(rivals) / 2
        low, high = np.quantile(differences, [tail, 1 - tail])
        counts = _count_discordant(table, found[first], found[number])
        p_value = _bootstrap_p(differences) if counts is None else mcnemar_p(*counts)
        comparisons.append(
            PairedComparison(
                first,
                number,
                difference,
                float(low),
                float(high),
                min(1.0, p_value * len(rivals)),
                "bootstrap" if counts is None else "McNemar",
                *(counts or (None, None)),
            )
        )
    return comparisons


def paired_errors(table: SampleTable, results: Results, first: int) -> dict[int, float]:
    """Return by number the standard error of each trial's difference from trial `first`.

    It is that of the samples, and of several fits no less than that of their differences, fit by fit.
    """
    found = _best_epochs(table, results, [row.number for row in results.ranked])
    candidates = _candidates(table, results, found)
    if candidates is None or first not in found:
        return {}
    row = results.trial(first)
    return {
        number: max(error, _fits_error(results, row, results.trial(number)))
        for number, error in candidates.difference_errors(first).items()
    }


def _fits_error(results: Results, first: TrialRow, second: TrialRow) -> float:
    """Return the standard error of the difference of two trials by their common fits; 0 of a single one.

    Fits whose splits share training samples widen it as they do the first trial's own standard error.
    """
    values, others = fit_values(results, first), fit_values(results, second)
    common = [fit for fit in results.definition.fits if fit.number in values and fit.number in others]
    error = standard_error([(fit, values[fit.number] - others[fit.number]) for fit in common], 0.0) or 0.0
    own = standard_error([(fit, values[fit.number]) for fit in common], 0.0)
    return error * max(1.0, first.standard_error / own) if own and first.standard_error else error


def _best_epochs(table: SampleTable, results: Results, numbers: Sequence[int]) -> dict[int, tuple[SampleScores, ...]]:
    """Return the sample scores of the objective at the best epoch of each trial that has some."""
    metric = results.objective.metric
    return {
        number: tuple(_at_best(fit) for fit in table.trials[number])
        for number in numbers
        if table.trials.get(number) and all(fit.metric == metric for fit in table.trials[number])
    }


def _at_best(fit: SampleScores) -> SampleScores:
    return replace(fit, epochs=fit.epochs[[fit.best]], scores=fit.scores[[fit.best]], best=0)


def _candidates(
    table: SampleTable, results: Results, trials: Mapping[int, Sequence[SampleScores]]
) -> Candidates | None:
    if not trials or len(results.objectives) > 1:
        return None
    # Of a large split a part of the samples is kept: that a difference is of all samples, the recorded values tell.
    values = {
        (number, int(fits[0].epochs[0])): value
        for number, fits in trials.items()
        if (value := results.trial(number).value) is not None
    }
    return make_candidates(results.objective.metric, -results.signs[0], trials, table.splits, values)


def _count_discordant(
    table: SampleTable, first: Sequence[SampleScores], second: Sequence[SampleScores]
) -> tuple[int, int] | None:
    """Count the samples that one trial alone classified right.

    None unless each sample is right or wrong, and once, and by itself: those of a group are alike. None of a split of
    which a part is kept, too: the others are in the difference, but not in the counts.
    """
    splits = [fit.split for fit in first]
    if splits != [fit.split for fit in second] or first[0].kind != "correct":
        return None
    found = [table.splits[digest] for digest in splits]
    if any(split.groups is not None or len(split.labels) < split.count for split in found):
        return None
    if len(splits) > 1:
        rows = [split.index for split in found]
        known = [each for each in rows if each is not None]
        if len(known) < len(rows) or len(np.unique(np.concatenate(known))) < sum(map(len, known)):
            return None
    one, other = (np.concatenate([fit.scores[0] for fit in fits]) > 0 for fits in (first, second))
    return int((one & ~other).sum()), int((other & ~one).sum())


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test: of the samples that one alone has right, each has as many."""
    if not only_first + only_second:
        return 1.0
    from scipy.stats import binomtest  # half a second to import

    return float(binomtest(only_first, only_first + only_second).pvalue)


def _bootstrap_p(differences: Array) -> float:
    count = len(differences)
    least = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (count + 1))
