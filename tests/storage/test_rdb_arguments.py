"""StudyStorage in the place of Optuna's RDBStorage: its arguments, heartbeats, bare paths and pickles."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
import torch
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState

from hpo.errors import StorageError
from hpo.storage.url import normalize
from hpo.study import StudyStorage

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.mark.parametrize("text", ["studies.db", "sub/studies.sqlite3", "/abs/a b?c%20.db", "~/studies.sqlite"])
def test_a_bare_path_is_a_sqlite_file(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normalize(text).database == str(Path(text).expanduser().absolute())


def test_what_is_neither_path_nor_url_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("studies", "", "user:secret"):
        with pytest.raises(StorageError, match="is not a URL"):
            normalize(text)
    (tmp_path / "studies").touch()
    assert normalize("studies").database == str(tmp_path / "studies")


def test_engine_arguments_are_the_users_own(tmp_path: Path) -> None:
    storage = StudyStorage(str(tmp_path / "a.db"), {"connect_args": {"timeout": 7}, "echo": False, "pool_size": 3})
    assert isinstance(storage.engine.pool, sa.QueuePool)
    assert storage.engine.pool.size() == 3


def test_a_pickled_storage_has_its_arguments(tmp_path: Path) -> None:
    storage = StudyStorage(str(tmp_path / "a.db"), {"pool_size": 3}, heartbeat_interval=5, grace_period=11)
    again = pickle.loads(pickle.dumps(storage))
    assert again.url == storage.url
    assert again.get_heartbeat_interval() == 5
    assert again.engine.pool.size() == 3


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with pytest.raises(ValueError, match="positive"):
        StudyStorage(url, heartbeat_interval=0)
    callback = RetryHeartbeatStaleTrialCallback()
    with pytest.raises(ValueError, match="only one"):
        StudyStorage(url, heartbeat_stale_trial_callback=callback, failed_trial_callback=callback)


KILLED = """
import os, signal, sys, optuna
from hpo.study import StudyStorage

def objective(trial):
    trial.suggest_float("x", 0, 1)
    trial.study._storage.flush()
    os.kill(os.getpid(), signal.SIGKILL)

study = optuna.load_study(study_name="s", storage=StudyStorage(sys.argv[1], heartbeat_interval=1, grace_period=2))
study.optimize(objective, n_trials=1)
"""


@pytest.mark.integration
def test_a_trial_whose_process_is_killed_under_optimize_is_failed_and_retried(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    storage = StudyStorage(
        path, heartbeat_interval=1, grace_period=2, heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback()
    )
    study = optuna.create_study(study_name="s", storage=storage)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    with storage.engine.begin() as connection:  # as if three seconds had passed
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-3 seconds')")
    fail_stale_trials(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert study.trials[1].state == TrialState.COMPLETE
    assert study.trials[1].params == study.trials[0].params


def test_without_an_interval_there_is_no_heartbeat(tmp_path: Path) -> None:
    storage = StudyStorage(str(tmp_path / "a.db"))
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2, n_jobs=2)
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM trial_heartbeats").scalar_one() == 0


def test_arrays_and_their_numbers_are_attributes_as_in_memory(tmp_path: Path) -> None:
    storage = StudyStorage(str(tmp_path / "a.db"))
    study = optuna.create_study(study_name="s", storage=storage)

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("scores", np.array([0.5, 1.0]))
        trial.set_user_attr("count", np.int64(3))
        trial.set_user_attr("nested", {"a": [torch.tensor([[1.0]]), np.float32(0.5)]})
        with pytest.raises(TypeError, match="an attribute cannot be a set"):
            trial.set_user_attr("set", {1})
        return 0.0

    study.optimize(objective, n_trials=1)
    expected = {"scores": [0.5, 1.0], "count": 3, "nested": {"a": [[[1.0]], 0.5]}}
    assert study.trials[0].user_attrs == expected
    assert optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'a.db'}").trials[0].user_attrs == expected
