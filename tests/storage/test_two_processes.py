"""What a second process sees after each call of the storage, and after the first one was killed between two calls."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import LeaseLostError
from hpo.storage import write_behind
from hpo.storage.study_storage import LeaseGrant
from hpo.storage.tables import EPOCHS, INTERMEDIATE_VALUES, LEASES, TRIAL_USER_ATTRS, WORKERS
from hpo.study import StudyStorage
from tests.storage.peer import NEVER, Peer
from tests.study.helpers import holder

UNIT = FloatDistribution(0, 1)
MAXIMIZE = [StudyDirection.MAXIMIZE]


@pytest.fixture(scope="module")
def peers() -> Iterator[list[Peer]]:
    """Processes that serve all tests, one after the other: starting one takes a second."""
    started: list[Peer] = []
    yield started
    for peer in started:
        peer.kill()


@pytest.fixture
def more(peers: list[Peer], any_url: str) -> Callable[..., list[Peer]]:
    """That many processes, each with the database open."""

    def get(count: int, stale: float = NEVER) -> list[Peer]:
        peers[:] = [peer for peer in peers if peer.alive]
        peers.extend(Peer() for _ in range(count - len(peers)))
        for peer in peers[:count]:
            peer.open(any_url, stale)
        return peers[:count]

    return get


@pytest.fixture
def writer(more: Callable[..., list[Peer]]) -> Peer:
    """The process that writes; what may wait is written when it is told to."""
    return more(1)[0]


@pytest.fixture
def reader(storage: StudyStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[StudyStorage]:
    """This process, which reads."""
    monkeypatch.setattr(write_behind, "STALE", NEVER)
    yield storage
    with suppress(KeyError):  # the study may be deleted
        storage.flush()


def make(storage: StudyStorage, slots: int = 0, name: str = "s") -> int:
    return storage.create_study(name, MAXIMIZE, ["val_accuracy"], {"a": 1}, [{"x": 0.5} for _ in range(slots)])


def states(storage: StudyStorage, study_id: int) -> list[TrialState]:
    return [trial.state for trial in storage.get_all_trials(study_id)]


def rows(storage: StudyStorage, table: sa.Table) -> list[Any]:
    """What the database holds, whatever a process knows."""
    with storage.engine.connect() as connection:
        return list(connection.execute(sa.select(table).order_by(*table.primary_key.columns)))


def expire(storage: StudyStorage) -> None:
    """Let all leases have run out."""
    with storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))


def claimed(found: LeaseGrant | None) -> LeaseGrant:
    assert found is not None
    return found


# Each change of a study or of a trial's state is seen at once.


def test_a_study_that_is_created_extended_and_deleted(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make, slots=2)
    assert [study.study_name for study in reader.get_all_studies()] == ["s"]
    assert reader.get_study_id_from_name("s") == study_id
    assert reader.get_study_directions(study_id) == MAXIMIZE
    assert states(reader, study_id) == [TrialState.WAITING] * 2
    assert reader.get_all_trials(study_id)[1].system_attrs == {"fixed_params": {"x": 0.5}}

    assert writer(StudyStorage.update_study, study_id, {"a": 1}, {"a": 2, "b": 3}, [{"x": 0.25}], 2)
    assert reader.get_study_user_attrs(study_id) == {"a": 2, "b": 3}
    assert reader.get_all_trials(study_id)[2].system_attrs == {"fixed_params": {"x": 0.25}}
    writer(StudyStorage.set_study_user_attr, study_id, "c", 4)
    writer(StudyStorage.set_study_system_attr, study_id, "d", 5)
    assert reader.get_study_user_attrs(study_id)["c"] == 4
    assert reader.get_study_system_attrs(study_id)["d"] == 5

    writer(StudyStorage.delete_study, study_id)
    assert reader.get_all_studies() == []
    for read in (reader.get_all_trials, reader.get_study_user_attrs, reader.get_study_name_from_id):
        with pytest.raises(KeyError):
            read(study_id)
    with pytest.raises(KeyError):
        reader.claim(study_id, holder("r"), 9)


def test_a_study_through_plain_optuna(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(StudyStorage.create_new_study, MAXIMIZE, "plain")
    assert reader.get_study_name_from_id(study_id) == "plain"
    writer(StudyStorage.delete_study, study_id)
    assert reader.get_all_studies() == []


def test_every_state_of_a_trial(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make)
    ids = [writer(StudyStorage.create_new_trial, study_id) for _ in range(3)]
    assert states(reader, study_id) == [TrialState.RUNNING] * 3
    for trial_id, state in zip(ids, (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL), strict=True):
        values = [0.5] if state == TrialState.COMPLETE else None
        assert writer(StudyStorage.set_trial_state_values, trial_id, state, values)
        seen = reader.get_trial(trial_id)
        assert (seen.state, seen.values) == (state, values)
        assert seen.datetime_complete is not None
    waiting = writer(StudyStorage.create_new_trial, study_id, optuna.trial.create_trial(state=TrialState.WAITING))
    assert reader.get_trial(waiting).state == TrialState.WAITING
    assert writer(StudyStorage.set_trial_state_values, waiting, TrialState.RUNNING)
    assert reader.get_trial(waiting).state == TrialState.RUNNING
    assert not reader.set_trial_state_values(waiting, TrialState.RUNNING)  # somebody was faster


def test_a_claim_is_seen_and_so_is_what_is_given_back(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make, slots=1)
    assert states(reader, study_id) == [TrialState.WAITING]
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w")))
    assert reader.get_trial(mine.trial_id).state == TrialState.RUNNING
    assert reader.claim(study_id, holder("r")) is None
    assert reader.count_held_by_others(study_id) == 1
    [lease] = rows(reader, LEASES)
    assert (lease.trial_id, lease.study_id, lease.attempt, lease.worker) == (mine.trial_id, study_id, 1, "w")

    writer(StudyStorage.set_trial_param, mine.trial_id, "y", 0.125, UNIT)
    assert writer(StudyStorage.release, mine.trial_id)
    seen = reader.get_trial(mine.trial_id)
    assert (seen.state, seen.params) == (TrialState.WAITING, {"y": 0.125})
    assert seen.user_attrs == {"worker": "w", "attempt": 1}
    assert seen.system_attrs == {"fixed_params": {"x": 0.5, "y": 0.125}}
    assert reader.count_held_by_others(study_id) == 0
    assert reader.claim(study_id, holder("r")) == LeaseGrant(mine.trial_id, 2)
    reader.flush()
    assert writer(StudyStorage.get_trial, mine.trial_id).user_attrs == {"worker": "r", "attempt": 2}


def test_a_new_trial_below_the_budget(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make)
    claimed(writer(StudyStorage.claim, study_id, holder("w"), 2))
    assert claimed(reader.claim(study_id, holder("r"), 2)).attempt == 1
    assert writer(StudyStorage.claim, study_id, holder("w"), 2) is None
    assert [t.number for t in writer(StudyStorage.get_all_trials, study_id)] == [0, 1]


def test_reports_that_are_discarded(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w"), 1))
    for epoch in (1, 2, 3):
        report(writer, mine.trial_id, epoch)
    writer(StudyStorage.discard_reports, mine.trial_id, 1)
    assert reader.get_trial(mine.trial_id).intermediate_values == {1: 0.1}
    assert reader.read_epochs(study_id) == {mine.trial_id: [{"epoch": 1}]}


def report(writer: Peer, trial_id: int, epoch: int) -> None:
    writer(StudyStorage.set_trial_intermediate_value, trial_id, epoch, epoch / 10)
    writer(StudyStorage.record_epoch, trial_id, epoch, {"epoch": epoch})


def test_failed_trials_that_are_put_back_wait_for_those_who_saw_them_fail_too(
    writer: Peer, reader: StudyStorage
) -> None:
    study_id = writer(make)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w"), 1))
    writer(StudyStorage.set_trial_param, mine.trial_id, "x", 0.75, UNIT)
    report(writer, mine.trial_id, 1)
    writer(StudyStorage.set_trial_user_attr, mine.trial_id, "failure", "error")
    writer(StudyStorage.set_trial_state_values, mine.trial_id, TrialState.FAIL)
    failed = reader.get_trial(mine.trial_id)
    assert (failed.state, failed.user_attrs["failure"]) == (TrialState.FAIL, "error")

    assert writer(StudyStorage.retry, study_id) == [0]
    seen = reader.get_trial(mine.trial_id)
    assert seen.state == TrialState.WAITING
    assert seen.intermediate_values == {}
    assert "failure" not in seen.user_attrs
    assert seen.system_attrs == {"fixed_params": {"x": 0.75}}
    assert reader.read_epochs(study_id) == {}
    assert reader.claim(study_id, holder("r")) == LeaseGrant(mine.trial_id, 2)


def test_workers_their_leases_and_what_is_asked_of_them(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make, slots=1)
    writer(StudyStorage.register_worker, study_id, holder("w"))
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w")))
    [seen] = reader.read_workers(study_id)
    assert (seen.name, seen.host, seen.device, seen.gone, seen.trial_ids) == (
        "w",
        "here",
        "cpu",
        False,
        [mine.trial_id],
    )

    with reader.engine.begin() as connection:
        connection.execute(sa.update(WORKERS).values(seen=0.0, gone=0.0))
    expire(reader)
    assert [worker.gone for worker in reader.read_workers(study_id)] == [True]
    assert writer(StudyStorage.renew_leases, holder("w")) is False
    [seen] = reader.read_workers(study_id)
    assert not seen.gone
    assert seen.seen < 60
    assert reader.claim(study_id, holder("r")) is None  # its lease has been renewed

    assert reader.request_stop(study_id) == 1
    assert writer(StudyStorage.renew_leases, holder("w")) is True
    writer(StudyStorage.unregister_worker, holder("w"))
    assert reader.read_workers(study_id) == []


def test_a_trial_that_another_tool_has_ended_is_waited_for_by_nobody(
    any_url: str, writer: Peer, reader: StudyStorage
) -> None:
    study_id = make(reader, slots=1)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w")))
    plain = optuna.load_study(study_name="s", storage=any_url)
    plain.tell(0, 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        writer(StudyStorage.set_trial_state_values, mine.trial_id, TrialState.COMPLETE, [0.75])
    assert writer(StudyStorage.count_held_by_others, study_id) == 0
    assert reader.count_held_by_others(study_id) == 0
    assert reader.get_trial(mine.trial_id).value == 0.5


# What may wait for a second.

Look = Callable[[FrozenTrial], object]
WRITES: dict[str, tuple[Callable[..., object], tuple[object, ...], Look, object]] = {
    "set_trial_param": (StudyStorage.set_trial_param, ("y", 0.125, UNIT), lambda t: t.params, {"y": 0.125}),
    "set_trial_intermediate_value": (
        StudyStorage.set_trial_intermediate_value, (3, 0.5), lambda t: t.intermediate_values, {3: 0.5},
    ),
    "set_trial_user_attr": (StudyStorage.set_trial_user_attr, ("k", [1]), lambda t: t.user_attrs.get("k"), [1]),
    "set_trial_system_attr": (StudyStorage.set_trial_system_attr, ("k", "v"), lambda t: t.system_attrs, {"k": "v"}),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("then", ["flushed", "a state changes"])
def test_a_write_waits_until_it_is_flushed_or_a_state_changes(
    write: str, then: str, writer: Peer, reader: StudyStorage
) -> None:
    method, args, look, expected = WRITES[write]
    study_id = writer(make)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w"), 2))
    before = look(reader.get_trial(mine.trial_id))
    writer(method, mine.trial_id, *args)
    assert look(writer(StudyStorage.get_trial, mine.trial_id)) == expected
    assert look(reader.get_trial(mine.trial_id)) == before != expected
    if then == "flushed":
        writer(StudyStorage.flush)
    else:
        writer(StudyStorage.claim, study_id, holder("w"), 2)
    assert look(reader.get_trial(mine.trial_id)) == expected


def test_metrics_of_an_epoch_wait_too(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w"), 1))
    writer(StudyStorage.record_epoch, mine.trial_id, 1, {"epoch": 1})
    assert reader.read_epochs(study_id) == {}
    assert writer(StudyStorage.read_epochs, study_id) == {
        mine.trial_id: [{"epoch": 1}]
    }  # who reads them writes them first
    assert reader.read_epochs(study_id) == {mine.trial_id: [{"epoch": 1}]}


def test_a_write_waits_no_longer_than_it_may(more: Callable[..., list[Peer]], reader: StudyStorage) -> None:
    [writer] = more(1, stale=0.01)
    mine = claimed(writer(StudyStorage.claim, make(reader), holder("w"), 1))
    writer(StudyStorage.set_trial_user_attr, mine.trial_id, "k", 1)
    assert seen_soon(lambda: reader.get_trial(mine.trial_id).user_attrs.get("k") == 1)


def seen_soon(seen: Callable[[], bool]) -> bool:
    """Whether it comes to be within a time that is long for any machine."""
    until = time.monotonic() + 120
    while not seen():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_what_is_written_to_a_trial_that_does_not_run_there_is_seen_at_once(writer: Peer, reader: StudyStorage) -> None:
    study_id = make(reader)
    mine = claimed(reader.claim(study_id, holder("r"), 1))
    assert reader.release(mine.trial_id)
    for method, args, look, expected in WRITES.values():
        writer(method, mine.trial_id, *args)
        seen = look(reader.get_trial(mine.trial_id))
        assert seen == expected if not isinstance(expected, dict) else expected.items() <= seen.items()  # type: ignore[attr-defined]


# A process that is killed.


def test_of_one_that_is_killed_the_finished_trials_are_whole_and_the_last_second_may_be_missing(
    writer: Peer, reader: StudyStorage
) -> None:
    study_id = writer(make)
    done = claimed(writer(StudyStorage.claim, study_id, holder("w"), 2))
    writer(StudyStorage.set_trial_param, done.trial_id, "x", 0.75, UNIT)
    report(writer, done.trial_id, 1)
    writer(StudyStorage.set_trial_user_attr, done.trial_id, "k", "v")
    writer(StudyStorage.set_trial_state_values, done.trial_id, TrialState.COMPLETE, [0.1])
    begun = claimed(writer(StudyStorage.claim, study_id, holder("w"), 2))
    report(writer, begun.trial_id, 1)
    writer(StudyStorage.flush)
    report(writer, begun.trial_id, 2)
    writer.kill()

    whole = reader.get_trial(done.trial_id)
    assert (whole.state, whole.value, whole.params) == (TrialState.COMPLETE, 0.1, {"x": 0.75})
    assert (whole.intermediate_values, whole.user_attrs["k"]) == ({1: 0.1}, "v")
    left = reader.get_trial(begun.trial_id)
    assert (left.state, left.intermediate_values) == (TrialState.RUNNING, {1: 0.1})
    assert reader.read_epochs(study_id) == {done.trial_id: [{"epoch": 1}], begun.trial_id: [{"epoch": 1}]}
    [lease] = rows(reader, LEASES)
    assert (lease.trial_id, lease.worker, lease.attempt) == (begun.trial_id, "w", 1)
    assert reader.claim(study_id, holder("r"), 2) is None  # it is held still
    expire(reader)
    assert reader.claim(study_id, holder("r"), 2) == LeaseGrant(begun.trial_id, 2)


def test_of_several_exactly_one_takes_a_trial_over(more: Callable[..., list[Peer]], reader: StudyStorage) -> None:
    first, *others = more(4)
    study_id = make(reader)
    begun = claimed(first(StudyStorage.claim, study_id, holder("w"), 1))
    first.kill()
    for attempt in (2, 3, 4):
        expire(reader)
        for i, other in enumerate(others):
            other.begin(StudyStorage.claim, study_id, holder(f"o{i}"), 1)
        assert [found for other in others if (found := other.result())] == [LeaseGrant(begun.trial_id, attempt)]


def test_several_that_claim_at_once_leave_nothing(more: Callable[..., list[Peer]], reader: StudyStorage) -> None:
    peers = more(3)
    study_id = make(reader, slots=30)
    for i, peer in enumerate(peers):
        peer.begin(claim_all, study_id, f"w{i}")
    ids = [trial_id for peer in peers for trial_id in peer.result()]
    assert sorted(ids) == sorted(trial._trial_id for trial in reader.get_all_trials(study_id))


def claim_all(storage: StudyStorage, study_id: int, name: str) -> list[int]:
    ids = []
    while found := storage.claim(study_id, holder(name)):
        ids.append(found.trial_id)
        storage.set_trial_state_values(found.trial_id, TrialState.COMPLETE, [0.5])
    return ids


def test_one_that_comes_back_too_late_can_write_nothing_more(writer: Peer, reader: StudyStorage) -> None:
    study_id = writer(make)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w"), 2))
    report(writer, mine.trial_id, 1)
    writer(StudyStorage.flush)
    report(writer, mine.trial_id, 2)
    writer(StudyStorage.set_trial_param, mine.trial_id, "late", 0.5, UNIT)
    expire(reader)
    assert reader.claim(study_id, holder("r"), 2) == LeaseGrant(mine.trial_id, 2)
    writer(StudyStorage.flush)
    refused(writer, reader, mine.trial_id)

    # Nor when it is finished by the one who has it now; and it goes on with others.
    reader.set_trial_state_values(mine.trial_id, TrialState.COMPLETE, [0.9])
    refused(writer, reader, mine.trial_id)
    assert reader.get_trial(mine.trial_id).value == 0.9
    other = claimed(writer(StudyStorage.claim, study_id, holder("w"), 2))
    report(writer, other.trial_id, 1)
    assert writer(StudyStorage.set_trial_state_values, other.trial_id, TrialState.COMPLETE, [0.2])


def refused(writer: Peer, reader: StudyStorage, trial_id: int) -> None:
    """Nothing that the writer does to a trial that is another's gets into the database."""
    tables = (EPOCHS, INTERMEDIATE_VALUES, LEASES, TRIAL_USER_ATTRS)
    before = [rows(reader, table) for table in tables]
    assert [row.epoch for row in before[0]] == [1]
    lost = (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError)
    for method, args, _, _ in WRITES.values():
        with pytest.raises(lost):
            writer(method, trial_id, *args)
    with pytest.raises(lost):
        writer(StudyStorage.record_epoch, trial_id, 2, {"epoch": 2})
    with pytest.raises(lost):
        writer(StudyStorage.discard_reports, trial_id, 0)
    with pytest.raises(lost):
        writer(StudyStorage.set_trial_state_values, trial_id, TrialState.COMPLETE, [0.5])
    assert writer(StudyStorage.release, trial_id) is False
    assert writer(StudyStorage.holds, trial_id) is False
    writer(StudyStorage.renew_leases, holder("w"))
    writer(StudyStorage.flush)
    assert [rows(reader, table) for table in tables] == before


@pytest.mark.parametrize("meanwhile", ["taken over", "finished", "given back", "deleted"])
def test_one_that_was_suspended_drops_what_waited(
    meanwhile: str, more: Callable[..., list[Peer]], reader: StudyStorage
) -> None:
    [writer] = more(1, stale=0.3)
    study_id = make(reader)
    mine = claimed(writer(StudyStorage.claim, study_id, holder("w"), 1))
    writer.begin(report_and_be_suspended, mine.trial_id)
    assert seen_soon(lambda: is_suspended(writer.pid))
    expire(reader)
    assert reader.claim(study_id, holder("r"), 1) == LeaseGrant(mine.trial_id, 2)
    if meanwhile == "finished":
        reader.set_trial_state_values(mine.trial_id, TrialState.COMPLETE, [0.9])
    elif meanwhile == "given back":
        assert reader.release(mine.trial_id)
    elif meanwhile == "deleted":
        reader.delete_study(study_id)
    tables = (EPOCHS, INTERMEDIATE_VALUES, LEASES, TRIAL_USER_ATTRS)
    before = [rows(reader, table) for table in tables]
    writer.send_signal(signal.SIGCONT)
    writer.result()
    assert seen_soon(lambda: not writer(has_waiting))
    writer(StudyStorage.flush)  # after it, whatever the timer does has been done
    assert [rows(reader, table) for table in tables] == before


def report_and_be_suspended(storage: StudyStorage, trial_id: int) -> None:
    import os

    storage.record_epoch(trial_id, 7, {"epoch": 7})
    storage.set_trial_intermediate_value(trial_id, 7, 0.7)
    storage.set_trial_user_attr(trial_id, "late", True)
    os.kill(os.getpid(), signal.SIGSTOP)


def is_suspended(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


def has_waiting(storage: StudyStorage) -> bool:
    return storage._buffer.since is not None


# Readers that keep what they have read.


@pytest.mark.parametrize("begun", ["finished", "unfinished", "none"])
def test_a_study_made_again_under_its_name_is_seen_anew(begun: str, writer: Peer, reader: StudyStorage) -> None:
    """SQLite gives the ids of a deleted study and of its trials away again."""
    study_id = writer(make, slots=3)
    for _ in range(3 if begun != "none" else 0):
        mine = claimed(writer(StudyStorage.claim, study_id, holder("w")))
        if begun == "finished":
            writer(StudyStorage.set_trial_state_values, mine.trial_id, TrialState.COMPLETE, [0.5])
    assert len(reader.get_all_trials(study_id)) == 3
    writer(StudyStorage.delete_study, study_id)
    again = writer(make, slots=2)
    found = reader.get_all_trials(again)
    assert [(t.number, t.state, t.values) for t in found] == [(n, TrialState.WAITING, None) for n in range(2)]
    assert reader.read_epochs(again) == {}
    assert claimed(reader.claim(again, holder("r"))).attempt == 1


def test_trials_of_others_are_popped_once_each(more: Callable[..., list[Peer]], reader: StudyStorage) -> None:
    study = optuna.create_study(storage=reader, study_name="queue")
    peers = more(3, stale=0.8)
    for i, peer in enumerate(peers):
        peer.begin(enqueue_and_ask, 8, i)
    numbers = [number for peer in peers for number in peer.result()]
    assert len(numbers) == len(set(numbers)) == 24
    popped = [
        t.params["x"] for t in study.trials if "fixed_params" in t.system_attrs and t.state == TrialState.COMPLETE
    ]
    assert len(popped) == len(set(popped))
    waiting = [t.system_attrs["fixed_params"]["x"] for t in study.trials if t.state == TrialState.WAITING]
    assert sorted(popped + waiting) == sorted(i + n / 10 for i in range(3) for n in range(8))
    assert [t.number for t in study.trials] == list(range(len(study.trials)))


def enqueue_and_ask(storage: StudyStorage, count: int, i: int) -> list[int]:
    """Enqueue trials, and do as many of those that wait, or others where none does; returns their numbers."""
    study = optuna.load_study(study_name="queue", storage=storage, sampler=optuna.samplers.RandomSampler())
    numbers = []
    for n in range(count):
        study.enqueue_trial({"x": i + n / 10})
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 10))
        numbers.append(trial.number)
    return numbers
