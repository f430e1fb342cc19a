"""Fits of trials of a loop of the user's own: one after the other, paused together, by what they report or return."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from torch import nn

import hpo
from hpo.config.resampling import Resampling
from hpo.config.trial_config import TrialConfig
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.report.stats.trial_stats import fit_values
from hpo.training.fits import JointTrial
from hpo.training.member import Member
from hpo.training.settings import TrainSettings
from tests.execution.test_trial_fits import make
from tests.loops import Mine
from tests.workers import make_worker


def test_asha_pauses_and_promotes_all_fits_of_a_loop_of_ones_own(tmp_path: Path) -> None:
    @hpo.training_loop("of_rungs", parameters=Mine, uses=["epochs", "learning_rate"], reports={"val_score": "minimize"})
    def of_rungs(trial: hpo.Trial) -> None:
        for epoch in trial.epochs(model=nn.Linear(1, 1)):
            trial.report(val_score=1 / (epoch * trial.config.learning_rate))

    keys: dict[str, Any] = {"pruner": {"name": "asha", "min_resource": 1, "reduction_factor": 2}, "sampler": "grid"}
    parameters = {"model": "of_rungs", "epochs": 4, "learning_rate": [0.04, 0.03, 0.02, 0.01]}
    study = make(tmp_path, folds=3, trials=4, objective="val_score", parameters=parameters, **keys)
    make_worker(study, cohort=1, checkpoint_every=0).run()
    first, second, *_ = study.trials()
    rows = read_results(study).trials
    assert (first.state, len(first.intermediate_values)) == (TrialState.COMPLETE, 4)
    assert second.user_attrs["attempt"] > 1  # it was paused after its first epoch, and promoted later
    assert [len(row.epochs) for row in rows] == [len(trial.intermediate_values) for trial in study.trials()]
    assert [row.value for row in rows] == [row.epochs[-1]["val_score"] for row in rows]


def test_a_loop_of_ones_own_gets_each_fits_data_and_seed_in_turn(tmp_path: Path) -> None:
    seen = []

    @hpo.training_loop("of_folds", parameters=Mine, uses=["epochs"], reports={"val_score": "maximize"})
    def of_folds(trial: hpo.Trial) -> None:
        seen.append((len(trial.data.y_val), trial.data.y_val.sum().item(), trial.config.seed))
        for epoch in trial.epochs():
            trial.report(val_score=epoch * float(trial.data.y_val.float().mean()))

    parameters = {"model": "of_folds", "epochs": 2}
    study = make(tmp_path, folds=3, seeds=2, trials=1, objective="val_score", parameters=parameters)
    make_worker(study).run()
    [row] = read_results(study).trials
    assert [samples for samples, *_ in seen] == [100] * 6
    assert (len({seed for *_, seed in seen}), len({labels for _, labels, _ in seen}) > 1) == (2, True)
    assert (row.state, row.epochs[-1]["epoch"]) == ("COMPLETE", 2)
    assert row.value == pytest.approx(2 * statistics.fmean(labels / 100 for _, labels, _ in seen))


def test_a_loop_of_ones_own_gets_more_fits_while_its_trial_may_be_the_best(tmp_path: Path) -> None:
    @hpo.training_loop(
        "of_stages", parameters=Mine, uses=["epochs", "learning_rate"], reports={"val_score": "maximize"}
    )
    def of_stages(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            trial.report(val_score=epoch * trial.config.learning_rate + 1e-3 * trial.data.y_val.sum().item())

    parameters = {"model": "of_stages", "epochs": 3, "learning_rate": [0.5, 0.1]}
    keys = {"folds": 5, "repeats": 2, "intensify": True, "sampler": "grid", "objective": "val_score"}
    study = make(tmp_path, parameters=parameters, **keys)
    make_worker(study, cohort=1).run()
    good, bad = read_results(study).trials
    assert (good.state, len(good.fits), len(good.epochs)) == ("COMPLETE", 10, 3)
    assert (bad.state, len(bad.fits)) == ("PRUNED", 3)
    assert good.value == pytest.approx(statistics.fmean(rows[-1]["val_score"] for rows in good.fits.values()))


def test_what_a_loop_returns_counts_before_what_it_reports(tmp_path: Path) -> None:
    @hpo.training_loop(
        "of_returns", parameters=Mine, uses=["epochs", "learning_rate"], reports={"val_score": "maximize"}
    )
    def of_returns(trial: hpo.Trial) -> float:
        rate = trial.config.learning_rate
        for _ in trial.epochs():
            trial.report(val_score=-rate)
        return rate + 1e-3 * int((trial.data.y_val * torch.arange(len(trial.data.y_val))).sum()) / 100

    parameters = {"model": "of_returns", "epochs": 2, "learning_rate": [9.0, 1.0]}
    keys = {"folds": 5, "intensify": True, "sampler": "grid", "objective": "val_score"}
    study = make(tmp_path, parameters=parameters, **keys)
    make_worker(study, cohort=1).run()
    results = read_results(study)
    good, bad = results.trials
    returned = fit_values(results, good)
    assert (good.state, good.value_from, sorted(returned)) == ("COMPLETE", "returned", list(range(5)))
    assert good.value == pytest.approx(statistics.fmean(returned.values()))
    assert good.standard_error == pytest.approx(statistics.stdev(returned.values()) / math.sqrt(5)) != 0
    assert study_summary(results)["best"]["fits"] == {str(fit): value for fit, value in returned.items()}
    # By its reports it would be the better one.
    assert (bad.state, sorted(bad.fits)) == ("PRUNED", [0, 1, 2])
    assert bad.value == pytest.approx(statistics.fmean(fit_values(results, bad).values()))


def test_a_trial_with_further_fits_does_not_keep_what_the_first_ones_returned() -> None:
    member = Member(TrialConfig(), 0, history=[{"epoch": 1}], origin="returned", returned={"val_score": 0.9})
    trial = JointTrial(member.config, member, TrainSettings(), loop=True, fits=Resampling(seeds=3).fits)
    trial.extend(Resampling(seeds=6).fits)
    assert (member.origin, member.returned, trial.best_values("val_score")) == ("best epoch", {}, {})
