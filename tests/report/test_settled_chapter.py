"""The chapter on when a study settled, whether or not it was to end then, and its part of the JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from optuna.trial import TrialState

from hpo.report.chapters.blocks import Note, Table, Text
from hpo.report.chapters.settled import settled_chapter
from hpo.report.chapters.verdict import write_verdict
from hpo.report.checks.trust import order, record
from hpo.report.data.corrected_score import CorrectedScore
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.report.render.json import report_schema
from hpo.report.report_data import read_report_data
from hpo.report.stats.choice import choose_trial
from hpo.report.stats.null_result import explain_null_result, list_leaders
from hpo.study import Study
from tests.study.helpers import holder, make_study


def told(
    folder: Path,
    values: Sequence[float],
    *,
    error: float | None = 0.003,
    pruned: int = 0,
    reported: Sequence[float] = (),
    first: float | None = None,
    **keys: Any,
) -> Study:
    """A study whose trials have these values, as long as any is begun.

    Args:
        folder: where it is.
        values: of the trials.
        error: standard error of each.
        pruned: how many of the first are pruned.
        reported: scores of folds that each reports to Optuna's terminator.
        first: loss of a first epoch, where those that are pruned end, and which the others have before their value.
        keys: of `make_study`.
    """
    study = make_study(folder, **{"trials": len(values), "parameters": {"dropout": {"low": 0.0, "high": 0.5}}, **keys})
    for place, value in enumerate(values):
        claim = study.claim(holder())
        if claim is None:
            break
        state = TrialState.PRUNED if place < pruned else TrialState.COMPLETE
        losses = [] if first is None else [first] if place < pruned else [first, float(value)]
        for epoch, loss in enumerate(losses, 1):
            study.storage.record_epoch(claim.id, epoch, {"epoch": epoch, "val_loss": loss})
        if error is not None:
            study.storage.set_trial_user_attr(claim.id, "standard_error", error)
        if reported:
            study.storage.set_trial_system_attr(claim.id, "terminator:cv_scores", list(reported))
        claim.trial.suggest_float("dropout", 0.0, 0.5)
        study.storage.set_trial_state_values(claim.id, state, [float(value)])
    return study


RISING = [*(0.85 - 0.0001 * np.arange(25)), *(0.8505 + 0.00001 * np.arange(15))]


def text_of(study: Study) -> str:
    chapter = settled_chapter(read_results(study))
    assert chapter is not None
    return " ".join(block.text for block in chapter.blocks if isinstance(block, Text))


def test_a_study_that_ran_on_would_have_ended_and_what_it_gained_is_said(tmp_path: Path) -> None:
    study = told(tmp_path, RISING)
    text = text_of(study)
    assert 'With `until = "settled"` the study would have ended after 20 of 40 trials: the other 20 were' in text
    assert "less than the noise, 0.30 percentage points." in text
    assert "20 trials ended after that, and gained 0.06 percentage points." in text
    chapter = settled_chapter(read_results(study))
    assert chapter is not None
    (table,) = [block for block in chapter.blocks if isinstance(block, Table)]
    assert [table.rows[0][0], table.rows[-1][0]] == ["20", "40"]


def test_a_study_that_was_to_end_has_ended(tmp_path: Path) -> None:
    study = told(tmp_path, RISING, until="settled")
    assert "The study settled after 20 of 40 trials" in text_of(study)
    summary = study_summary(read_results(study))
    assert (summary["settled"]["asked"], summary["settled"]["after"]) == (True, 20)
    schema = report_schema()
    for key in ("settled", "budget"):
        jsonschema.Draft202012Validator({**schema["properties"][key], "$defs": schema["$defs"]}).validate(summary[key])


def test_what_a_settled_study_has_left_is_neither_to_be_finished_nor_held_against_its_test_set(tmp_path: Path) -> None:
    study = told(tmp_path, RISING, until="settled")
    results = read_results(study)
    assert results.remaining_trials == 20
    (said,) = record(results, ())
    assert (said.level, said.advice) == ("ok", "")
    assert "20 left, and none is begun: it has settled" in said.evidence
    read = SimpleNamespace(on_own_data=True, test_set_read_at=datetime.now())
    assert [finding.level for finding in order(results, [cast(EvaluationResults, read)])] == ["ok"]
    going_on = replace(results, stop_reason=None)
    assert "20 trials still to run" in order(going_on, [cast(EvaluationResults, read)])[0].evidence
    assert record(going_on, ())[0].advice.startswith("finish it")


def test_a_study_that_has_not_settled_says_what_it_expects(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(40)
    text = text_of(told(tmp_path, values[:30], error=1e-4, trials=40))
    assert "The study has not settled: after 30 trials the other 10 trials are expected to gain" in text
    assert "did not settle before its budget was used up" in text_of(
        told(tmp_path, values, error=1e-4, trials=40, seed=1, name="whole")
    )


def test_noise_is_called_so(tmp_path: Path) -> None:
    study = told(tmp_path, 0.1 + 0.02 * np.random.default_rng(0).standard_normal(40), error=0.02)
    chapter = settled_chapter(read_results(study))
    assert chapter is not None
    (note,) = [block for block in chapter.blocks if isinstance(block, Note)]
    assert note.title == "No configuration is better than the others"
    assert "equal configurations is up to" in note.text
    decided = write_verdict(read_report_data(study))[1]
    assert decided.startswith("No configuration is better than the others: the best validation accuracy of 40 trials, ")
    assert "No winner" not in decided
    better = told(tmp_path, [0.3, *study_values(study)], error=0.02, name="better", seed=1)
    assert explain_null_result(read_results(better)) is None


def test_what_is_better_than_a_constant_prediction_is_something(tmp_path: Path) -> None:
    good = told(tmp_path, [0.96 + 0.0005 * i for i in range(40)], error=0.01, objective="val_roc_auc")
    assert explain_null_result(read_results(good)) is None
    guesses = told(
        tmp_path,
        0.5 + 0.01 * np.random.default_rng(0).standard_normal(40),
        error=0.01,
        name="guesses",
        objective="val_roc_auc",
    )
    null = explain_null_result(read_results(guesses))
    assert null is not None
    assert str(null).startswith("nothing was found: ")
    assert "cannot be told from always predicting the same, 0.5:" in null.reason


def test_a_score_that_is_good_by_its_choice_alone_is_nothing(tmp_path: Path) -> None:
    results = read_results(told(tmp_path, [0.65 + 0.0005 * i for i in range(40)], error=0.01, objective="val_roc_auc"))
    score = CorrectedScore(39, "val_roc_auc", 0.67, 0.6, 0.52, 0.69, 0.04, 0.04, 0.07, 0.2, (), 40, 0, 80, 1)
    assert explain_null_result(replace(results, corrected=score)) is None
    null = explain_null_result(replace(results, corrected=replace(score, low=0.49)))
    assert null is not None
    assert str(null) == (
        "nothing was found: the best validation ROC AUC of 40 trials, 0.6695, is 0.6 (95 % interval 0.49 to 0.69) "
        "once corrected for that choice, which cannot be told from always predicting the same, 0.5"
    )


def test_trials_are_equal_by_what_differs_between_them(tmp_path: Path) -> None:
    results = read_results(told(tmp_path, 0.3 - 0.001 * np.arange(40), error=0.02, objective="val_loss"))
    null = explain_null_result(results)
    assert null is not None
    assert null.claim == "no configuration is better than the others"
    errors = dict.fromkeys(range(40), 0.004)
    paired = CorrectedScore(
        39, "val_loss", 0.261, 0.262, 0.25, 0.27, 0.02, 0.02, 0.001, 0.9, (), 40, 0, 400, 1, difference_errors=errors
    )
    assert explain_null_result(replace(results, corrected=paired)) is None


def test_configurations_that_are_worse_than_chance_makes_them_are_no_null_result(tmp_path: Path) -> None:
    equal = 0.3 + 0.001 * np.random.default_rng(0).standard_normal(30)
    worse = [*np.linspace(0.34, 0.6, 10), *equal]
    keys: dict[str, Any] = {"error": 0.005, "objective": "val_loss"}
    assert explain_null_result(read_results(told(tmp_path, equal, name="equal", **keys))) is not None
    assert explain_null_result(read_results(told(tmp_path, worse, name="worse", seed=1, **keys))) is None
    assert explain_null_result(read_results(told(tmp_path, worse, name="pruned", seed=2, pruned=10, **keys))) is None


@pytest.mark.parametrize(("value", "null"), [(0.5, True), (0.55, False)])
def test_what_was_pruned_is_compared_with_the_others_after_as_many_epochs(
    tmp_path: Path, value: float, null: bool
) -> None:
    equal = 0.3 + 0.001 * np.random.default_rng(0).standard_normal(30)
    study = told(tmp_path, [*[value] * 5, *equal], error=0.005, objective="val_loss", pruned=5, first=0.5)
    found = explain_null_result(read_results(study))
    assert (found is not None) is null


def test_scores_of_folds_that_a_function_reports_are_the_error_of_its_value(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"error": None, "objective": "val_roc_auc"}
    silent = read_results(told(tmp_path, [0.80, 0.81, 0.90], name="silent", **keys))
    assert choose_trial(silent, "one_se").reason == "it has the best value, whose standard error is not known"
    results = read_results(told(tmp_path, [0.80, 0.81, 0.90], reported=[0.8, 0.9, 1.0], name="said", seed=1, **keys))
    assert results.best is not None
    assert results.best.standard_error == pytest.approx(0.1 * (1 / 3 + 1 / 2) ** 0.5)
    assert "of the 2 trials within one standard error" in choose_trial(results, "one_se").reason


def study_values(study: Study) -> list[float]:
    return [trial.values[0] for trial in study.trials()][:39]


def test_leaders_are_within_the_noise_of_the_best_and_few(tmp_path: Path) -> None:
    results = read_results(told(tmp_path, [0.9, 0.8985, 0.895, *[0.8] * 17]))
    assert [row.number for row in list_leaders(results, 0.003)] == [0, 1]
    assert len(list_leaders(results, 0.5)) == 5


def test_what_cannot_be_told_has_no_chapter(tmp_path: Path) -> None:
    several = make_study(tmp_path, "several", objective=["val_accuracy", "parameter_count"])
    assert settled_chapter(read_results(several)) is None
    assert study_summary(read_results(several))["settled"] is None
    early = told(tmp_path, [0.9] * 5, name="early", until="settled", trials=40)
    assert "Not settled: 20 trials must have ended." in text_of(early)
    assert settled_chapter(read_results(make_study(tmp_path, "none"))) is None
