"""Optuna storage that caches trials and batches writes.

Writes to a running trial of this process wait in a buffer, for a second at most, and go out in one transaction; every
change of a trial's state takes the buffer along, and what others have changed comes back with it, in one statement.
COMPLETE and PRUNED trials are read once. FAIL is never final: a failed trial may be tried again. While a trial runs
here, what is known of the others may be a second old, and while the database does not answer, older: training goes on.
"""

from __future__ import annotations

import atexit
import copy
import json
import logging
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import LeaseLostError, RunError, StorageLostError, StudyDeletedError
from hpo.storage import leases
from hpo.storage.cache import FINAL, TrialCache, WriteBuffer, copy_trial
from hpo.storage.identity import is_gone
from hpo.storage.statements import add_trial, count_trials, set_state, value_row
from hpo.storage.stored_values import DamageLog, UnreadableError, parse_system_attr, parse_value, shorten
from hpo.storage.tables import (
    INTERMEDIATE_VALUES,
    LEASES,
    PARAMS,
    STUDIES,
    STUDY_DIRECTIONS,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    begin,
    lock_study,
    purge_trials,
    upsert,
)
from hpo.storage.transient_errors import (
    RETRY_SECONDS,
    RetryPolicy,
    first_line,
    is_transient,
    retrying_proxy,
    with_retries,
)
from hpo.storage.trial_query import Snapshot, TrialQuery, read_snapshot
from hpo.storage.url import mask

__all__ = ["WriteBehindStorage"]

log = logging.getLogger("hpo.study")
Result = TypeVar("Result")
LARGEST, LONGEST = 2**31 - 1, 512  # of a step, and of a name, in Optuna's tables
STALE = 0.8  # seconds that a write may wait, and that what is known of others may be old while a trial runs here


@dataclass(frozen=True)
class Outage:
    """An outage of the database: its last error, and since when it lasts, in seconds of a monotonic clock."""

    error: Exception
    since: float


class WriteBehindStorage(BaseStorage):
    """Optuna storage that caches trials and batches writes.

    Args:
        rdb: Optuna's storage on the same database; it does what is done to studies.
        write_behind: whether writes may wait; a database in memory does not let a second thread write them.

    Attributes:
        engine: the SQLAlchemy engine that every statement goes through.
        retry_policy: how long, and how often, transient errors are retried.
        damage: what could not be read of trials.
        loss: why nothing more can be stored, once the database, or the study that a worker of this process trains, was
            deleted or replaced; None before that.
    """

    def __init__(self, rdb: RDBStorage, *, write_behind: bool = True) -> None:
        self.engine: sa.Engine = rdb.engine
        self.retry_policy = RetryPolicy(mask(rdb.engine.url))
        self.damage = DamageLog()
        self._transaction_lock = threading.RLock()  # one transaction at a time; taken before the other
        self._state_lock = threading.RLock()  # for what is below; never held while the database is waited for
        self._rdb = retrying_proxy(rdb, self.retry_policy, self._transaction_lock)
        self._write_behind = write_behind
        self._buffer = WriteBuffer()
        self._caches: dict[int, TrialCache] = {}
        self._study_of: dict[int, int] = {}
        self._names: dict[int, str] = {}  # by which messages call them
        self._directions: dict[int, list[StudyDirection]] = {}
        self._leases: dict[int, leases.Lease] = {}
        self._lost: set[int] = set()
        self._timer: threading.Timer | None = None
        self._outage: Outage | None = None
        self.loss: RunError | None = None
        atexit.register(_flush_at_exit, weakref.ref(self))

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
            try:
                with self.engine.begin() as connection:
                    begin(connection)
                    refused = self._write_rows(connection, rows, trial_ids)
                    result = step(connection, [trial_id for trial_id in trial_ids if trial_id not in refused])
                    # Of what was refused the study may be gone as well.
                    studies = self._studies_of(rows.trial_ids) if study_id is None else {study_id}
                    read = {each: self._read(connection, each, trial_ids if settles else ()) for each in studies}
            except BaseException as error:
                # What the database refuses for good would be refused with every later transaction as well.
                if not isinstance(error, sqlalchemy.exc.DataError | sqlalchemy.exc.IntegrityError):
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

    # Reading.

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

    def _refresh(self, study_id: int) -> TrialCache:
        """Return the cache of a study, up to date; while a trial of it runs here, at most a second old."""
        with self._state_lock:
            cache = self._caches.get(study_id)
            if cache is not None and cache.own and (self.is_unavailable or time.monotonic() - cache.read_at < STALE):
                return cache
        if cache is None or not cache.own:
            return self.retry_policy(lambda: self._read_study(study_id))
        if not self._transaction_lock.acquire(blocking=False):
            return cache  # the database is being waited for; training goes on meanwhile
        try:
            return self._read_study(study_id)
        except sqlalchemy.exc.SQLAlchemyError as error:
            if not is_transient(error):
                raise
            self._note_outage(error)
            return cache
        finally:
            self._transaction_lock.release()

    def _trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as it is now.

        Raises:
            KeyError: there is no such trial.
        """
        with self._state_lock:
            study_id = self._study_of.get(trial_id)
            cache = self._caches.get(study_id) if study_id is not None else None
            trial = cache.trials.get(trial_id) if cache else None
            if cache and trial and (trial_id in cache.own or trial.state in FINAL):
                return trial
        cache = self._refresh(self._find_study(trial_id) if study_id is None else study_id)
        with self._state_lock:
            if trial_id not in cache.trials:
                raise KeyError(models.NOT_FOUND_MSG)
            return cache.trials[trial_id]

    @with_retries
    def _find_study(self, trial_id: int) -> int:
        query = sa.select(TRIALS.c.study_id).where(TRIALS.c.trial_id == trial_id)
        with self._transaction_lock, self.engine.connect() as connection:
            study_id = connection.execute(query).scalar()
        if study_id is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return int(study_id)

    # Writing.

    def _edit_trial(
        self, trial_id: int, table: sa.Table, row: Mapping[str, Any], edit: Callable[[FrozenTrial], None]
    ) -> None:
        """Edit an unfinished trial: at once in the cache, and within a second in the database.

        A trial that this process does not run is written at once.

        Raises:
            KeyError: there is no such trial.
            optuna.exceptions.UpdateFinishedTrialError: it is finished.
            LeaseLostError: another worker has taken it over.
        """
        trial = self._trial(trial_id)
        with self._state_lock:
            self._check_not_lost(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            study_id = self._study_of[trial_id]
            cache = self._caches[study_id]
            changed = copy_trial(trial)
            edit(changed)
            cache.put(changed)
            self._buffer.add(table, {"trial_id": trial_id, **row})
            behind = self._write_behind and trial_id in cache.own
            if behind:
                self._start_timer(STALE)
        if not behind:
            self._transact(study_id, lambda _: None, trial_id=trial_id)

    def _check_not_lost(self, trial_id: int) -> None:
        if trial_id in self._lost:
            raise LeaseLostError(f"trial {trial_id} has been taken over by another worker")

    def write(self, step: Callable[[sa.Connection], Result]) -> Result:
        """Run `step` in a transaction of its own, which neither writes the buffer nor reads back."""

        def once() -> Result:
            with self._transaction_lock, self.engine.begin() as connection:
                begin(connection)
                return step(connection)

        return self.retry_policy(once)

    def flush(self) -> None:
        """Write the buffer, but for trials that other workers have taken over meanwhile."""
        if self._buffer.since is not None:
            self._transact(None, lambda _: None)

    def _start_timer(self, seconds: float) -> None:
        """Start the timer that writes the buffer, unless it runs already."""
        with self._state_lock:
            if self._timer is None:
                self._timer = threading.Timer(seconds, self._tick)
                self._timer.daemon = True
                self._timer.start()

    def _tick(self) -> None:
        """Write what has waited long enough; during an outage, check whether the database answers again."""
        with self._state_lock:
            self._timer = None
            since, trouble = self._buffer.since, self._outage
            wait = since + STALE - time.monotonic() if since is not None and not trouble else 0.0
            if wait > 0.05:
                return self._start_timer(wait)
        try:
            if since is not None:
                self._transact_once(None, lambda _: None, None, False)
            elif trouble:
                self._ping()
        except sqlalchemy.exc.SQLAlchemyError as error:
            self._note_outage(error)
        except StorageLostError as error:
            self.loss = error
        except Exception as error:  # nobody above would see it; the next change of a state meets it again
            log.warning("buffered results could not be written: %s: %s", type(error).__name__, error)

    def _ping(self) -> None:
        with self._transaction_lock, self.engine.connect() as connection:
            connection.execute(sa.select(1))
        with self._state_lock:
            self._note_recovery()

    # Outages.

    def _note_outage(self, error: sqlalchemy.exc.SQLAlchemyError) -> None:
        if is_gone(error):
            self.loss = StorageLostError(f"the database was deleted while it was in use ({first_line(error)})")
            return
        with self._state_lock:
            if self._outage is None:
                log.warning(
                    "the database does not answer; training goes on for up to 5 minutes (%s)", first_line(error)
                )
                self._outage = Outage(error, time.monotonic())
            if self.outage_error is None:
                self._start_timer(random.uniform(0.5, 5))

    def _note_recovery(self) -> None:
        if self._outage is not None:
            log.warning("the database answers again after %.0f s", time.monotonic() - self._outage.since)
            self._outage = None

    def is_lost(self, trial_id: int) -> bool:
        """Return whether a trial that this process held is known to have been taken over."""
        return trial_id in self._lost

    @property
    def is_unavailable(self) -> bool:
        """True while the database does not answer, and for good once it is lost."""
        return self._outage is not None or self.loss is not None

    @property
    def outage_error(self) -> Exception | None:
        """Error of an outage that has lasted longer than retries do; None before that."""
        trouble = self._outage
        return trouble.error if trouble and time.monotonic() - trouble.since >= RETRY_SECONDS else None

    # Optuna's storage: trials.

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        def create(connection: sa.Connection) -> int:
            lock_study(connection, study_id)
            trial_id = add_trial(connection, study_id, count_trials(connection, study_id), template_trial)
            purge_trials(connection, LEASES, [trial_id])
            return trial_id

        trial_id = self._transact(study_id, create)
        if template_trial is None or template_trial.state == TrialState.RUNNING:
            self._adopt(study_id, trial_id)
        return trial_id

    def _adopt(self, study_id: int, trial_id: int, held: leases.Lease | None = None) -> None:
        """Take the trial as one that this process runs."""
        with self._state_lock:
            self._caches[study_id].own.add(trial_id)
            self._lost.discard(trial_id)
            if held is not None:
                self._leases[trial_id] = held

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        def edit(trial: FrozenTrial) -> None:
            self._caches[self._study_of[trial_id]].check_distribution(param_name, distribution)
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution

        _check_name(param_name)
        row = {"param_value": param_value_internal, "distribution_json": distribution_to_json(distribution)}
        self._edit_trial(trial_id, PARAMS, {"param_name": param_name, **row}, edit)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        value = float(intermediate_value)
        if abs(step) > LARGEST:
            raise ValueError(f"step = {step}: must be at most {LARGEST}")
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}

        def edit(trial: FrozenTrial) -> None:
            trial.intermediate_values[step] = value

        self._edit_trial(trial_id, INTERMEDIATE_VALUES, row, edit)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attr(trial_id, TRIAL_USER_ATTRS, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attr(trial_id, TRIAL_SYSTEM_ATTRS, key, value)

    def _set_attr(self, trial_id: int, table: sa.Table, key: str, value: Any) -> None:
        text = json.dumps(value, default=_to_plain)
        _check_name(key)

        def edit(trial: FrozenTrial) -> None:
            attrs = trial.user_attrs if table is TRIAL_USER_ATTRS else trial.system_attrs
            attrs[key] = json.loads(text)

        self._edit_trial(trial_id, table, {"key": key, "value_json": text}, edit)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = self._trial(trial_id)
        with self._state_lock:
            self._check_not_lost(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            study_id = self._study_of[trial_id]
        rows = [value_row(trial_id, objective, value) for objective, value in enumerate(values or ())]

        def change(connection: sa.Connection) -> bool:
            if not set_state(connection, trial_id, state):
                return False
            upsert(connection, VALUES, ("trial_id", "objective"), rows)
            if state.is_finished():
                leases.delete_leases(connection, [trial_id])
            return True

        running = state == TrialState.RUNNING
        tries = 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self._transact_once(study_id, change, trial_id, settles=not running)
            except optuna.exceptions.UpdateFinishedTrialError:
                # The connection may have been lost after the database had done it, and before it could say so.
                if tries > 1 and self._trial(trial_id).state == state:
                    return True
                raise

        done = self.retry_policy(attempt)
        if done and running:
            self._adopt(study_id, trial_id)
        return done

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = self._trial(trial_id)
        return trial if trial.state in FINAL else copy_trial(trial)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        cache = self._refresh(study_id)
        with self._state_lock:
            found = cache.trials_by_number()
        if states is not None:
            found = [trial for trial in found if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        for trial in self.get_all_trials(study_id, deepcopy=False):
            if trial.number == trial_number:
                return trial._trial_id
        raise KeyError(f"study {study_id} has no trial {trial_number}")

    def remove_session(self) -> None:
        self.flush()
        self._rdb.remove_session()

    # Optuna's storage: studies.

    def _deletion(self, study_id: int) -> StudyDeletedError:
        """Return the error for a study that is not there: whoever has its id has seen it before."""
        name = repr(self._names[study_id]) if study_id in self._names else study_id
        return StudyDeletedError(f"study {name} is not in the storage any more: it was deleted")

    @contextmanager
    def _naming_deletion(self, study_id: int) -> Iterator[None]:
        """Replace Optuna's KeyError for a study that is not there by one that says so."""
        try:
            yield
        except KeyError:
            raise self._deletion(study_id) from None

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._rdb.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        with self._naming_deletion(study_id):
            self._rdb.delete_study(study_id)
        self._forget(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._naming_deletion(study_id):
            self._rdb.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._naming_deletion(study_id):
            self._rdb.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        with self._state_lock:  # Optuna's Hyperband asks at every check of a trial
            for study_id, cache in self._caches.items():
                if cache.own and cache.name == study_name:
                    return study_id
        study_id = self._rdb.get_study_id_from_name(study_name)
        self._names[study_id] = study_name
        return study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        with self._naming_deletion(study_id):
            return self._rdb.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            with self._naming_deletion(study_id):
                self._directions[study_id] = self._rdb.get_study_directions(study_id)
        return list(self._directions[study_id])

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(STUDY_USER_ATTRS, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(STUDY_SYSTEM_ATTRS, study_id)

    @with_retries
    def _study_attrs(self, table: sa.Table, study_id: int) -> dict[str, Any]:
        """Read a study's attributes, in one statement that also tells whether the study exists."""
        joined = STUDIES.outerjoin(table, table.c.study_id == STUDIES.c.study_id)
        query = sa.select(table.c.key, table.c.value_json).select_from(joined).where(STUDIES.c.study_id == study_id)
        with self._transaction_lock, self.engine.connect() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise self._deletion(study_id)
        return self._parse_attrs(table, study_id, ((row.key, row.value_json) for row in rows if row.key is not None))

    def _parse_attrs(self, table: sa.Table, study_id: int, texts: Iterable[tuple[str, object]]) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        for key, text in texts:
            try:
                attrs[key] = parse_value(text) if table is STUDY_USER_ATTRS else parse_system_attr(key, text)
            except UnreadableError as error:
                self.damage.add(study_id, f"its attribute {shorten(key)}", error)
        return attrs

    @with_retries
    def get_all_studies(self) -> list[FrozenStudy]:
        # As Optuna's own storage has it, which ends at the first attribute of any study that is no JSON.
        d = STUDY_DIRECTIONS.c
        directions: dict[int, list[StudyDirection]] = {}
        attrs: dict[sa.Table, dict[int, list[tuple[str, object]]]] = {STUDY_USER_ATTRS: {}, STUDY_SYSTEM_ATTRS: {}}
        with self._transaction_lock, self.engine.connect() as connection:
            studies = connection.execute(sa.select(STUDIES).order_by(STUDIES.c.study_id)).all()
            for study_id, name in connection.execute(
                sa.select(d.study_id, sa.cast(d.direction, sa.Text)).order_by(d.study_id, d.objective)
            ):
                known = StudyDirection.__members__.get(name, StudyDirection.NOT_SET)
                directions.setdefault(study_id, []).append(known)
            for table, found in attrs.items():
                for row in connection.execute(sa.select(table)):
                    found.setdefault(row.study_id, []).append((row.key, row.value_json))
        parsed = {
            study_id: [self._parse_attrs(table, study_id, found.get(study_id, ())) for table, found in attrs.items()]
            for study_id, _ in studies
        }
        return [
            FrozenStudy(
                study_name=name,
                direction=None,
                directions=directions.get(study_id, [StudyDirection.NOT_SET]),
                user_attrs=parsed[study_id][0],
                system_attrs=parsed[study_id][1],
                study_id=study_id,
            )
            for study_id, name in studies
        ]


def _flush_at_exit(reference: weakref.ref[WriteBehindStorage]) -> None:
    """Write what is buffered as the process ends; a database that does not answer now is not waited for."""
    if (storage := reference()) is not None and not storage.is_unavailable:
        storage.retry_policy.stop_requested = lambda: True
        try:
            storage.flush()
        except Exception as error:
            log.warning("the last second of reports could not be written: %s", first_line(error))


def _check_name(name: str) -> None:
    """Check a name's length at once: the database would refuse it a second later, with all that is written along."""
    if len(name) > LONGEST:
        raise ValueError(f"name '{name[:40]}…' has {len(name)} characters; it must have at most {LONGEST}")


def _to_plain(value: object) -> object:
    """Return arrays, tensors and their numbers as lists and numbers: a script that kept them in memory keeps them here.

    Raises:
        TypeError: it is anything else.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an attribute cannot be a {type(value).__name__}: it must be a value of JSON, or an array")
