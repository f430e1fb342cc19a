"""Leases of the trials that Optuna's own loops run: under `study.optimize`, and between `study.ask` and `study.tell`.

A trial is leased in the transaction that begins it. Under `study.optimize` Optuna's heartbeat thread renews the lease;
that of a trial that was asked for is renewed as long as its process lives, and given up when the process ends in order,
for another one may tell it. Trials whose leases have run out are set FAIL by whoever next begins a trial of the study.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.errors import HpoError
from hpo.storage import clock
from hpo.storage.cache import TrialCache
from hpo.storage.leased_storage import LeasedStorage, LeaseGrant
from hpo.storage.leases import OPTUNA, Promotion, WorkerInfo, delete_leases
from hpo.storage.tables import LEASES, TRIALS, begin, utc_time
from hpo.storage.trial_query import Snapshot

__all__ = ["LEASE", "RENEWAL", "OptimizeStorage", "StaleTrialCallback"]

StaleTrialCallback = Callable[[Study, FrozenTrial], None]
ASK, OPTIMIZE = "study.ask", "study.optimize"  # what begins a trial
LEASE, RENEWAL = 60.0, 15  # seconds that a lease lasts, and between its renewals


class OptimizeStorage(LeasedStorage, BaseHeartbeat):
    """Optuna storage that leases the trials of Optuna's own loops.

    Where Optuna's storage was given a heartbeat interval, its heartbeats do so instead. A database in memory ends with
    its process, and needs neither.
    """

    _has_leases = False

    def __init__(self, rdb: RDBStorage, *, write_behind: bool = True) -> None:
        super().__init__(rdb, write_behind=write_behind)
        self._has_leases = write_behind and rdb.get_heartbeat_interval() is None
        self._name_own()
        atexit.register(_give_up_at_exit, weakref.ref(self))

    @override
    def _reset(self) -> None:
        super()._reset()
        self._asked: dict[int, str] = {}  # trials that no heartbeat renews, and what has begun them
        self._thread = threading.local()  # its `begins`: what is about to begin a trial in it
        self._renewal: threading.Timer | None = None
        self._has_clock = False
        self._clock_lead: float | None = None  # seconds by which the clock of leases is ahead of this machine's uptime
        self._next_look: dict[int, float] = {}  # before which no lease of a study can run out, by a monotonic clock
        self._hold_off = 0.0  # until which none is taken to have run out, by the same
        self._suspended = _suspended_seconds()

    @override
    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        self._name_own()

    def _name_own(self) -> None:
        if self._has_leases:
            host, pid = socket.gethostname(), os.getpid()
            self._own = WorkerInfo(f"{OPTUNA}{host}:{pid}:{secrets.token_hex(4)}", host, pid, "", LEASE)

    # Trials that begin and end.

    @override
    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if template_trial is not None:
            return super().create_new_trial(study_id, template_trial)
        if self.get_heartbeat_stale_trial_callback() is None:  # which `fail_stale_trials` alone would call
            self._fail_stale(study_id)
        self.start_clock()
        trial_id = super().create_new_trial(study_id)
        self._hold(trial_id)
        return trial_id

    @override
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        if state != TrialState.RUNNING:
            return super().set_trial_state_values(trial_id, state, values)
        self.start_clock()
        if done := super().set_trial_state_values(trial_id, state, values):
            self._hold(trial_id)
        return done

    @override
    def claim(
        self,
        study_id: int,
        worker: WorkerInfo,
        budget: int | None = None,
        *,
        abandoned: bool = False,
        promoted: Sequence[Promotion] = (),
    ) -> LeaseGrant | None:
        self._fail_stale(study_id)
        return super().claim(study_id, worker, budget, abandoned=abandoned, promoted=promoted)

    def start_clock(self) -> None:
        """Start the clock of leases where nobody has, before a time by it is stored."""
        if self._has_leases and not self._has_clock:
            self.write(clock.start_clock)
            self._has_clock, self._clock_lead = True, None

    def read_clock(self) -> float:
        """Return the seconds since 1970 by the clock of leases, which all workers share; the database is asked once."""
        if self._clock_lead is None:
            read = self.read(lambda connection: connection.scalar(sa.select(clock.database_clock(connection))))
            self._clock_lead = float(read or 0.0) - clock.boot_seconds()
        return self._clock_lead + clock.boot_seconds()

    def _hold(self, trial_id: int) -> None:
        """Renew a trial's lease from now on, until its heartbeat does."""
        if self._lease_holder():
            with self._state_lock:
                self._asked[trial_id] = self._thread.begins
                self._start_renewal()
            self._thread.begins = None

    @override
    def _lease_holder(self) -> WorkerInfo | None:
        return self._own if getattr(self._thread, "begins", None) else None

    @override
    def _drop_trials(self, refused: Any, settled: Any) -> None:
        super()._drop_trials(refused, settled)
        for trial_id in (*refused, *settled):
            self._asked.pop(trial_id, None)

    # Trials that were asked for, which another process may tell.

    def _asked_for(self, trial_ids: Iterable[int]) -> set[int]:
        return {trial_id for trial_id in trial_ids if self._asked.get(trial_id) == ASK}

    @override
    def _is_busy(self, cache: TrialCache) -> bool:
        busy = self._buffer.since is not None or cache.own > self._asked_for(cache.own)
        return busy and super()._is_busy(cache)

    @override
    def _read(self, connection: sa.Connection, study_id: int, also: Iterable[int] = ()) -> Snapshot:
        with self._state_lock:
            asked = self._asked_for(self._caches[study_id].own if study_id in self._caches else ())
        return super()._read(connection, study_id, asked.union(also))

    # Renewal.

    def _start_renewal(self) -> None:
        """Start the timer that renews the leases of trials without a heartbeat, unless it runs already."""
        if self._renewal is None:
            self._renewal = threading.Timer(RENEWAL, self._renew_asked)
            self._renewal.daemon = True
            self._renewal.start()

    def _renew_asked(self) -> None:
        with self._state_lock:
            self._renewal = None
            asked = list(self._asked)
        if not asked:
            return

        def step(connection: sa.Connection) -> None:
            self._renew(connection, asked)
            running = sa.select(TRIALS.c.trial_id).where(
                TRIALS.c.trial_id.in_(asked), TRIALS.c.state == TrialState.RUNNING
            )
            told = set(asked).difference(connection.execute(running).scalars())  # by other processes
            with self._state_lock:
                self._asked = {trial_id: why for trial_id, why in self._asked.items() if trial_id not in told}

        self._try(step)
        with self._state_lock:
            self._start_renewal()

    def _renew(self, connection: sa.Connection, trial_ids: Collection[int]) -> None:
        mine = LEASES.c.worker == self._own.name, LEASES.c.trial_id.in_(trial_ids)
        connection.execute(sa.update(LEASES).where(*mine).values(expires=clock.database_clock(connection) + LEASE))

    def _try(self, step: Callable[[sa.Connection], None]) -> None:
        """Run `step` in a transaction, in one try: the next renewal is soon."""
        with suppress(HpoError):  # the database or its file is lost, as the next write says
            try:
                with self._transaction_lock, self.engine.begin() as connection:
                    begin(connection)
                    step(connection)
            except sqlalchemy.exc.SQLAlchemyError as error:
                self._note_outage(error)

    @override
    def _note_recovery(self) -> None:
        if self._outage is not None and time.monotonic() - self._outage.since > RENEWAL:
            self._hold_off = time.monotonic() + 2 * RENEWAL  # others could not renew theirs, either
        super()._note_recovery()

    # Heartbeats, as `study.optimize` and `fail_stale_trials` ask for them.

    @override
    def get_heartbeat_interval(self) -> int | None:
        if not self._has_leases:
            return self._rdb.get_heartbeat_interval()
        if _is_asked(sys._getframe(1)):  # which would warn that heartbeats are for `study.optimize`
            self._thread.begins = ASK
            return None
        return RENEWAL

    @override
    def get_heartbeat_stale_trial_callback(self) -> StaleTrialCallback | None:
        return self._rdb.get_heartbeat_stale_trial_callback()

    @override
    def record_heartbeat(self, trial_id: int) -> None:
        if not self._has_leases:
            return self._rdb.record_heartbeat(trial_id)
        if not threading.main_thread().is_alive():
            sys.exit()  # ends this thread, which would keep a process that ends from ending
        with self._state_lock:
            is_first = self._asked.pop(trial_id, None) is not None
        if not is_first:  # the lease is new
            self._try(lambda connection: self._renew(connection, [trial_id]))
        return None

    @override
    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        stale = [] if self._has_leases else self._rdb._get_stale_trial_ids(study_id)
        self._thread.begins = OPTIMIZE if self._has_leases else None
        if self._is_due(study_id):
            stale += self.read(lambda connection: self._look(connection, study_id))
        return stale

    # Trials whose processes are gone.

    def _is_due(self, study_id: int) -> bool:
        """Return whether a lease of the study may have run out since the last look.

        After this machine was suspended, those that are alive on it renew theirs first.
        """
        now, suspended = time.monotonic(), _suspended_seconds()
        with self._state_lock:
            if suspended > self._suspended + 1:
                self._suspended, self._hold_off = suspended, now + 2 * RENEWAL
            return now >= max(self._hold_off, self._next_look.get(study_id, 0.0))

    def _look(self, connection: sa.Connection, study_id: int, *, lock: bool = False) -> list[int]:
        """Read which trials of a study have lost their processes, and note when the next one can."""
        left = (LEASES.c.expires - clock.database_clock(connection)).label("left")
        query = (
            sa.select(TRIALS.c.trial_id, left)
            .join_from(LEASES, TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id)
            .where(TRIALS.c.study_id == study_id, TRIALS.c.state == TrialState.RUNNING)
            .where(LEASES.c.worker.like(f"{OPTUNA}%"))
        )
        rows = connection.execute(query.with_for_update(of=[TRIALS, LEASES]) if lock else query).all()
        with self._state_lock:
            self._next_look[study_id] = time.monotonic() + min([LEASE, *(row.left for row in rows if row.left > 0)])
        return [row.trial_id for row in rows if row.left <= 0]

    def _fail_stale(self, study_id: int) -> None:
        """Set the trials FAIL whose processes are gone."""

        def step(connection: sa.Connection) -> None:
            if stale := self._look(connection, study_id, lock=True):
                failed = sa.update(TRIALS).where(TRIALS.c.trial_id.in_(stale))
                connection.execute(failed.values(state=TrialState.FAIL, datetime_complete=utc_time()))
                delete_leases(connection, stale)

        if self._is_due(study_id):
            self._transact(study_id, step)


def _is_asked(frame: FrameType | None) -> bool:
    """Return whether `Study.ask`, outside of `study.optimize`, asks for the interval."""
    caller = frame and frame.f_back
    return caller is not None and caller.f_code.co_name == "ask" and caller.f_globals["__name__"] == Study.__module__


def _suspended_seconds() -> float:
    """Return how long this machine has been suspended, since some moment."""
    return clock.boot_seconds() - time.monotonic()


def _give_up_at_exit(reference: weakref.ref[OptimizeStorage]) -> None:
    """Give up the leases of trials that were asked for, so that another process may tell them whenever it likes."""
    storage = reference()
    if storage is None or storage.is_unavailable:
        return
    if asked := storage._asked_for(storage._asked):
        # Where the database does not answer now, they fail in a minute.
        with suppress(sqlalchemy.exc.SQLAlchemyError, HpoError), storage.engine.begin() as connection:
            begin(connection)
            delete_leases(connection, asked)
