"""Tables, Optuna's and ours, and what differs between the databases."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.dialects import mysql, postgresql, sqlite

from hpo.errors import StudyDeletedError
from hpo.storage.limits import check_row
from hpo.storage.schema import metadata

__all__ = [
    "EPOCHS",
    "FITS",
    "INTERMEDIATE_VALUES",
    "LEASES",
    "PARAMS",
    "SAMPLES",
    "SPLITS",
    "STEPS",
    "STUDIES",
    "STUDY_DIRECTIONS",
    "STUDY_SYSTEM_ATTRS",
    "STUDY_USER_ATTRS",
    "TRIALS",
    "TRIAL_SYSTEM_ATTRS",
    "TRIAL_USER_ATTRS",
    "VALUES",
    "WORK",
    "WORKERS",
    "begin",
    "insert_one",
    "local_time",
    "lock_study",
    "metadata",
    "purge_trials",
    "store_fractions",
    "upsert",
    "upsert_one",
    "utc_time",
    "wall_clock",
]  # fmt: skip

STUDIES = models.StudyModel.__table__
STUDY_DIRECTIONS = models.StudyDirectionModel.__table__
STUDY_USER_ATTRS = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM_ATTRS = models.StudySystemAttributeModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
TRIAL_USER_ATTRS = models.TrialUserAttributeModel.__table__
TRIAL_SYSTEM_ATTRS = models.TrialSystemAttributeModel.__table__
INTERMEDIATE_VALUES = models.TrialIntermediateValueModel.__table__

# SQLite gives a deleted trial's id away again, so our rows carry their study as well, and are purged on creation.
EPOCHS = sa.Table(
    "hpo_epochs",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    # Text, not JSON: a diverged loss is NaN, which the JSON types of servers refuse.
    sa.Column("metrics", sa.Text, nullable=False),
)
# Of trials of several fits: what hpo_epochs has the means of.
FITS = sa.Table(
    "hpo_fits",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    # A list of the fits' numbers, and for each metric one of their values. MySQL's TEXT holds 64 kB.
    sa.Column("metrics", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
)
# Where a study records steps. 8 bytes a step, so that an epoch of a million steps is a row, too.
STEPS = sa.Table(
    "hpo_steps",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    # float32, the least byte first. The length makes a MEDIUMBLOB of MySQL's type, which holds 64 kB otherwise.
    sa.Column("losses", sa.LargeBinary(2**24 - 1), nullable=False),
    sa.Column("seconds", sa.LargeBinary(2**24 - 1), nullable=False),
)
# Of trials that are COMPLETE: what each fit keeps of its validation samples; see `hpo.datasets.sample_codec`.
SAMPLES = sa.Table(
    "hpo_samples",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fit", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("content", sa.LargeBinary(2**24 - 1), nullable=False),
)
# The samples themselves, which many trials share.
SPLITS = sa.Table(
    "hpo_splits",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("content", sa.LargeBinary(2**24 - 1), nullable=False),
)
LEASES = sa.Table(
    "hpo_leases",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    # Whose trial it is; NULL where it was given back and waits, so that its next attempt has a higher number.
    sa.Column("worker", sa.String(255), index=True),
    # Seconds of the clock of leases: see `hpo.storage.clock`.
    sa.Column("expires", sa.Double, nullable=False),
)
WORKERS = sa.Table(
    "hpo_workers",
    metadata,
    sa.Column("worker", sa.String(255), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("device", sa.String(64), nullable=False),
    # By the clock of leases: when it was last heard of, and when it is to be taken for gone.
    sa.Column("seen", sa.Double, nullable=False),
    sa.Column("gone", sa.Double, nullable=False),
    sa.Column("stop", sa.Boolean, nullable=False),
)
# One row a worker, kept after it has ended: `hpo show` adds them up.
WORK = sa.Table(
    "hpo_work",
    metadata,
    sa.Column("worker", sa.String(255), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    # Trials that it has told, cohorts that it has begun, and the trials in them.
    sa.Column("told", sa.Integer, nullable=False),
    sa.Column("cohorts", sa.Integer, nullable=False),
    sa.Column("members", sa.Integer, nullable=False),
    # Seconds by its own clock.
    sa.Column("training", sa.Double, nullable=False),
    sa.Column("storage", sa.Double, nullable=False),
    sa.Column("sampling", sa.Double, nullable=False),
    # By the clock of leases: when it was announced, and when it last wrote this.
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)

CLOCKS = {
    # unixepoch('subsec') is NULL in SQLite 3.40.
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
    # UNIX_TIMESTAMP takes its time for local, and gives an hour twice when summer time ends.
    "mysql": "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)",
}
INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert, "mysql": mysql.insert}


def utc_time(moment: datetime | None = None) -> datetime:
    """Convert a local time, by default the present one, to that of Optuna's tables: UTC without a zone."""
    return (moment or datetime.now()).astimezone(UTC).replace(tzinfo=None)


def local_time(moment: datetime) -> datetime:
    """Convert a time of Optuna's tables to the reader's zone, without naming it, as Optuna shows it."""
    return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def wall_clock(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return an expression for the seconds since 1970 by the wall clock of the machine that the database runs on."""
    return sa.literal_column(CLOCKS[connection.dialect.name], sa.Double)


def begin(connection: sa.Connection) -> None:
    """Take SQLite's write lock at a transaction's start, so that what it reads stays true until it writes."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def lock_study(connection: sa.Connection, study_id: int) -> None:
    """Lock the study's row, as Optuna does when it numbers a trial. SQLite's transaction locks everything already.

    Raises:
        StudyDeletedError: there is no such study.
    """
    row = sa.select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id).with_for_update()
    if connection.dialect.name != "sqlite" and connection.execute(row).first() is None:
        raise StudyDeletedError(f"study {study_id} is not in the storage any more: it was deleted")


def insert_one(connection: sa.Connection, table: sa.Table, **values: Any) -> int:
    """Insert a row; return the id that the database gave it."""
    key = connection.execute(sa.insert(table).values(**values)).inserted_primary_key
    assert key is not None  # every supported database returns it
    return int(key[0])


def upsert(connection: sa.Connection, table: sa.Table, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Insert rows, or update those whose unique `keys` are there already; one statement.

    A delete before the insert would invite deadlocks.

    Raises:
        StorageLimitError: a row is too long for the database.
    """
    for row in rows:
        check_row(connection.dialect, table, row)
    if rows:
        connection.execute(_upsert(connection.dialect.name, table, keys, tuple(rows[0])), rows)


def upsert_one(connection: sa.Connection, table: sa.Table, keys: tuple[str, ...], **values: Any) -> None:
    """Insert a row, or update the one whose unique `keys` are there already; values may be SQL expressions."""
    connection.execute(_upsert(connection.dialect.name, table, keys, tuple(values)).values(values))


@cache
def _upsert(dialect: str, table: sa.Table, keys: tuple[str, ...], names: tuple[str, ...]) -> Any:
    statement = INSERTS[dialect](table)
    given = statement.inserted if dialect == "mysql" else statement.excluded
    fresh = {name: given[name] for name in names if name not in keys}
    if dialect == "mysql":
        return statement.on_duplicate_key_update(**fresh)
    return statement.on_conflict_do_update(index_elements=keys, set_=fresh)


def purge_trials(connection: sa.Connection, table: sa.Table, trial_ids: Collection[int] | sa.Select[Any]) -> None:
    """Delete what earlier trials with these ids have left in a table of ours. Only SQLite reuses ids."""
    if connection.dialect.name == "sqlite":
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(trial_ids)))


def store_fractions(engine: sa.Engine) -> None:
    """Alter the tables of a new MySQL or MariaDB database to keep fractions of a second, which a plain DATETIME drops.

    Optuna's own contract of a storage asks for them, and a short trial would take 0 seconds. One with studies is left
    as it is: whoever made it may not want its tables rebuilt.
    """
    columns = {column["name"]: column["type"] for column in sa.inspect(engine).get_columns("trials")}
    times = {name: kind for name, kind in columns.items() if isinstance(kind, mysql.DATETIME)}
    with engine.begin() as connection:
        if all(kind.fsp for kind in times.values()) or connection.execute(sa.select(STUDIES).limit(1)).first():
            return
        changes = ", ".join(f"MODIFY {name} DATETIME(6)" for name in times)
        connection.exec_driver_sql(f"ALTER TABLE trials {changes}")
