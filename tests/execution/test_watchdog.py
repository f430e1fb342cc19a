"""The watchdog: what counts as a sign of life, and when patience ends. The clock is the test's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from torch import nn

import hpo
from hpo.config import registry
from hpo.errors import DefinitionError, TrialTimeoutError
from hpo.execution.heartbeat import Heartbeat
from hpo.execution.watchdog import GRACE, PATIENCE, Watchdog
from hpo.study import Budget, Study
from hpo.study.input.preview import format_preview
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.study.helpers import holder, new_storage
from tests.workers import make_worker

TRIAL: Any = object()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def check(watchdog: Watchdog, clock: Clock, seconds: float) -> bool:
    """Let time pass between the heartbeats; return whether training counts as stalled."""
    clock.now += seconds
    return watchdog.stalled() is not None


def test_without_training_or_before_the_first_step_there_is_no_limit() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    assert not check(watchdog, clock, 1e9)
    with watchdog.watch([TRIAL], None, loop=False):
        watchdog.tick()  # before the first step
        assert not check(watchdog, clock, 1e6)
        watchdog.tick()
        assert not check(watchdog, clock, 1.0)
        assert not check(watchdog, clock, 20 * 1e6)  # as the first step took
        assert check(watchdog, clock, 2.0)
    assert not check(watchdog, clock, 1e9)


def test_a_loop_gives_its_first_sign_of_life_with_a_report() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    with watchdog.watch([TRIAL], None, loop=True):
        for _ in range(3):
            watchdog.tick()  # its first epoch may take hours, however often it asks whether to stop
        assert not check(watchdog, clock, 36_000)
        watchdog.tick(report=True)
        assert not check(watchdog, clock, 1.0)
        watchdog.tick()
        assert not check(watchdog, clock, 1.0)
        assert not check(watchdog, clock, 20 * 36_000)
        assert check(watchdog, clock, 60.0)


def test_patience_is_ten_minutes_or_twenty_times_the_longest_gap_and_ends_with_a_sign_of_life() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    with watchdog.watch([TRIAL], None, loop=False):
        for _ in range(5):
            watchdog.tick()
            assert not check(watchdog, clock, 5.0)
        assert not check(watchdog, clock, PATIENCE - 5)
        assert check(watchdog, clock, 6.0)
        watchdog.tick()
        assert not check(watchdog, clock, 0.0)
        assert not check(watchdog, clock, 20 * PATIENCE)  # such a gap is known by now


def test_a_limit_is_a_trials_own_and_a_cohort_shares_its_time() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    for size, seconds in ((1, 60.5), (4, 240.5)):
        with watchdog.watch([TRIAL] * size, 60.0, loop=False):
            clock.now += seconds - 1
            watchdog.tick()
            clock.now += 1
            with pytest.raises(TrialTimeoutError, match="longer than trial_timeout = 60 s"):
                watchdog.tick()


def test_it_is_overdue_only_where_it_comes_back_to_no_step() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    with watchdog.watch([TRIAL], 60.0, loop=True):
        clock.now += 60 + GRACE - 1
        assert watchdog.overdue() is None
        clock.now += 2
        found = watchdog.overdue()
        assert found is not None
        assert "longer than trial_timeout = 60 s, and it did not come back from its last step" in str(found[1])
        assert "test_it_is_overdue_only_where_it_comes_back_to_no_step" in watchdog.stack()
        watchdog.tick(report=True)  # it did, and ends itself at the next step
        assert watchdog.overdue() is None


class Storage:
    """Counts renewals."""

    def __init__(self) -> None:
        self.renewed = 0

    def renew_leases(self, *_: object) -> bool:
        self.renewed += 1
        return False


def test_leases_are_renewed_while_training_gets_on_and_again_when_it_wakes(caplog: pytest.LogCaptureFixture) -> None:
    clock, storage = Clock(), Storage()
    watchdog = Watchdog(clock)
    heartbeat = Heartbeat(storage, 1, holder("a"), None, watchdog)  # type: ignore[arg-type]
    with watchdog.watch([TRIAL], None, loop=False):
        watchdog.tick()
        watchdog.tick()
        heartbeat.beat()
        assert storage.renewed == 1
        clock.now += PATIENCE + 1
        for _ in range(3):
            heartbeat.beat()
        assert storage.renewed == 1
        assert caplog.text.count("its leases are not renewed") == 1
        assert "test_leases_are_renewed_while_training_gets_on" in caplog.text  # the stack shows where it hangs
        watchdog.tick()
        heartbeat.beat()
        assert storage.renewed == 2


# A worker's trials.


def make(folder: Path, model: str, **keys: Any) -> Study:
    parameters = {"model": model, "epochs": 2, "batch_size": 32, "learning_rate": [0.01, 0.02]}
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": 2, "sampler": "grid", "parameters": parameters}
    return Study.create(new_storage(folder), *parse_definition({**table, **keys}, "small", folder))


class Slow(nn.Module):
    """Calls something in its forward pass as it trains."""

    def __init__(self, act: Callable[[], object], classes: int) -> None:
        super().__init__()
        self.act, self.layer = act, nn.Linear(36, classes)

    def forward(self, x: Any) -> Any:
        if self.training:
            self.act()
        return self.layer(x.flatten(1))


def test_a_slow_trial_fails_between_steps_and_the_others_go_on(tmp_path: Path) -> None:
    clock = Clock()

    @hpo.model("slow", uses=["learning_rate"])
    def slow(config: hpo.TrialConfig, shape: Any, classes: int) -> nn.Module:
        def act() -> None:
            clock.now += 100 if config.learning_rate == 0.01 else 1

        return Slow(act, classes)

    study = make(tmp_path, "slow", trial_timeout="5m")
    worker = make_worker(study)
    worker._watchdog._clock = clock
    worker.run()
    first, second = study.trials()
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.user_attrs["message"].startswith(
        "it trained for 400 s, longer than trial_timeout = 300 s; raise trial"
    )


def test_a_trial_that_hangs_in_a_persons_own_process_fails_and_the_worker_goes_on_once_it_wakes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, waked, hanging = Clock(), threading.Event(), []

    @hpo.model("hanging", uses=["learning_rate"])
    def model(config: hpo.TrialConfig, shape: Any, classes: int) -> nn.Module:
        def act() -> None:
            if config.learning_rate == 0.01 and not hanging:
                hanging.append(1)
                while not worker._watchdog._run.seen:  # type: ignore[union-attr]  # the heartbeat has seen it begin
                    time.sleep(0.01)
                clock.now += 1000
                assert waked.wait(60)

        return Slow(act, classes)

    study = make(tmp_path, "hanging", trial_timeout=60)
    worker = make_worker(study, lease=1)
    worker._watchdog._clock = clock
    tell = worker._recorder.tell_error

    def told(*args: Any) -> None:
        tell(*args)
        waked.set()

    worker._recorder.tell_error = told  # type: ignore[method-assign]
    worker.run()
    first, second = study.trials()
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert "trial_timeout = 60 s, and it did not come back from its last step" in first.user_attrs["message"]
    assert "in act" in caplog.text
    assert "interrupt this process to go on" in caplog.text


def test_a_hanging_cohort_counts_a_death_for_each_and_is_trained_one_by_one(tmp_path: Path) -> None:
    study = make(tmp_path, "mlp")
    worker, clock = make_worker(study, cohort=2), Clock()
    worker._watchdog._clock = clock
    reasons: list[str] = []
    worker.end_process = reasons.append
    claim = study.claim(worker.info)
    assert claim is not None
    study.storage.register_worker(study.id, worker.info)
    [trials] = worker.trials.claim_cohorts(claim)
    assert len(trials) == 2
    with worker._watchdog.watch(trials, 1.0, loop=False):
        clock.now += 100
        worker._end_overdue()
    assert len(reasons) == 1
    assert reasons[0].startswith("trial 0, 1 hangs: ")
    assert [trial.state for trial in study.trials()] == [TrialState.WAITING] * 2
    assert [trial.user_attrs["deaths"]["count"] for trial in study.trials()] == [1, 1]
    assert study.storage.read_workers(study.id) == []
    worker = make_worker(study, cohort=2)
    claim = study.claim(worker.info)
    assert claim is not None
    [trials] = worker.trials.claim_cohorts(claim)
    assert len(trials) == 1


# The key.


def test_the_key_is_a_duration_that_can_be_extended_and_is_shown(tmp_path: Path) -> None:
    study = make(tmp_path, "mlp", trial_timeout="15m", timeout="1h")
    assert study.budget == Budget(trials=2, timeout=3600, trial_timeout=900)
    study.extend(Budget(trials=2, trial_timeout=60))
    assert (study.budget.timeout, study.budget.trial_timeout) == (3600, 60)
    text = format_preview(study.name, study.definition, study.budget)
    assert "no trial begins after 3600 s, a trial fails after 60 s" in text
    with pytest.raises(DefinitionError, match="trial_timeout = 'soon': give a time above 0"):
        make(tmp_path, "mlp", trial_timeout="soon")
