"""Verdicts claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from hpo.report.chapters import verdict
from hpo.report.chapters.verdict import write_verdict
from hpo.report.checks.finding import Finding
from hpo.report.checks.trust import record
from hpo.report.data.corrected_score import CorrectedScore
from hpo.report.data.results import read_results
from hpo.report.report_data import ReportData, read_report_data
from hpo.report.stats.null_result import NullResult
from hpo.report.stats.trial_stats import standard_error
from hpo.study import Objective, Study
from tests.report.helpers import BASELINE, evaluated, filled
from tests.study.helpers import holder, make_study

DEPTHS = {"depth": {"low": 1, "high": 8}, "validation": 2000}


def told(folder: Path, accuracies: Sequence[float], name: str = "told") -> ReportData:
    """A study whose trials reached these accuracies on 2000 validation samples; the first is the baseline."""
    study = make_study(folder, name, parameters=DEPTHS, baseline={"depth": 1}, trials=len(accuracies))
    for accuracy in accuracies:
        claim = study.claim(holder())
        assert claim is not None
        study.suggest_config(claim)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [accuracy])
    return data_of(study)


def data_of(study: Study, *findings: Finding) -> ReportData:
    """The study's data with these findings in place of those that the checks have."""
    return replace(read_report_data(study), findings=findings)


def lines(study: Study, *findings: Finding) -> list[str]:
    return write_verdict(data_of(study, *findings))


def two_best(study: Study) -> list[int]:
    done = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    return [trial.number for trial in sorted(done, key=lambda trial: -trial.values[0])[:2]]


def test_pure_noise_has_no_winner(tmp_path: Path) -> None:
    """Twenty studies of trials that are all right with 0.97 of any sample; 5 % may be taken in."""
    rng = np.random.default_rng(0)
    seconds = [
        write_verdict(told(tmp_path, (rng.binomial(2000, 0.97, 12) / 2000).tolist(), f"noise_{i}"))[1]
        for i in range(20)
    ]
    assert sum("No winner" in line for line in seconds) >= 19


def test_a_lead_beyond_chance_is_told_and_not_called_proof(tmp_path: Path) -> None:
    first, second, _ = write_verdict(told(tmp_path, [0.90, 0.97, 0.91]))
    assert first == "Trial 1: validation accuracy 97.00 %, best of 3 complete trials; not tested yet."
    assert second.startswith("It leads the baseline by 7.00 percentage points and trial 2 (the runner-up) by 6.00")
    assert "no proof" in second
    assert "No winner" not in second


def test_a_lead_within_the_standard_error_names_no_winner(tmp_path: Path) -> None:
    data = told(tmp_path, [0.970, 0.972])
    error = standard_error(data.results)
    assert error is not None
    assert error > 0.002
    assert write_verdict(data)[1].startswith("No winner: it leads the baseline by 0.20 percentage points")


def test_a_tie_is_called_one(tmp_path: Path) -> None:
    second = write_verdict(told(tmp_path, [0.90, 0.97, 0.97]))[1]
    assert second.startswith("Trial 2 (the runner-up) has the same value: no winner. It leads the baseline by 7.00")


def test_the_standard_error_is_that_of_drawn_samples(tmp_path: Path) -> None:
    results = told(tmp_path, [0.95, 0.96]).results
    drawn = np.random.default_rng(1).binomial(2000, 0.96, 100_000) / 2000
    assert standard_error(results) == pytest.approx(drawn.std(), rel=0.02)


def test_an_evaluation_that_tells_all_apart_names_the_winner(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=8, baseline=BASELINE)
    best, other = two_best(study)
    scores = {f"trial {best}": 0.975, f"trial {other}": 0.95, "baseline": 0.93, "defaults": 0.92}
    evaluated(study, [best, other], scores, seeds=4)
    first, second, third = lines(study)
    assert first.startswith(f"Trial {best}: test accuracy 97.")
    assert "95 % interval" in first
    assert "4 seeds" in first
    assert second.startswith("It is better than ")
    assert "the baseline" in second
    assert third.startswith("Next: export the configuration with `hpo export filled")


def test_an_evaluation_of_equals_refuses_to_name_one(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=8, baseline=BASELINE)
    best, other = two_best(study)
    labels = (f"trial {best}", f"trial {other}", "baseline", "defaults")
    evaluated(study, [best, other], dict.fromkeys(labels, 0.97), seeds=4, noise=0.004)
    second = lines(study)[1]
    assert second.startswith("No winner: no significant difference from ")
    assert "better" not in second


def test_an_evaluation_that_names_no_winner_leaves_it_said_that_nothing_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null = NullResult("nothing was found", "the best cannot be told from a guess")
    monkeypatch.setattr(verdict, "explain_null_result", lambda _: null)
    study = filled(tmp_path, trials=8, baseline=BASELINE)
    best, other = two_best(study)
    evaluated(study, [best, other], dict.fromkeys((f"trial {best}", f"trial {other}", "baseline", "defaults"), 0.97))
    assert lines(study)[1].startswith("Nothing was found: the best cannot be told from a guess. No winner")


def test_pruned_trials_that_a_correction_leaves_out_are_told_where_they_are_most(tmp_path: Path) -> None:
    data = told(tmp_path, [0.9, 0.8, 0.7])
    score = CorrectedScore(0, "val_accuracy", 0.9, 0.9, 0.8, 0.95, 0.04, 0.04, 0.0, 1.0, (), 1, 0, 2000, 1)
    trials = (data.results.trials[0], *(replace(row, state="PRUNED") for row in data.results.trials[1:]))
    for count, said in ((1, True), (2, False)):
        results = replace(data.results, trials=trials, corrected=replace(score, trials=count))
        second = write_verdict(replace(data, results=results))[1]
        assert ("The 2 pruned trials took no part in that, so it may still be flattered." in second) == said


def test_an_evaluation_on_other_data_is_no_honest_score_of_this(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=4, baseline=BASELINE)
    best, _ = two_best(study)
    scores = {f"trial {best}": 0.975, "baseline": 0.93, "defaults": 0.92}
    evaluated(study, [best], scores, dataset="fashion_mnist")
    first, _, third = lines(study)
    assert "not tested yet" in first
    assert "`hpo evaluate filled" in third


def test_what_to_do_next(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=4)
    assert "`hpo evaluate filled" in lines(study)[2]
    warning = Finding("bound", "At the bound", "warning", "All are at 0.1.", "Raise the upper bound.", "", ())
    assert lines(study, warning)[2] == "Next: Raise the upper bound."
    assert "`hpo launch small" in lines(make_study(tmp_path))[2]
    assert "failures" in lines(filled(tmp_path, "broken", states=("FAIL",), trials=2))[2]


def test_several_objectives_have_no_single_winner(tmp_path: Path) -> None:
    study = make_study(tmp_path, objective=["val_accuracy", "parameter_count"], trials=3, pruner="none")
    for values in ([0.97, 3000.0], [0.96, 2000.0], [0.95, 4000.0]):
        claim = study.claim(holder())
        assert claim is not None
        study.suggest_config(claim)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, values)
    assert lines(study)[1] == ("No single winner: the 2 trials on the Pareto front trade one objective for another.")


def test_of_several_objectives_the_baseline_is_compared_by_the_first_alone(tmp_path: Path) -> None:
    for name, first, said in (
        ("best", [0.97, 3000.0], "The best trial is the baseline itself: no other trial is better."),
        ("equal", [0.96, 3000.0], "The baseline has the same value: no winner."),
    ):
        keys = {"parameters": {"depth": [1, 2, 3]}, "baseline": {"depth": 1}, "trials": 3, "pruner": "none"}
        study = make_study(tmp_path, name, objective=["val_accuracy", "parameter_count"], **keys)
        for values in (first, [0.96, 2000.0], [0.95, 1000.0]):
            claim = study.claim(holder())
            assert claim is not None
            study.suggest_config(claim)
            study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, values)
        front, _, rest = lines(study)[1].partition(" By validation accuracy alone: ")
        assert "on the Pareto front" in front
        assert rest == said


@pytest.mark.parametrize("metric", ["val_balanced_accuracy", "val_loss"])
def test_only_a_plain_accuracy_has_a_standard_error_of_its_samples(tmp_path: Path, metric: str) -> None:
    results = told(tmp_path, [0.95, 0.96]).results
    other = Objective(metric=metric, direction="maximize")
    definition = results.definition.model_copy(update={"objectives": (other,)})
    assert standard_error(replace(results, definition=definition)) is None


def test_of_a_study_without_a_result_the_next_step_is_one_that_helps(tmp_path: Path) -> None:
    pruned = make_study(tmp_path, "pruned", parameters=DEPTHS, trials=2)
    unmet = make_study(tmp_path, "unmet", parameters=DEPTHS, trials=2, constraints=["parameter_count <= 5"])
    for study in (pruned, unmet):
        while (claim := study.claim(holder())) is not None:
            study.suggest_config(claim)
            if study is unmet:
                study.storage.set_trial_user_attr(claim.id, "failure", "infeasible")
            study.storage.set_trial_state_values(claim.id, TrialState.PRUNED, [0.5])
    assert lines(pruned)[2] == "Next: prune later, or not at all: no trial has come to its end."
    data = replace(
        read_report_data(unmet), findings=(Finding("x", "x", "warning", "few samples", "take more of them"),)
    )
    assert write_verdict(data)[2].startswith("Next: loosen the constraints")
    (said,) = record(read_results(pruned), ())
    assert (said.level, said.advice) == ("note", "")


def test_the_noise_of_a_function_is_not_said_to_be_of_validation_data(tmp_path: Path) -> None:
    data = told(tmp_path, [0.970, 0.972])
    foreign = data.results.definition.model_copy(update={"foreign": True})
    assert "(sampling noise in the validation data alone reaches" in write_verdict(data)[1]
    said = write_verdict(replace(data, results=replace(data.results, definition=foreign)))[1]
    assert "which may be chance (the noise of its values alone reaches" in said
