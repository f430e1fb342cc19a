"""A worker and a launch whose database, or whose study in it, is deleted or replaced while they run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hpo.cli import main
from hpo.errors import StorageLostError, StudyDeletedError
from hpo.execution.launch import run_workers
from hpo.execution.worker import Worker
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.helpers import start_hpo
from tests.study.helpers import sqlite_url
from tests.workers import make_worker

EPOCHS = {"widths": "8", "epochs": 4, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def create(folder: Path, url: str) -> Study:
    """A study of three trials of four epochs, in a database of any kind."""
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": 3, "parameters": EPOCHS, "sampler": "random"}
    return Study.create(StudyStorage(url), *parse_definition(table, "small", folder))


def _at_epoch(monkeypatch: pytest.MonkeyPatch, storage: StudyStorage, happens: Callable[[], object]) -> None:
    """Let something happen in the second trial, after two of its epochs; wait until the storage has noticed it."""
    record, calls = storage.record_epoch, []

    def recording(trial_id: int, epoch: int, metrics: Any) -> None:
        record(trial_id, epoch, metrics)
        calls.append(epoch)
        if len(calls) == 6:
            happens()
            deadline = time.monotonic() + 120
            while storage.loss is None and time.monotonic() < deadline:
                time.sleep(0.02)  # the heartbeat is a thread of its own

    monkeypatch.setattr(storage, "record_epoch", recording)


def _run(worker: Worker) -> str:
    with pytest.raises(StorageLostError) as caught:
        worker.run()
    return str(caught.value)


def _worker(study: Study) -> Worker:
    return make_worker(study, cohort=1, lease=1, checkpoint_every=0)


def test_what_was_trained_until_the_file_was_deleted_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create(tmp_path, sqlite_url(tmp_path))
    path = Path(str(study.storage.url.database))
    _at_epoch(monkeypatch, study.storage, path.unlink)
    worker = _worker(study)
    line = _run(worker)
    assert "\n" not in line
    assert "the file was deleted or moved while it was in use; all that it held is saved in" in line
    assert f"checkpoints of the trials in training are in {worker.files.folder('checkpoints')}" in line
    assert worker.files.checkpoint(1).exists()
    assert not path.exists()
    command = shlex.split(line.rpartition("go on with: ")[2])
    assert command[:3] == ["hpo", "launch", "small"]
    again = Study(StudyStorage(command[4], create=False), "small")
    assert [trial.state.name for trial in again.trials()] == ["COMPLETE", "RUNNING", "WAITING"]
    next_worker = make_worker(again, cohort=1)
    with again.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE hpo_leases SET expires = 0"))
    next_worker.run()
    assert [trial.state.name for trial in again.trials()] == ["COMPLETE"] * 3
    epochs = again.storage.read_epochs(again.id)
    assert {trial_id: len(each) for trial_id, each in epochs.items()} == {1: 4, 2: 4, 3: 4}
    assert again.trials()[1].user_attrs["attempt"] == 2


def test_a_file_replaced_by_a_backup_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = create(tmp_path, sqlite_url(tmp_path))
    path, backup = Path(str(study.storage.url.database)), tmp_path / "backup.db"
    study.storage.engine.dispose()  # so that all of it is in the file
    shutil.copy(path, backup)
    content = backup.read_bytes()

    def replace() -> None:
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
        backup.replace(path)

    _at_epoch(monkeypatch, study.storage, replace)
    assert "the file was replaced by another file while it was in use" in _run(_worker(study))
    assert path.read_bytes() == content


def test_a_result_that_nobody_can_store_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = create(tmp_path, sqlite_url(tmp_path))
    tell = study.storage.tell
    path = Path(str(study.storage.url.database))

    def deleted(results: Any) -> Any:
        path.unlink(missing_ok=True)
        return tell(results)

    monkeypatch.setattr(study.storage, "tell", deleted)
    with caplog.at_level("INFO"):
        _run(make_worker(study, cohort=1))
    assert "trial 0 COMPLETE, not stored: [" in caplog.text
    assert "failed" not in caplog.text


@pytest.fixture
def own_database(postgres_url: str) -> Any:
    """A PostgreSQL database of its own, and functions that drop it and make it again."""
    server = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    url = sa.make_url(postgres_url).set(database="lost")

    def execute(*statements: str) -> None:
        with server.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    drop = "DROP DATABASE IF EXISTS lost WITH (FORCE)"
    execute(drop, "CREATE DATABASE lost")
    yield url.render_as_string(hide_password=False), lambda *more: execute(drop, *more)
    execute(drop)
    server.dispose()


@pytest.mark.parametrize("then", ["dropped", "made again", "made again with the study"])
def test_a_server_database_that_is_dropped(
    own_database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    url, drop = own_database
    study = create(tmp_path, url)

    def replace() -> None:
        with study.storage._transaction_lock:  # what the worker sees is the end of it
            drop(*(["CREATE DATABASE lost"] if then != "dropped" else []))
            if then == "made again with the study":
                create(tmp_path, url).storage.engine.dispose()

    _at_epoch(monkeypatch, study.storage, replace)
    worker = _worker(study)
    line = _run(worker)
    study.storage.engine.dispose()
    said = (
        "made again while it was in use" if then == "made again with the study" else "was deleted while it was in use"
    )
    assert said in line
    assert "put back a backup of it, and go on with: hpo launch small --storage postgresql" in line
    assert worker.files.checkpoint(1).exists()
    if then == "made again with the study":
        fresh = Study(StudyStorage(url), "small")
        assert {trial.state.name for trial in fresh.trials()} == {"WAITING"}
        fresh.storage.engine.dispose()


def test_a_study_deleted_and_made_again_is_another_study(any_url: str, tmp_path: Path) -> None:
    study = create(tmp_path, any_url)
    make_worker(study)  # draws its key
    other = StudyStorage(any_url)
    other.delete_study(study.id)
    for call in (study.stop_reason, study.trials, lambda: study.budget, lambda: _worker(study)):
        with pytest.raises(StudyDeletedError, match=r"study 'small' is not in .* any more: it was deleted"):
            call()
    again = create(tmp_path, any_url)
    make_worker(again)
    if again.id == study.id:  # SQLite gives ids away again
        with pytest.raises(StudyDeletedError, match=r"study 'small' in .* was deleted while it was in use, and made"):
            study.stop_reason()
    for storage in (study.storage, other, again.storage):
        storage.engine.dispose()


@pytest.mark.parametrize("how", ["file", "study"])
def test_a_launch_ends_with_one_line(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = create(tmp_path, sqlite_url(tmp_path))
    path = Path(str(study.storage.url.database))

    class Backend:
        """Workers that train nothing, and end when they are asked to."""

        alive, failure = True, None

        def start(self, *_: object) -> list[Any]:
            if how == "file":
                path.unlink()
            else:
                other = StudyStorage(sqlite_url(tmp_path))
                other.delete_study(study.id)
                other.engine.dispose()
            return [self, self]

        def stop(self) -> None:
            self.alive = False

    def launch(*_: object, **__: object) -> None:
        run_workers(study, WorkerOptions(workers=2), backend=Backend())

    monkeypatch.setattr("hpo.execution.launch.run_workers", launch)
    with pytest.raises(SystemExit) as caught:
        main(["launch", "small", "--storage", sqlite_url(tmp_path)])
    assert caught.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    said = "the file was deleted or moved" if how == "file" else "is not in sqlite"
    assert last.startswith("hpo: ")
    assert said in last


@pytest.mark.integration
def test_a_real_worker_ends_with_one_line_and_exit_code_1(tmp_path: Path) -> None:
    study = create(tmp_path, sqlite_url(tmp_path))
    process = start_hpo("worker", "small", "--cohort", "1", "--lease", "1", "--storage", sqlite_url(tmp_path))
    try:
        assert process.stderr is not None
        for text in process.stderr:
            if "begins" in text:
                Path(str(study.storage.url.database)).unlink()
                break
        errors = process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 1, errors
    assert errors.splitlines()[-1].startswith("hpo: storage sqlite:")
