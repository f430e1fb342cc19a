"""Forks of studies: what is valid is kept as it was, the rest is named, and the budget is exact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import DefinitionError, RequestError, StudyConflictError
from hpo.report.data.results import read_results
from hpo.report.report_data import read_report_data
from hpo.report.write import write_report
from hpo.storage.tables import EPOCHS, INTERMEDIATE_VALUES, STEPS, TRIAL_SYSTEM_ATTRS, TRIALS
from hpo.study import Study, study_names
from hpo.study.files.study_files import StudyFiles, list_local_weights
from hpo.study.operations.fork import fork_study
from tests.report.helpers import add_foreign, evaluated, filled, tell_all
from tests.study.helpers import holder, make_study

SPACE = {
    "epochs": 4,
    "optimizer": ["adam", "rmsprop"],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "depth": {"low": 1, "high": 3},
}
CHOICES = ["adam", "nadam"]  # one removed, one added


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))


def made(folder: Path, states: tuple[str, ...] = ("COMPLETE", "PRUNED"), **keys: Any) -> Study:
    return filled(folder, "old", **{"states": states, "sampler": "tpe", "parameters": SPACE, "trials": 12, **keys})


def told(trial: FrozenTrial) -> dict[str, Any]:
    """What a fork leaves as it was: all but the trial's number and id, and the distributions."""
    other = ("_number", "_trial_id", "_distributions", "_system_attrs")
    return {name: value for name, value in vars(trial).items() if name not in other}


def test_a_choice_is_removed_and_another_added(tmp_path: Path) -> None:
    old = made(tmp_path, trials=20)
    kept = [trial for trial in old.trials() if trial.params["optimizer"] == "adam"]
    planned = fork_study(old, "new", {"optimizer": CHOICES}, trials=30)
    assert planned.refused == [
        f"trial {trial.number}: optimizer = 'rmsprop' is no longer a choice (adam, nadam)"
        for trial in old.trials()
        if trial.params["optimizer"] == "rmsprop"
    ]
    study = planned.create()
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(len(kept)))
    assert [told(trial) for trial in trials] == [told(trial) for trial in kept]
    assert {trial.distributions["optimizer"] for trial in trials} == {CategoricalDistribution(CHOICES)}
    tell_all(study)
    plain = optuna.load_study(study_name="new", storage=old.storage)
    assert len(plain.trials) == 30
    assert {trial.params["optimizer"] for trial in plain.trials} == set(CHOICES)
    assert plain.best_value >= max(trial.value for trial in kept if trial.state == TrialState.COMPLETE)
    assert optuna.importance.get_param_importances(plain)


def test_epochs_and_attributes_go_along_and_the_report_shows_them(tmp_path: Path) -> None:
    old = made(tmp_path, constraints=["parameter_count <= 3500"])
    first = old.trials()[1]._trial_id
    keys = {"constraints:parameter_count <= 3500": "-1.0", "cma:optimizer:0": '"x"'}
    attrs = [{"trial_id": first, "key": key, "value_json": value} for key, value in keys.items()]
    reports = [{"trial_id": first, "step": 1, "intermediate_value": 0.25, "intermediate_value_type": "FINITE"}]
    with old.storage.engine.begin() as connection:
        connection.execute(sa.insert(TRIAL_SYSTEM_ATTRS), attrs)
        connection.execute(sa.insert(INTERMEDIATE_VALUES), reports)
    study = fork_study(old, "new", {"learning_rate": {"low": 1e-5, "high": 1.0, "log": True}}).create()
    twins = list(zip(old.trials(), study.trials(), strict=True))
    epochs, copied = old.storage.read_epochs(old.id), study.storage.read_epochs(study.id)
    for before, after in twins:
        assert copied[after._trial_id] == epochs[before._trial_id]
        assert after.params == before.params
        assert study.config_of(after) == old.config_of(before)
    second = study.trials()[1]
    assert second.system_attrs["constraints:parameter_count <= 3500"] == -1.0
    assert "cma:optimizer:0" not in second.system_attrs
    assert second.intermediate_values == {1: 0.25}
    assert [row.epochs for row in read_results(study).trials] == [row.epochs for row in read_results(old).trials]
    paths = write_report(read_report_data(study), tmp_path / "report")
    assert paths.html.stat().st_size > 10_000


def test_every_trial_that_is_not_valid_is_named(tmp_path: Path) -> None:
    old = made(tmp_path, trials=10)
    trials = old.trials()
    low, high = (f(t.params["learning_rate"] for t in trials[:5]) for f in (min, max))
    planned = fork_study(old, "new", {"learning_rate": {"low": low, "high": high, "log": True}, "dropout": [0.0, 0.1]})
    outside = [t for t in trials if not low <= t.params["learning_rate"] <= high]
    assert [line.partition(" is no longer ")[0] for line in planned.refused] == [
        f"trial {t.number}: learning_rate = {t.params['learning_rate']!r}" for t in outside
    ]
    assert all(f"in the range from {low:g} to {high:g}" in line for line in planned.refused)
    # What no trial has is the default in all of them, and the new space holds it.
    assert {trial.params["dropout"] for trial in planned.create().trials()} == {0.0}


def test_the_losses_of_steps_go_along(tmp_path: Path) -> None:
    old = made(tmp_path, trials=2, record_steps=True)
    first = old.trials()[0]._trial_id
    steps = {"losses": b"\0\0\x80?", "seconds": b"\0\0\0?"}  # 1.0 and 0.5
    row = {"trial_id": first, "attempt": 0, "epoch": 1, "study_id": old.id, **steps}
    with old.storage.engine.begin() as connection:
        connection.execute(sa.insert(STEPS), [row])
    study = fork_study(old, "new").create()
    [copied] = study.storage.read_steps(study.id, study.trials()[0]._trial_id).values()
    assert [(each.epoch, [*each.losses], [*each.seconds]) for each in copied] == [(1, [1.0], [0.5])]
    assert study.definition.record_steps


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"epochs": 8}, "trial 0: epochs = 4, but 8 in the new space"),
        ({"dropout": [0.1, 0.2]}, r"dropout = 0.0 is not a choice \(0.1, 0.2\)"),
        ({"depth": {"low": 4, "high": 5}}, "depth = . is no longer in the range from 4 to 5"),
        ({"final_learning_rate": [0.0, 0.1], "schedule": "linear"}, "schedule = 'constant', but 'linear'"),
        ({"learning_rate": {"low": 1e-4, "high": 0.1, "when": {"depth": 9}}}, "no condition of the new space holds"),
    ],
)
def test_where_nothing_can_be_kept_no_study_is_made(tmp_path: Path, parameters: dict[str, Any], says: str) -> None:
    old = made(tmp_path, trials=3)
    with pytest.raises(RequestError, match=says):
        fork_study(old, "new", parameters)
    assert study_names(old.storage) == ["old"]


def test_a_parameter_that_the_new_space_needs_and_no_trial_has(tmp_path: Path) -> None:
    old = made(tmp_path, trials=3, parameters={**SPACE, "schedule": "linear"})
    with pytest.raises(RequestError, match="final_learning_rate = 'none' is not a choice"):
        fork_study(old, "new", {"final_learning_rate": [0.0, 0.1]})


def test_unfinished_and_failed_trials_are_named(tmp_path: Path) -> None:
    old = made(tmp_path, ("COMPLETE", "FAIL", "RUNNING", "diverged"))
    planned = fork_study(old, "new")
    assert planned.skipped == {"FAIL": [1, 5, 9], "RUNNING": [2, 6, 10]}
    states = [trial.state for trial in planned.create().trials()]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED] * 3
    assert Study(old.storage, "new").remaining() == 6


def test_the_baseline_stays_trial_0(tmp_path: Path) -> None:
    old = made(tmp_path, baseline={"optimizer": "sgd", "learning_rate": 0.5})  # the space holds neither
    study = fork_study(old, "new", {"optimizer": CHOICES}).create()
    assert study.is_baseline(0)
    assert study.config_of(study.trials()[0]) == old.config_of(old.trials()[0])
    assert told(study.trials()[0]) == told(old.trials()[0])


def test_a_baseline_that_changes_is_trained_anew_and_counts(tmp_path: Path) -> None:
    old = made(tmp_path, baseline={"optimizer": "sgd"}, parameters={**SPACE, "epochs": [4, 8]}, trials=12)
    planned = fork_study(old, "new", {"depth": 3}, trials=12)  # which was the default, 2, in the baseline
    assert planned.refused[0] == "trial 0: the baseline has depth = 3 in the new space, and had 2"
    study = planned.create()
    first, *others = study.trials()
    assert first.state == TrialState.WAITING
    assert study.config_of(first).depth == 3
    assert [trial.state.is_finished() for trial in others] == [True] * len(planned.kept)
    claim = study.claim(holder())
    assert claim is not None
    assert claim.number == 0
    assert study.suggest_config(claim).optimizer == "sgd"


@pytest.mark.parametrize("baseline", [None, {"optimizer": "adam", "depth": 1}])
def test_in_a_grid_each_takes_the_slot_of_its_point(tmp_path: Path, baseline: dict[str, Any] | None) -> None:
    parameters = {
        "epochs": 4,
        "optimizer": ["adam", "sgd", "rmsprop"],
        "dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
    }
    leading = {} if baseline is None else {"baseline": baseline}
    first = len(leading)
    old = filled(tmp_path, "old", sampler="grid", parameters=parameters, trials=12 + first, **leading)
    study = fork_study(old, "new", {"optimizer": ["nadam", "rmsprop", "adam"]}).create()
    keys = {"sampler": "grid", "parameters": study.definition.parameters, "trials": 12 + first, **leading}
    whole = make_study(tmp_path, "whole", **keys)
    fixed = [trial.system_attrs["fixed_params"] for trial in whole.trials()]
    assert [trial.system_attrs["fixed_params"] for trial in study.trials()] == fixed
    assert study.budget.trials == len(fixed) == 12 + first
    for trial in study.trials()[first:]:
        assert trial.state == (
            TrialState.WAITING if fixed[trial.number]["optimizer"] == "nadam" else TrialState.COMPLETE
        )
        assert trial.params in ({}, fixed[trial.number])
    tell_all(study)
    assert {trial.state for trial in study.trials()} == {TrialState.COMPLETE}
    assert len(study.trials()) == 12 + first


def test_of_two_at_one_point_of_a_grid_the_first_is_kept(tmp_path: Path) -> None:
    old = filled(tmp_path, "old", sampler="grid", trials=2, parameters={"epochs": 4, "depth": [1, 2]})
    add_foreign(old, {"depth": 2}, 0.5)
    assert fork_study(old, "new").refused == ["trial 2: trial 1 already has the same point"]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_random_trials_keep_their_numbers(tmp_path: Path, sampler: str) -> None:
    old = made(tmp_path, ("COMPLETE", "FAIL"), sampler=sampler, trials=8)
    add_foreign(old, {"optimizer": "adam", "learning_rate": 0.01, "depth": 1}, 0.5)
    study = fork_study(old, "new", trials=10).create()
    states = [trial.state for trial in study.trials()]
    one, other = TrialState.COMPLETE, TrialState.WAITING
    assert states == [one, other, one, other, one, other, one, other, one, other]
    tell_all(study)
    longer = make_study(tmp_path, "longer", sampler=sampler, parameters=SPACE, trials=10)
    expected = [trial.system_attrs["fixed_params"] for trial in longer.trials()]
    assert [trial.params for trial in study.trials() if trial.number != 8] == [*expected[:8], expected[9]]
    study.extend(study.budget.model_copy(update={"trials": 11}))
    assert len(study.trials()) == 11


def test_a_grid_is_gone_on_with_by_an_adaptive_sampler(tmp_path: Path) -> None:
    points = {"epochs": 4, "depth": [1, 2], "learning_rate": [0.1, 0.2]}
    old = filled(tmp_path, "old", sampler="grid", trials=4, parameters=points)
    study = fork_study(old, "new", {"learning_rate": {"low": 0.01, "high": 0.2}}, sampler="tpe", trials=6).create()
    tell_all(study)
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 6
    assert all("fixed_params" not in trial.system_attrs for trial in study.trials())


def test_conditional_parameters_are_renamed(tmp_path: Path) -> None:
    old = made(tmp_path)
    low, high = {"low": 1e-4, "high": 1e-1, "log": True}, {"low": 1e-3, "high": 1.0, "log": True}
    alternatives = [{**low, "when": {"optimizer": "adam"}}, {**high, "when": {"optimizer": "rmsprop"}}]
    planned = fork_study(old, "new", {"learning_rate": alternatives})
    for number, before in planned.kept.items():
        key = f"learning_rate[optimizer={before.params['optimizer']}]"
        assert planned.first[number][key] == before.params["learning_rate"]
    assert planned.create().trials()


def test_weights_of_kept_trials_go_along(tmp_path: Path) -> None:
    old = made(tmp_path)
    for trial in old.trials():
        StudyFiles(old).weights(trial.number).write_bytes(b"%d" % trial.number)
    planned = fork_study(old, "new", {"optimizer": CHOICES})
    files = list_local_weights(planned.create())
    assert {number: path.read_bytes() for number, path in files.items()} == {
        number: b"%d" % trial.number for number, trial in planned.kept.items()
    }


def test_what_is_refused(tmp_path: Path) -> None:
    old = made(tmp_path, trials=6)
    with pytest.raises(StudyConflictError, match="has a study 'old' already"):
        fork_study(old, "old")
    with pytest.raises(DefinitionError, match="name = 'a/b'"):
        fork_study(old, "a/b")
    with pytest.raises(RequestError, match="trials = 5: the fork of 'old' begins with 6 trials"):
        fork_study(old, "new", trials=5)
    with pytest.raises(RequestError, match="unknown parameter 'optimzer'; did you mean 'optimizer'"):
        fork_study(old, "new", {"optimzer": "adam"})
    with pytest.raises(RequestError, match="with another seed, launch a study of its own"):
        fork_study(old, "new", seed=1)
    with pytest.raises(RequestError, match="none is COMPLETE or PRUNED"):
        fork_study(make_study(tmp_path, "empty", sampler="tpe"), "new")
    evaluation = evaluated(old, [0], {"trial 0": 0.9, "defaults": 0.8})[0]
    with pytest.raises(RequestError, match="is the evaluation of 'old'"):
        fork_study(evaluation, "new")


def test_a_name_taken_meanwhile_is_refused(tmp_path: Path) -> None:
    old = made(tmp_path)
    planned = fork_study(old, "new")
    fork_study(old, "new").create()
    with pytest.raises(StudyConflictError, match="has a study 'new' already"):
        planned.create()


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    old = made(tmp_path)
    planned = fork_study(old, "new")
    with old.storage.engine.begin() as connection:
        # The last table that is written to: all others have their rows by then.
        connection.exec_driver_sql(
            f"CREATE TRIGGER full BEFORE INSERT ON {EPOCHS.name} WHEN NEW.study_id <> {old.id} "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(sa.exc.IntegrityError, match="disk full"):
        planned.create()
    assert study_names(old.storage) == ["old"]
    with old.storage.engine.begin() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(TRIALS)).scalar_one() == 12
        connection.exec_driver_sql("DROP TRIGGER full")
    assert math.isfinite(planned.create().trials()[0].value or math.nan)


def test_a_study_that_is_deleted_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    old = made(tmp_path)
    planned = fork_study(old, "new")
    old.storage.delete_study(old.id)
    with pytest.raises(RequestError, match=r"study 'old' in .* has changed or is deleted"):
        planned.create()
    assert study_names(old.storage) == []
