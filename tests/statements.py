"""Counts the SQL statements that go through an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

__all__ = ["FLAT", "REPORTS", "Statements"]

REPORTS = 10
# Seven parameters, none of them conditional.
FLAT = {
    "widths": ["4", "8"],
    "batch_size": [64, 128],
    "activation": ["relu", "tanh"],
    "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "dropout": {"low": 0.0, "high": 0.5},
    "weight_decay": {"low": 1e-6, "high": 1e-3, "log": True},
    "patience": {"low": REPORTS, "high": REPORTS + 5},
    "optimizer": "adamw",
    "epochs": REPORTS,
}


class Statements:
    """How many statements an engine's connections have sent, BEGIN among them.

    A driver sends BEGIN by itself, so it is counted where SQLAlchemy announces it, on every database alike; one that is
    sent in words, as SQLite's that locks, is not counted again. A connection that commits each statement has none. A
    statement with many rows counts once; COMMIT and ROLLBACK, and a pool's pings, do not count.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.count = 0
        sa.event.listen(engine, "begin", self._begin)
        sa.event.listen(engine, "before_cursor_execute", self._execute)

    def _begin(self, connection: sa.Connection) -> None:
        self.count += not _commits_each(connection)

    def _execute(self, connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        in_words = statement.lstrip().upper().startswith("BEGIN")
        self.count += not in_words or _commits_each(connection)

    def per(self, trials: int, run: Callable[[], object]) -> float:
        """Statements per trial of something that runs that many trials."""
        before = self.count
        run()
        return (self.count - before) / trials


def _commits_each(connection: sa.Connection) -> bool:
    """Whether the driver opens no transactions."""
    driver: Any = connection.connection.dbapi_connection
    return connection.dialect.detect_autocommit_setting(driver)
