"""TensorBoard events of several trials, read back as TensorBoard reads them."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loggers.tensorboard import TensorBoard
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.settings import TrainSettings
from tests.training.resumable import config, data, one, stop_after


def load_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # 0.4 s to import

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def read(folder: Path, name: str = "train_loss") -> dict[int, float]:
    """A scalar by step; every step must be there once."""
    scalars = load_events(folder).Scalars(name)
    found = {scalar.step: scalar.value for scalar in scalars}
    assert len(found) == len(scalars)
    return found


def expected(outcome, name: str = "train_loss") -> dict[int, float]:
    return {int(row["epoch"]): pytest.approx(row[name]) for row in outcome.history}


def test_each_trial_of_a_cohort_has_its_own_folder(tmp_path: Path) -> None:
    configs = [config(learning_rate=rate, epochs=epochs) for rate, epochs in ((0.01, 3), (0.1, 2))]
    folders = [tmp_path / f"trial_{i}" for i in range(2)]
    outcomes = train(configs, data(configs[0]), TrainSettings(callbacks=[TensorBoard(folders)]))
    for folder, outcome in zip(folders, outcomes, strict=True):
        for name in ("train_loss", "val_accuracy", "learning_rate", "seconds"):
            assert read(folder, name) == expected(outcome, name)


@pytest.mark.parametrize("lost", [False, True], ids=["from its checkpoint", "anew"])
def test_a_trial_that_is_tried_again_has_every_epoch_once(lost: bool, tmp_path: Path) -> None:
    given, folder, path = config(epochs=5), tmp_path / "trial_0", tmp_path / "0.pt"
    on = data(given)
    one(given, on, CheckpointSpec(path), callbacks=[TensorBoard([folder])], should_stop=stop_after(15))
    assert list(read(folder)) == [1, 2]
    # What an attempt leaves that died after its last checkpoint: an epoch that is trained again.
    late = TensorBoard([folder])
    late.on_start(Member(given, resumed_from=2))
    late.on_epoch(Member(given), {"epoch": 3, "train_loss": 99.0})
    outcome = one(given, on, CheckpointSpec(path, resume=not lost), callbacks=[TensorBoard([folder])])
    assert read(folder) == expected(outcome)
    assert len(list(folder.iterdir())) == 3


def test_where_its_earlier_events_are_not_here_they_are_written(tmp_path: Path) -> None:
    given, path = config(), tmp_path / "0.pt"
    on = data(given)
    one(given, on, CheckpointSpec(path), should_stop=stop_after(15))
    outcome = one(given, on, CheckpointSpec(path, resume=True), callbacks=[TensorBoard([tmp_path / "other"])])
    assert read(tmp_path / "other") == expected(outcome)


def test_a_trial_that_is_lost_before_it_begins_hides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "trial_0"
    outcome = one(config(), data(config()), callbacks=[TensorBoard([folder])])
    lost = Member(config(), stopped="interrupted")
    late = TensorBoard([folder])
    late.on_start(lost)
    late.on_epoch(lost, outcome.history[0])
    assert read(folder) == expected(outcome)


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    board, member = TensorBoard([tmp_path]), Member(config())
    board.on_start(member)
    board.on_epoch(member, {"epoch": 1, "train_loss": math.nan, "val_loss": math.inf, "seconds": 1.0})
    events = load_events(tmp_path)
    assert events.Tags()["scalars"] == ["seconds"]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        outcome = one(config(), data(config()), callbacks=[TensorBoard([tmp_path / "file" / "trial_0"])])
    assert outcome.status == "completed"
    assert len(caplog.messages) == 1
    assert "not written (Not a directory); training goes on without it" in caplog.messages[0]
