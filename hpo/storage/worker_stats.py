"""Worker statistics: trials told, cohort sizes, throughput, and shares of time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa

from hpo.storage.clock import database_clock
from hpo.storage.stored_values import is_finite
from hpo.storage.tables import WORK, upsert_one

__all__ = [
    "Activity",
    "WorkRecorder",
    "WorkRow",
    "WorkSummary",
    "begin_work",
    "read_work",
    "summarize_work",
    "write_work",
]

Activity = Literal["training", "storage", "sampling"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


class WorkRecorder:
    """Recorder of one worker's statistics.

    Attributes:
        told: trials whose results it has told.
        cohorts: how many it has begun.
        members: trials in them.
        seconds: by activity; each second counts once, for the innermost activity. The rest of its time it waited.
    """

    def __init__(self) -> None:
        self.told = self.cohorts = self.members = 0
        self.seconds: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)
        self._now: Activity | None = None
        self._since = time.perf_counter()

    @contextmanager
    def measure(self, activity: Activity) -> Iterator[None]:
        """Count the time in here as that activity's; the activity around it is paused."""
        outer = self._switch(activity)
        try:
            yield
        finally:
            self._switch(outer)

    def current_seconds(self) -> dict[Activity, float]:
        """Return the seconds by activity, the present one's up to now included; other threads may call it, too."""
        seconds, activity = dict(self.seconds), self._now
        if activity is not None:
            seconds[activity] += time.perf_counter() - self._since
        return seconds

    def _switch(self, activity: Activity | None) -> Activity | None:
        now, before = time.perf_counter(), self._now
        if before is not None:
            self.seconds[before] += now - self._since
        self._now, self._since = activity, now
        return before


@dataclass(frozen=True)
class WorkRow:
    """A row of the table of worker statistics; times by the database's clock, in seconds since 1970."""

    worker: str
    told: int
    cohorts: int
    members: int
    training: float
    storage: float
    sampling: float
    since: float
    until: float


@dataclass(frozen=True)
class WorkSummary:
    """Summary of all workers of a study, including those that have ended.

    Attributes:
        workers: how many there have been.
        told: trials that they have told.
        cohort_size: trials that they trained at the same time, on average over the cohorts; None before the first.
        trials_per_hour: told in an hour in which at least one worker was there; None before the first.
        training, storage, sampling: shares of the time that all workers were there; the rest of it they waited.
    """

    workers: int
    told: int
    cohort_size: float | None
    trials_per_hour: float | None
    training: float
    storage: float
    sampling: float

    @property
    def text(self) -> str:
        """The summary in one line."""
        cohorts = "" if self.cohort_size is None else f"cohorts of {self.cohort_size:g} on average; "
        rate = f"{self.trials_per_hour:,.0f} trials per hour{', ' if cohorts else '; '}" if self.trials_per_hour else ""
        shares = ", ".join(f"{getattr(self, name):.1%} {name}" for name in ACTIVITIES)
        return f"{rate}{cohorts}of the workers' time {shares}"


def summarize_work(rows: Sequence[WorkRow]) -> WorkSummary | None:
    """Summarize the rows of all workers; None where there are none."""
    if not rows:
        return None
    there = sum(row.until - row.since for row in rows)
    covered = _attended_seconds(rows)
    told, cohorts = sum(row.told for row in rows), sum(row.cohorts for row in rows)

    def share(seconds: float) -> float:
        return round(min(1.0, seconds / there), 4) if there > 0 else 0.0

    return WorkSummary(
        workers=len(rows),
        told=told,
        cohort_size=round(sum(row.members for row in rows) / cohorts, 2) if cohorts else None,
        trials_per_hour=round(told / covered * 3600, 1) if told and covered > 0 else None,
        training=share(sum(row.training for row in rows)),
        storage=share(sum(row.storage for row in rows)),
        sampling=share(sum(row.sampling for row in rows)),
    )


def _attended_seconds(rows: Sequence[WorkRow]) -> float:
    """Return the seconds in which at least one worker was there."""
    seconds, end = 0.0, float("-inf")
    for row in sorted(rows, key=lambda row: row.since):
        seconds += max(0.0, row.until - max(row.since, end))
        end = max(end, row.until)
    return seconds


# Parts of transactions.


def begin_work(connection: sa.Connection, study_id: int, worker: str) -> None:
    """Insert the row of a worker that has done nothing yet."""
    now = database_clock(connection)
    place = {"worker": worker, "study_id": study_id, "since": now, "until": now}
    upsert_one(connection, WORK, ("worker",), **place, **_work_values(WorkRecorder()))


def write_work(connection: sa.Connection, worker: str, work: WorkRecorder) -> None:
    """Write a worker's statistics up to now."""
    mine = sa.update(WORK).where(WORK.c.worker == worker)
    connection.execute(mine.values(until=database_clock(connection), **_work_values(work)))


def _work_values(work: WorkRecorder) -> dict[str, float]:
    seconds = {str(activity): seconds for activity, seconds in work.current_seconds().items()}
    return {"told": work.told, "cohorts": work.cohorts, "members": work.members, **seconds}


def read_work(connection: sa.Connection, study_id: int) -> list[WorkRow]:
    """Read the statistics of a study's workers, by name; those that are no numbers are left out."""
    names = [column.name for column in WORK.c if column.name != "study_id"]
    query = sa.select(*(WORK.c[name] for name in names)).where(WORK.c.study_id == study_id).order_by(WORK.c.worker)
    return [WorkRow(*row) for row in connection.execute(query) if all(map(is_finite, row[1:]))]
