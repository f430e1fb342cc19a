"""Leases of the trials that Optuna's own loops run, whose processes are killed, end, fork or are suspended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.samplers import RandomSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState

from hpo.storage import clock, optimize_leases
from hpo.storage.optimize_leases import LEASE, RENEWAL
from hpo.storage.tables import LEASES
from hpo.study import StudyStorage
from tests.statements import Statements
from tests.storage.peer import Peer
from tests.study.helpers import holder, new_storage, sqlite_url

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = [
    pytest.mark.filterwarnings("error:Heartbeat of storage"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
RUNNING, FAIL, COMPLETE, WAITING = TrialState.RUNNING, TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def load(storage: StudyStorage, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=storage, sampler=sampler or RandomSampler(seed=0))


def states(storage: StudyStorage) -> list[TrialState]:
    """The states of the trials, as a process sees them that knows nothing."""
    again = StudyStorage(storage.url.render_as_string(hide_password=False))
    try:
        return [trial.state for trial in load(again).trials]
    finally:
        again.engine.dispose()


def held(storage: StudyStorage) -> dict[int, float]:
    """The seconds that each lease lasts from now on."""
    with storage.engine.connect() as connection:
        left = LEASES.c.expires - clock.database_clock(connection)
        return {row[0]: row[1] for row in connection.execute(sa.select(LEASES.c.trial_id, left))}


def expire(storage: StudyStorage) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[StudyStorage]:
    """A SQLite file with the study."""
    opened = new_storage(tmp_path)
    optuna.create_study(study_name="s", storage=opened)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def other(file: StudyStorage) -> Iterator[StudyStorage]:
    """Another process on the same file."""
    opened = StudyStorage(file.url.render_as_string())
    yield opened
    opened.engine.dispose()


# Processes that are killed.


class Killer(RandomSampler):
    """Sampler in which the process dies."""

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


def die(trial: optuna.Trial) -> float:
    x = objective(trial)
    trial.study._storage.flush()  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def optimize_and_die(storage: StudyStorage, where: str) -> None:
    load(storage, Killer() if where == "sampler" else None).optimize(die, n_trials=1)


@pytest.mark.integration
def test_a_trial_whose_process_is_killed_fails_and_is_retried(any_url: str, storage: StudyStorage) -> None:
    optuna.create_study(study_name="s", storage=storage)
    peer = Peer()
    peer.open(any_url)
    peer.begin(optimize_and_die, "objective")
    with pytest.raises(EOFError):
        peer.result()
    assert states(storage) == [RUNNING]
    fail_stale_trials(load(storage))
    assert states(storage) == [RUNNING]  # its lease has not run out
    expire(storage)
    retrying = StudyStorage(any_url, heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=1))
    study = load(retrying)
    study.optimize(objective, n_trials=1)
    assert [trial.state for trial in study.trials] == [FAIL, COMPLETE]
    assert study.trials[0].params == study.trials[1].params
    assert study.trials[0].datetime_complete is not None
    assert held(storage) == {}
    retrying.engine.dispose()


@pytest.mark.integration
def test_a_process_that_is_killed_while_it_samples_leaves_no_trial_running(file: StudyStorage) -> None:
    peer = Peer()
    peer.open(file.url.render_as_string())
    peer.begin(optimize_and_die, "sampler")
    with pytest.raises(EOFError):
        peer.result()
    assert states(file) == [RUNNING]
    expire(file)
    fail_stale_trials(load(file))
    assert states(file) == [FAIL]


class Interrupter(RandomSampler):
    def sample_relative(self, *_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt


def test_whoever_begins_the_next_trial_fails_those_whose_leases_have_run_out(
    file: StudyStorage, other: StudyStorage
) -> None:
    study_id = file.get_study_id_from_name("s")
    for i, by in enumerate(("ask", "worker", "optimize")):
        with pytest.raises(KeyboardInterrupt):
            load(file, Interrupter()).optimize(objective, n_trials=1)
        expire(file)
        other._next_look.clear()  # as if a minute had passed
        if by == "ask":
            load(other).tell(load(other).ask(), 0.0)
        elif by == "worker":
            assert other.claim(study_id, holder(), i) is None  # it counts, and is not taken over
        else:
            load(other).optimize(objective, n_trials=1)
        failed = [trial.state for trial in load(file).trials if trial.state != COMPLETE]
        assert failed == [FAIL] * (i + 1), by


# Leases that are renewed, and end.


def test_trials_of_threads_leave_no_leases(file: StudyStorage) -> None:
    load(file).optimize(objective, n_trials=8, n_jobs=4)
    assert states(file) == [COMPLETE] * 8
    assert held(file) == {}


def test_a_heartbeat_renews_the_lease(file: StudyStorage) -> None:
    def check(trial: optuna.Trial) -> float:
        expire(file)
        file.record_heartbeat(trial._trial_id)  # the first one, which Optuna's thread sends, finds a new lease
        file.record_heartbeat(trial._trial_id)
        [left] = held(file).values()
        assert LEASE - 5 < left <= LEASE
        return 0

    load(file).optimize(check, n_trials=1)
    assert states(file) == [COMPLETE]


def test_what_is_asked_for_is_held_as_long_as_the_process_lives(file: StudyStorage, other: StudyStorage) -> None:
    study = load(file)
    mine, told = study.ask(), study.ask()
    load(other).tell(told.number, 0.5)
    expire(file)
    file._renew_asked()  # as its timer does
    assert list(held(file)) == [mine._trial_id]
    assert held(file)[mine._trial_id] > LEASE - 5
    assert list(file._asked) == [mine._trial_id]
    fail_stale_trials(load(other))
    assert states(file) == [RUNNING, COMPLETE]
    study.tell(mine, 0.25)
    assert held(file) == {}
    assert file._asked == {}


def test_a_process_that_ends_in_order_leaves_what_it_has_asked_for_to_others(
    file: StudyStorage, other: StudyStorage
) -> None:
    asked = load(file).ask()
    optimize_leases._give_up_at_exit(weakref.ref(file))
    assert held(file) == {}
    fail_stale_trials(load(other))
    load(other).ask()
    assert states(file)[0] == RUNNING
    load(other).tell(asked.number, 1.0)
    assert states(file)[0] == COMPLETE


def test_a_loop_that_is_interrupted_while_it_samples_leaves_no_trial_running(
    file: StudyStorage, other: StudyStorage
) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(file, Interrupter()).optimize(objective, n_trials=1)
    optimize_leases._give_up_at_exit(weakref.ref(file))
    expire(file)
    fail_stale_trials(load(other))
    assert states(file) == [FAIL]


def test_an_objective_that_ends_the_process_leaves_no_trial_running(file: StudyStorage, other: StudyStorage) -> None:
    with pytest.raises(SystemExit):
        load(file).optimize(lambda _: sys.exit(3), n_trials=1)
    assert states(file) == [RUNNING]
    optimize_leases._give_up_at_exit(weakref.ref(file))
    file._renew_asked()
    expire(file)
    fail_stale_trials(load(other))
    assert states(file) == [FAIL]


def test_a_trial_that_waited_is_held_as_well(file: StudyStorage, other: StudyStorage) -> None:
    study = load(file)
    study.enqueue_trial({"x": 0.5})
    trial = study.ask()
    assert list(held(file)) == [trial._trial_id]
    expire(file)
    fail_stale_trials(load(other))
    assert states(file) == [FAIL]
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        file.set_trial_state_values(trial._trial_id, COMPLETE, [0.5])


def test_what_another_process_tells_of_an_asked_trial_is_seen(file: StudyStorage, other: StudyStorage) -> None:
    study = load(file)
    asked = study.ask()
    load(other).tell(asked.number, 0.5)
    assert study.best_value == 0.5
    mine = study.ask()
    mine.suggest_float("x", 0, 1)
    load(other).tell(mine.number, 0.25)
    file.flush()
    assert study.best_value == 0.25
    with pytest.raises(ValueError, match="Cannot tell a COMPLETE"):
        study.tell(mine, 1.0)


# Workers beside them.


def test_a_trial_of_a_worker_is_taken_over_and_not_failed(file: StudyStorage, other: StudyStorage) -> None:
    study_id = file.get_study_id_from_name("s")
    claimed = file.claim(study_id, holder("a"), 1)
    assert claimed is not None
    expire(file)
    fail_stale_trials(load(other))
    load(other).optimize(objective, n_trials=1)
    assert states(file) == [RUNNING, COMPLETE]
    again = other.claim(study_id, holder("b"), 1)
    assert again is not None
    assert (again.trial_id, again.taken_over) == (claimed.trial_id, True)


def test_a_worker_neither_takes_nor_awaits_what_a_loop_runs(file: StudyStorage, other: StudyStorage) -> None:
    trial = load(file).ask()
    study_id = file.get_study_id_from_name("s")
    assert other.claim(study_id, holder(), 1) is None
    assert other.count_held_by_others(study_id) == 0
    assert other.retry(study_id, [trial.number]) == []
    expire(file)
    assert other.retry(study_id, [trial.number]) == [0]
    claimed = other.claim(study_id, holder(), 1)
    assert claimed is not None
    assert (claimed.trial_id, claimed.attempt, claimed.taken_over) == (trial._trial_id, 2, False)


# What it costs.


def test_who_is_dead_is_asked_once_a_lease(file: StudyStorage, other: StudyStorage) -> None:
    load(other).ask()
    study = load(file)
    study.optimize(objective, n_trials=1)
    statements = Statements(file.engine)
    looks: list[str] = []
    sa.event.listen(file.engine, "before_cursor_execute", lambda *args: looks.append(args[2]))
    assert statements.per(10, lambda: study.optimize(objective, n_trials=10)) <= 16
    assert not [text for text in looks if "hpo_leases.expires -" in text]
    assert not [text for text in looks if "UPDATE hpo_leases" in text]


def test_after_a_suspension_those_that_live_renew_first(
    file: StudyStorage, other: StudyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(file).ask()
    slept = clock.boot_seconds
    monkeypatch.setattr(clock, "boot_seconds", lambda: slept() + 3600)
    fail_stale_trials(load(other))
    assert states(other) == [RUNNING]
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 2 * RENEWAL + 1)
    monkeypatch.setattr(clock, "boot_seconds", lambda: slept() + 3600 + 2 * RENEWAL + 1)
    fail_stale_trials(load(other))
    assert states(other) == [FAIL]


# Where there are none.


def test_heartbeats_take_the_place_of_leases(tmp_path: Path, file: StudyStorage) -> None:
    beating = StudyStorage(sqlite_url(tmp_path), heartbeat_interval=7)
    assert beating.get_heartbeat_interval() == 7
    with pytest.warns(UserWarning, match="Heartbeat of storage"):
        load(beating).ask()
    assert held(file) == {}
    assert file.get_heartbeat_interval() == RENEWAL
    load(file).ask()
    expire(file)
    fail_stale_trials(load(StudyStorage(sqlite_url(tmp_path), heartbeat_interval=7)))
    assert states(file) == [RUNNING, FAIL]


def test_what_is_begun_for_another_process_is_not_held(file: StudyStorage) -> None:
    """As Optuna's gRPC server does, which may be started anew meanwhile."""
    file.create_new_trial(file.get_study_id_from_name("s"))
    assert held(file) == {}


def test_a_database_in_memory_needs_none() -> None:
    storage = StudyStorage("sqlite:///:memory:")
    study = optuna.create_study(study_name="s", storage=storage)
    study.optimize(objective, n_trials=2, n_jobs=2)
    assert storage.get_heartbeat_interval() is None
    assert held(storage) == {}


# Processes that fork.


def in_child(run: Any) -> int:
    """Run a function in a fork of this process; return 0 where it ended well."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_holds_trials_of_its_own(file: StudyStorage) -> None:
    study = load(file)
    mine = study.ask()
    mine.set_user_attr("buffered", 1)

    def child() -> None:
        assert file._asked == {}
        assert file._timer is None
        theirs = load(file).ask()
        assert list(file._asked) == [theirs._trial_id]
        file.set_trial_user_attr(mine._trial_id, "child", 2)
        optimize_leases._give_up_at_exit(weakref.ref(file))

    with file._transaction_lock:
        locked = threading.Thread(target=lambda: in_child(child) == 0 or pytest.fail("child"))
        locked.start()
        locked.join()
    assert list(held(file)) == [mine._trial_id]
    study.tell(mine, 0.5)
    trial = load(StudyStorage(file.url.render_as_string())).trials[0]
    assert trial.user_attrs == {"buffered": 1, "child": 2}
    assert states(file) == [COMPLETE, RUNNING]
