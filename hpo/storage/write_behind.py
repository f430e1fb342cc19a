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
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.errors import LeaseLostError, StorageLostError
from hpo.storage import leases
from hpo.storage.cache import FINAL, TrialCache, copy_trial
from hpo.storage.identity import is_gone
from hpo.storage.limits import check_name, check_row, check_step
from hpo.storage.statements import add_trial, count_trials, set_state, value_row
from hpo.storage.study_records import StudyRecords
from hpo.storage.tables import (
    INTERMEDIATE_VALUES,
    LEASES,
    PARAMS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    lock_study,
    purge_trials,
    upsert,
)
from hpo.storage.transactions import REFUSALS, Outage
from hpo.storage.transient_errors import (
    RETRY_SECONDS,
    first_line,
    is_transient,
    with_retries,
)

__all__ = ["WriteBehindStorage"]

log = logging.getLogger("hpo.study")
Result = TypeVar("Result")
STALE = 0.8  # seconds that a write may wait, and that what is known of others may be old while a trial runs here


class WriteBehindStorage(StudyRecords):
    """Optuna storage that caches trials and batches writes.

    Args:
        rdb: Optuna's storage on the same database; it does what is done to studies.
        write_behind: whether writes may wait; a database in memory does not let a second thread write them.
    """

    def __init__(self, rdb: RDBStorage, *, write_behind: bool = True) -> None:
        super().__init__(rdb)
        self._write_behind = write_behind
        atexit.register(_flush_at_exit, weakref.ref(self))

    @override
    def _reset(self) -> None:
        super()._reset()
        self._timer: threading.Timer | None = None

    # Reading.

    def _refresh(self, study_id: int, *, recent: bool = False) -> TrialCache:
        """Return the cache of a study, up to date; at most a second old while a trial of it runs here, or if that is
        `recent` enough.
        """
        with self._state_lock:
            cache = self._caches.get(study_id)
            busy = cache is not None and (recent or self._is_busy(cache))
            if cache and busy and (self.is_unavailable or time.monotonic() - cache.read_at < STALE):
                return cache
        if cache is None or not busy:
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

    def _is_busy(self, cache: TrialCache) -> bool:
        """Return whether a trial of the study runs here, so that what is known of the others may be a second old."""
        return bool(cache.own)

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
            StorageLimitError: the row is too long for the database.
        """
        check_row(self.engine.dialect, table, row)
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
        except StorageLostError as error:
            self.loss = error
        except Exception as error:  # nobody above would see it; the next change of a state meets it again
            if isinstance(error, sqlalchemy.exc.SQLAlchemyError) and not isinstance(error, REFUSALS):
                self._note_outage(error)
            else:
                log.warning("buffered results could not be written: %s: %s", type(error).__name__, first_line(error))

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

    def is_lost(self, trial_id: int) -> bool:
        """Return whether a trial that this process held is known to have been taken over."""
        return trial_id in self._lost

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
            if template_trial is None:
                self._begin_trial(connection, study_id, trial_id, new=True)
            else:
                purge_trials(connection, LEASES, [trial_id])
            return trial_id

        trial_id = self._transact(study_id, create)
        if template_trial is None or template_trial.state == TrialState.RUNNING:
            self._adopt(study_id, trial_id)
        return trial_id

    def _begin_trial(self, connection: sa.Connection, study_id: int, trial_id: int, *, new: bool) -> None:
        """Record that this process begins a trial, a new one or one that waited; part of the transaction."""
        if holder := self._lease_holder():
            leases.insert_lease(connection, study_id, trial_id, 1, holder)
        elif new:
            purge_trials(connection, LEASES, [trial_id])

    def _lease_holder(self) -> leases.WorkerInfo | None:
        """Return who holds the trial that is begun now; None where nobody does."""
        return None

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

        check_name(param_name)
        row = {"param_value": param_value_internal, "distribution_json": distribution_to_json(distribution)}
        self._edit_trial(trial_id, PARAMS, {"param_name": param_name, **row}, edit)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        value = float(intermediate_value)
        check_step(step)
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
        check_name(key)

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
            elif running:
                self._begin_trial(connection, study_id, trial_id, new=False)
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

    def recent_trials(self, study_id: int) -> list[FrozenTrial]:
        """Return all trials, ordered by number, as they were at most a second ago; not to be edited."""
        cache = self._refresh(study_id, recent=True)
        with self._state_lock:
            return cache.trials_by_number()

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        for trial in self.get_all_trials(study_id, deepcopy=False):
            if trial.number == trial_number:
                return trial._trial_id
        raise KeyError(f"study {study_id} has no trial {trial_number}")

    def remove_session(self) -> None:
        self.flush()
        self._rdb.remove_session()


def _flush_at_exit(reference: weakref.ref[WriteBehindStorage]) -> None:
    """Write what is buffered as the process ends; a database that does not answer now is not waited for."""
    if (storage := reference()) is not None and not storage.is_unavailable:
        storage.retry_policy.stop_requested = lambda: True
        try:
            storage.flush()
        except Exception as error:
            log.warning("the last second of reports could not be written: %s", first_line(error))


def _to_plain(value: object) -> object:
    """Return arrays, tensors and their numbers as lists and numbers: a script that kept them in memory keeps them here.

    Raises:
        TypeError: it is anything else.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an attribute cannot be a {type(value).__name__}: it must be a value of JSON, or an array")
