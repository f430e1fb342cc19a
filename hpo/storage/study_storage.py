"""StudyStorage, the Optuna storage on Optuna's own schema with tables and transactions of ours.

Any Optuna tool reads our studies, and `optuna.create_study(storage=StudyStorage(url))` works as with any storage. Ours
are whole steps as one transaction each: creating a study with its slots, claiming a trial under a lease, giving it
back; all metrics of every epoch, for Optuna keeps one float a step; and the loss of every step, where it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
import tenacity
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from hpo.storage import leases
from hpo.storage.clock import MACHINES
from hpo.storage.disk_full import SqliteConnection, is_full, name_full_disk
from hpo.storage.identity import FileWatch
from hpo.storage.leased_storage import ATTEMPT, LeaseGrant
from hpo.storage.network_fs import refuse_network_sqlite
from hpo.storage.optimize_leases import StaleTrialCallback
from hpo.storage.reports import EpochMetrics, EpochSteps, ReportStorage
from hpo.storage.statements import (
    count_trials,
    delete_study,
    fix_parameters,
    insert_attrs,
    insert_slots,
    purge_study,
)
from hpo.storage.stored_values import CONSTRAINT, RUNG, is_whole, parse_value
from hpo.storage.tables import (
    EPOCHS,
    FITS,
    INTERMEDIATE_VALUES,
    LEASES,
    STEPS,
    STUDIES,
    STUDY_DIRECTIONS,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    insert_one,
    lock_study,
    metadata,
    store_fractions,
)
from hpo.storage.transient_errors import with_retries
from hpo.storage.trial_query import STATES
from hpo.storage.url import (
    check_file,
    connect_once,
    explain_connect_error,
    is_file,
    mask,
    normalize,
    translate_connect_errors,
    tune_sqlite,
)

__all__ = ["ENVIRONMENT", "EpochMetrics", "EpochSteps", "LeaseGrant", "StudyStorage"]

ENVIRONMENT = "hpo:environment"  # a trial's system attribute: what it was trained with


class StudyStorage(ReportStorage):
    """Studies in a SQL database: SQLite for one machine, PostgreSQL or MySQL/MariaDB for many.

    It takes the place of `optuna.storages.RDBStorage`, whose arguments it has.

    Args:
        url: where; a bare `postgresql://`, `postgres://` or `mysql://` is given its driver, and a path is a SQLite
            file.
        engine_kwargs: arguments of `sqlalchemy.create_engine`, which override our own.
        skip_compatibility_check: whether tables of another version of Optuna are used as they are.
        heartbeat_interval: seconds between the heartbeats of a trial under `study.optimize`, as plain Optuna has them;
            by default, trials are leased instead, and fail a minute after their process is gone.
        grace_period: seconds without a heartbeat after which a trial is failed; by default twice the interval.
        heartbeat_stale_trial_callback: called with the study and a trial that was failed so, such as
            `optuna.storages.RetryHeartbeatStaleTrialCallback()`.
        failed_trial_callback: its former name.
        create: whether a SQLite file that does not exist is made.

    Attributes:
        engine: the SQLAlchemy engine that every statement goes through.

    Raises:
        StorageError: the URL cannot be opened, or its driver is missing; the line says what to install.
        ValueError: an interval is not positive, or there are two callbacks.
    """

    def __init__(
        self,
        url: str,
        engine_kwargs: Mapping[str, Any] | None = None,
        skip_compatibility_check: bool = False,
        *,
        heartbeat_interval: int | None = None,
        grace_period: int | None = None,
        heartbeat_stale_trial_callback: StaleTrialCallback | None = None,
        failed_trial_callback: StaleTrialCallback | None = None,
        create: bool = True,
    ) -> None:
        self.url = normalize(url)
        self._arguments: dict[str, Any] = {
            "engine_kwargs": engine_kwargs,
            "skip_compatibility_check": skip_compatibility_check,
            "heartbeat_interval": heartbeat_interval,
            "grace_period": grace_period,
            "heartbeat_stale_trial_callback": heartbeat_stale_trial_callback,
            "failed_trial_callback": failed_trial_callback,
        }
        refuse_network_sqlite(self.url)
        check_file(self.url, create)
        with translate_connect_errors(self.url):
            connect_once(self.url, check=not skip_compatibility_check)
            rdb = _open(self.url, self._arguments)
        super().__init__(rdb, write_behind=self.url.get_backend_name() != "sqlite" or is_file(self.url))
        if is_file(self.url):
            sa.event.listen(self.engine, "connect", tune_sqlite)
            name_full_disk(self.engine, Path(str(self.url.database)), self.masked_url)
            self.engine.dispose()  # the connection that is open already has not been tuned
        self._file = (
            FileWatch(self.engine, Path(str(self.url.database)), self.masked_url) if is_file(self.url) else None
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url.render_as_string(hide_password=False), **self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        StudyStorage.__init__(self, **state)

    @property
    def in_memory(self) -> bool:
        """True of SQLite in this process's memory, which no other process can open."""
        return self.url.get_backend_name() == "sqlite" and not is_file(self.url)

    @property
    def masked_url(self) -> str:
        """The URL without its password."""
        return mask(self.url)

    def explain(self, error: Exception) -> str:
        """Return one line for a database's error, in its own words."""
        return explain_connect_error(self.url, error, "does not answer")

    def rescue_if_lost(self) -> None:
        """Save what a SQLite file holds, should it be deleted or replaced from now on; its loss is noticed anyway."""
        if self._file is not None:
            self._file.rescue = True

    @property
    def rescued(self) -> Path | None:
        """The copy of what a lost SQLite file held; None where there is none."""
        return None if self._file is None else self._file.saved

    # Studies.

    def create_study(
        self,
        name: str,
        directions: Sequence[StudyDirection],
        metric_names: Sequence[str],
        user_attrs: Mapping[str, Any],
        slots: Sequence[Mapping[str, object]] = (),
        also: Callable[[sa.Connection, int], object] = lambda *_: None,
    ) -> int:
        """Create a study with its attributes and its WAITING trials, all or nothing.

        Args:
            name: the study's name.
            directions: one per objective.
            metric_names: one per objective; shown by Optuna's tools.
            user_attrs: the study's user attributes.
            slots: the fixed parameters of each waiting trial, in the order of their numbers.
            also: done at the end of the transaction, with the study's id.

        Raises:
            optuna.exceptions.DuplicatedStudyError: the name is taken.
        """

        def create(connection: sa.Connection) -> int:
            try:
                study_id = insert_one(connection, STUDIES, study_name=name)
            except sqlalchemy.exc.IntegrityError as error:
                raise optuna.exceptions.DuplicatedStudyError(f"study '{name}' exists already") from error
            rows = [{"study_id": study_id, "objective": i, "direction": d} for i, d in enumerate(directions)]
            connection.execute(sa.insert(STUDY_DIRECTIONS), rows)
            names = {"study:metric_names": list(metric_names)}
            insert_attrs(connection, STUDY_SYSTEM_ATTRS, [(study_id, names)])
            insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, user_attrs)])
            purge_study(connection, study_id)
            insert_slots(connection, study_id, slots)
            also(connection, study_id)
            return study_id

        return self.write(create)

    def update_study(
        self,
        study_id: int,
        held: Mapping[str, Any],
        user_attrs: Mapping[str, Any],
        slots: Sequence[Mapping[str, object]] = (),
        start: int = 0,
    ) -> bool:
        """Set a study's attributes, and append WAITING trials from number `start`; return whether it was done.

        It is not done where somebody else was faster: where the attributes named in `held` have other values by now,
        or, with slots, where the study does not have exactly `start` trials.
        """
        mine = STUDY_USER_ATTRS.c.study_id == study_id, STUDY_USER_ATTRS.c.key.in_([*held, *user_attrs])

        def update(connection: sa.Connection) -> bool:
            lock_study(connection, study_id)
            rows = connection.execute(sa.select(STUDY_USER_ATTRS.c.key, STUDY_USER_ATTRS.c.value_json).where(*mine))
            stored = {row.key: parse_value(row.value_json) for row in rows}
            if any(stored.get(key) != value for key, value in held.items()):
                return False
            if slots and count_trials(connection, study_id) != start:
                return False
            insert_slots(connection, study_id, slots)
            connection.execute(sa.delete(STUDY_USER_ATTRS).where(*mine))
            insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, {**held, **user_attrs})])
            return True

        return self.write(update)

    def delete_study(self, study_id: int) -> None:
        """Delete a study with its trials, and all that our tables hold of them."""

        def delete(connection: sa.Connection) -> None:
            purge_study(connection, study_id)
            delete_study(connection, study_id)

        self.write(delete)
        self._forget(study_id)

    @with_retries
    def count_trials(self, study_id: int) -> dict[TrialState, int]:
        """Count a study's trials in each state."""
        state = sa.cast(TRIALS.c.state, sa.Text)
        query = sa.select(state, sa.func.count()).where(TRIALS.c.study_id == study_id).group_by(state)
        counts = dict.fromkeys(TrialState, 0)
        with self._transaction_lock, self.engine.connect() as connection:
            for name, count in connection.execute(query):
                counts[STATES.get(name, TrialState.FAIL)] += int(count)
        return counts

    # Trials.

    def retry(self, study_id: int, numbers: Collection[int] | None = None) -> list[int]:
        """Put FAIL trials back to WAITING under their own numbers, their reports cleared; return the numbers.

        Args:
            study_id: whose trials.
            numbers: which, also RUNNING ones that have no lease; None is all that are FAIL. Others are passed over.
        """
        states = (TrialState.FAIL,) if numbers is None else (TrialState.FAIL, TrialState.RUNNING)
        trials = self.get_all_trials(study_id, deepcopy=False, states=states)
        failed = [trial for trial in trials if numbers is None or trial.number in numbers]

        def step(connection: sa.Connection) -> list[int]:
            return [trial.number for trial in failed if _reset_trial(connection, study_id, trial)]

        return self._transact(study_id, step)


# Opening.


# Several processes may open an empty database at once: whoever loses a race for a table, a version row or the file's
# lock finds the work done on the next try.
@tenacity.retry(
    retry=tenacity.retry_if_exception_type((sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError)),
    stop=tenacity.stop_after_attempt(12),
    wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
    reraise=True,
)
def _open(url: URL, arguments: Mapping[str, Any]) -> RDBStorage:
    """Open Optuna's storage there, and make its tables and ours where they are missing."""
    # RDBStorage passes the URL through str.format.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    rdb = RDBStorage.__new__(RDBStorage)
    try:
        engine_options = _engine_options(url, arguments["engine_kwargs"] or {})
        RDBStorage.__init__(rdb, text, **{**arguments, "engine_kwargs": engine_options})
        # One look for all of them: by itself `create_all` asks MySQL about each table.
        present = set(sa.inspect(rdb.engine).get_table_names())
        metadata.create_all(rdb.engine, [table for table in metadata.sorted_tables if table.name not in present])
        if url.get_backend_name() == "sqlite":
            MACHINES.create(rdb.engine, checkfirst=True)
        if url.get_backend_name() == "mysql":
            store_fractions(rdb.engine)
    except BaseException:
        # Each failed try would keep its connection until it is collected: twenty workers used up a server's hundred.
        if hasattr(rdb, "engine"):
            rdb.engine.dispose()
        raise
    return rdb


def _engine_options(url: URL, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine options that each database needs; the user's own, and those in the URL, take precedence."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    connect: dict[str, Any] = {}
    match url.get_backend_name():
        case "sqlite" if is_file(url):
            connect = {"timeout": 60, "factory": SqliteConnection}  # seconds to wait for another writer
            if is_full(Path(str(url.database))):  # a second connection would wait for the first
                connect |= {"check_same_thread": False}
                options["poolclass"] = sa.StaticPool
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
    connect = {name: value for name, value in connect.items() if name not in url.query}
    return {**options, **own, "connect_args": {**connect, **own.get("connect_args", {})}}


def _reset_trial(connection: sa.Connection, study_id: int, trial: FrozenTrial) -> bool:
    """Reset a trial that failed, or was abandoned, to WAITING without results; return whether nobody was faster."""
    trial_id = trial._trial_id
    failed = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == trial.state)
    if trial.state == TrialState.RUNNING:
        held = sa.select(LEASES.c.trial_id).where(leases.is_held(connection))
        failed = failed.where(TRIALS.c.trial_id.not_in(held))
    if connection.execute(failed.values(state=TrialState.WAITING, datetime_complete=None)).rowcount == 0:
        return False
    for table in (INTERMEDIATE_VALUES, VALUES, EPOCHS, FITS, STEPS):
        connection.execute(sa.delete(table).where(table.c.trial_id == trial_id))
    told = sa.delete(TRIAL_USER_ATTRS).where(TRIAL_USER_ATTRS.c.trial_id == trial_id)
    connection.execute(told.where(TRIAL_USER_ATTRS.c.key.in_(["failure", "message", "deaths"])))
    key = TRIAL_SYSTEM_ATTRS.c.key
    judged = sa.delete(TRIAL_SYSTEM_ATTRS).where(TRIAL_SYSTEM_ATTRS.c.trial_id == trial_id)
    connection.execute(judged.where(sa.or_(*(key.startswith(each, autoescape=True) for each in (RUNG, CONSTRAINT)))))
    fix_parameters(connection, [trial])
    attempt: object = trial.user_attrs.get(ATTEMPT)
    leases.release(connection, study_id, {trial_id: attempt if is_whole(attempt) else 1})
    return True
