"""What a worker records beside values: the loss of every step, and TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

import hpo
from hpo.errors import RequestError
from hpo.storage.tables import EPOCHS, INTERMEDIATE_VALUES, STEPS
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import StudyFiles
from hpo.study.input.study_file import parse_definition
from hpo.utils.home import default_storage
from tests.data import small_npz
from tests.helpers import hpo as command
from tests.helpers import run_hpo
from tests.study.helpers import new_storage, sqlite_url
from tests.training.test_tensorboard import read
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 4, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def make(folder: Path, name: str = "small", **keys: Any) -> Study:
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": 4, "sampler": "random", "parameters": SMALL}
    return Study.create(new_storage(folder), *parse_definition({**table, **keys}, name, folder))


class InTheMidst:
    """Asks to stop some steps after a trial has reported an epoch."""

    def __init__(self, study: Study, epoch: int, steps: int) -> None:
        self.study, self.epoch, self.left = study, epoch, steps

    def __call__(self) -> bool:
        reported = max((len(trial.intermediate_values) for trial in self.study.trials()), default=0)
        self.left -= reported >= self.epoch
        return self.left <= 0


def recorded(study: Study) -> dict[int, list[list[float]]]:
    found = study.storage.read_steps(study.id)
    return {t.number: [each.losses.tolist() for each in found.get(t._trial_id, [])] for t in study.trials()}


@pytest.mark.parametrize("cohort", [1, 4])
def test_the_losses_of_steps_are_there_for_every_epoch(cohort: int, tmp_path: Path) -> None:
    study = make(tmp_path, record_steps=True)
    make_worker(study, cohort=cohort).run()
    epochs, found = study.storage.read_epochs(study.id), study.storage.read_steps(study.id)
    assert found.keys() == epochs.keys() == {trial._trial_id for trial in study.trials()}
    for trial_id, rows in epochs.items():
        assert [each.epoch for each in found[trial_id]] == [row["epoch"] for row in rows] == [1, 2, 3, 4]
        sizes = {len(each.losses) for each in found[trial_id]}
        assert len(sizes) == 1
        for each, row in zip(found[trial_id], rows, strict=True):
            assert each.losses.min() < row["train_loss"] < each.losses.max()
            assert each.seconds[-1] <= np.float32(row["seconds"])


def test_without_the_key_there_are_none(tmp_path: Path) -> None:
    study = make(tmp_path)
    make_worker(study).run()
    assert study.storage.read_steps(study.id) == {}


@pytest.mark.parametrize("cohort", [1, 4])
def test_a_stop_in_the_midst_of_an_epoch_changes_none(cohort: int, tmp_path: Path) -> None:
    whole, stopped = make(tmp_path, "whole", record_steps=True), make(tmp_path, "stopped", record_steps=True)
    make_worker(whole, cohort=cohort).run()
    make_worker(stopped, InTheMidst(stopped, 2, 5), cohort=cohort).run()
    assert TrialState.WAITING in [trial.state for trial in stopped.trials()]
    make_worker(stopped, cohort=cohort).run()
    assert recorded(stopped) == recorded(whole)


def test_epochs_that_did_not_reach_the_database_come_from_the_checkpoint(tmp_path: Path) -> None:
    study = make(tmp_path, trials=1, record_steps=True)
    make_worker(study, InTheMidst(study, 3, 2)).run()
    [trial] = study.trials()
    expected = recorded(study)[0]
    assert len(expected) == 3
    with study.storage.engine.begin() as connection:
        for epoch in (EPOCHS.c.epoch, STEPS.c.epoch, INTERMEDIATE_VALUES.c.step):
            connection.execute(sa.delete(epoch.table).where(epoch > 1))
    study = Study(StudyStorage(sqlite_url(tmp_path)), "small")  # another process
    make_worker(study).run()
    assert recorded(study)[0][:3] == expected
    assert len(study.storage.read_epochs(study.id)[trial._trial_id]) == 4


@pytest.mark.parametrize("cohort", [1, 4])
def test_each_trial_has_its_events_also_when_it_was_interrupted(cohort: int, tmp_path: Path) -> None:
    study, folder = make(tmp_path), tmp_path / "board"
    make_worker(study, InTheMidst(study, 2, 5), cohort=cohort, tensorboard=folder).run()
    assert study.remaining()
    make_worker(study, cohort=cohort, tensorboard=folder).run()
    check_events(study, folder)


def test_a_trial_that_begins_anew_has_its_events_once(tmp_path: Path) -> None:
    study, folder = make(tmp_path, trials=1), tmp_path / "board"
    make_worker(study, InTheMidst(study, 3, 2), tensorboard=folder).run()
    StudyFiles(study).checkpoint(0).unlink()
    make_worker(study, tensorboard=folder).run()
    check_events(study, folder)


def check_events(study: Study, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {study.name}
    epochs = study.storage.read_epochs(study.id)
    assert {path.name for path in (folder / study.name).iterdir()} == {f"trial_{t.number}" for t in study.trials()}
    for trial in study.trials():
        expected = {row["epoch"]: pytest.approx(row["val_accuracy"]) for row in epochs[trial._trial_id]}
        assert read(folder / study.name / f"trial_{trial.number}", "val_accuracy") == expected


def test_a_folder_that_cannot_be_is_refused_before_a_trial_begins(tmp_path: Path) -> None:
    study = make(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        RequestError, match=r"--tensorboard .*/file/board: cannot be created \(Not a directory\); choose"
    ):
        make_worker(study, tensorboard=tmp_path / "file" / "board")


@pytest.mark.integration
def test_from_the_command_line(tmp_path: Path) -> None:
    small_npz(tmp_path / "small.npz")
    (tmp_path / "mine.toml").write_text(
        'dataset = "small.npz"\ntrials = 4\nsampler = "random"\nrecord_steps = true\n'
        '[parameters]\nwidths = "8"\nepochs = 2\nlearning_rate = { low = 0.01, high = 0.1 }\n'
    )
    done = command("launch", "./mine.toml", "--workers", "2", "--tensorboard", "board", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = Study(StudyStorage(default_storage()), "mine")
    check_events(study, tmp_path / "board")
    assert [len(epochs) for epochs in recorded(study).values()] == [2] * 4
    done = run_hpo("launch", "mine", "--trials", "5", "--workers", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_hpo("worker", "mine", "--tensorboard", "board", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_events(study, tmp_path / "board")
    assert study.remaining() == 0
    done = run_hpo("launch", "mine", "--tensorboard", "small.npz", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "small.npz" in done.stderr


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(small_npz(tmp_path / "small.npz"))
    keys: dict[str, Any] = {"sampler": "random", "trials": 2, "dataset": data, "record_steps": True}
    hpo.launch(name="small", parameters=SMALL, device="cpu", tensorboard=Path("board"), **keys)
    study = Study(StudyStorage(default_storage()), "small")
    check_events(study, tmp_path / "board")
    assert all(len(epochs) == 4 for epochs in recorded(study).values())
