"""Fencing where it is hard: writes that wait for a takeover, other tools that know no leases, refusals."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.errors import LeaseLostError
from hpo.storage import cache, leases, limits, trial_query, write_behind
from hpo.storage.stored_values import PAUSED
from hpo.storage.study_storage import LeaseGrant
from hpo.storage.tables import LEASES, STUDIES, TRIALS, VALUES, begin, insert_one, utc_time
from hpo.study import StudyStorage
from tests.servers import empty_database
from tests.study.helpers import holder, new_storage


def open_again(storage: StudyStorage) -> StudyStorage:
    return StudyStorage(storage.url.render_as_string(hide_password=False))


def plain(storage: StudyStorage) -> RDBStorage:
    return RDBStorage(storage.url.render_as_string(hide_password=False))


def claimed(storage: StudyStorage, worker: str, study_id: int | None = None) -> tuple[int, LeaseGrant]:
    if study_id is None:
        study_id = storage.create_study("s", [StudyDirection.MAXIMIZE], ["m"], {})
    found = storage.claim(study_id, holder(worker), 1)
    assert found is not None
    return study_id, found


def expire(storage: StudyStorage) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))


@contextmanager
def taking_over(storage: StudyStorage, study_id: int) -> Iterator[None]:
    """Another worker has taken the trial over in a transaction that is not at its end."""
    rival = holder("rival")
    with storage.engine.begin() as connection:
        begin(connection)
        found = leases.find_claimable(connection, study_id, rival, [])
        assert found is not None
        assert leases.claim(connection, study_id, found, rival)
        yield


@pytest.mark.parametrize("call", ["flush", "tell"])
def test_a_write_that_waits_for_a_takeover_is_refused_after_it(
    storage: StudyStorage, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "STALE", 60.0)  # on a busy machine it is written by itself before the takeover
    study_id, mine = claimed(storage, "old")
    storage.set_trial_user_attr(mine.trial_id, "stale", 1)
    expire(storage)
    other = open_again(storage)
    refused: list[bool] = []

    def write() -> None:
        try:
            if call == "flush":
                storage.flush()
                storage.set_trial_user_attr(mine.trial_id, "more", 1)
            else:
                storage.set_trial_state_values(mine.trial_id, TrialState.COMPLETE, [1.0])
        except LeaseLostError:
            refused.append(True)

    writer = threading.Thread(target=write)
    with taking_over(other, study_id):
        writer.start()
        writer.join(0.5)  # it waits for the row, or for the file, that the other holds
        assert writer.is_alive()
    writer.join(60)
    assert refused == [True]
    trial = plain(storage).get_trial(mine.trial_id)
    assert trial.state == TrialState.RUNNING
    assert "stale" not in trial.user_attrs


@pytest.mark.parametrize("meanwhile", ["released", "released, and begun by another tool", "ended by another tool"])
def test_a_takeover_that_comes_after_a_change_of_the_trial_takes_nothing(storage: StudyStorage, meanwhile: str) -> None:
    study_id, mine = claimed(storage, "old")
    expire(storage)
    other, rival = open_again(storage), holder("rival")
    with other.engine.connect() as connection:
        [found] = leases.find_all_claimable(connection, study_id, rival, [], waiting=False)
    if meanwhile.startswith("released"):
        assert storage.release(mine.trial_id)
    if meanwhile != "released":
        ended = meanwhile.startswith("ended")
        state = TrialState.COMPLETE if ended else TrialState.RUNNING
        plain(storage).set_trial_state_values(mine.trial_id, state, [1.0] if ended else None)
    with other.engine.begin() as connection:
        begin(connection)
        assert not leases.claim(connection, study_id, found, rival)
    claims = [other.claim(study_id, holder(name), 1) for name in ("rival", "third")]
    assert claims == [LeaseGrant(mine.trial_id, 2) if meanwhile == "released" else None, None]


def test_what_another_tool_ended_and_was_tried_again_is_not_the_first_workers(storage: StudyStorage) -> None:
    study_id, mine = claimed(storage, "old")
    plain(storage).set_trial_state_values(mine.trial_id, TrialState.FAIL)
    storage.set_trial_user_attr(mine.trial_id, "stale", 1)
    storage.flush()
    other = open_again(storage)
    assert other.retry(study_id) == [0]
    _, again = claimed(other, "new", study_id)
    assert again == LeaseGrant(mine.trial_id, 2)
    with pytest.raises(LeaseLostError):
        storage.set_trial_user_attr(mine.trial_id, "stale", 2)
    with pytest.raises(LeaseLostError):
        storage.set_trial_state_values(mine.trial_id, TrialState.COMPLETE, [1.0])
    other.set_trial_state_values(again.trial_id, TrialState.COMPLETE, [2.0])
    assert plain(storage).get_trial(mine.trial_id).values == [2.0]


def test_a_trial_that_another_tool_runs_is_not_taken_from_it(storage: StudyStorage) -> None:
    study_id, mine = claimed(storage, "w")
    assert storage.release(mine.trial_id)
    assert plain(storage).set_trial_state_values(mine.trial_id, TrialState.RUNNING)
    assert storage.claim(study_id, holder("other"), 1) is None
    assert storage.count_held_by_others(study_id) == 0
    assert storage.retry(study_id) == []
    assert storage.retry(study_id, [0]) == [0]  # unless a person says so
    assert storage.claim(study_id, holder("other"), 1) == LeaseGrant(mine.trial_id, 2)


def test_a_trial_that_is_being_claimed_counts_as_somebody_elses(storage: StudyStorage) -> None:
    study_id = storage.create_study("s", [StudyDirection.MAXIMIZE], ["m"], {}, [{"x": 1}])
    assert storage.count_held_by_others(study_id, waiting=True) == 1
    assert storage.count_held_by_others(study_id) == 0
    claimed(storage, "w", study_id)
    assert storage.count_held_by_others(study_id, waiting=True) == 0
    assert open_again(storage).count_held_by_others(study_id) == 1


def test_what_the_database_would_refuse_is_refused_at_once_and_costs_nothing_else(storage: StudyStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    trial.report(0.5, 1)
    with pytest.raises(ValueError, match="step = 2147483648"):
        trial.report(0.5, 2**31)
    with pytest.raises(ValueError, match="600 characters"):
        trial.set_user_attr("k" * 600, 1)
    for name in ("k\0", "k\ud800"):
        with pytest.raises(ValueError, match=r"name 'k\\.* has a character that databases do not store"):
            trial.set_user_attr(name, 1)
        with pytest.raises(ValueError, match="has a character that databases do not store"):
            trial.suggest_float(name, 0, 1)
    study.tell(trial, 0.5)
    assert study.trials[0].intermediate_values == {1: 0.5}
    assert study.ask().number == 1


def test_a_text_that_mysql_cannot_hold_is_refused_at_once_and_costs_nothing_else(mariadb_url: str) -> None:
    empty_database(mariadb_url)
    storage = StudyStorage(mariadb_url)
    study, long = optuna.create_study(storage=storage), "ä" * 6000  # JSON writes an ä as 6 bytes
    trial, other = study.ask(), study.ask()
    other.report(0.25, 1)
    trial.set_user_attr("fits", long)
    refused: dict[str, Callable[[], object]] = {
        "attribute 'long' takes 72,002 bytes": lambda: trial.set_user_attr("long", 2 * long),
        "attribute 'system'": lambda: storage.set_trial_system_attr(trial._trial_id, "system", 2 * long),
        "parameter 'x'": lambda: trial.suggest_categorical("x", ["a", 2 * long]),
        "the metrics of epoch 3": lambda: storage.record_epoch(trial._trial_id, 3, {2 * long: 0.5}),
        "attribute 'of the study'": lambda: study.set_user_attr("of the study", 2 * long),
        "attribute 'template'": lambda: study.add_trial(
            optuna.trial.create_trial(value=0.5, user_attrs={"template": 2 * long})
        ),
        "attribute 'new'": lambda: storage.create_study("new", [StudyDirection.MINIMIZE], [], {"new": 2 * long}),
    }
    for words, call in refused.items():
        with pytest.raises(ValueError, match=f"^{words}.* at most 65,535.* PostgreSQL or SQLite$"):
            call()
    study.tell(trial, 0.5)
    assert not storage.is_unavailable
    storage.engine.dispose()
    again = StudyStorage(mariadb_url)
    [told, running] = again.get_all_trials(study._study_id)
    assert (told.state, told.user_attrs, told.params) == (TrialState.COMPLETE, {"fits": long}, {})
    assert running.intermediate_values == {1: 0.25}
    again.engine.dispose()


def test_what_is_refused_of_a_transaction_costs_nothing_that_waited(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()
    trial.report(0.5, 1)
    with pytest.raises(sa.exc.IntegrityError):
        storage._transact(study._study_id, lambda connection: insert_one(connection, STUDIES, study_name="s"))
    storage.flush()
    assert open_again(storage).get_trial(trial._trial_id).intermediate_values == {1: 0.5}


def test_a_row_that_is_refused_is_no_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = new_storage(tmp_path)
    trial = optuna.create_study(storage=storage).ask()
    storage._buffer.add(VALUES, {"trial_id": trial._trial_id, "objective": None, "value": 0.5, "value_type": "FINITE"})
    storage._buffer.since = float("-inf")
    storage._tick()
    assert not storage.is_unavailable
    assert "buffered results could not be written" in caplog.text
    assert "\n" not in caplog.records[-1].message


def test_thousands_of_failed_trials_are_read_in_one_statement(storage: StudyStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="failed")
    rows = [{"study_id": study._study_id, "number": n, "state": "FAIL"} for n in range(3000)]
    with storage.engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO trials (study_id, number, state) VALUES (:study_id, :number, :state)"), rows
        )
    assert len(study.get_trials()) == 3000
    assert len(study.get_trials()) == 3000  # now by their ids


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyStorage:
    """A database whose statements may have 60 parameters, of which 20 may be ids."""
    for module in (limits, cache, trial_query):
        monkeypatch.setattr(module, "MANY", 20)

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 60)

    storage = new_storage(tmp_path)
    sa.event.listen(storage.engine, "connect", limit)
    storage.engine.dispose()
    return storage


def end(storage: StudyStorage, number: int, state: str) -> None:
    """End a trial as another process does."""
    with storage.engine.begin() as connection:
        changed = sa.update(TRIALS).where(TRIALS.c.number == number)
        connection.execute(changed.values(state=state, datetime_start=utc_time(), datetime_complete=utc_time()))


def test_more_slots_than_a_statement_has_parameters(few: StudyStorage) -> None:
    study_id = few.create_study("s", [StudyDirection.MAXIMIZE], ["m"], {}, [{"x": n} for n in range(100)])
    assert few.update_study(study_id, {}, {}, [{"x": n} for n in range(100, 200)], 100)
    trials = few.get_all_trials(study_id)
    assert [trial.system_attrs["fixed_params"]["x"] for trial in trials] == list(range(200))
    for number in range(1, 198):  # whose cohort has left the first and the last ones to others
        end(few, number, "PRUNED")
    for _ in range(2):
        assert [trial.state.name for trial in few.get_all_trials(study_id)] == [
            "WAITING", *["PRUNED"] * 197, "WAITING", "WAITING",
        ]  # fmt: skip
    end(few, 198, "PRUNED")
    assert few.get_all_trials(study_id)[198].state == TrialState.PRUNED


def test_more_failed_trials_than_a_statement_has_parameters(few: StudyStorage) -> None:
    study_id = few.create_study("s", [StudyDirection.MAXIMIZE], ["m"], {}, [{"x": n} for n in range(100)])
    for number in range(100):
        end(few, number, "FAIL")
    for _ in range(2):
        assert {trial.state for trial in few.get_all_trials(study_id)} == {TrialState.FAIL}
    assert len(few.retry(study_id)) == 100
    assert {trial.state for trial in few.get_all_trials(study_id)} == {TrialState.WAITING}


def test_more_paused_trials_than_a_statement_has_parameters(few: StudyStorage) -> None:
    study_id = few.create_study("s", [StudyDirection.MAXIMIZE], ["m"], {}, [{"x": n} for n in range(100)])
    for _ in range(100):
        _, mine = claimed(few, "w", study_id)
        few.release_all([mine.trial_id], {mine.trial_id: 1})
    other = open_again(few)
    ids = [trial._trial_id for trial in other.get_all_trials(study_id)]
    for place in (0, 99):  # paused farther on, which others see
        assert few.claim(study_id, holder("w"), promoted=[(ids[place], 1)]) is not None
        few.release_all([ids[place]], {ids[place]: 3})
    for reader in (few, other):
        paused = [trial.system_attrs[PAUSED] for trial in reader.get_all_trials(study_id)]
        assert paused == [3, *[1] * 98, 3]
    assert few.end_paused(study_id, dict(zip(ids, ((epoch, 0.5) for epoch in paused), strict=True)), 100)
    assert {trial.state for trial in other.get_all_trials(study_id)} == {TrialState.PRUNED}
