"""Statistics shared by the checks: the standard error by which trials are told apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.config.resampling import Resampling
from hpo.report.data.results import read_results
from hpo.report.stats.trial_stats import count_validation_samples, difference_error, standard_error
from tests.report.helpers import filled


def test_trials_on_splits_of_their_own_are_told_apart_as_independent_scores(tmp_path: Path) -> None:
    shared = read_results(filled(tmp_path, trials=2, sampler="random"))
    apart = replace(shared, definition=shared.definition.model_copy(update={"resplit": "per_trial"}))
    error = standard_error(shared)
    assert error is not None
    assert standard_error(apart) == difference_error(shared) == error
    assert difference_error(apart) == pytest.approx(math.sqrt(2) * error)
    folds = replace(shared, definition=shared.definition.model_copy(update={"resampling": Resampling(folds=5)}))
    assert (count_validation_samples(shared), count_validation_samples(folds)) == (10_000, 60_000)
