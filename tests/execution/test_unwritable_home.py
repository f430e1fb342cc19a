"""A worker whose `HPO_HOME` cannot be written, from its start or from some moment on."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import RequestError
from hpo.execution import cohort_trainer, trial_loggers, trial_recorder
from hpo.study import Study
from hpo.study.files import study_files
from hpo.training import checkpoint
from hpo.utils.home import home
from tests.data import small_npz
from tests.study import helpers
from tests.study.helpers import sqlite_url
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 2, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def make_study(folder: Path, trials: int) -> Study:
    data = str(small_npz(folder / "small.npz"))
    return helpers.make_study(folder, trials=trials, dataset=data, parameters=SMALL)


def _refuse(path: Path, *_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


def _states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.trials()]


def test_a_home_that_becomes_read_only_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(tmp_path, trials=4)
    runs = make_worker(study, cohort=1, checkpoint_every=0)
    for module, name in (
        (checkpoint, "write_atomically"), (trial_recorder, "delete_checkpoint"), (cohort_trainer, "delete_checkpoint"),
        (trial_recorder, "_write"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, _refuse)
    monkeypatch.setattr(Path, "unlink", _refuse)
    with caplog.at_level("INFO"):
        runs.run()
    assert _states(study) == ["COMPLETE"] * 4
    assert runs.finished == {"COMPLETE": 4}
    assert "failed" not in caplog.text
    assert caplog.text.count("checkpoints of finished trials stay (Read-only file system)") == 1
    assert all(f"trial {number} COMPLETE [" in caplog.text for number in range(4))


@pytest.mark.parametrize("cohort", [1, 4])
def test_what_fails_after_a_result_is_stored_is_not_the_trial(
    cohort: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(tmp_path, trials=4)
    runs = make_worker(study, cohort=cohort)
    tell = runs._recorder.tell_all

    class Broken:
        """A tracker that cannot close its runs, which it does after their results are stored."""

        def close(self) -> None:
            tell()
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setattr(runs.trials.context.loggers, "_trackers", ["broken"])
    monkeypatch.setattr(trial_loggers, "make_tracker", lambda *_: Broken())
    runs.run()
    assert _states(study) == ["COMPLETE"] * 4
    assert "failed" not in caplog.text
    assert "No space left on device" in caplog.text


def test_beaten_weights_that_cannot_be_ranked_leave_the_count_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, trials=2)
    runs = make_worker(study, cohort=1)

    def broken(*_: object) -> None:
        raise ValueError("weights")

    monkeypatch.setattr(study_files.StudyFiles, "_remove_beaten", broken)
    runs.run()
    assert _states(study) == ["COMPLETE"] * 2
    assert runs.finished == {"COMPLETE": 2}


def test_it_is_refused_before_the_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, trials=2)
    make_worker(study)  # its folders are there

    def refuse(**keys: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(keys["dir"]))

    monkeypatch.setattr(study_files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(RequestError, match=r"checkpoints/small-\w+: cannot be written \(Read-only file system\)"):
        make_worker(study)
    assert _states(study) == ["WAITING"] * 2


@pytest.mark.integration
def test_a_real_read_only_file_system(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("hardware: this machine lets nobody mount")
    make_worker(make_study(tmp_path, trials=2))
    where = str(home())
    script = f'mount --bind "{where}" "{where}" && mount -o remount,bind,ro "{where}" && exec "$@"'
    command = [sys.executable, "-m", "hpo", "worker", "small", "--storage", sqlite_url(tmp_path)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("hpo: ")
    assert "cannot be written (Read-only file system); set HPO_HOME" in done.stderr
