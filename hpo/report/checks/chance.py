"""Checks of chance: whether seeds matter more than parameters, and whether scores depend on the split of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpo.report.checks.finding import Finding
from hpo.report.checks.trust import advise_on_noise
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults
from hpo.report.data.results import Results
from hpo.report.format import metric_text, number_of, percent_text
from hpo.report.stats.variance_sources import Spread, measure_spread, ratio_interval
from hpo.study import Definition
from hpo.utils.text import format_rough

__all__ = ["CHANCE_CHECKS", "seeds", "split"]

Evaluations = Sequence[EvaluationResults]
FEWEST_TRIALS = 8
FEWEST_RUNS = 3
QUARTILES = 1.349  # standard deviations that the quartiles of a normal distribution are apart


def seeds(results: Results, evaluations: Evaluations) -> list[Finding]:
    """Check that parameters matter more than the seed: trials must differ by more than runs of one configuration."""
    evaluation = _find_evaluation(results, evaluations)
    values = np.array([row.value for row in results.ranked], dtype=float)
    spread = None if evaluation is None else _spread(evaluation, evaluation.candidates)
    if spread is None or len(values) < FEWEST_TRIALS:
        return []
    low, high = np.quantile(values, [0.25, 0.75])  # a few bad trials say nothing of those that one chooses among
    between, fits = (float(high - low) / QUARTILES) ** 2, len(results.definition.fits)
    own = spread.variance / fits  # of a trial's value, which is the mean over its fits
    share = min(1.0, own / between) if between else 1.0
    bad = share > 0.5 and own > 0
    name = metric_text(results.objective.metric)
    mean = f", by {format_rough(own**0.5)} as the mean over {fits} fits," if fits > 1 else ","
    evidence = (
        f"{name} varies by {format_rough(spread.deviation)} (standard deviation) from seed to "
        f"seed{mean} and by {format_rough(between**0.5)} over the middle half of "
        f"{number_of(len(values), 'trial')}: seeds make {percent_text(share)} of the variance"
    )
    return [
        Finding(
            "seeds",
            "seeds matter more than parameters" if bad else "seeds and parameters",
            "warning" if bad else "ok",
            evidence if between or bad else f"neither seeds nor parameters change {name}",
            f"{_advise_on_seeds(results.definition)}, or vary parameters that matter more" if bad else "",
            "seeds = 3" if bad and fits == 1 else "",
        )
    ]


def _advise_on_seeds(definition: Definition) -> str:
    return (
        advise_on_noise(definition) if definition.several_fits else "let a trial's value be the mean over several seeds"
    )


def split(results: Results, evaluations: Evaluations) -> list[Finding]:
    """Check that scores, and the order of the configurations, do not depend on the split of the data.

    Those of a study whose trials are means over several splits are found to be ok, whatever a single split does.
    """
    evaluation = _find_evaluation(results, evaluations)
    varied = None if evaluation is None else evaluation.varied.get("split")
    if evaluation is None or varied is None:
        return []
    moved, seeded = _spread(evaluation, varied.candidates), _spread(evaluation, evaluation.candidates)
    if moved is None or seeded is None:
        return []
    clear = moved.variance > 0 and (seeded.variance == 0 or ratio_interval(moved, seeded)[1] > 1)
    changed, splits = _count_changes(varied)
    bad = (clear or 2 * changed > splits) and results.definition.fits[0].division is None
    evidence = (
        f"another split moves {metric_text(results.objective.metric)} by {format_rough(moved.deviation)} (standard "
        f"deviation), another seed by {format_rough(seeded.deviation)}"
    )
    if splits:
        where = f"on {changed} of {number_of(splits, 'split')} another configuration is the best"
        evidence += f"; {where if changed else f'the same configuration is the best on all {splits} splits'}"
    return [
        Finding(
            "split",
            "scores depend on the split" if bad else "dependence on the split",
            "warning" if bad else "ok",
            evidence,
            "let a trial's value be the mean over folds" if bad else "",
            "folds = 5" if bad else "",
        )
    ]


def _find_evaluation(results: Results, evaluations: Evaluations) -> EvaluationResults | None:
    """Return the evaluation on the study's own data that measures its first objective from fresh seeds."""
    metric = results.objective.metric
    return next((each for each in evaluations if each.on_own_data and each.validation_metric == metric), None)


def _chosen(candidates: Sequence[CandidateRuns]) -> list[CandidateRuns]:
    """Return the configurations that the study has chosen; without any, the rival."""
    return [each for each in candidates if not each.baseline] or list(candidates)


def _spread(evaluation: EvaluationResults, candidates: Sequence[CandidateRuns]) -> Spread | None:
    """Return the spread of the chosen configurations; None of fewer than three runs of each."""
    metric = evaluation.validation_metric
    scores = [each.scores(metric) for each in _chosen(candidates)] if metric else []
    return measure_spread([each for each in scores if len(each) >= FEWEST_RUNS])


def _count_changes(varied: EvaluationResults) -> tuple[int, int]:
    """Return on how many splits another configuration is the best than on most, and how many have a single best."""
    metric = varied.validation_metric
    chosen = _chosen(varied.candidates)
    if metric is None or len(chosen) < 2:
        return 0, 0
    scores = [each.scores(metric) for each in chosen]
    shared = sorted(set.intersection(*(set(each) for each in scores)))
    sign = 1 if varied.objective.direction == "maximize" else -1
    table = sign * np.array([[each[seed] for each in scores] for seed in shared]).reshape(len(shared), -1)
    single = table[(table == table.max(1, keepdims=True)).sum(1) == 1] if len(table) else table
    if not len(single):
        return 0, 0
    most = int(np.bincount(single.argmax(1)).max())
    return len(single) - most, len(single)


CHANCE_CHECKS = (seeds, split)
