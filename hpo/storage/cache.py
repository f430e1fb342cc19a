"""Trial cache and write buffer of StudyStorage."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.limits import MANY
from hpo.storage.stored_values import PAUSED
from hpo.storage.tables import (
    EPOCHS,
    FITS,
    INTERMEDIATE_VALUES,
    PARAMS,
    STEPS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    VALUES,
    upsert,
)
from hpo.storage.trial_query import Snapshot, TrialQuery

__all__ = ["FINAL", "TrialCache", "WriteBuffer", "copy_trial"]

FINAL = (TrialState.COMPLETE, TrialState.PRUNED)  # FAIL is not: a failed trial may be tried again
KEYS: dict[sa.Table, tuple[str, ...]] = {
    PARAMS: ("trial_id", "param_name"),
    INTERMEDIATE_VALUES: ("trial_id", "step"),
    TRIAL_USER_ATTRS: ("trial_id", "key"),
    TRIAL_SYSTEM_ATTRS: ("trial_id", "key"),
    VALUES: ("trial_id", "objective"),
    EPOCHS: ("trial_id", "attempt", "epoch"),
    FITS: ("trial_id", "attempt", "epoch"),
    STEPS: ("trial_id", "attempt", "epoch"),
}


def copy_trial(trial: FrozenTrial) -> FrozenTrial:
    """Copy a trial, so that the copy can be changed while readers keep the original."""
    twin = copy.copy(trial)
    twin.params = dict(trial.params)
    twin.distributions = dict(trial.distributions)
    twin.user_attrs = dict(trial.user_attrs)
    twin.system_attrs = dict(trial.system_attrs)
    twin.intermediate_values = dict(trial.intermediate_values)
    return twin


class TrialCache:
    """Cache of one study's trials: others' as last read, this process's own as it has written them.

    Frozen trials are replaced, never changed, so that a reader may keep the one it was given.

    Attributes:
        name: of the study.
        trials: by id.
        own: ids of the trials that this process runs; what it holds of them counts, not what is read.
        read_at: when others' changes were last read, in seconds of a clock that only grows.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.trials: dict[int, FrozenTrial] = {}
        self.own: set[int] = set()
        self.read_at = float("-inf")
        self._distributions: dict[str, BaseDistribution] = {}
        self._waiting: set[int] = set()
        self._open: set[int] = set()
        self._paused: dict[int, str] = {}  # what keeps each paused, as the database has it
        self._last = -1
        self._anchor: int | None = None
        self._order: list[int] = []

    def update(self, snapshot: Snapshot) -> None:
        """Store what was read, except of the trials that this process runs and nobody else has ended."""
        self.name = snapshot.name
        for trial in snapshot.trials:
            if trial._trial_id not in self.own or trial.state.is_finished():
                self.own.discard(trial._trial_id)
                self.put(trial)
        self.read_at = time.monotonic()

    def put(self, trial: FrozenTrial) -> None:
        """Store one trial."""
        trial_id = trial._trial_id
        self.trials[trial_id] = trial
        self._last = max(self._last, trial_id)
        # A slot that nobody has begun yet; one that was given back keeps the time of its start.
        fresh = trial.state == TrialState.WAITING and trial.datetime_start is None
        final = trial.state in FINAL
        paused = trial.state == TrialState.WAITING and PAUSED in trial.system_attrs
        (self._waiting.add if fresh else self._waiting.discard)(trial_id)
        (self._open.discard if fresh or final or paused else self._open.add)(trial_id)
        self._paused.pop(trial_id, None)
        if paused and not fresh:
            self._paused[trial_id] = json.dumps(trial.system_attrs[PAUSED])
        if final:
            self._anchor = trial_id
        for name, distribution in trial.distributions.items():
            self._distributions.setdefault(name, distribution)

    def is_stale_for(self, snapshot: Snapshot) -> bool:
        """Return whether the snapshot is of another study than the cached one: SQLite reuses the ids of a deleted
        study.
        """
        ended: datetime | None = self.trials[self._anchor].datetime_complete if self._anchor is not None else None
        missing = self._reread_ids() - {trial._trial_id for trial in snapshot.trials}
        return (self.name is not None and snapshot.name != self.name) or ended != snapshot.anchor or bool(missing)

    def check_distribution(self, name: str, distribution: BaseDistribution) -> None:
        """Check that a distribution is compatible with the one that the study has for this parameter.

        Raises:
            ValueError: the distributions are not compatible.
        """
        if name in self._distributions:
            check_distribution_compatibility(self._distributions[name], distribution)

    def _reread_ids(self) -> set[int]:
        """Return the ids that every read asks for: others' unfinished and failed trials, and of the slots that wait,
        and of the trials that are paused, one each.
        """
        some = {max(group) for group in (self._waiting, self._paused) if group}
        return (self._open - self.own) | some

    def query(self, also: Iterable[int] = ()) -> TrialQuery:
        """Return a query for all that others may have changed since the last read.

        New trials; unfinished and failed ones; and those that are paused, or wait as slots, no longer. Slots come
        nearly in a row, so their range says which, with those in it that are known to wait no longer: naming 2,700 of
        them would be a statement of its own length.

        Args:
            also: trials of this process that are to be read as well.
        """
        first, last = (min(self._waiting), max(self._waiting)) if self._waiting else (1, 0)
        # A cohort takes slots from among others.
        passed = tuple(i for i in self.trials if first < i < last and i not in self._waiting)
        paused = dict(islice(self._paused.items(), MANY))  # further ones are read whether or not they have changed
        named = tuple(self._reread_ids().union(also, self._paused.keys() - paused.keys()))
        return TrialQuery(self._last, named, (first, last), passed, self._anchor, paused)

    def trials_by_number(self) -> list[FrozenTrial]:
        """Return the trials in order of their numbers; samplers and pruners ask for them often."""
        if len(self._order) != len(self.trials):
            self._order = sorted(self.trials, key=lambda trial_id: self.trials[trial_id].number)
        return [self.trials[trial_id] for trial_id in self._order]


class WriteBuffer:
    """Buffer of rows that are yet to be written; a later row with the same key replaces an earlier one."""

    def __init__(self) -> None:
        self._rows: dict[tuple[sa.Table, tuple[Any, ...]], dict[str, Any]] = {}
        self.since: float | None = None

    def add(self, table: sa.Table, row: dict[str, Any]) -> None:
        """Add a row, in place of an earlier one with the same key."""
        self._rows[table, tuple(row[name] for name in KEYS[table])] = row
        if self.since is None:
            self.since = time.monotonic()

    def take(self) -> WriteBuffer:
        """Return all rows and empty the buffer."""
        taken = WriteBuffer()
        taken._rows, taken.since = self._rows, self.since
        self._rows, self.since = {}, None
        return taken

    def restore(self, taken: WriteBuffer) -> None:
        """Put rows back that could not be written; rows that were added since take precedence."""
        self._rows = {**taken._rows, **self._rows}
        self.since = taken.since if taken.since is not None else self.since

    @property
    def trial_ids(self) -> set[int]:
        """Ids of the trials that have rows here."""
        return {row["trial_id"] for row in self._rows.values()}

    def drop(self, trial_ids: Iterable[int]) -> None:
        """Drop the rows of trials that are no longer ours to write."""
        dropped = set(trial_ids)
        self._rows = {key: row for key, row in self._rows.items() if row["trial_id"] not in dropped}
        self.since = self.since if self._rows else None

    def write(self, connection: sa.Connection) -> None:
        """Write the rows, with one statement per table."""
        for table, keys in KEYS.items():
            upsert(connection, table, keys, [row for (of, _), row in self._rows.items() if of is table])
