"""Schema versions of a database, Optuna's and ours. Those that this installation does not know are refused."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import _rdb
from optuna.storages._rdb import models

from hpo.errors import StorageError

__all__ = ["VERSION", "Schema", "check_schema", "metadata", "read_schema"]

# Of our own tables. Whoever changes a column, or what it means, raises it and brings older tables up to date; a new
# table is no reason, for `create_all` adds it. Older installations then refuse what they would misread.
VERSION = 1

metadata = sa.MetaData()
VERSIONS = sa.Table("hpo_version", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
ALEMBIC = sa.table("alembic_version", sa.column("version_num"))


@sa.event.listens_for(VERSIONS, "after_create")
def _stamp(table: sa.Table, connection: sa.Connection, **_: Any) -> None:
    """Insert the version as the table is made, so that opening an existing database costs no statement for it."""
    connection.execute(sa.insert(table).values(version=VERSION))


@dataclass(frozen=True)
class Schema:
    """The versions of a database's tables.

    Attributes:
        revision: of Optuna's tables; None where another process is just making them, or Optuna is from before 0.9.
        ancient: whether Optuna is from before 0.9.
        ours: of our tables; None where there are none.
    """

    revision: str | None
    ancient: bool
    ours: int | None


def read_schema(connection: sa.Connection) -> Schema | None:
    """Read the versions; None where there are no tables of studies. At most four statements, none of which writes."""
    tables = sa.inspect(connection).get_table_names()
    if "studies" not in tables:
        return None
    revision = connection.execute(sa.select(ALEMBIC.c.version_num)).scalar() if ALEMBIC.name in tables else None
    ancient = False
    if revision is None and "version_info" in tables:
        # As Optuna has it: a version of that time was never 12, and a database being made has 12 or no row yet.
        stored = connection.execute(sa.select(models.VersionInfoModel.schema_version)).scalar()
        ancient = stored not in (None, models.SCHEMA_VERSION)
    ours = connection.execute(sa.select(VERSIONS.c.version)).scalar() if VERSIONS.name in tables else None
    return Schema(revision, ancient, ours)


def check_schema(schema: Schema, shown: str) -> None:
    """Refuse tables that are older or newer than those that this installation reads and writes.

    Args:
        schema: what the database has.
        shown: its URL without a password.

    Raises:
        StorageError: with the command that helps.
    """
    if schema.ours is not None and schema.ours > VERSION:
        raise StorageError(
            f"storage {shown}: a newer torch-hpo made its tables (version {schema.ours}, this one knows {VERSION}); "
            "get it with: pip install -U torch-hpo"
        )
    if schema.revision is None and not schema.ancient:
        return
    from alembic.script import ScriptDirectory  # late: it takes as long to import as a light command may take

    scripts = ScriptDirectory(str(Path(_rdb.__file__).parent / "alembic"))
    head = scripts.get_current_head()
    if schema.revision == head:
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if schema.ancient or schema.revision in known:
        raise StorageError(
            f"storage {shown}: an older Optuna made its tables ({schema.revision or 'before 0.9'}, Optuna "
            f"{optuna.__version__} needs {head}); make a copy of it, then upgrade it with: "
            f"optuna storage upgrade --storage {shlex.quote(shown)}"
        )
    raise StorageError(
        f"storage {shown}: a newer Optuna made its tables ({schema.revision}, Optuna {optuna.__version__} knows {head} "
        "and before); get it with: pip install -U optuna"
    )
