"""The clock of leases in a SQLite file: that of the machine since it was started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.storage import clock, tables
from hpo.storage.clock import MACHINES
from hpo.storage.tables import LEASES
from hpo.study import StudyStorage
from tests.statements import Statements
from tests.storage.peer import Peer
from tests.study.helpers import holder, new_storage, sqlite_url

HOUR = 3600
WALL = tables.CLOCKS["sqlite"]


class Machine:
    """Machine as a process sees it: which start of it this is, and the two clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot, self.uptime, self._monkeypatch = "one", 1000.0, monkeypatch
        monkeypatch.setattr(clock, "boot_id", lambda: self.boot)
        monkeypatch.setattr(clock, "boot_seconds", lambda: self.uptime)
        self.set_wall(0)

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock to that many seconds after noon of some day."""
        self._monkeypatch.setitem(tables.CLOCKS, "sqlite", f"({1.7e9 + seconds})")

    def start_anew(self, boot: str) -> None:
        self.boot, self.uptime = boot, 5.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def _make(storage: StudyStorage) -> int:
    study_id = storage.create_study("s", [StudyDirection.MINIMIZE], ["loss"], {}, [{"x": 0}])
    storage.register_worker(study_id, holder("first"))
    return study_id


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 1e9, -1e9])
def test_a_wall_clock_that_is_set_changes_no_lease(tmp_path: Path, machine: Machine, seconds: float) -> None:
    storage = new_storage(tmp_path)
    study_id = _make(storage)
    claimed = storage.claim(study_id, holder("first"))
    assert claimed is not None
    machine.set_wall(seconds)
    other = StudyStorage(sqlite_url(tmp_path))
    other.register_worker(study_id, holder("second"))
    assert other.claim(study_id, holder("second")) is None
    machine.uptime += 59
    assert other.claim(study_id, holder("second")) is None
    assert [row.gone for row in other.read_workers(study_id)] == [False, False]
    assert [row.seen for row in other.read_workers(study_id)] == [59, 59]
    machine.uptime += 2
    taken = other.claim(study_id, holder("second"))
    assert taken is not None
    assert taken.taken_over


@pytest.mark.parametrize("seconds", [0, HOUR, -HOUR, -1e9])
def test_the_leases_of_an_earlier_start_are_over(tmp_path: Path, machine: Machine, seconds: float) -> None:
    storage = new_storage(tmp_path)
    study_id = _make(storage)
    assert storage.claim(study_id, holder("first")) is not None
    machine.start_anew("two")
    machine.set_wall(seconds)
    other = StudyStorage(sqlite_url(tmp_path))
    other.register_worker(study_id, holder("second"))
    assert [row.gone for row in other.read_workers(study_id)] == [True, False]
    taken = other.claim(study_id, holder("second"))
    assert taken is not None
    assert taken.taken_over
    assert StudyStorage(sqlite_url(tmp_path)).claim(study_id, holder("third")) is None


def test_another_machine_that_shares_the_file_leaves_live_leases(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = new_storage(tmp_path)
    study_id = _make(storage)
    assert storage.claim(study_id, holder("first")) is not None
    machine.start_anew("two")
    monkeypatch.setattr(clock.socket, "gethostname", lambda: "there")
    other = StudyStorage(sqlite_url(tmp_path))
    other.register_worker(study_id, holder("second"))
    assert other.claim(study_id, holder("second")) is None


def test_where_nothing_names_the_start_the_wall_clock_counts(tmp_path: Path, machine: Machine) -> None:
    machine.boot = None  # type: ignore[assignment]
    storage = new_storage(tmp_path)
    study_id = _make(storage)
    assert storage.claim(study_id, holder("first")) is not None
    machine.set_wall(61)
    taken = storage.claim(study_id, holder("second"))
    assert taken is not None
    assert taken.taken_over


def test_the_times_are_those_of_the_wall_clock_that_older_versions_read(tmp_path: Path, machine: Machine) -> None:
    storage = new_storage(tmp_path)
    study_id = _make(storage)
    storage.claim(study_id, holder("first"))
    machine.uptime += 10
    storage.renew_leases(holder("first"))
    with storage.engine.connect() as connection:
        assert connection.execute(sa.select(LEASES.c.expires)).scalar_one() == pytest.approx(1.7e9 + 10 + 60)
        assert connection.execute(sa.select(sa.func.count()).select_from(MACHINES)).scalar_one() == 1


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    new_storage(tmp_path).engine.dispose()
    made = Peer()
    made.open(sqlite_url(tmp_path))
    yield made
    made.kill()


def _set_wall(_: StudyStorage, seconds: float) -> None:
    tables.CLOCKS["sqlite"] = f"({WALL} + {seconds})"


@pytest.mark.integration
@pytest.mark.parametrize("call", [StudyStorage.claim])
def test_a_process_whose_clock_is_an_hour_ahead_takes_nothing_over(
    tmp_path: Path, peer: Peer, call: Callable[..., object]
) -> None:
    storage = StudyStorage(sqlite_url(tmp_path))
    study_id = _make(storage)
    assert storage.claim(study_id, holder("first")) is not None
    peer(_set_wall, HOUR)
    peer(StudyStorage.register_worker, study_id, holder("second"))
    assert peer(call, study_id, holder("second")) is None
    peer(_set_wall, -HOUR)
    assert peer(call, study_id, holder("second")) is None
    assert storage.count_trials(study_id)[TrialState.RUNNING] == 1


def test_the_database_is_asked_once_for_its_clock(storage: StudyStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.start_clock()
    statements = Statements(storage.engine)
    with storage.engine.connect() as connection:
        told = float(connection.scalar(sa.select(clock.database_clock(connection))) or 0.0)
    assert 0 <= storage.read_clock() - told < 60
    asked = statements.count
    now, uptime = storage.read_clock(), clock.boot_seconds
    monkeypatch.setattr(clock, "boot_seconds", lambda: uptime() + HOUR)
    assert HOUR <= storage.read_clock() - now < HOUR + 60
    assert statements.count == asked
