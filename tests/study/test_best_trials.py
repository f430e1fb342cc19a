"""Warm starts from another study: its best trials come first, as far as the new space holds them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import RequestError, StudyConflictError, StudyNotFoundError
from hpo.execution.launch import LaunchPlan, plan_launch
from hpo.report.chapters.reproduction import study_table
from hpo.report.data.results import read_results
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from tests.report.helpers import evaluated, filled, tell_all
from tests.study.helpers import holder, sqlite_url

SPACE = {
    "epochs": 4,
    "optimizer": ["adam", "rmsprop"],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "depth": {"low": 1, "high": 3},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))


@pytest.fixture
def old(tmp_path: Path) -> Study:
    return filled(tmp_path, "old", parameters=SPACE, trials=20, states=("COMPLETE", "COMPLETE", "PRUNED"))


def warmed(folder: Path, source: str = "old", **keys: Any) -> LaunchPlan:
    table = {"name": "new", "sampler": "tpe", "trials": 12, "parameters": SPACE, **keys}
    return plan_launch(None, sqlite_url(folder), warm_start=source, **table)


def fixed(study: Study) -> list[dict[str, Any]]:
    return [trial.system_attrs["fixed_params"] for trial in study.trials()]


def best(study: Study, top: int = 5) -> list[FrozenTrial]:
    done = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    return sorted(done, key=lambda trial: -trial.values[0])[:top]


def test_the_best_trials_come_first_and_the_budget_is_exact(tmp_path: Path, old: Study) -> None:
    planned = warmed(tmp_path)
    study = planned.create(sqlite_url(tmp_path))
    assert not planned.notices
    assert fixed(study) == [trial.params for trial in best(old)]
    tell_all(study)
    assert [trial.number for trial in study.trials()] == list(range(12))
    assert [trial.params for trial in study.trials()[:5]] == [trial.params for trial in best(old)]
    assert [trial.value for trial in study.trials()[:5]] == [trial.value for trial in best(old)]


def test_they_follow_the_baseline(tmp_path: Path, old: Study) -> None:
    study = warmed(tmp_path, top=2, baseline={"optimizer": "adam", "learning_rate": 1e-3}).create(sqlite_url(tmp_path))
    assert study.is_baseline(0)
    assert fixed(study)[1:] == [trial.params for trial in best(old, 2)]


def test_fewer_than_asked_for_are_told(tmp_path: Path, old: Study) -> None:
    planned = warmed(tmp_path, top=99, trials=99)
    count = len(planned.definition.warm_start)
    [notice] = planned.notices
    assert notice == f"warm start from old: begins with {count} of its trials; no others differ in this space"
    assert not warmed(tmp_path, top=count, trials=99).notices


def test_the_baseline_is_not_trained_twice(tmp_path: Path, old: Study) -> None:
    first, *others = best(old)
    study = warmed(tmp_path, top=4, baseline=first.params).create(sqlite_url(tmp_path))
    assert fixed(study) == [first.params, *(trial.params for trial in others)]


def test_values_that_the_space_does_not_hold_are_named_and_sampled(tmp_path: Path, old: Study) -> None:
    parameters = {**SPACE, "epochs": 8, "optimizer": ["adam", "nadam"], "warmup": [0.0, 0.1]}
    planned = warmed(tmp_path, parameters=parameters)
    chosen = best(old)
    lost = [trial.number for trial in chosen if trial.params["optimizer"] == "rmsprop"]
    assert lost
    [notice] = planned.notices
    assert f"optimizer = 'rmsprop' (trial {', '.join(map(str, lost))})" in notice
    assert f"epochs = 4 (trial {', '.join(str(trial.number) for trial in chosen)})" in notice
    assert "learning_rate" not in notice
    study = planned.create(sqlite_url(tmp_path))
    # What no trial of the old study sampled was its default in all of them.
    for params, trial in zip(fixed(study), chosen, strict=True):
        assert params["warmup"] == 0.0
        assert params.get("optimizer") == (None if trial.number in lost else "adam")
    tell_all(study)
    assert {trial.params["optimizer"] for trial in study.trials()} <= {"adam", "nadam"}
    assert [t.params["learning_rate"] for t in study.trials()[:5]] == [t.params["learning_rate"] for t in chosen]
    assert len(study.trials()) == 12


def test_what_the_old_study_held_constant_is_filled_in(tmp_path: Path, old: Study) -> None:
    study = warmed(tmp_path, parameters={**SPACE, "epochs": {"low": 2, "high": 8}}).create(sqlite_url(tmp_path))
    assert [params["epochs"] for params in fixed(study)] == [4] * 5


def test_a_condition_without_its_parent_fixes_nothing(tmp_path: Path) -> None:
    momentum = {"optimizer": ["momentum"], "momentum": {"low": 0.1, "high": 0.9}, "depth": [1, 2]}
    filled(tmp_path, "old", parameters={"epochs": 4, **momentum}, trials=6)
    planned = warmed(
        tmp_path, parameters={"epochs": 4, "optimizer": ["adam", "nesterov"], "momentum": [0.5], "depth": [1, 2]}
    )
    assert all(set(table) == {"depth"} for table in planned.definition.warm_start)
    assert "momentum = " in planned.notices[0]
    tell_all(planned.create(sqlite_url(tmp_path)))


def test_the_same_launch_goes_on_whatever_became_of_the_old_study(tmp_path: Path, old: Study) -> None:
    study = warmed(tmp_path, top=3).create(sqlite_url(tmp_path))
    first = fixed(study)
    old.extend(old.budget.model_copy(update={"trials": 40}))
    tell_all(old)
    assert best(old, 3) != first
    again = warmed(tmp_path, top=3, trials=14).create(sqlite_url(tmp_path))
    assert fixed(again) == first
    assert again.budget.trials == 14
    old.storage.delete_study(old.id)
    assert warmed(tmp_path, top=3, trials=14).create(sqlite_url(tmp_path)).id == study.id
    with pytest.raises(StudyNotFoundError, match="no study 'old'"):
        warmed(tmp_path, top=4, trials=14)


def test_the_study_file_of_its_report_is_the_same_study(tmp_path: Path, old: Study) -> None:
    study = warmed(tmp_path, top=3).create(sqlite_url(tmp_path))
    _, definition, _ = parse_definition(study_table(read_results(study)), "new", tmp_path)
    study.check_definition(definition)
    with pytest.raises(StudyConflictError, match="warm_start: stored"):
        study.check_definition(definition.model_copy(update={"warm_start": definition.warm_start[:1]}))


def test_another_warm_start_is_another_study(tmp_path: Path, old: Study) -> None:
    warmed(tmp_path, top=3).create(sqlite_url(tmp_path))
    with pytest.raises(StudyConflictError, match=r"warm_from\.top: stored 3, requested 2"):
        warmed(tmp_path, top=2).create(sqlite_url(tmp_path))


def test_two_workers_do_not_double_them(tmp_path: Path, old: Study) -> None:
    created = warmed(tmp_path).create(sqlite_url(tmp_path))

    def work(name: str) -> list[tuple[int, dict[str, Any]]]:
        study, done = Study(StudyStorage(sqlite_url(tmp_path)), "new"), []
        while claim := study.claim(holder(name)):
            study.suggest_config(claim)
            done.append((claim.number, dict(claim.trial.params)))
            study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
        return done

    with ThreadPoolExecutor() as pool:
        done = dict(sorted(each for found in pool.map(work, ["a", "b"]) for each in found))
    assert list(done) == list(range(12))
    assert [done[number] for number in range(5)] == [trial.params for trial in best(old)]
    assert len(created.trials()) == 12


def test_of_several_objectives_the_front_comes_first(tmp_path: Path) -> None:
    objectives = [{"metric": "val_accuracy"}, {"metric": "parameter_count"}]
    both = filled(tmp_path, "old", parameters=SPACE, trials=20, objective=objectives, pruner="none", seed=1)
    front = sorted(both.optuna_study.best_trials, key=lambda trial: (-trial.values[0], trial.number))
    others = [trial for trial in best(both, 20) if trial.number not in {each.number for each in front}]
    assert others
    assert others[0].values[0] > front[-1].values[0]
    study = warmed(tmp_path, top=len(front) + 1, trials=25).create(sqlite_url(tmp_path))
    assert fixed(study) == [trial.params for trial in [*front, others[0]]]


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc"])
def test_fixed_slots_are_not_begun_from_another_study(tmp_path: Path, old: Study, sampler: str) -> None:
    parameters = {"depth": [1, 2]}
    with pytest.raises(RequestError, match=f"warm_start = 'old': sampler '{sampler}' fixes all trials"):
        warmed(tmp_path, sampler=sampler, parameters=parameters, trials=2 if sampler == "grid" else 4)


def test_what_is_refused(tmp_path: Path, old: Study) -> None:
    with pytest.raises(RequestError, match="the baseline and warm_start alone are 5 trials"):
        warmed(tmp_path, trials=4)
    with pytest.raises(RequestError, match="nothing to begin with in study 'old': the new space allows no value"):
        warmed(tmp_path, parameters={"learning_rate": [0.5, 0.6]})
    with pytest.raises(RequestError, match="top = 3: of which study"):
        plan_launch("quickstart", sqlite_url(tmp_path), top=3)
    filled(tmp_path, "lost", parameters=SPACE, states=("PRUNED", "FAIL"))
    with pytest.raises(RequestError, match="nothing to begin with in study 'lost': it has no COMPLETE trial"):
        warmed(tmp_path, "lost")
    evaluation = evaluated(old, [0], {"trial 0": 0.9, "defaults": 0.8})[0]
    with pytest.raises(RequestError, match="is an evaluation; begin with the trials of 'old'"):
        warmed(tmp_path, evaluation.name)


def test_its_study_file_makes_it_again(tmp_path: Path, old: Study) -> None:
    from hpo.report.chapters.reproduction import study_table

    planned = warmed(tmp_path, parameters={**SPACE, "optimizer": ["adam", "nadam"]})
    study = planned.create(sqlite_url(tmp_path))
    _, definition, _ = parse_definition(study_table(read_results(study)), "again", tmp_path)
    assert definition.warm_start == study.definition.warm_start
