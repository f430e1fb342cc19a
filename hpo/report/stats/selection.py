"""Correction of the best trial's score for its having been chosen, by the samples that it was chosen by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hpo.config.metric_range import metric_range
from hpo.datasets.sample_scores import SampleScores
from hpo.report.data.corrected_score import BestSoFar, CorrectedScore
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.data.sample_scores import SampleTable, read_sample_scores
from hpo.report.stats.candidates import Candidates, count_samples, make_candidates
from hpo.report.stats.pairwise import paired_errors
from hpo.report.stats.selection_bias import QUANTILE, score_interval
from hpo.study import Study

__all__ = ["correct_selection", "make_study_candidates", "read_corrected_results"]

PARTS = 4  # of the trials, at the end of each of which the best so far is corrected
FEWEST = 4  # trials in a part


def read_corrected_results(study: Study) -> Results:
    """Read a study once, with its corrected score; errors as those of `read_results`."""
    results = read_results(study)
    return replace(results, corrected=correct_selection(read_sample_scores(study), results))


def correct_selection(table: SampleTable, results: Results) -> CorrectedScore | None:
    """Correct the best trial's score for its having been chosen, with its epoch, from among all.

    None where there is nothing to correct by: several objectives, no complete trial, no sample scores of the best. None
    of an evaluation, which chooses nothing.
    """
    if results.definition.evaluation is not None:
        return None
    best, candidates = results.best, make_study_candidates(table, results)
    if best is None or best.value is None or candidates is None or best.number not in candidates.numbers:
        return None
    leaders, fits = candidates.leaders(), table.trials[best.number]
    draws = leaders.resample()
    correction = draws.correct()
    error = math.hypot(correction.error, _training_error(best, fits, correction.sample_error))
    trials, samples = len(np.unique(candidates.numbers)), count_samples(fits, table.splits)
    corrected = best.value - candidates.sign * correction.bias
    low, high = _interval(candidates.metric, best.value, corrected, error, samples)
    shares, total = Counter(leaders.numbers[draws.winners].tolist()), len(draws.winners)
    return CorrectedScore(
        number=best.number,
        metric=candidates.metric,
        chosen=best.value,
        corrected=corrected,
        low=low,
        high=high,
        error=error,
        sample_error=correction.sample_error,
        bias=correction.bias,
        chosen_again=shares.pop(best.number, 0) / total,
        others=tuple((number, count / total) for number, count in shares.most_common()),
        trials=trials,
        left_out=sum(row.number not in candidates.numbers for row in results.ranked),
        samples=samples,
        fits=len(fits),
        history=(*_history(candidates), BestSoFar(trials, best.value, corrected)),
        difference_errors=paired_errors(table, results, best.number),
        groups=0 if candidates.groups is None else int(candidates.groups.max()) + 1,
    )


def make_study_candidates(table: SampleTable, results: Results) -> Candidates | None:
    """Make the candidates of a study's objective; None where it has several, or no sample scores of it."""
    objective = results.objective
    trials = {
        row.number: fits
        for row in results.ranked
        if (fits := table.trials.get(row.number)) and all(fit.metric == objective.metric for fit in fits)
    }
    if len(results.objectives) > 1 or not trials:
        return None
    values = {
        (row.number, int(epoch["epoch"])): float(epoch[objective.metric])
        for row in results.ranked
        for epoch in row.epochs
        if epoch.get("epoch") is not None and epoch.get(objective.metric) is not None
    }
    return make_candidates(objective.metric, -results.signs[0], trials, table.splits, values)


def _history(candidates: Candidates) -> list[BestSoFar]:
    """Correct the best of the first quarter, half and three quarters of the trials."""
    numbers = np.unique(candidates.numbers)
    if len(numbers) < PARTS * FEWEST:
        return []
    history = []
    for part in range(1, PARTS):
        count = len(numbers) * part // PARTS
        first = candidates.keep(np.flatnonzero(candidates.numbers < numbers[count])).leaders()
        draws = first.resample()
        chosen = float(draws.whole.max())
        signs = candidates.sign
        history.append(BestSoFar(count, signs * chosen, signs * (chosen - draws.correct().bias)))
    return history


def _training_error(row: TrialRow, fits: Sequence[SampleScores], sample_error: float) -> float:
    """Return the part of the standard error over a trial's fits that is not of the samples.

    Fits on the same samples differ by their training alone; those on other samples by that and by the samples.
    """
    over_fits = row.standard_error
    if len(fits) == 1 or over_fits is None:
        return 0.0
    if len({fit.split for fit in fits}) == 1:
        return over_fits
    return math.sqrt(max(0.0, over_fits**2 - sample_error**2))


def _interval(metric: str, chosen: float, corrected: float, error: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval; of a metric with two bounds that of a share of as many samples as give this error."""
    least, most = metric_range(metric)
    if not math.isfinite(most - least):
        return max(corrected - QUANTILE * error, least), min(corrected + QUANTILE * error, most)
    variance = (chosen - least) * (most - chosen)
    equivalent = variance / error**2 if error > 0 and variance > 0 else float(samples)
    return score_interval(corrected, equivalent, (least, most))
