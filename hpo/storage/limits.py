"""Limits of what a database stores.

They are checked before a row waits to be written: the database would refuse it a second later, with all that is written
along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from hpo.errors import StorageLimitError

__all__ = ["MANY", "check_name", "check_row", "check_step", "is_among"]

LARGEST_STEP, LONGEST_NAME = 2**31 - 1, 512  # in Optuna's tables
MANY = 10_000  # ids that a statement has as parameters: SQLite allows 32,766 of them, PostgreSQL 65,535
TEXT_BYTES = 2**16 - 1  # of MySQL's TEXT


def is_among(column: sa.Column[int], ids: Collection[int]) -> sa.ColumnElement[bool]:
    """Return an expression for whether a column's value is one of some ids, of which there may be any number."""
    literal = len(ids) > MANY
    return column.in_(sa.bindparam(None, list(ids), sa.Integer, expanding=True, literal_execute=literal))


def check_name(name: str) -> None:
    """Check the name of an attribute or a parameter.

    Raises:
        StorageLimitError: it is too long, or has characters that no column can hold.
    """
    if len(name) > LONGEST_NAME:
        raise StorageLimitError(f"name '{name[:40]}…' has {len(name)} characters; it must have at most {LONGEST_NAME}")
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise StorageLimitError(f"name {name!r} has a character that databases do not store; leave it out")


def check_step(step: int) -> None:
    """Check the step of a reported value.

    Raises:
        StorageLimitError: it is too large.
    """
    if abs(step) > LARGEST_STEP:
        raise StorageLimitError(f"step = {step}: must be at most {LARGEST_STEP}")


def check_row(dialect: sa.Dialect, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Check the lengths of a row's texts, which MySQL and MariaDB alone limit.

    Raises:
        StorageLimitError: one of them is too long.
    """
    if dialect.name != "mysql":
        return
    for column, value in row.items():
        if not isinstance(value, str) or (size := len(value.encode(errors="surrogatepass"))) <= TEXT_BYTES:
            continue
        kind = table.c[column].type.dialect_impl(dialect)
        if isinstance(kind, sa.Text) and not isinstance(kind, mysql.MEDIUMTEXT):
            raise StorageLimitError(
                f"{_describe(row)} takes {size:,} bytes, but MySQL and MariaDB store at most {TEXT_BYTES:,}: store "
                "less, keep it in a file and store the path, or use PostgreSQL or SQLite"
            )


def _describe(row: Mapping[str, Any]) -> str:
    if "key" in row:
        return f"attribute '{row['key']}'"
    return f"parameter '{row['param_name']}'" if "param_name" in row else f"the metrics of epoch {row.get('epoch')}"
