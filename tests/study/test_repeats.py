"""Trials that would repeat another one: merged where a study begins, and asked again where a sampler chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hpo.execution.launch import plan_launch
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.study import Budget, Study
from hpo.study.repeats import find_repeats, make_key
from hpo.study.slots import fixed_trials
from tests.study.helpers import holder, make_study

FINITE = {"optimizer": ["adam", "sgd"], "dropout": {"low": 0.0, "high": 0.3, "step": 0.1}}  # 8 configurations


def run(study: Study, count: int = 100) -> list[dict[str, Any]]:
    """Run trials whose value is their dropout, and return their parameters."""
    params = []
    while len(params) < count and (claim := study.claim(holder())) is not None:
        study.suggest_config(claim)
        params.append(claim.trial.params)
        value = float(params[-1].get("dropout", 0.0))
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
    return params


def distinct(params: list[dict[str, Any]]) -> int:
    return len({make_key(each) for each in params})


@pytest.mark.parametrize(
    ("baseline", "trials"),
    [({"optimizer": "sgd", "dropout": 0.3}, 8), ({}, 8), ({"dropout": 0.35}, 9), ({"activation": "gelu"}, 9)],
)
def test_a_baseline_that_is_a_point_of_the_grid_is_trained_once(
    tmp_path: Path, baseline: Mapping[str, Any], trials: int
) -> None:
    study = make_study(tmp_path, sampler="grid", trials=trials, baseline=baseline, parameters=FINITE)
    run(study)
    configs = [study.config_of(trial) for trial in study.trials()]
    assert len(configs) == trials
    assert len({str(config.effective()) for config in configs}) == trials
    assert configs[0] == study.definition.baseline_config(study.space)


def test_equal_warm_starts_are_trained_once_and_the_budget_is_exact(tmp_path: Path) -> None:
    tables = [{"optimizer": "sgd", "dropout": 0.0}, *[{"optimizer": "adam", "dropout": 0.3}] * 2, {"optimizer": "adam"}]
    plan = plan_launch(
        None, name="x", dataset="mnist", sampler="tpe", trials=6, baseline={"optimizer": "sgd"}, warm_start=tables,
        parameters=FINITE,
    )  # fmt: skip
    assert plan.notices == (
        "warm_start[0] equals the baseline, and is trained once",
        "warm_start[2] equals warm_start[1], and is trained once",
    )
    study = make_study(
        tmp_path, sampler="tpe", trials=6, baseline={"optimizer": "sgd"}, warm_start=tables, parameters=FINITE
    )
    params = run(study)
    assert params[0] == {"optimizer": "sgd", "dropout": 0.0}
    assert params[1] == {"optimizer": "adam", "dropout": 0.3}
    assert params[2]["optimizer"] == "adam"
    assert (len(params), distinct(params)) == (6, 6)


def test_a_budget_may_be_as_small_as_the_first_trials_that_are_left(tmp_path: Path) -> None:
    tables = [{"optimizer": "adam", "dropout": 0.3}] * 3
    study = make_study(tmp_path, sampler="random", trials=1, warm_start=tables, parameters=FINITE)
    assert run(study) == [{"optimizer": "adam", "dropout": 0.3}]


def test_random_slots_of_a_finite_space_differ_also_after_an_extension(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="random", trials=5, parameters=FINITE)
    study.extend(Budget(trials=9))
    params = run(study)
    assert params == fixed_trials(study.definition, 0, 9)
    assert distinct(params[:8]) == 8


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2"])
def test_an_adaptive_sampler_reaches_every_configuration_before_it_repeats_one(tmp_path: Path, sampler: str) -> None:
    params = []
    for name in ("a", "b"):
        options = {"name": sampler} if sampler == "nsga2" else {"name": sampler, "n_startup_trials": 2}
        study = make_study(tmp_path, name, sampler=options, trials=10, parameters=FINITE)
        params.append(run(study))
    assert (len(params[0]), distinct(params[0]), distinct(params[0][:8])) == (10, 8, 8)
    assert params[0] == params[1]  # the same again from the same seed


def test_trials_in_training_count_and_a_taken_over_trial_keeps_its_parameters(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="tpe", trials=8, parameters=FINITE)
    claims = [study.claim(holder()) for _ in range(8)]
    other = Study(study.storage, study.name)
    kept = []
    for place, claim in enumerate(claims):
        assert claim is not None
        (study if place % 2 else other).suggest_config(claim)
        kept.append(claim.trial.params)
    assert distinct(kept) == 8
    study.storage.release(claims[0].id)  # type: ignore[union-attr]
    again = study.claim(holder("other"))
    assert again is not None
    study.suggest_config(again)
    assert (again.number, again.trial.params) == (0, kept[0])


def test_parameters_that_are_fixed_for_a_trial_stay(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="tpe", trials=8, parameters=FINITE)
    for _ in range(5):
        study.optuna_study.enqueue_trial({"optimizer": "adam"})
    params = run(study, 5)
    assert [each["optimizer"] for each in params] == ["adam"] * 5
    assert distinct(params) == 4  # all that there are with adam, and one of them again


def test_a_continuous_space_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, sampler="tpe", trials=4)
    monkeypatch.setattr("hpo.study.suggestion._draw", lambda *_: pytest.fail("drawn"))
    assert distinct(run(study)) == 4


def test_what_is_left_of_repeats_is_told(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="tpe", trials=11, parameters=FINITE)
    run(study)
    summary = study_summary(read_results(study))
    assert summary["repeats"] == (
        "3 of 11 trials repeat the parameters of an earlier one: the space has 8 configurations"
    )


def test_a_launch_says_that_there_are_fewer_configurations_than_trials() -> None:
    plan = plan_launch(None, name="x", dataset="mnist", sampler="tpe", trials=11, parameters=FINITE)
    assert plan.notices == (
        "the space has 8 configurations, and the budget 11 trials, of which 3 will repeat an earlier one; "
        'sampler = "grid" trains each configuration once',
    )


def test_equal_numbers_have_equal_keys() -> None:
    assert make_key({"x": 0.1 + 0.2}) == make_key({"x": 0.3})
    assert make_key({"x": 0.3}) != make_key({"x": 0.3, "y": 1})
    assert find_repeats([(0, {"x": [1]}), (1, {"x": [2]}), (2, {"x": [1]})]) == {2: 0}
