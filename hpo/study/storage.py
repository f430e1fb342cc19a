"""`StudyStorage`: an Optuna storage on Optuna's own schema, with tables and transactions of ours.

Any Optuna tool reads our studies, and `optuna.create_study(storage=StudyStorage(url))` works as with any storage. Ours
are the table `hpo_epochs` (all metrics of every epoch; Optuna keeps one float a step), and whole steps as one
transaction each: creating a study with its slots, claiming a trial, adding one below the budget.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
import tenacity
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import mysql, postgresql, sqlite

from hpo.config import Value
from hpo.study.opening import check_file, connect_once, explain, is_file, mask, normalised, opening_errors, tune_sqlite
from hpo.study.retry import patient, retried

__all__ = ["EpochMetrics", "StudyStorage"]

EpochMetrics = dict[str, float]

TRIALS = models.TrialModel.__table__
STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
STUDY_USER_ATTRS = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM_ATTRS = models.StudySystemAttributeModel.__table__
TRIAL_USER_ATTRS = models.TrialUserAttributeModel.__table__
TRIAL_SYSTEM_ATTRS = models.TrialSystemAttributeModel.__table__
INTERMEDIATE_VALUES = models.TrialIntermediateValueModel.__table__

metadata = sa.MetaData()
EPOCHS = sa.Table(
    "hpo_epochs",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    # SQLite gives a deleted trial's id away again, so rows are found by their study as well.
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    # Text, not JSON: a diverged loss is NaN, which the JSON types of servers refuse.
    sa.Column("metrics", sa.Text, nullable=False),
)


def _keep_fractions(engine: sa.Engine) -> None:
    """Let a new MySQL or MariaDB database keep fractions of a second, which its plain DATETIME drops.

    Optuna's own contract of a storage asks for them, and a short trial would take 0 seconds. One with studies is left
    as it is: whoever made it may not want its tables rebuilt.
    """
    columns = {column["name"]: column["type"] for column in sa.inspect(engine).get_columns("trials")}
    times = {name: kind for name, kind in columns.items() if isinstance(kind, mysql.DATETIME)}
    with engine.begin() as connection:
        if (
            all(kind.fsp for kind in times.values())
            or connection.execute(sa.select(STUDIES.c.study_id).limit(1)).first()
        ):
            return
        changes = ", ".join(f"MODIFY {name} DATETIME(6)" for name in times)
        connection.exec_driver_sql(f"ALTER TABLE trials {changes}")


class StudyStorage(BaseStorage):
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
        check_file(self.url, create)
        with opening_errors(self.url):
            connect_once(self.url)
            self._rdb = patient(self._open())
        self.engine: sa.Engine = self._rdb.engine
        if is_file(self.url):
            sa.event.listen(self.engine, "connect", tune_sqlite)
            self.engine.dispose()  # the connection that is open already has not been tuned

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url.render_as_string(hide_password=False)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        StudyStorage.__init__(self, state["url"])

    # Opening.

    @property
    def masked_url(self) -> str:
        """The URL without its password."""
        return mask(self.url)

    # Several processes may open an empty database at once: whoever loses a race for a table, a version row or the
    # file's lock finds the work done on the next try.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type((sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError)),
        stop=tenacity.stop_after_attempt(12),
        wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
        reraise=True,
    )
    def _open(self) -> RDBStorage:
        text = self.url.render_as_string(hide_password=False)
        options: dict[str, Any] = {"pool_pre_ping": True}
        if self.url.get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": 60}  # seconds to wait for another writer
        # RDBStorage passes the URL through str.format.
        rdb = RDBStorage(text.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)
        metadata.create_all(rdb.engine)
        if self.url.get_backend_name() == "mysql":
            _keep_fractions(rdb.engine)
        return rdb

    def explain(self, error: Exception) -> str:
        """One line for a database's error, in its own words."""
        return explain(self.url, error, "does not answer")

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its start, so that what it reads stays true until it writes."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    # Whole steps, one transaction each.

    @retried
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
        try:
            with self._write() as connection:
                study_id = _insert_one(connection, STUDIES, study_name=name)
                rows = [{"study_id": study_id, "objective": i, "direction": d} for i, d in enumerate(directions)]
                connection.execute(sa.insert(DIRECTIONS), rows)
                names = {"study:metric_names": list(metric_names)}
                _insert_attrs(connection, STUDY_SYSTEM_ATTRS, [(study_id, names)])
                _insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, user_attrs)])
                connection.execute(sa.delete(EPOCHS).where(EPOCHS.c.study_id == study_id))
                _insert_slots(connection, study_id, slots)
                return study_id
        except sqlalchemy.exc.IntegrityError as error:
            raise optuna.exceptions.DuplicatedStudyError(f"study '{name}' exists already") from error

    @retried
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
        with self._write() as connection:
            self._lock(connection, study_id)
            rows = connection.execute(sa.select(STUDY_USER_ATTRS.c.key, STUDY_USER_ATTRS.c.value_json).where(*mine))
            stored = {row.key: json.loads(row.value_json) for row in rows}
            if any(stored.get(key) != value for key, value in held.items()):
                return False
            if slots and _count(connection, study_id) != start:
                return False
            _insert_slots(connection, study_id, slots)
            connection.execute(sa.delete(STUDY_USER_ATTRS).where(*mine))
            _insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, {**held, **user_attrs})])
            return True

    @retried
    def claim_waiting(self, study_id: int, user_attrs: Mapping[str, Any]) -> int | None:
        """Make the WAITING trial with the lowest number RUNNING and return its id, or None where none waits.

        Of several workers exactly one gets a trial: the row's state is part of the update's condition.
        """
        waiting = TRIALS.c.study_id == study_id, TRIALS.c.state == TrialState.WAITING
        while True:
            with self._write() as connection:
                query = sa.select(TRIALS.c.trial_id).where(*waiting).order_by(TRIALS.c.number).limit(1)
                trial_id = connection.execute(query).scalar()
                if trial_id is None:
                    return None
                claim = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id, *waiting)
                if connection.execute(claim.values(state=TrialState.RUNNING, datetime_start=_now())).rowcount == 1:
                    _replace_attrs(connection, trial_id, user_attrs)
                    return int(trial_id)

    @retried
    def create_below(self, study_id: int, budget: int, user_attrs: Mapping[str, Any]) -> int | None:
        """Add a RUNNING trial and return its id, or None where the study has `budget` trials already."""
        with self._write() as connection:
            self._lock(connection, study_id)
            number = _count(connection, study_id)
            if number >= budget:
                return None
            values = {
                "study_id": study_id,
                "number": number,
                "state": TrialState.RUNNING,
                "datetime_start": _now(),
            }
            trial_id = _insert_one(connection, TRIALS, **values)
            # SQLite may have given the id of a deleted trial.
            connection.execute(sa.delete(EPOCHS).where(EPOCHS.c.trial_id == trial_id))
            _insert_attrs(connection, TRIAL_USER_ATTRS, [(trial_id, user_attrs)])
            return trial_id

    @retried
    def release(self, trial_id: int) -> None:
        """Put a RUNNING trial back to WAITING under its number, its parameters fixed."""
        params = self.get_trial(trial_id).params
        with self._write() as connection:
            running = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.RUNNING)
            if connection.execute(running.values(state=TrialState.WAITING, datetime_start=None)).rowcount == 0:
                return
            mine = TRIAL_SYSTEM_ATTRS.c.trial_id == trial_id, TRIAL_SYSTEM_ATTRS.c.key == "fixed_params"
            connection.execute(sa.delete(TRIAL_SYSTEM_ATTRS).where(*mine))
            _insert_attrs(connection, TRIAL_SYSTEM_ATTRS, [(trial_id, {"fixed_params": params})])

    @retried
    def discard_reports(self, trial_id: int, after: int) -> None:
        """Remove what a trial reported of the epochs after that one: it goes on from there."""
        with self._write() as connection:
            for table, epoch in ((EPOCHS, EPOCHS.c.epoch), (INTERMEDIATE_VALUES, INTERMEDIATE_VALUES.c.step)):
                connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, epoch > after))

    @retried
    def count_trials(self, study_id: int) -> dict[TrialState, int]:
        """How many trials a study has in each state."""
        query = sa.select(TRIALS.c.state, sa.func.count()).where(TRIALS.c.study_id == study_id).group_by(TRIALS.c.state)
        with self.engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in TrialState}

    def _lock(self, connection: sa.Connection, study_id: int) -> None:
        """Hold the study's row, as Optuna does when it numbers a trial."""
        connection.execute(sa.select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id).with_for_update())

    # All metrics of every epoch.

    @retried
    def record_epoch(self, study_id: int, trial_id: int, attempt: int, epoch: int, metrics: EpochMetrics) -> None:
        """Store the metrics of one epoch of one attempt at a trial; once more is an update."""
        row = {"trial_id": trial_id, "attempt": attempt, "epoch": epoch, "study_id": study_id}
        with self._write() as connection:
            _upsert(connection, EPOCHS, {**row, "metrics": json.dumps(metrics)})

    @retried
    def epochs(self, study_id: int) -> dict[int, list[EpochMetrics]]:
        """Metrics of every epoch by trial id, in order; of a trial's last attempt at each epoch."""
        query = (
            sa.select(EPOCHS)
            .where(EPOCHS.c.study_id == study_id)
            .order_by(EPOCHS.c.trial_id, EPOCHS.c.epoch, EPOCHS.c.attempt)
        )
        found: dict[int, dict[int, EpochMetrics]] = {}
        with self.engine.connect() as connection:
            for row in connection.execute(query):
                found.setdefault(row.trial_id, {})[row.epoch] = json.loads(row.metrics)
        return {trial_id: list(rows.values()) for trial_id, rows in found.items()}

    # Optuna's storage.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._rdb.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._rdb.delete_study(study_id)
        self._delete_epochs(study_id)

    @retried
    def _delete_epochs(self, study_id: int) -> None:
        with self._write() as connection:
            connection.execute(sa.delete(EPOCHS).where(EPOCHS.c.study_id == study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._rdb.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._rdb.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._rdb.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._rdb.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._rdb.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._rdb.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._rdb.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._rdb.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._rdb.create_new_trial(study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._rdb.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._rdb.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        return self._rdb.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._rdb.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._rdb.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._rdb.set_trial_system_attr(trial_id, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._rdb.get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._rdb.get_all_trials(study_id, deepcopy, states)

    def remove_session(self) -> None:
        self._rdb.remove_session()


def _upsert(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    """Insert a row, or update the one with its primary key; a delete before the insert would invite deadlocks."""
    values = {name: value for name, value in row.items() if not table.c[name].primary_key}
    match connection.dialect.name:
        case "mysql":
            connection.execute(mysql.insert(table).values(row).on_duplicate_key_update(values))
        case "postgresql":
            insert = postgresql.insert(table).values(row)
            connection.execute(insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=values))
        case _:
            insert_or = sqlite.insert(table).values(row)
            connection.execute(insert_or.on_conflict_do_update(index_elements=list(table.primary_key), set_=values))


def _now() -> datetime:
    """The time as Optuna's tables hold it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _insert_one(connection: sa.Connection, table: sa.Table, **values: Any) -> int:
    """Insert a row; returns the id that the database gave it."""
    key = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
    assert key is not None  # every supported database returns it
    return int(key[0])


def _count(connection: sa.Connection, study_id: int) -> int:
    query = sa.select(sa.func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


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


def _replace_attrs(connection: sa.Connection, trial_id: int, user_attrs: Mapping[str, Any]) -> None:
    mine = TRIAL_USER_ATTRS.c.trial_id == trial_id, TRIAL_USER_ATTRS.c.key.in_(list(user_attrs))
    connection.execute(sa.delete(TRIAL_USER_ATTRS).where(*mine))
    _insert_attrs(connection, TRIAL_USER_ATTRS, [(trial_id, user_attrs)])


def _insert_slots(connection: sa.Connection, study_id: int, slots: Sequence[Mapping[str, Value]]) -> None:
    """WAITING trials with fixed parameters, as Optuna's `enqueue_trial` leaves them."""
    first = _count(connection, study_id)
    if not slots:
        return
    rows = [{"study_id": study_id, "number": first + i, "state": TrialState.WAITING} for i in range(len(slots))]
    connection.execute(sa.insert(TRIALS), rows)
    query = (
        sa.select(TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study_id, TRIALS.c.number >= first)
        .order_by(TRIALS.c.number)
    )
    ids = [int(trial_id) for trial_id in connection.execute(query).scalars()]
    _insert_attrs(
        connection,
        TRIAL_SYSTEM_ATTRS,
        [(i, {"fixed_params": dict(params)}) for i, params in zip(ids, slots, strict=True)],
    )
