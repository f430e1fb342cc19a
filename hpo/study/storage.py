"""`StudyStorage`: an Optuna storage on Optuna's own schema, with tables and transactions of ours.

Any Optuna tool reads our studies, and `optuna.create_study(storage=StudyStorage(url))` works as with any storage. Ours
are whole steps as one transaction each: creating a study with its slots, claiming a trial under a lease, giving it
back; and all metrics of every epoch, for Optuna keeps one float a step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
import tenacity
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from hpo.config import Value
from hpo.errors import LeaseLostError
from hpo.study import leases
from hpo.study.buffered import BufferedStorage, add_trial, count_trials
from hpo.study.leases import Holder, Pulse, WorkerRow
from hpo.study.network import refuse_network
from hpo.study.opening import check_file, connect_once, explain, is_file, mask, normalised, opening_errors, tune_sqlite
from hpo.study.retry import Result, retried
from hpo.study.tables import (
    EPOCHS,
    INTERMEDIATE_VALUES,
    LEASES,
    STUDIES,
    STUDY_DIRECTIONS,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    WORKERS,
    begin,
    insert_one,
    keep_fractions,
    lock_study,
    metadata,
    purge_trials,
    upsert,
)

__all__ = ["FIXED", "Claimed", "EpochMetrics", "StudyStorage"]

EpochMetrics = dict[str, float]
ATTEMPT, WORKER = "attempt", "worker"  # user attributes of a trial: how often it was begun, and who trained it last
FIXED = "fixed_params"  # the system attribute in which Optuna keeps an enqueued trial's parameters


@dataclass(frozen=True)
class Claimed:
    """A trial that a worker has claimed, and the number of this attempt at it, from 1.

    Attributes:
        trial_id: the trial's id.
        attempt: the number of this attempt at it, from 1.
        taken_over: whether its worker died, or was cut off, in the last attempt.
    """

    trial_id: int
    attempt: int
    taken_over: bool = field(default=False, compare=False)


class StudyStorage(BufferedStorage):
    """Studies in a SQL database: SQLite for one machine, PostgreSQL or MySQL/MariaDB for many.

    Args:
        url: where; a bare `postgresql://`, `postgres://` or `mysql://` is given its driver.
        create: whether a SQLite file that does not exist is made.

    Attributes:
        engine: the SQLAlchemy engine that every statement goes through.

    Raises:
        StorageError: the URL cannot be opened, or its driver is missing; the line says what to install.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = normalised(url)
        refuse_network(self.url)
        check_file(self.url, create)
        with opening_errors(self.url):
            connect_once(self.url)
            rdb = _open(self.url)
        super().__init__(rdb, write_behind=self.url.get_backend_name() != "sqlite" or is_file(self.url))
        self._until: dict[str, float] = {}
        if is_file(self.url):
            sa.event.listen(self.engine, "connect", tune_sqlite)
            self.engine.dispose()  # the connection that is open already has not been tuned

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url.render_as_string(hide_password=False)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        StudyStorage.__init__(self, state["url"])

    @property
    def masked_url(self) -> str:
        """The URL without its password."""
        return mask(self.url)

    def explain(self, error: Exception) -> str:
        """One line for a database's error, in its own words."""
        return explain(self.url, error, "does not answer")

    def write(self, step: Callable[[sa.Connection], Result]) -> Result:
        """Do `step` in a transaction that neither takes along what waits here nor reads back."""

        def once() -> Result:
            with self._turn, self.engine.begin() as connection:
                begin(connection)
                return step(connection)

        return self.patience(once)

    def read(self, step: Callable[[sa.Connection], Result]) -> Result:
        """What `step` reads, apart from all that is known here or waits to be written."""

        def once() -> Result:
            with self._turn, self.engine.connect() as connection:
                return step(connection)

        return self.patience(once)

    # Studies.

    def create_study(
        self,
        name: str,
        directions: Sequence[StudyDirection],
        metric_names: Sequence[str],
        user_attrs: Mapping[str, Any],
        slots: Sequence[Mapping[str, Value]] = (),
    ) -> int:
        """Create a study with its attributes and its WAITING trials, all or nothing.

        Args:
            name: the study's name.
            directions: one per objective.
            metric_names: one per objective; shown by Optuna's tools.
            user_attrs: the study's user attributes.
            slots: the fixed parameters of each waiting trial, in the order of their numbers.

        Raises:
            optuna.exceptions.DuplicatedStudyError: the name is taken.
        """

        def create(connection: sa.Connection) -> int:
            study_id = insert_one(connection, STUDIES, study_name=name)
            rows = [{"study_id": study_id, "objective": i, "direction": d} for i, d in enumerate(directions)]
            connection.execute(sa.insert(STUDY_DIRECTIONS), rows)
            names = {"study:metric_names": list(metric_names)}
            _insert_attrs(connection, STUDY_SYSTEM_ATTRS, [(study_id, names)])
            _insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, user_attrs)])
            _purge_study(connection, study_id)
            _insert_slots(connection, study_id, slots)
            return study_id

        try:
            return self.write(create)
        except sqlalchemy.exc.IntegrityError as error:
            raise optuna.exceptions.DuplicatedStudyError(f"study '{name}' exists already") from error

    def update_study(
        self,
        study_id: int,
        held: Mapping[str, Any],
        user_attrs: Mapping[str, Any],
        slots: Sequence[Mapping[str, Value]] = (),
        start: int = 0,
    ) -> bool:
        """Set a study's attributes, and append WAITING trials from number `start`; returns whether it was done.

        It is not done where somebody else was faster: where the attributes named in `held` have other values by now,
        or, with slots, where the study does not have exactly `start` trials.
        """
        mine = STUDY_USER_ATTRS.c.study_id == study_id, STUDY_USER_ATTRS.c.key.in_([*held, *user_attrs])

        def update(connection: sa.Connection) -> bool:
            lock_study(connection, study_id)
            rows = connection.execute(sa.select(STUDY_USER_ATTRS.c.key, STUDY_USER_ATTRS.c.value_json).where(*mine))
            stored = {row.key: json.loads(row.value_json) for row in rows}
            if any(stored.get(key) != value for key, value in held.items()):
                return False
            if slots and count_trials(connection, study_id) != start:
                return False
            _insert_slots(connection, study_id, slots)
            connection.execute(sa.delete(STUDY_USER_ATTRS).where(*mine))
            _insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, {**held, **user_attrs})])
            return True

        return self.write(update)

    def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials, and all that our tables hold of them."""
        # First, for SQLite may give the id away again at once.
        self.write(lambda connection: _purge_study(connection, study_id))
        super().delete_study(study_id)

    @retried
    def count_trials(self, study_id: int) -> dict[TrialState, int]:
        """How many trials a study has in each state."""
        query = sa.select(TRIALS.c.state, sa.func.count()).where(TRIALS.c.study_id == study_id).group_by(TRIALS.c.state)
        with self._turn, self.engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in TrialState}

    # Trials, under leases.

    def claim(
        self, study_id: int, holder: Holder, budget: int | None = None, *, abandoned: bool = False
    ) -> Claimed | None:
        """Claim the next trial for a worker, or None where there is none; it is RUNNING, and held for a while.

        One whose worker is gone comes first, then one that waits, then, below the budget, a new one. Of several workers
        exactly one gets a trial.

        Args:
            study_id: whose trial.
            holder: for whom.
            budget: up to how many trials in all a new one is made; None makes none.
            abandoned: only one whose worker is gone.

        Raises:
            KeyError: there is no such study.
        """

        def step(connection: sa.Connection) -> Claimed | None:
            while found := leases.find(connection, study_id, holder, list(self._held), waiting=not abandoned):
                if leases.take(connection, study_id, found, holder):
                    return Claimed(found.trial_id, found.attempt + 1, taken_over=not found.waiting)
            if budget is None or abandoned:
                return None
            lock_study(connection, study_id)
            number = count_trials(connection, study_id)
            if number >= budget:
                return None
            trial_id = add_trial(connection, study_id, number)
            leases.grant(connection, study_id, trial_id, 1, holder)
            return Claimed(trial_id, 1)

        claimed = self._transact(study_id, step)
        if claimed is not None:
            self._own(study_id, claimed.trial_id, leases.Held(holder.name, claimed.attempt))
            # Where it has passed to another already, this process was suspended: its next write says so again.
            with suppress(LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
                self.set_trial_user_attr(claimed.trial_id, WORKER, holder.name)
                self.set_trial_user_attr(claimed.trial_id, ATTEMPT, claimed.attempt)
        return claimed

    def release(self, trial_id: int) -> bool:
        """Put a RUNNING trial back to WAITING under its number, its parameters fixed; false where it is not ours."""
        study_id, held = self._study_of[trial_id], self._held.get(trial_id)

        def step(connection: sa.Connection) -> None:
            running = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.RUNNING)
            # It keeps the time of its start: so others see that it is no slot that nobody has touched.
            connection.execute(running.values(state=TrialState.WAITING))
            _fix(connection, self.get_trial(trial_id))
            if held is not None:
                leases.give_back(connection, study_id, trial_id, held.attempt)

        try:
            self._transact(study_id, step, trial_id=trial_id, settles=True)
        except (LeaseLostError, KeyError, optuna.exceptions.UpdateFinishedTrialError):
            return False
        return True

    def discard_reports(self, trial_id: int, after: int) -> None:
        """Remove what a trial of this process reported of the epochs after that one: it goes on from there.

        Raises:
            LeaseLostError: another worker has taken it over.
        """

        def step(connection: sa.Connection) -> None:
            for table, epoch in ((EPOCHS, EPOCHS.c.epoch), (INTERMEDIATE_VALUES, INTERMEDIATE_VALUES.c.step)):
                connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, epoch > after))

        trial = self.get_trial(trial_id)
        study_id = self._study_of[trial_id]
        self._transact(study_id, step, trial_id=trial_id)
        trial.intermediate_values = {step: value for step, value in trial.intermediate_values.items() if step <= after}
        with self._memory:
            self._known[study_id].put(trial)

    def retry(self, study_id: int, numbers: Collection[int] | None = None) -> list[int]:
        """Put FAIL trials back to WAITING under their own numbers, their reports cleared; returns the numbers.

        Args:
            study_id: whose trials.
            numbers: which, also RUNNING ones that have no lease; None is all that are FAIL. Others are passed over.
        """
        states = (TrialState.FAIL,) if numbers is None else (TrialState.FAIL, TrialState.RUNNING)
        trials = self.get_all_trials(study_id, deepcopy=False, states=states)
        failed = [trial for trial in trials if numbers is None or trial.number in numbers]

        def step(connection: sa.Connection) -> list[int]:
            return [trial.number for trial in failed if _reset(connection, study_id, trial)]

        return self._transact(study_id, step)

    # All metrics of every epoch.

    def record_epoch(self, trial_id: int, epoch: int, metrics: EpochMetrics) -> None:
        """Keep the metrics of one epoch of an unfinished trial; once more is an update.

        Raises:
            LeaseLostError: another worker has taken it over.
        """
        held = self._held.get(trial_id)
        self._trial(trial_id)
        place = {"attempt": held.attempt if held else 1, "epoch": epoch, "study_id": self._study_of[trial_id]}
        self._change(trial_id, EPOCHS, {**place, "metrics": json.dumps(metrics)}, lambda _: None)

    def epochs(self, study_id: int, trial_id: int | None = None) -> dict[int, list[EpochMetrics]]:
        """Metrics of every epoch by trial id, in order; of a trial's last attempt at each epoch."""
        self.flush()
        return self._epochs(study_id, trial_id)

    @retried
    def _epochs(self, study_id: int, trial_id: int | None) -> dict[int, list[EpochMetrics]]:
        query = (
            sa.select(EPOCHS)
            .where(EPOCHS.c.study_id == study_id, *([EPOCHS.c.trial_id == trial_id] if trial_id is not None else []))
            .order_by(EPOCHS.c.trial_id, EPOCHS.c.epoch, EPOCHS.c.attempt)
        )
        found: dict[int, dict[int, EpochMetrics]] = {}
        with self._turn, self.engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.trial_id, {})[row.epoch] = json.loads(row.metrics)
        return {trial_id: list(rows.values()) for trial_id, rows in found.items()}

    @retried
    def last_epochs(self, study_id: int, trial_ids: Collection[int]) -> dict[int, int]:
        """The last epoch that each of these trials has in the database, by id."""
        mine = EPOCHS.c.study_id == study_id, EPOCHS.c.trial_id.in_(trial_ids)
        query = sa.select(EPOCHS.c.trial_id, sa.func.max(EPOCHS.c.epoch)).where(*mine).group_by(EPOCHS.c.trial_id)
        with self._turn, self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)} if trial_ids else {}

    # Workers.

    def announce(self, study_id: int, holder: Holder) -> None:
        """List a worker with its study."""
        self.write(lambda connection: leases.announce(connection, study_id, holder))
        self._until[holder.name] = _awake() + holder.seconds

    def beat(self, holder: Holder) -> bool:
        """Renew all leases of a worker, one try; returns whether it is asked to stop.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not answer; that is noted.
        """
        began = _awake()
        try:
            with self._turn:
                with self.engine.begin() as connection:
                    begin(connection)
                    pulse = leases.beat(connection, holder)
                self._heard(holder, pulse, began)
        except sqlalchemy.exc.SQLAlchemyError as error:
            self._trouble_with(error)
            raise
        return pulse.stop

    def _heard(self, holder: Holder, pulse: Pulse, began: float) -> None:
        with self._memory:
            self._recovered()
            self._until[holder.name] = began + holder.seconds
            gone = [
                trial_id
                for trial_id, held in self._held.items()
                if held.worker == holder.name and pulse.held.get(trial_id) != held.attempt
            ]
            self._give_up({trial_id: LeaseLostError() for trial_id in gone}, None)

    def holds(self, trial_id: int) -> bool:
        """Whether a trial is this process's, as far as can be told: its lease was renewed less than its length ago.

        Asked before a file is written that the next holder would write as well. The clock goes on while this process,
        or its machine, is suspended. While the database does not answer, a trial counts as held: training goes on, and
        what it has done is to be kept for when the database is back.
        """
        held = self._held.get(trial_id)
        return held is not None and (self._trouble is not None or _awake() < self._until.get(held.worker, 0.0))

    def retire(self, holder: Holder) -> None:
        """List a worker no longer; one try, for it is on its way out."""
        with self._turn, self.engine.begin() as connection:
            leases.retire(connection, holder)

    def ask_workers_to_stop(self, study_id: int) -> int:
        """Ask all workers of a study to stop; returns how many live."""
        return self.write(lambda connection: leases.ask_to_stop(connection, study_id))

    @retried
    def workers(self, study_id: int) -> list[WorkerRow]:
        """The workers of a study, by name."""
        with self._turn, self.engine.connect() as connection:
            return leases.read_workers(connection, study_id)

    @retried
    def held_by_others(self, study_id: int, *, waiting: bool = False) -> int:
        """How many running trials of a study are held by workers, living or not; this process's are not counted.

        Args:
            study_id: whose trials.
            waiting: whether those that wait are counted as well.
        """
        with self._turn, self.engine.connect() as connection:
            return leases.others(connection, study_id, list(self._held), waiting=waiting)


# Opening.


# Several processes may open an empty database at once: whoever loses a race for a table, a version row or the file's
# lock finds the work done on the next try.
@tenacity.retry(
    retry=tenacity.retry_if_exception_type((sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError)),
    stop=tenacity.stop_after_attempt(12),
    wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
    reraise=True,
)
def _open(url: URL) -> RDBStorage:
    """Optuna's storage there, its tables and ours made where they are missing."""
    # RDBStorage passes the URL through str.format.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    rdb = RDBStorage(text, engine_kwargs=_engine_options(url))
    metadata.create_all(rdb.engine)
    if url.get_backend_name() == "mysql":
        keep_fractions(rdb.engine)
    return rdb


def _engine_options(url: URL) -> dict[str, Any]:
    """What each database needs; what the URL says itself counts."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    connect: dict[str, Any] = {}
    match url.get_backend_name():
        case "sqlite" if is_file(url):
            connect = {"timeout": 60}  # seconds to wait for another writer
        case "sqlite":  # in memory: every thread must see the same
            connect = {"check_same_thread": False}
            options["poolclass"] = sa.StaticPool
        case "postgresql":  # a server that is gone without a word is noticed within a minute
            connect = {"connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
            connect["tcp_user_timeout"] = 60_000  # milliseconds
        case "mysql":
            connect = {"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60}
            # By default a transaction counts rows as they were at its first look, not as they are under its lock.
            options["isolation_level"] = "READ COMMITTED"
    options["connect_args"] = {name: value for name, value in connect.items() if name not in url.query}
    return options


# Parts of transactions.


def _insert_attrs(connection: sa.Connection, table: sa.Table, owners: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Rows of one of Optuna's attribute tables, whose second column is the owner's id."""
    owner_column = "study_id" if "study_id" in table.c else "trial_id"
    rows = [
        {owner_column: owner, "key": key, "value_json": json.dumps(value)}
        for owner, attrs in owners
        for key, value in attrs.items()
    ]
    if rows:
        connection.execute(sa.insert(table), rows)


def _insert_slots(connection: sa.Connection, study_id: int, slots: Sequence[Mapping[str, Value]]) -> None:
    """WAITING trials with fixed parameters, as Optuna's `enqueue_trial` leaves them."""
    if not slots:
        return
    first = count_trials(connection, study_id)
    rows = [{"study_id": study_id, "number": first + i, "state": TrialState.WAITING} for i in range(len(slots))]
    connection.execute(sa.insert(TRIALS), rows)
    query = (
        sa.select(TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study_id, TRIALS.c.number >= first)
        .order_by(TRIALS.c.number)
    )
    ids = [int(trial_id) for trial_id in connection.execute(query).scalars()]
    for table in (EPOCHS, LEASES):
        purge_trials(connection, table, ids)
    fixed = [(i, {FIXED: dict(params)}) for i, params in zip(ids, slots, strict=True)]
    _insert_attrs(connection, TRIAL_SYSTEM_ATTRS, fixed)


def _purge_study(connection: sa.Connection, study_id: int) -> None:
    for table in (EPOCHS, LEASES, WORKERS):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))


def _fix(connection: sa.Connection, trial: FrozenTrial) -> None:
    """Let a trial that waits begin with the parameters that it had."""
    params = {**trial.system_attrs.get(FIXED, {}), **trial.params}
    row = {"trial_id": trial._trial_id, "key": FIXED, "value_json": json.dumps(params)}
    upsert(connection, TRIAL_SYSTEM_ATTRS, ("trial_id", "key"), [row])


def _reset(connection: sa.Connection, study_id: int, trial: FrozenTrial) -> bool:
    """Let a trial that failed, or was left, wait again, without its results; false where somebody was faster."""
    trial_id = trial._trial_id
    failed = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == trial.state)
    if trial.state == TrialState.RUNNING:
        held = sa.select(LEASES.c.trial_id).where(LEASES.c.worker.is_not(None))
        failed = failed.where(TRIALS.c.trial_id.not_in(held))
    if connection.execute(failed.values(state=TrialState.WAITING, datetime_complete=None)).rowcount == 0:
        return False
    for table in (INTERMEDIATE_VALUES, VALUES, EPOCHS):
        connection.execute(sa.delete(table).where(table.c.trial_id == trial_id))
    told = sa.delete(TRIAL_USER_ATTRS).where(TRIAL_USER_ATTRS.c.trial_id == trial_id)
    connection.execute(told.where(TRIAL_USER_ATTRS.c.key.in_(["failure", "message", "deaths"])))
    _fix(connection, trial)
    leases.give_back(connection, study_id, trial_id, int(trial.user_attrs.get(ATTEMPT, 1)))
    return True


def _awake() -> float:
    """Seconds of a clock that only grows, also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
