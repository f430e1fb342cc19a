"""Transactions of a storage that keeps writes in a buffer and trials in a cache.

Each takes along what waits in the buffer, and brings back what others have changed, in one statement.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection

from hpo.errors import LeaseLostError, RunError, StudyDeletedError
from hpo.storage import leases
from hpo.storage.cache import TrialCache, WriteBuffer
from hpo.storage.stored_values import DamageLog
from hpo.storage.tables import begin
from hpo.storage.transient_errors import RetryPolicy, retrying_proxy
from hpo.storage.trial_query import Snapshot, TrialQuery, read_snapshot
from hpo.storage.url import mask

__all__ = ["REFUSALS", "Outage", "TransactionalStorage"]

log = logging.getLogger("hpo.study")
Result = TypeVar("Result")
# What the database refuses for good: a value that it cannot store, or that contradicts others.
REFUSALS = (sqlalchemy.exc.DataError, sqlalchemy.exc.IntegrityError)
_OPEN: weakref.WeakSet[TransactionalStorage] = weakref.WeakSet()


@dataclass(frozen=True)
class Outage:
    """An outage of the database: its last error, and since when it lasts, in seconds of a monotonic clock."""

    error: Exception
    since: float


class TransactionalStorage(BaseStorage):
    """Optuna storage whose transactions write a buffer and refresh a cache.

    Args:
        rdb: Optuna's storage on the same database; it does what is done to studies.

    Attributes:
        engine: the SQLAlchemy engine that every statement goes through.
        retry_policy: how long, and how often, transient errors are retried.
        damage: what could not be read of trials.
        loss: why nothing more can be stored, once the database, or the study that a worker of this process trains, was
            deleted or replaced; None before that.
    """

    def __init__(self, rdb: RDBStorage) -> None:
        self.engine: sa.Engine = rdb.engine
        self.retry_policy = RetryPolicy(mask(rdb.engine.url))
        self.damage = DamageLog()
        self._plain_rdb = rdb
        self._names: dict[int, str] = {}  # by which messages call them
        self._directions: dict[int, list[StudyDirection]] = {}
        self._leases: dict[int, leases.Lease] = {}
        self._lost: set[int] = set()
        self._outage: Outage | None = None
        self.loss: RunError | None = None
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        """Begin with nothing cached, buffered or locked."""
        self._transaction_lock = threading.RLock()  # one transaction at a time; taken before the other
        self._state_lock = threading.RLock()  # for what is below; never held while the database is waited for
        self._rdb = retrying_proxy(self._plain_rdb, self.retry_policy, self._transaction_lock)
        self._buffer = WriteBuffer()
        self._caches: dict[int, TrialCache] = {}
        self._study_of: dict[int, int] = {}

    def _begin_in_child(self) -> None:
        """Leave the connections, threads and locks to the process that this one was forked from."""
        if not isinstance(self.engine.pool, sa.StaticPool):  # a database in memory is its one connection
            self._parents_pool = self.engine.pool  # kept, for its connections are not this process's to close
            self.engine.dispose(close=False)
        self._reset()

    # Transactions.

    def _transact(
        self,
        study_id: int | None,
        step: Callable[[sa.Connection], Result],
        *,
        trial_id: int | None = None,
        settles: bool = False,
    ) -> Result:
        """Run `step` in a transaction that writes the buffer first and reads back what others have changed.

        Args:
            study_id: what is read back; None reads the studies of what waited in the buffer.
            step: what to do.
            trial_id: the trial that it is done to, which must be ours to write, or nobody's.
            settles: whether that trial is ours no longer afterwards.

        Raises:
            KeyError: there is no such study or trial.
            optuna.exceptions.UpdateFinishedTrialError: the trial is finished.
            LeaseLostError: another worker has taken the trial over.
        """
        return self.retry_policy(lambda: self._transact_once(study_id, step, trial_id, settles))

    def _transact_once(
        self, study_id: int | None, step: Callable[[sa.Connection], Result], trial_id: int | None, settles: bool
    ) -> Result:
        ids = () if trial_id is None else (trial_id,)
        # Where the trial is refused there is no result, and nobody asks for it.
        result, refused = self._transact_each(
            study_id, lambda connection, ours: step(connection) if ours or not ids else None, ids, settles
        )
        for error in refused.values():
            raise error
        return cast(Result, result)

    def _transact_each(
        self,
        study_id: int | None,
        step: Callable[[sa.Connection, Sequence[int]], Result],
        trial_ids: Collection[int],
        settles: bool,
    ) -> tuple[Result, dict[int, Exception]]:
        """Run one try of `_transact` on several trials; `step` is given those that are ours to write.

        Returns:
            What `step` returned, and why the others were refused, by id.
        """
        with self._transaction_lock:
            with self._state_lock:
                rows = self._buffer.take()
            written = False
            try:
                with self.engine.begin() as connection:
                    begin(connection)
                    refused = self._write_rows(connection, rows, trial_ids)
                    written = True
                    result = step(connection, [trial_id for trial_id in trial_ids if trial_id not in refused])
                    # Of what was refused the study may be gone as well.
                    studies = self._studies_of(rows.trial_ids) if study_id is None else {study_id}
                    read = {each: self._read(connection, each, trial_ids if settles else ()) for each in studies}
            except BaseException as error:
                # Rows that the database refuses for good would be refused with every later transaction as well.
                if written or not isinstance(error, REFUSALS):
                    with self._state_lock:
                        self._buffer.restore(rows)
                raise
            with self._state_lock:
                self._note_recovery()
                self._drop_trials(refused, trial_ids if settles else ())
                for each, snapshot in read.items():
                    self._store(each, snapshot)
            return result, {trial_id: why for trial_id, why in refused.items() if trial_id in trial_ids}

    def _write_rows(
        self, connection: sa.Connection, rows: WriteBuffer, trial_ids: Iterable[int]
    ) -> dict[int, Exception]:
        """Write the buffered rows, but for trials that are no longer ours: return those with the reason."""
        ids = rows.trial_ids.union(trial_ids)
        if not ids:
            return {}
        held = ids & self._leases.keys()
        found = leases.lease_states(connection, held, leased=True)
        found |= leases.lease_states(connection, ids - held, leased=False)
        refused = {i: why for i in ids if (why := self._refusal(i, found.get(i)))}
        rows.drop(refused)
        rows.write(connection)
        return refused

    def _studies_of(self, trial_ids: Iterable[int]) -> set[int]:
        with self._state_lock:
            return {self._study_of[i] for i in trial_ids}

    def _refusal(self, trial_id: int, now: leases.LeaseState | None) -> Exception | None:
        if now is None and trial_id not in self._leases:
            return KeyError(models.NOT_FOUND_MSG)
        if now is None:
            return LeaseLostError(f"trial {trial_id} is not this worker's any more")
        if now.state.is_finished():
            return optuna.exceptions.UpdateFinishedTrialError(f"trial {trial_id} is finished and cannot be changed")
        held = self._leases.get(trial_id)
        taken = held is not None and (now.worker, now.attempt) != (held.worker, held.attempt)
        if taken or trial_id in self._lost:  # what has been lost is held no longer, and refused still
            return LeaseLostError(f"trial {trial_id} has been taken over by another worker")
        return None

    def _drop_trials(self, refused: Mapping[int, Exception], settled: Iterable[int]) -> None:
        """Let go of trials that are no longer ours: from now on they are read from the database."""
        for trial_id, why in refused.items():
            if isinstance(why, LeaseLostError) or trial_id in self._leases:
                self._lost.add(trial_id)
        gone = {*refused, *settled}
        self._buffer.drop(gone)
        for trial_id in gone:
            self._leases.pop(trial_id, None)
            if (cache := self._caches.get(self._study_of.get(trial_id, -1))) is not None:
                cache.own.discard(trial_id)

    def write(self, step: Callable[[sa.Connection], Result]) -> Result:
        """Run `step` in a transaction of its own, which neither writes the buffer nor reads back."""

        def once() -> Result:
            with self._transaction_lock, self.engine.begin() as connection:
                begin(connection)
                return step(connection)

        return self.retry_policy(once)

    def read(self, step: Callable[[sa.Connection], Result]) -> Result:
        """Run `step` on a connection that reads, apart from the cache and the buffer, and return its result."""

        def once() -> Result:
            with self._transaction_lock, self.engine.connect() as connection:
                return step(connection)

        return self.retry_policy(once)

    # What others have changed.

    def _read(self, connection: sa.Connection, study_id: int, also: Iterable[int] = ()) -> Snapshot:
        """Read what others have changed of a study; one statement, unless it is another study than before."""
        with self._state_lock:
            cache = self._caches.setdefault(study_id, TrialCache())
            wanted = cache.query(also)
        snapshot = read_snapshot(connection, study_id, wanted, self.damage)
        if cache.is_stale_for(snapshot):
            self._forget(study_id)
            snapshot = read_snapshot(connection, study_id, TrialQuery(), self.damage)
        if snapshot.name is None:
            raise self._deletion(study_id)
        return snapshot

    def _store(self, study_id: int, snapshot: Snapshot) -> None:
        cache = self._caches.setdefault(study_id, TrialCache())
        cache.update(snapshot)
        self._study_of.update((trial._trial_id, study_id) for trial in snapshot.trials)

    def _forget(self, study_id: int) -> None:
        """Drop all that is cached of a study that was deleted."""
        with self._state_lock:
            cache = self._caches.pop(study_id, TrialCache())
            self._buffer.drop(cache.trials)
            self._directions.pop(study_id, None)
            for trial_id in cache.trials:
                self._study_of.pop(trial_id, None)
                self._leases.pop(trial_id, None)

    def _read_study(self, study_id: int) -> TrialCache:
        with self._transaction_lock:
            with self.engine.connect() as connection:
                snapshot = self._read(connection, study_id)
            with self._state_lock:
                self._note_recovery()
                self._store(study_id, snapshot)
                return self._caches[study_id]

    def _deletion(self, study_id: int) -> StudyDeletedError:
        """Return the error for a study that is not there: whoever has its id has seen it before."""
        name = repr(self._names[study_id]) if study_id in self._names else study_id
        return StudyDeletedError(f"study {name} is not in the storage any more: it was deleted")

    # Outages.

    def _note_recovery(self) -> None:
        if self._outage is not None:
            log.warning("the database answers again after %.0f s", time.monotonic() - self._outage.since)
            self._outage = None

    @property
    def is_unavailable(self) -> bool:
        """True while the database does not answer, and for good once it is lost."""
        return self._outage is not None or self.loss is not None


def _begin_in_child() -> None:
    for storage in list(_OPEN):
        storage._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
