"""Our study's database while it runs: epochs as they appear, and trials at the end."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from benchmarks.rivals.curves import Curve

NEW_EPOCHS = "SELECT rowid, metrics FROM hpo_epochs WHERE rowid > ? ORDER BY rowid"
STATES = "SELECT state, count(*) FROM trials GROUP BY state"


class OurStudy:
    """Reader of a study's database.

    A worker keeps its epochs for up to a second before it writes them; so a score counts a little later than it was
    reached, and a rival's at once.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hpo.db"
        self.points: Curve = []
        self._last = 0

    def poll(self, began: float) -> None:
        """Note the epochs that have appeared, with the seconds since the start."""
        for number, metrics in self._read(NEW_EPOCHS, self._last):
            accuracy = json.loads(metrics).get("val_accuracy")
            self.points += [(time.time() - began, accuracy)] if accuracy is not None else []
            self._last = number

    def states(self) -> dict[str, int]:
        """Return the number of trials by state."""
        return dict(self._read(STATES))

    def _read(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Return a query's rows; none while there is no such table, or the database is busy."""
        if self.path.exists():
            with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as database:
                return database.execute(query, arguments).fetchall()
        return []
