"""An Optuna storage on Optuna's own schema that needs few SQL statements.

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
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
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

from hpo.errors import LeaseLostError
from hpo.storage import leases
from hpo.storage.cache import FINAL, TrialCache, WriteBuffer, copy_trial
from hpo.storage.tables import (
    EPOCHS,
    INTERMEDIATE_VALUES,
    LEASES,
    PARAMS,
    STEPS,
    STUDIES,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    begin,
    insert_one,
    lock_study,
    purge_trials,
    upsert,
    utc_time,
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

__all__ = ["WriteBehindStorage"]

log = logging.getLogger("hpo.study")
Result = TypeVar("Result")
LARGEST, LONGEST = 2**31 - 1, 512  # of a step, and of a name, in Optuna's tables
STALE = 0.8  # seconds that a write may wait, and that what is known of others may be old while a trial runs here


@dataclass(frozen=True)
class Outage:
    """The database does not answer, since that time of a clock that only grows."""

    error: Exception
    since: float


class WriteBehindStorage(BaseStorage):
    """See the module.

    Args:
        rdb: Optuna's storage on the same database; it does what is done to studies.
        write_behind: whether writes may wait; a database in memory does not let a second thread write them.

    Attributes:
        engine: the SQLAlchemy engine that every statement goes through.
        patience: how often what the database refused for the moment is tried again.
    """

    def __init__(self, rdb: RDBStorage, *, write_behind: bool = True) -> None:
        self.engine: sa.Engine = rdb.engine
        self.patience = RetryPolicy()
        self._turn = threading.RLock()  # one transaction at a time; taken before the other
        self._memory = threading.RLock()  # for what is below; never held while the database is waited for
        self._rdb = retrying_proxy(rdb, self.patience, self._turn)
        self._write_behind = write_behind
        self._buffer = WriteBuffer()
        self._known: dict[int, TrialCache] = {}
        self._study_of: dict[int, int] = {}
        self._directions: dict[int, list[StudyDirection]] = {}
        self._held: dict[int, leases.Lease] = {}
        self._lost: set[int] = set()
        self._timer: threading.Timer | None = None
        self._trouble: Outage | None = None
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
        """Do `step` in a transaction that takes the buffer along and reads back what others have changed.

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
        return self.patience(lambda: self._transact_once(study_id, step, trial_id, settles))

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
        """As `_transact`, with several trials and one try: `step` is told which of them are ours to write.

        Returns:
            What `step` returned, and why the others were refused, by id.
        """
        with self._turn:
            with self._memory:
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
                    with self._memory:
                        self._buffer.put_back(rows)
                raise
            with self._memory:
                self._recovered()
                self._give_up(refused, trial_ids if settles else ())
                for each, snapshot in read.items():
                    self._take(each, snapshot)
            return result, {trial_id: why for trial_id, why in refused.items() if trial_id in trial_ids}

    def _write_rows(
        self, connection: sa.Connection, rows: WriteBuffer, trial_ids: Iterable[int]
    ) -> dict[int, Exception]:
        """Write what waited, but of trials that are not ours to write any more: those are returned, with the reason."""
        ids = rows.trial_ids.union(trial_ids)
        if not ids:
            return {}
        held = ids & self._held.keys()
        found = leases.lease_states(connection, held, leased=True)
        found |= leases.lease_states(connection, ids - held, leased=False)
        refused = {i: why for i in ids if (why := self._refusal(i, found.get(i)))}
        rows.drop(refused)
        rows.write(connection)
        return refused

    def _studies_of(self, trial_ids: Iterable[int]) -> set[int]:
        with self._memory:
            return {self._study_of[i] for i in trial_ids}

    def _refusal(self, trial_id: int, now: leases.LeaseState | None) -> Exception | None:
        if now is None and trial_id not in self._held:
            return KeyError(models.NOT_FOUND_MSG)
        if now is None:
            return LeaseLostError(f"trial {trial_id} is not this worker's any more")
        if now.state.is_finished():
            return optuna.exceptions.UpdateFinishedTrialError(f"trial {trial_id} is finished and cannot be changed")
        held = self._held.get(trial_id)
        taken = held is not None and (now.worker, now.attempt) != (held.worker, held.attempt)
        if taken or trial_id in self._lost:  # what has been lost is held no longer, and refused still
            return LeaseLostError(f"trial {trial_id} has been taken over by another worker")
        return None

    def _give_up(self, refused: Mapping[int, Exception], settled: Iterable[int]) -> None:
        """Trials that are ours no longer: what is known of them comes from the database from now on."""
        for trial_id, why in refused.items():
            if isinstance(why, LeaseLostError) or trial_id in self._held:
                self._lost.add(trial_id)
        gone = {*refused, *settled}
        self._buffer.drop(gone)
        for trial_id in gone:
            self._held.pop(trial_id, None)
            if (known := self._known.get(self._study_of.get(trial_id, -1))) is not None:
                known.own.discard(trial_id)

    # Reading.

    def _read(self, connection: sa.Connection, study_id: int, also: Iterable[int] = ()) -> Snapshot:
        """What others have changed of a study; one statement, unless it is another study than before."""
        with self._memory:
            known = self._known.setdefault(study_id, TrialCache())
            wanted = known.changed(also)
        snapshot = read_snapshot(connection, study_id, wanted)
        if known.replaced_by(snapshot):
            self._forget(study_id)
            snapshot = read_snapshot(connection, study_id, TrialQuery())
        if snapshot.name is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return snapshot

    def _take(self, study_id: int, snapshot: Snapshot) -> None:
        known = self._known.setdefault(study_id, TrialCache())
        known.take(snapshot)
        self._study_of.update((trial._trial_id, study_id) for trial in snapshot.trials)

    def _forget(self, study_id: int) -> None:
        """Forget a study that was deleted."""
        with self._memory:
            known = self._known.pop(study_id, TrialCache())
            self._buffer.drop(known.trials)
            self._directions.pop(study_id, None)
            for trial_id in known.trials:
                self._study_of.pop(trial_id, None)
                self._held.pop(trial_id, None)

    def _read_now(self, study_id: int) -> TrialCache:
        with self._turn:
            with self.engine.connect() as connection:
                snapshot = self._read(connection, study_id)
            with self._memory:
                self._recovered()
                self._take(study_id, snapshot)
                return self._known[study_id]

    def _fresh(self, study_id: int) -> TrialCache:
        """What is known of a study, brought up to date; where a trial of it runs here, as of a second ago."""
        with self._memory:
            known = self._known.get(study_id)
            if known is not None and known.own and (self._trouble or time.monotonic() - known.read_at < STALE):
                return known
        if known is None or not known.own:
            return self.patience(lambda: self._read_now(study_id))
        if not self._turn.acquire(blocking=False):
            return known  # the database is being waited for; training goes on meanwhile
        try:
            return self._read_now(study_id)
        except sqlalchemy.exc.SQLAlchemyError as error:
            if not is_transient(error):
                raise
            self._trouble_with(error)
            return known
        finally:
            self._turn.release()

    def _trial(self, trial_id: int) -> FrozenTrial:
        """A trial as it is now.

        Raises:
            KeyError: there is no such trial.
        """
        with self._memory:
            study_id = self._study_of.get(trial_id)
            known = self._known.get(study_id) if study_id is not None else None
            trial = known.trials.get(trial_id) if known else None
            if known and trial and (trial_id in known.own or trial.state in FINAL):
                return trial
        known = self._fresh(self._find_study(trial_id) if study_id is None else study_id)
        with self._memory:
            if trial_id not in known.trials:
                raise KeyError(models.NOT_FOUND_MSG)
            return known.trials[trial_id]

    @with_retries
    def _find_study(self, trial_id: int) -> int:
        query = sa.select(TRIALS.c.study_id).where(TRIALS.c.trial_id == trial_id)
        with self._turn, self.engine.connect() as connection:
            study_id = connection.execute(query).scalar()
        if study_id is None:
            raise KeyError(models.NOT_FOUND_MSG)
        return int(study_id)

    # Writing.

    def _change(
        self, trial_id: int, table: sa.Table, row: Mapping[str, Any], edit: Callable[[FrozenTrial], None]
    ) -> None:
        """Change an unfinished trial: at once in what is known, and within a second in the database.

        A trial that this process does not run is written at once.

        Raises:
            KeyError: there is no such trial.
            optuna.exceptions.UpdateFinishedTrialError: it is finished.
            LeaseLostError: another worker has taken it over.
        """
        trial = self._trial(trial_id)
        with self._memory:
            self._check_held(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            study_id = self._study_of[trial_id]
            known = self._known[study_id]
            changed = copy_trial(trial)
            edit(changed)
            known.put(changed)
            self._buffer.add(table, {"trial_id": trial_id, **row})
            behind = self._write_behind and trial_id in known.own
            if behind:
                self._arm(STALE)
        if not behind:
            self._transact(study_id, lambda _: None, trial_id=trial_id)

    def _check_held(self, trial_id: int) -> None:
        if trial_id in self._lost:
            raise LeaseLostError(f"trial {trial_id} has been taken over by another worker")

    def write(self, step: Callable[[sa.Connection], Result]) -> Result:
        """Do `step` in a transaction that neither takes along what waits here nor reads back."""

        def once() -> Result:
            with self._turn, self.engine.begin() as connection:
                begin(connection)
                return step(connection)

        return self.patience(once)

    def flush(self) -> None:
        """Write what waits in the buffer; of trials that have been lost meanwhile, nothing."""
        if self._buffer.since is not None:
            self._transact(None, lambda _: None)

    def _arm(self, seconds: float) -> None:
        """Have the buffer looked at in that time, unless that is arranged already."""
        with self._memory:
            if self._timer is None:
                self._timer = threading.Timer(seconds, self._tick)
                self._timer.daemon = True
                self._timer.start()

    def _tick(self) -> None:
        """Write what has waited long enough; look whether a database in trouble answers again."""
        with self._memory:
            self._timer = None
            since, trouble = self._buffer.since, self._trouble
            wait = since + STALE - time.monotonic() if since is not None and not trouble else 0.0
            if wait > 0.05:
                return self._arm(wait)
        try:
            if since is not None:
                self._transact_once(None, lambda _: None, None, False)
            elif trouble:
                self._ping()
        except sqlalchemy.exc.SQLAlchemyError as error:
            self._trouble_with(error)
        except Exception as error:  # nobody above would see it; the next change of a state meets it again
            log.warning("what waits could not be written: %s: %s", type(error).__name__, error)

    def _ping(self) -> None:
        with self._turn, self.engine.connect() as connection:
            connection.execute(sa.select(1))
        with self._memory:
            self._recovered()

    # Trouble.

    def _trouble_with(self, error: Exception) -> None:
        with self._memory:
            if self._trouble is None:
                log.warning(
                    "the database does not answer; training goes on for up to 5 minutes (%s)", first_line(error)
                )
                self._trouble = Outage(error, time.monotonic())
            if self.given_up is None:
                self._arm(random.uniform(0.5, 5))

    def _recovered(self) -> None:
        if self._trouble is not None:
            log.warning("the database answers again after %.0f s", time.monotonic() - self._trouble.since)
            self._trouble = None

    def is_lost(self, trial_id: int) -> bool:
        """Whether a trial that this process held is known to be another's by now."""
        return trial_id in self._lost

    @property
    def in_trouble(self) -> bool:
        """Whether the database did not answer when it was last asked."""
        return self._trouble is not None

    @property
    def given_up(self) -> Exception | None:
        """Why nothing could be written for longer than patience lasts; None while there is hope."""
        trouble = self._trouble
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
            self._own(study_id, trial_id)
        return trial_id

    def _own(self, study_id: int, trial_id: int, held: leases.Lease | None = None) -> None:
        """From now on this process runs the trial."""
        with self._memory:
            self._known[study_id].own.add(trial_id)
            self._lost.discard(trial_id)
            if held is not None:
                self._held[trial_id] = held

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        def edit(trial: FrozenTrial) -> None:
            self._known[self._study_of[trial_id]].check_distribution(param_name, distribution)
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution

        _check_name(param_name)
        row = {"param_value": param_value_internal, "distribution_json": distribution_to_json(distribution)}
        self._change(trial_id, PARAMS, {"param_name": param_name, **row}, edit)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        value = float(intermediate_value)
        if abs(step) > LARGEST:
            raise ValueError(f"step = {step}: must be at most {LARGEST}")
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}

        def edit(trial: FrozenTrial) -> None:
            trial.intermediate_values[step] = value

        self._change(trial_id, INTERMEDIATE_VALUES, row, edit)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attr(trial_id, TRIAL_USER_ATTRS, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._set_attr(trial_id, TRIAL_SYSTEM_ATTRS, key, value)

    def _set_attr(self, trial_id: int, table: sa.Table, key: str, value: Any) -> None:
        text = json.dumps(value)
        _check_name(key)

        def edit(trial: FrozenTrial) -> None:
            attrs = trial.user_attrs if table is TRIAL_USER_ATTRS else trial.system_attrs
            attrs[key] = json.loads(text)

        self._change(trial_id, table, {"key": key, "value_json": text}, edit)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        trial = self._trial(trial_id)
        with self._memory:
            self._check_held(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            study_id = self._study_of[trial_id]
        rows = [value_row(trial_id, objective, value) for objective, value in enumerate(values or ())]

        def change(connection: sa.Connection) -> bool:
            if not set_state(connection, trial_id, state):
                return False
            upsert(connection, VALUES, ("trial_id", "objective"), rows)
            if state.is_finished():
                leases.delete_lease(connection, [trial_id])
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

        done = self.patience(attempt)
        if done and running:
            self._own(study_id, trial_id)
        return done

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = self._trial(trial_id)
        return trial if trial.state in FINAL else copy_trial(trial)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        known = self._fresh(study_id)
        with self._memory:
            found = known.in_order()
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

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._rdb.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._rdb.delete_study(study_id)
        self._forget(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._rdb.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._rdb.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        with self._memory:  # Optuna's Hyperband asks at every check of a trial
            for study_id, known in self._known.items():
                if known.own and known.name == study_name:
                    return study_id
        return self._rdb.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._rdb.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            self._directions[study_id] = self._rdb.get_study_directions(study_id)
        return list(self._directions[study_id])

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(STUDY_USER_ATTRS, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(STUDY_SYSTEM_ATTRS, study_id)

    @with_retries
    def _study_attrs(self, table: sa.Table, study_id: int) -> dict[str, Any]:
        """A study's attributes, in one statement that also says whether there is such a study."""
        joined = STUDIES.outerjoin(table, table.c.study_id == STUDIES.c.study_id)
        query = sa.select(table.c.key, table.c.value_json).select_from(joined).where(STUDIES.c.study_id == study_id)
        with self._turn, self.engine.connect() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise KeyError(models.NOT_FOUND_MSG)
        return {row.key: json.loads(row.value_json) for row in rows if row.key is not None}

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._rdb.get_all_studies()


def _flush_at_exit(reference: weakref.ref[WriteBehindStorage]) -> None:
    """An orderly end of the process loses nothing; a database that does not answer now is not waited for."""
    if (storage := reference()) is not None and not storage.in_trouble:
        storage.patience.asked_to_stop = lambda: True
        try:
            storage.flush()
        except Exception as error:
            log.warning("the last second of reports could not be written: %s", first_line(error))


def _check_name(name: str) -> None:
    """Refuse at once what the database would refuse a second later, with all that is written along."""
    if len(name) > LONGEST:
        raise ValueError(f"name '{name[:40]}…' has {len(name)} characters; it must have at most {LONGEST}")


# Parts of transactions.


def count_trials(connection: sa.Connection, study_id: int) -> int:
    """How many trials a study has: the number of its next one."""
    query = sa.select(sa.func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


def add_trial(connection: sa.Connection, study_id: int, number: int, template: FrozenTrial | None = None) -> int:
    """Insert a trial, by default a RUNNING one that has nothing yet; returns its id."""
    state = TrialState.RUNNING if template is None else template.state
    began = utc_time() if template is None else template.datetime_start and utc_time(template.datetime_start)
    ended = template and template.datetime_complete and utc_time(template.datetime_complete)
    values = {"number": number, "state": state, "datetime_start": began, "datetime_complete": ended}
    trial_id = insert_one(connection, TRIALS, study_id=study_id, **values)
    for table in (EPOCHS, STEPS):
        purge_trials(connection, table, [trial_id])
    if template is not None:
        _rows_of(trial_id, template).write(connection)
    return trial_id


def _rows_of(trial_id: int, trial: FrozenTrial) -> WriteBuffer:
    rows = WriteBuffer()
    for objective, value in enumerate(trial.values or ()):
        rows.add(VALUES, value_row(trial_id, objective, value))
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        stored = {
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        rows.add(PARAMS, {"trial_id": trial_id, "param_name": name, **stored})
    for table, attrs in ((TRIAL_USER_ATTRS, trial.user_attrs), (TRIAL_SYSTEM_ATTRS, trial.system_attrs)):
        for key, value in attrs.items():
            rows.add(table, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})
    for step, value in trial.intermediate_values.items():
        real, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": real, "intermediate_value_type": kind}
        rows.add(INTERMEDIATE_VALUES, {"trial_id": trial_id, **row})
    return rows


def value_row(trial_id: int, objective: int, value: float) -> dict[str, Any]:
    """A value as Optuna's tables hold it: they know no infinity."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


def set_state(connection: sa.Connection, trial_id: int, state: TrialState) -> bool:
    """Change an unfinished trial's state; begin it only where it waits. Returns whether it was done."""
    changed = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id)
    if state == TrialState.RUNNING:
        changed = changed.where(TRIALS.c.state == TrialState.WAITING).values(datetime_start=utc_time())
    elif state.is_finished():
        changed = changed.values(datetime_complete=utc_time())
    return connection.execute(changed.values(state=state)).rowcount == 1
