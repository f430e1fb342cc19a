"""Statistics shared by the checks: the standard error by which trials are told apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.config.resampling import Resampling
from hpo.report.chapters.verdict import write_verdict
from hpo.report.data.corrected_score import CorrectedScore
from hpo.report.data.results import read_results
from hpo.report.report_data import read_report_data
from hpo.report.stats.trial_stats import count_validation_samples, difference_error, standard_error
from tests.report.helpers import filled


def test_a_mean_over_fits_that_agree_by_chance_is_no_surer_than_its_samples(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, trials=2, sampler="random"))
    assert results.best is not None
    definition = results.definition.model_copy(update={"resampling": Resampling(holdout=4, seeds=2)})
    score = CorrectedScore(
        results.best.number, "val_accuracy", 0.9, 0.9, 0.8, 1.0, 0.05, 0.03, 0.0, 1.0, (), 2, 0, 99, 8
    )
    for recorded, error in ((0.004, 0.03), (0.06, 0.06)):
        fitted = replace(
            results,
            definition=definition,
            trials=tuple(replace(row, standard_error=recorded) for row in results.trials),
            corrected=score,
        )
        assert standard_error(fitted) == error
    data = replace(read_report_data(filled(tmp_path, "fitted", trials=2, sampler="random")), findings=())
    lead = write_verdict(replace(data, results=replace(data.results, definition=definition)))[1]
    assert "8 fits each" in lead
    assert "one seed" not in lead


def test_trials_on_splits_of_their_own_are_told_apart_as_independent_scores(tmp_path: Path) -> None:
    shared = read_results(filled(tmp_path, trials=2, sampler="random"))
    apart = replace(shared, definition=shared.definition.model_copy(update={"resplit": "per_trial"}))
    error = standard_error(shared)
    assert error is not None
    assert standard_error(apart) == difference_error(shared) == error
    assert difference_error(apart) == pytest.approx(math.sqrt(2) * error)
    folds = replace(shared, definition=shared.definition.model_copy(update={"resampling": Resampling(folds=5)}))
    assert (count_validation_samples(shared), count_validation_samples(folds)) == (10_000, 60_000)
