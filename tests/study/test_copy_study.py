"""A study moved between databases, on real servers: everything arrives, all or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note, save_note

from hpo.errors import DefinitionError, StudyConflictError
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import KEY, StudyFiles, list_local_weights
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.copy_study import copy_study
from tests.servers import empty_database
from tests.study.helpers import SPACE, holder, new_storage

PAIRS = [
    ("sqlite", "postgres"),
    ("postgres", "mariadb"),
    ("mariadb", "sqlite"),
    ("sqlite", "mariadb"),
    ("sqlite", "sqlite"),
]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[StudyStorage, StudyStorage]]:
    """Two storages: the one to copy from, and the one to copy to, which holds a study already."""
    opened = [_empty(request, kind, tmp_path / str(i)) for i, kind in enumerate(request.param)]
    optuna.create_study(storage=opened[1], study_name="there before").add_trial(optuna.trial.create_trial(value=1.0))
    yield opened[0], opened[1]
    for storage in opened:
        storage.engine.dispose()


def _empty(request: pytest.FixtureRequest, kind: str, folder: Path) -> StudyStorage:
    if kind == "sqlite":
        folder.mkdir()
        return new_storage(folder)
    url: str = request.getfixturevalue(f"{kind}_url")
    empty_database(url)
    return StudyStorage(url)


def _made(storage: StudyStorage, folder: Path, **keys: Any) -> Study:
    table = {"dataset": "mnist", "trials": 9, "sampler": "tpe", "parameters": {**SPACE, "epochs": 3}, **keys}
    return Study.create(storage, *parse_definition(table, "small", folder))


def _work(study: Study, *states: TrialState) -> None:
    """Claim a trial for each of the states, and leave it in that state; no numbers are round."""
    for state in states:
        claim = study.claim(holder("here"))
        assert claim is not None
        study.suggest_config(claim)
        for epoch in (1, 2, 3):
            value = 1 / (3 + claim.number + epoch)
            study.storage.record_epoch(claim.id, epoch, {"epoch": epoch, "val_accuracy": value})
            claim.trial.report(value, epoch)
        if state == TrialState.WAITING:
            study.storage.release(claim.id)
        elif state != TrialState.RUNNING:
            values = None if state == TrialState.FAIL else [1 / (3 + claim.number)]
            study.storage.set_trial_state_values(claim.id, state, values)


def _told(trial: FrozenTrial) -> dict[str, Any]:
    """A trial without its id."""
    return {name: value for name, value in vars(trial).items() if name != "_trial_id"}


EACH = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE)


def test_everything_arrives_and_the_source_stays(pair: tuple[StudyStorage, StudyStorage], tmp_path: Path) -> None:
    source, target = pair
    study = _made(source, tmp_path)
    _work(study, *EACH, TrialState.WAITING)
    source.set_trial_user_attr(study.trials()[3]._trial_id, "é", {"nested": [1.5, None, "ü"]})
    before = [_told(trial) for trial in study.trials()]
    rows = source.read_epochs(study.id)

    copied = copy_study(study, target, "moved")

    assert [_told(trial) for trial in study.trials()] == before
    assert copied.definition == study.definition
    assert copied.budget == study.budget
    assert copied.optuna_study.metric_names == study.optuna_study.metric_names
    assert copied.optuna_study.directions == study.optuna_study.directions
    attrs, there = source.get_study_user_attrs(study.id), target.get_study_user_attrs(copied.id)
    assert attrs.pop(KEY) != there.pop(KEY)  # a copy has files of its own
    assert attrs == there
    now = [_told(trial) for trial in copied.trials()]
    assert [t for i, t in enumerate(now) if i != 3] == [t for i, t in enumerate(before) if i != 3]
    arrived, running = copied.trials()[3], study.trials()[3]
    assert (arrived.state, arrived.intermediate_values) == (TrialState.WAITING, {})
    assert arrived.datetime_start == running.datetime_start
    assert arrived.params == running.params == arrived.system_attrs["fixed_params"]
    assert arrived.user_attrs == running.user_attrs
    there = target.read_epochs(copied.id)
    pairs = [(t._trial_id, c._trial_id) for t, c in zip(study.trials(), copied.trials(), strict=True) if t.number != 3]
    assert [rows.get(old) for old, _ in pairs] == [there.get(new) for _, new in pairs]
    assert copied.trials()[3]._trial_id not in there


def test_a_worker_there_goes_on_to_the_budget(pair: tuple[StudyStorage, StudyStorage], tmp_path: Path) -> None:
    source, target = pair
    study = _made(source, tmp_path)
    _work(study, *EACH, TrialState.WAITING)
    copied = copy_study(study, target, "small")
    fixed = {t.number: t.params for t in copied.trials() if t.state == TrialState.WAITING}
    while (claim := copied.claim(holder("there"))) is not None:
        copied.suggest_config(claim)
        target.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
    trials = copied.trials()
    assert [t.number for t in trials] == list(range(9))
    assert copied.remaining() == 0
    assert fixed.keys() == {3, 5}
    assert all(trials[number].params == params for number, params in fixed.items())
    assert study.remaining() == 5


def test_a_taken_name_is_refused_and_nothing_arrives(pair: tuple[StudyStorage, StudyStorage], tmp_path: Path) -> None:
    source, target = pair
    study = _made(source, tmp_path)
    with pytest.raises(StudyConflictError, match=r"has a study 'there before' already; .*--as NEWNAME"):
        copy_study(study, target, "there before")
    with pytest.raises(DefinitionError, match=r"name = '\.\./x'"):
        copy_study(study, target, "../x")
    assert [found.study_name for found in target.get_all_studies()] == ["there before"]
    assert len(target.get_all_trials(target.get_all_studies()[0]._study_id)) == 1


def test_a_copy_that_breaks_off_leaves_nothing(
    pair: tuple[StudyStorage, StudyStorage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = pair
    study = _made(source, tmp_path)
    _work(study, *EACH)

    def break_off(_: object) -> None:
        raise ValueError("the last thing that is inserted cannot be")

    monkeypatch.setattr("hpo.study.operations.copy_study._Copier._fix_parameters", break_off)
    with pytest.raises(ValueError, match="the last thing"):
        copy_study(study, target, "small")
    assert [found.study_name for found in target.get_all_studies()] == ["there before"]
    for table in ("trials", "trial_params", "study_user_attributes", "hpo_epochs"):
        with target.engine.connect() as connection:
            held = connection.execute(sa.text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
        assert held == (1 if table == "trials" else 0), table


def test_a_parameter_that_cannot_be_read_does_not_keep_a_study_from_being_copied(
    pair: tuple[StudyStorage, StudyStorage], tmp_path: Path
) -> None:
    source, target = pair
    study = _made(source, tmp_path)
    _work(study, *EACH)
    with source.engine.begin() as connection:
        connection.execute(sa.text("UPDATE trial_params SET distribution_json = 'broken'"))
    copied = copy_study(study, target, "small")
    assert len(copied.trials()) == len(study.trials())
    assert all(not trial.params for trial in copied.trials())
    with target.engine.connect() as connection:
        texts = connection.execute(sa.text("SELECT DISTINCT distribution_json FROM trial_params")).scalars().all()
    assert texts == ["broken"]


def test_what_the_dashboard_and_samplers_keep_by_id_is_found_again(
    pair: tuple[StudyStorage, StudyStorage], tmp_path: Path
) -> None:
    source, target = pair
    optuna.create_study(storage=source, study_name="first")  # so that ids differ
    source.create_new_trial(source.get_study_id_from_name("first"))
    study = _made(source, tmp_path)
    _work(study, TrialState.COMPLETE, TrialState.COMPLETE)
    trial = optuna.trial.Trial(study.optuna_study, study.trials()[1]._trial_id)
    save_note(study.optuna_study, "of the study")
    save_note(trial, "of trial 1, " + "long " * 1000)
    ids = [t._trial_id for t in study.trials()]
    for key, value in {
        f"dashboard:artifacts:{ids[0]}:abc": "{}",
        f"preference:skip_trial:{ids[1]}": True,
        "NSGAIISampler:parent:1": [ids[1], ids[0]],
        "dashboard:plot_data:7:0": "stays",
        "dashboard:123456:note_ver": 1,
    }.items():
        source.set_study_system_attr(study.id, key, value)

    copied = copy_study(study, target, "small")

    there = [t._trial_id for t in copied.trials()]
    handle = optuna.trial.Trial(copied.optuna_study, there[1])
    assert get_note(copied.optuna_study) == "of the study"
    assert get_note(handle) == "of trial 1, " + "long " * 1000
    attrs = target.get_study_system_attrs(copied.id)
    assert attrs[f"dashboard:artifacts:{there[0]}:abc"] == "{}"
    assert attrs[f"preference:skip_trial:{there[1]}"] is True
    assert attrs["NSGAIISampler:parent:1"] == [there[1], there[0]]
    assert attrs["dashboard:plot_data:7:0"] == "stays"
    assert "dashboard:123456:note_ver" not in attrs


def test_values_that_are_not_finite_arrive(pair: tuple[StudyStorage, StudyStorage], tmp_path: Path) -> None:
    source, target = pair
    study = _made(source, tmp_path, objective=["val_loss", "parameter_count"])
    claim = study.claim(holder())
    assert claim is not None
    study.suggest_config(claim)
    source.set_trial_intermediate_value(claim.id, 1, float("nan"))
    source.set_trial_intermediate_value(claim.id, 2, float("-inf"))
    source.set_trial_state_values(claim.id, TrialState.COMPLETE, [float("inf"), 3.0])
    [trial] = copy_study(study, target, "small").trials()
    assert trial.values == [float("inf"), 3.0]
    assert trial.intermediate_values[2] == float("-inf")
    assert trial.intermediate_values[1] != trial.intermediate_values[1]


def test_within_one_database_under_another_name(any_url: str, tmp_path: Path) -> None:
    storage = StudyStorage(any_url)
    study = _made(storage, tmp_path)
    _work(study, *EACH)
    copied = copy_study(study, storage, "again")
    assert len(copied.trials()) == len(study.trials()) == 5
    assert {t._trial_id for t in copied.trials()}.isdisjoint(t._trial_id for t in study.trials())


def test_rows_of_deleted_trials_whose_ids_are_given_again_do_not_stay(tmp_path: Path) -> None:
    source, target = (StudyStorage(f"sqlite:///{tmp_path / name}.db") for name in "ab")
    study = _made(source, tmp_path)
    _work(study, TrialState.COMPLETE)
    with target.engine.begin() as connection:  # their study is gone: plain Optuna deleted it
        connection.execute(sa.text("INSERT INTO hpo_epochs VALUES (1, 7, 1, 1, '{}')"))
        connection.execute(sa.text("INSERT INTO hpo_leases VALUES (1, 1, 7, 'gone', 0)"))
    copied = copy_study(study, target, "small")
    assert list(target.read_epochs(copied.id).values()) == list(source.read_epochs(study.id).values())


def test_the_weights_of_the_best_come_along_and_checkpoints_do_not(tmp_path: Path) -> None:
    source, target = (StudyStorage(f"sqlite:///{tmp_path / name}.db") for name in "ab")
    study = _made(source, tmp_path)
    files = StudyFiles(study)
    files.weights(4).write_bytes(b"weights")
    files.checkpoint(5).write_bytes(b"checkpoint")
    copied = copy_study(study, target, "small")
    assert {number: path.read_bytes() for number, path in list_local_weights(copied).items()} == {4: b"weights"}
    assert not StudyFiles(copied).checkpoint(5).exists()
    assert StudyFiles(copied).weights(4) != files.weights(4)
    files.weights(4).unlink()
    assert list(list_local_weights(copied)) == [4]


def test_thousands_of_trials_take_seconds(pair: tuple[StudyStorage, StudyStorage], tmp_path: Path) -> None:
    source, target = pair
    study = _made(source, tmp_path, trials=3000, sampler="random")
    _grow(study, epochs=5)
    began = time.monotonic()
    copied = copy_study(study, target, "small")
    assert time.monotonic() - began < 30
    with_reports = Study(StudyStorage(source.url.render_as_string(hide_password=False)), "small").trials()
    assert {trial.state for trial in with_reports} == {TrialState.COMPLETE}
    assert [_told(t) for t in copied.trials()[::500]] == [_told(t) for t in with_reports[::500]]
    assert len(target.read_epochs(copied.id)) == 3000


def _grow(study: Study, epochs: int) -> None:
    """Every trial COMPLETE with reports, in bulk; nothing that is open sees it."""
    ids = [trial._trial_id for trial in study.trials()]
    engine = study.storage.engine
    tables = sa.MetaData()
    tables.reflect(engine, only=["trial_intermediate_values", "hpo_epochs"])
    reports, rows = tables.tables["trial_intermediate_values"], tables.tables["hpo_epochs"]
    steps = [(trial_id, epoch) for trial_id in ids for epoch in range(1, epochs + 1)]
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE trials SET state = 'COMPLETE'"))
        connection.execute(
            sa.insert(reports),
            [
                {"trial_id": i, "step": e, "intermediate_value": 1 / (i + e), "intermediate_value_type": "FINITE"}
                for i, e in steps
            ],
        )
        connection.execute(
            sa.insert(rows),
            [
                {"trial_id": i, "attempt": 1, "epoch": e, "study_id": study.id, "metrics": '{"val_loss": 0.25}'}
                for i, e in steps
            ],
        )
