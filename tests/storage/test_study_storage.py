"""Optuna's own contract, on our storage, and what we add to it."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from hpo.errors import StorageError
from hpo.storage.schema import metadata
from hpo.storage.study_storage import LeaseGrant
from hpo.storage.url import mask, normalize
from hpo.study import StudyStorage
from tests.study.helpers import holder, sqlite_url


class TestOptunasContract(StorageTestCase):
    @pytest.fixture
    def storage(self, storage: StudyStorage) -> StudyStorage:
        return storage


def reopened(storage: StudyStorage) -> str:
    """Its URL for Optuna's own storage."""
    return storage.url.render_as_string(hide_password=False)


def _study(storage: StudyStorage, slots: int = 0) -> int:
    waiting = [{"n": n} for n in range(slots)]
    return storage.create_study("s", [optuna.study.StudyDirection.MAXIMIZE], ["val_accuracy"], {"a": 1}, waiting)


def test_it_is_a_drop_in_for_optuna(storage: StudyStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="plain")
    assert study._storage is storage
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    again = optuna.load_study(study_name="plain", storage=reopened(storage))
    assert [t.value for t in again.trials] == [t.value for t in study.trials]


def test_a_study_is_made_whole(storage: StudyStorage) -> None:
    study_id = _study(storage, 3)
    plain = optuna.load_study(study_name="s", storage=reopened(storage))
    assert plain.metric_names == ["val_accuracy"]
    assert [(t.number, t.state) for t in plain.trials] == [(n, TrialState.WAITING) for n in range(3)]
    assert plain.ask().suggest_int("n", 0, 9) == 0
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        _study(storage)
    assert storage.get_study_user_attrs(study_id) == {"a": 1}


def claim(storage: StudyStorage, study_id: int, worker: str = "w", budget: int | None = None) -> LeaseGrant | None:
    return storage.claim(study_id, holder(worker), budget)


def test_waiting_trials_are_claimed_once_each_in_order(storage: StudyStorage) -> None:
    study_id = _study(storage, 40)
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda i: claim(storage, study_id, f"w{i}"), range(48)))
    ids = [each.trial_id for each in claimed if each is not None]
    assert sorted(storage.get_trial_number_from_id(i) for i in ids) == list(range(40))
    assert claimed.count(None) == 8


def test_trials_are_created_below_the_budget_only(storage: StudyStorage) -> None:
    study_id = _study(storage)
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda i: claim(storage, study_id, f"w{i}", 30), range(48)))
    numbers = sorted(storage.get_trial_number_from_id(each.trial_id) for each in created if each is not None)
    assert numbers == list(range(30))


def test_a_released_trial_waits_with_its_parameters_and_reports(storage: StudyStorage) -> None:
    study_id = _study(storage)
    claimed = claim(storage, study_id, budget=1)
    assert claimed is not None
    assert claimed.attempt == 1
    trial = optuna.trial.Trial(optuna.load_study(study_name="s", storage=storage), claimed.trial_id)
    x = trial.suggest_float("x", 0, 1)
    for epoch in (1, 2, 3):
        trial.report(epoch / 10, epoch)
        storage.record_epoch(claimed.trial_id, epoch, {"epoch": epoch})
    assert storage.release(claimed.trial_id)
    assert storage.get_trial(claimed.trial_id).state == TrialState.WAITING
    assert claim(storage, study_id) == LeaseGrant(claimed.trial_id, 2)
    storage.discard_reports(claimed.trial_id, after=2)
    assert storage.get_trial(claimed.trial_id).intermediate_values == {1: 0.1, 2: 0.2}
    assert storage.read_epochs(study_id) == {claimed.trial_id: [{"epoch": 1}, {"epoch": 2}]}
    again = optuna.trial.Trial(optuna.load_study(study_name="s", storage=storage), claimed.trial_id)
    assert again.suggest_float("x", 0, 1) == x


def halving(storage: StudyStorage) -> optuna.Study:
    """The study, with a pruner whose rungs are at the steps 1, 2, 4 and 8."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.load_study(study_name="s", storage=storage, pruner=pruner)


def begin_trial(storage: StudyStorage, study_id: int, steps: int) -> optuna.trial.Trial:
    """Claim a trial, and report that many steps to the pruner."""
    claimed = claim(storage, study_id, budget=1)
    assert claimed is not None
    trial = optuna.trial.Trial(halving(storage), claimed.trial_id)
    trial.suggest_float("x", 0, 1)
    for step in range(1, steps + 1):
        trial.report(step / 10, step)
        trial.should_prune()
    return trial


def test_what_a_failed_attempt_told_the_pruner_and_the_sampler_is_gone_with_its_reports(storage: StudyStorage) -> None:
    study_id = _study(storage)
    trial = begin_trial(storage, study_id, steps=2)
    trial.set_constraint("train_seconds <= 5", 3.0)
    storage.set_trial_system_attr(trial._trial_id, "constraints", [3.0])  # as older samplers wrote them
    storage.set_trial_system_attr(trial._trial_id, "completed", "kept")
    assert "completed_rung_1" in storage.get_trial(trial._trial_id).system_attrs
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert storage.retry(study_id) == [0]
    [again] = storage.get_all_trials(study_id)
    assert again.constraints == {}
    assert again.system_attrs == {"fixed_params": {"x": trial.params["x"]}, "completed": "kept"}


def test_reports_that_are_discarded_take_along_the_rungs_that_they_completed(storage: StudyStorage) -> None:
    study_id = _study(storage)
    trial = begin_trial(storage, study_id, steps=5)
    assert set(storage.get_trial(trial._trial_id).system_attrs) == {f"completed_rung_{rung}" for rung in range(3)}
    trial.set_constraint("memory", 3.0)
    storage.discard_reports(trial._trial_id, after=3)
    kept = {"completed_rung_0": 0.1, "completed_rung_1": 0.2, "constraints:memory": 3.0}
    for reader in (storage, StudyStorage(reopened(storage))):
        assert reader.get_trial(trial._trial_id).system_attrs == kept
    storage.discard_reports(trial._trial_id, after=-1)
    assert StudyStorage(reopened(storage)).get_trial(trial._trial_id).system_attrs == {}


def test_a_slot_that_is_released_before_it_was_read_keeps_its_parameters(storage: StudyStorage) -> None:
    study_id = _study(storage, 1)
    claimed = claim(storage, study_id)
    assert claimed is not None
    storage.release(claimed.trial_id)
    assert storage.get_trial(claimed.trial_id).system_attrs["fixed_params"] == {"n": 0}


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_times_are_read_as_local_ones(storage: StudyStorage, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        study_id = _study(storage, 1)
        for _ in range(2):
            claimed = claim(storage, study_id, budget=2)
            assert claimed is not None
            started = storage.get_trial(claimed.trial_id).datetime_start
            assert started is not None
            assert abs(started - datetime.now()) < timedelta(minutes=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_of_several_that_extend_a_study_at_once_one_does(storage: StudyStorage) -> None:
    study_id = _study(storage, 2)
    more = [{"n": 2}, {"n": 3}]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: storage.update_study(study_id, {"a": 1}, {"a": 2, "b": 3}, more, 2), range(4)))
    assert sorted(done) == [False, False, False, True]
    assert storage.count_trials(study_id)[TrialState.WAITING] == 4
    assert storage.get_study_user_attrs(study_id) == {"a": 2, "b": 3}
    assert not storage.update_study(study_id, {"a": 2}, {}, more, 3)  # somebody added a trial meanwhile


def test_it_holds_studies_in_memory() -> None:
    study = optuna.create_study(storage=StudyStorage("sqlite://"))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2


def test_all_metrics_of_every_epoch_are_kept_nan_too(storage: StudyStorage) -> None:
    study_id = _study(storage, 1)
    claimed = claim(storage, study_id)
    assert claimed is not None
    for epoch, loss in ((2, float("nan")), (1, 0.25)):
        storage.record_epoch(claimed.trial_id, epoch, {"epoch": epoch, "val_loss": loss})
    rows = storage.read_epochs(study_id)[claimed.trial_id]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["val_loss"] == 0.25
    assert rows[1]["val_loss"] != rows[1]["val_loss"]
    storage.delete_study(study_id)
    assert storage.read_epochs(study_id) == {}


# Twenty processes that have imported all they need wait for one another, so that they really open it at once.
OPEN_AT_ONCE = """
import multiprocessing
import sys
from hpo.study import StudyStorage

context = multiprocessing.get_context("fork")
barrier = context.Barrier(20)


def count_studies(url):
    barrier.wait(60)
    return len(StudyStorage(url).get_all_studies())


with context.Pool(20) as pool:
    print(pool.map(count_studies, [sys.argv[1]] * 20, chunksize=1))
"""


@pytest.mark.integration
def test_many_processes_open_one_empty_database_at_once(any_url: str) -> None:
    engine = sa.create_engine(any_url)
    everything = sa.MetaData()
    everything.reflect(engine)
    everything.drop_all(engine)
    engine.dispose()
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AT_ONCE, any_url], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == str([0] * 20), done.stderr


def test_tries_to_open_that_fail_keep_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    kept_at_failures: list[int] = []
    create_all = metadata.create_all

    def create_at_the_third_try(bind: sa.Engine, *args: object) -> None:
        if len(kept_at_failures) < 2:
            kept_at_failures.append(len(kept))
            raise sa.exc.OperationalError("CREATE TABLE", {}, sqlite3.OperationalError("table already exists"))
        create_all(bind, *args)

    def on_connect(connection: object, _record: object) -> None:
        kept.append(connection)

    def on_close(connection: object, _record: object) -> None:
        kept.remove(connection)

    monkeypatch.setattr(metadata, "create_all", create_at_the_third_try)
    sa.event.listen(sa.Pool, "connect", on_connect)
    sa.event.listen(sa.Pool, "close", on_close)
    try:
        StudyStorage(sqlite_url(tmp_path)).engine.dispose()
    finally:
        sa.event.remove(sa.Pool, "connect", on_connect)
        sa.event.remove(sa.Pool, "close", on_close)
    assert kept_at_failures[0] == kept_at_failures[1]
    assert kept == []


def test_sqlite_writes_ahead(tmp_path: Path) -> None:
    storage = StudyStorage(sqlite_url(tmp_path))
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_it_survives_pickling(storage: StudyStorage) -> None:
    _study(storage)
    assert [s.study_name for s in pickle.loads(pickle.dumps(storage)).get_all_studies()] == ["s"]


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg"),
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("mysql://u:p@h/d", "mysql+pymysql"),
        ("mariadb://u:p@h/d", "mysql+pymysql"),
        ("mariadb+pymysql://u:p@h/d", "mysql+pymysql"),
    ],
)
def test_urls_as_people_write_them_get_their_driver(url: str, driver: str) -> None:
    assert normalize(url).drivername == driver
    assert mask(url) == f"{driver}://u:***@h/d"


def test_a_relative_sqlite_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normalize("sqlite:///a/b.db").database == str(tmp_path / "a" / "b.db")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["'nonsense' is not a URL", "sqlite:///"]),
        ("me:secret@host", ["is not a URL"]),
        ("sqlite:////proc/nowhere/x.db", ["/proc/nowhere/x.db", "cannot make its folder"]),
        ("postgresql://me:secret@127.0.0.1:1/x", ["127.0.0.1", "***"]),
        ("postgresql://me:secret@localhost:port/x", ["is not a URL"]),
        ("postgresql://127.0.0.1:1/x?user=me&password=secret", ["password=***"]),
        ("mssql+pyodbc://me:secret@127.0.0.1:1/x", ["driver for mssql+pyodbc is missing"]),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line_without_the_password(url: str, words: list[str]) -> None:
    with pytest.raises(StorageError) as error:
        StudyStorage(url)
    text = str(error.value)
    assert "\n" not in text
    assert "secret" not in text
    assert all(word in text for word in words)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "studies.db").write_text("this is not a database, it is a text of some length\n" * 40)
    with pytest.raises(StorageError, match=r"cannot be opened: file is not a database"):
        StudyStorage(sqlite_url(tmp_path))


def test_reading_does_not_create_a_database(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        StudyStorage(sqlite_url(tmp_path), create=False)
    assert not list(tmp_path.glob("*.db"))
