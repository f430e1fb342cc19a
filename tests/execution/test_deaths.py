"""Deaths: a trial whose code would end the worker fails by itself, and takes no other along."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from torch import nn

import hpo
import hpo.execution.cohort_sizes
import hpo.execution.cohort_trainer
from hpo.config import registry
from hpo.errors import RunError, UserExitError
from hpo.execution.deaths import MAX_DEATHS, DeathCounter, is_suspect
from hpo.storage.leases import WorkerInfo
from hpo.storage.tables import LEASES
from hpo.study import Study
from hpo.study.files.study_files import StudyFiles
from hpo.study.input.study_file import parse_definition
from hpo.utils.signals import StopRequest, StopSignal
from hpo.utils.text import LONGEST_MESSAGE
from tests.data import small_npz
from tests.stack import Stack
from tests.study.helpers import holder, new_storage
from tests.workers import make_worker

COMPLETE, FAIL, RUNNING, WAITING = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def make(folder: Path, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    table = {"dataset": str(data), "trials": 3, "sampler": "grid", **keys}
    table["parameters"] = {"epochs": 2, "batch_size": 32, **keys["parameters"]}
    return Study.create(new_storage(folder), *parse_definition(table, "small", folder))


def states(study: Study) -> list[TrialState]:
    return [trial.state for trial in study.trials()]


class Odd(BaseException):
    """Of a library."""


def raise_odd() -> None:
    raise Odd("no more")


class Acting(nn.Module):
    """Does something in its forward pass when it trains."""

    def __init__(self, act: Callable[[], object], classes: int) -> None:
        super().__init__()
        self.act, self.layer = act, nn.Linear(36, classes)

    def forward(self, x: Any) -> Any:
        if self.training:
            self.act()
        return self.layer(x.flatten(1))


def register(act: Callable[[], object]) -> None:
    @hpo.model("acting", uses=["learning_rate"])
    def acting(config: hpo.TrialConfig, shape: Any, classes: int) -> nn.Module:
        return Acting(act if config.learning_rate == 0.02 else lambda: None, classes)


THREE = {"model": "acting", "learning_rate": [0.01, 0.02, 0.03]}


@pytest.mark.parametrize(
    ("act", "words"),
    [(lambda: sys.exit(0), "sys.exit(0) was called in"), (raise_odd, "Odd: no more was raised in raise_odd")],
)
def test_a_model_that_exits_fails_after_as_many_as_any_death_and_the_worker_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, act: Callable[[], object], words: str
) -> None:
    caplog.set_level("INFO")
    register(act)
    study = make(tmp_path, parameters=THREE)
    worker = make_worker(study)
    worker.run()
    assert states(study) == [COMPLETE, FAIL, COMPLETE]
    assert worker.finished == {"COMPLETE": 2, "FAIL": 1}
    trial = study.trials()[1]
    assert words in trial.user_attrs["message"]
    assert f"{MAX_DEATHS} attempts ended like that" in trial.user_attrs["message"]
    assert trial.user_attrs["attempt"] == MAX_DEATHS
    for count in range(1, MAX_DEATHS + 1):
        assert f"counted as death {count} of {MAX_DEATHS}" in caplog.text
    assert all("deaths" not in other.user_attrs for other in (study.trials()[0], study.trials()[2]))
    assert study.retry() == [1]


@pytest.mark.parametrize("message", ["x" * 5_000_000, "line\n" * 1_000_000])
def test_a_message_of_any_length_is_short_where_it_is_stored_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    caplog.set_level("INFO")

    def fail() -> None:
        raise RuntimeError(message)

    register(fail)
    study = make(tmp_path, parameters=THREE)
    make_worker(study).run()
    assert states(study) == [COMPLETE, FAIL, COMPLETE]
    assert 0 < len(study.trials()[1].user_attrs["message"]) <= LONGEST_MESSAGE
    assert len(caplog.text) < 100_000
    assert "in fail" in caplog.text  # the traceback is there all the same


@pytest.mark.parametrize("where", ["loader", "metric", "loop", "parameters"])
def test_an_exit_anywhere_in_user_code_is_an_error_of_a_run(tmp_path: Path, where: str) -> None:
    @hpo.dataset("leaving")
    def leaving() -> hpo.Dataset:
        sys.exit(0)

    @hpo.metric("leave", direction="minimize")
    def leave(outputs: Any, targets: Any) -> float:
        sys.exit(0)

    @hpo.training_loop("left", uses=["epochs"])
    def left(trial: hpo.Trial) -> float:
        sys.exit(0)

    if where == "loader":
        study = make(tmp_path, dataset="leaving", trials=1, parameters={"widths": ["4"]})
        with pytest.raises(UserExitError, match=r"sys.exit\(0\) was called in leaving"):
            make_worker(study)
        return
    keys: dict[str, Any] = {
        "metric": {"objective": "leave", "parameters": {"widths": ["4", "8"]}},
        "loop": {"parameters": {"model": "left", "epochs": [1]}},
        "parameters": {"parameters": {"model": "left", "epochs": [1, 2]}},
    }[where]
    study = make(tmp_path, **{"trials": 2 if where != "loop" else 1, **keys})
    make_worker(study).run()
    assert set(states(study)) == {FAIL}
    assert all("sys.exit(0) was called in le" in trial.user_attrs["message"] for trial in study.trials())


def test_of_a_cohort_the_one_to_blame_is_found_and_the_others_count_no_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack()
    monkeypatch.setattr(hpo.execution.cohort_trainer, "train", stack)
    monkeypatch.setattr(hpo.execution.cohort_sizes, "measure_cohort_size", lambda configs, data, most: most)

    def leave(call: int, _epoch: int) -> None:
        if any(config.widths == "8" for config in stack.trained[call - 1]):
            raise UserExitError("sys.exit(0) was called")

    stack.before = leave
    study = make(tmp_path, trials=4, parameters={"widths": ["4", "8", "16", "32"]})
    make_worker(study).run()
    assert states(study) == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    assert [trial.user_attrs.get("deaths", {}).get("count", 0) for trial in study.trials()] == [0, 5, 0, 0]
    assert sum(len(cohort) > 1 for cohort in stack.trained) == 1  # whoever is known to have done it is trained alone


def test_two_signals_in_the_midst_of_user_code_release_its_trial_without_a_death(tmp_path: Path) -> None:
    register(lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
    study = make(tmp_path, trials=1, parameters={**THREE, "learning_rate": [0.02]})
    with StopRequest() as stop:
        with pytest.raises(StopSignal):
            make_worker(study, stop).run()
        assert stop.exit_code == 143
    assert states(study) == [WAITING]
    assert "deaths" not in study.trials()[0].user_attrs
    assert study.storage.read_workers(study.id) == []


def claim_again(study: Study, worker: WorkerInfo) -> Any:
    """Let a lease run out, and claim its trial."""
    with study.storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))
    return study.claim(worker)


def test_deaths_count_from_one_again_only_after_getting_farther_than_ever(tmp_path: Path) -> None:
    study = make(tmp_path, trials=1, parameters={"widths": ["4"]})
    counter = DeathCounter(study, StudyFiles(study))
    claim, counts = study.claim(holder("a")), []
    assert claim is not None
    for epoch in (3, 5, 4, 3, 5, 2):  # each attempt dies elsewhere, with no checkpoint to go on from
        study.storage.record_epoch(claim.id, epoch, {"epoch": epoch, "val_loss": 1.0})
        with suppress(RunError):  # the last one
            counter.count(claim)
        counts.append(study.storage.get_trial(claim.id).user_attrs["deaths"]["count"])
        study.rewind(claim, 0)
        claim = claim_again(study, holder(str(epoch)))
    assert counts == [1, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("stored", [None, [], "x", {"count": "many"}, {"count": 3, "place": None}, {"count": 1e300}])
def test_deaths_that_this_package_did_not_write_count_as_none(stored: Any) -> None:
    assert not is_suspect({"deaths": stored})
    assert not is_suspect({})
