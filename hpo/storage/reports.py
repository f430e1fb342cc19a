"""Reports of trials in tables of ours: all metrics of every epoch, of each fit too, and the loss of every step."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from hpo.storage.optimize_leases import OptimizeStorage
from hpo.storage.stored_values import CONSTRAINT, FIT, RUNG, UnreadableError, parse_fits, parse_metrics
from hpo.storage.tables import EPOCHS, FITS, INTERMEDIATE_VALUES, SAMPLES, SPLITS, STEPS, TRIAL_SYSTEM_ATTRS
from hpo.storage.transient_errors import Result, with_retries

__all__ = ["EpochMetrics", "EpochSteps", "ReportStorage"]

EpochMetrics = dict[str, float]
Array = np.ndarray[Any, np.dtype[np.float32]]
FLOATS = "<f4"  # as the database holds them


@dataclass(frozen=True, eq=False)
class EpochSteps:
    """The steps of one epoch of training, in order.

    Attributes:
        epoch: its number, from 1.
        losses: the mean loss at each step, measured before it: (steps,), float32.
        seconds: of training at each step's end, counted from the trial's beginning: (steps,), float32.
    """

    epoch: int
    losses: Array
    seconds: Array


class ReportStorage(OptimizeStorage):
    """Optuna storage that also holds what a trial reports besides its objective."""

    def record_epoch(self, trial_id: int, epoch: int, metrics: EpochMetrics) -> None:
        """Store the metrics of one epoch of an unfinished trial; a second call for the epoch updates them.

        Raises:
            LeaseLostError: another worker has taken it over.
        """
        self._write_report(EPOCHS, trial_id, epoch, {"metrics": json.dumps(metrics)})

    def record_fits(self, trial_id: int, epoch: int, fits: Mapping[int, EpochMetrics]) -> None:
        """Store the metrics of one epoch of an unfinished trial by fit; a second call for the epoch updates them.

        Raises:
            LeaseLostError: another worker has taken it over.
        """
        names = dict.fromkeys(name for metrics in fits.values() for name in metrics)
        columns = {name: [metrics.get(name) for metrics in fits.values()] for name in names}
        self._write_report(FITS, trial_id, epoch, {"metrics": json.dumps({**columns, FIT: list(fits)})})

    def record_steps(self, trial_id: int, steps: EpochSteps) -> None:
        """Store the steps of one epoch of an unfinished trial; a second call for the epoch updates them.

        Raises:
            LeaseLostError: another worker has taken it over.
        """
        parts = {"losses": steps.losses, "seconds": steps.seconds}
        row = {name: part.astype(FLOATS).tobytes() for name, part in parts.items()}
        self._write_report(STEPS, trial_id, steps.epoch, row)

    def _write_report(self, table: sa.Table, trial_id: int, epoch: int, row: Mapping[str, Any]) -> None:
        held = self._leases.get(trial_id)
        self._trial(trial_id)
        place = {"attempt": held.attempt if held else 1, "epoch": epoch, "study_id": self._study_of[trial_id]}
        self._edit_trial(trial_id, table, {**place, **row}, lambda _: None)

    def read_epochs(self, study_id: int, trial_id: int | None = None) -> dict[int, list[EpochMetrics]]:
        """Read the metrics of every epoch by trial id, in order; of a trial's last attempt at each epoch."""
        found = self._read_reports(EPOCHS, study_id, trial_id, lambda row: parse_metrics(row.metrics))
        return {trial_id: list(rows.values()) for trial_id, rows in found.items()}

    def read_fits(self, study_id: int, trial_id: int | None = None) -> dict[int, dict[int, list[EpochMetrics]]]:
        """Read the metrics of every epoch by trial id and fit, in order; of a trial's last attempt at each epoch.

        Trials of one fit are left out.
        """
        found = self._read_reports(FITS, study_id, trial_id, lambda row: parse_fits(row.metrics))
        curves: dict[int, dict[int, list[EpochMetrics]]] = {}
        for each, epochs in found.items():
            fits = curves.setdefault(each, {})
            for rows in epochs.values():
                for fit, row in rows.items():
                    fits.setdefault(fit, []).append(row)
        return curves

    def read_steps(self, study_id: int, trial_id: int | None = None) -> dict[int, list[EpochSteps]]:
        """Read the steps of every epoch by trial id, in order; of a trial's last attempt at each epoch.

        Trials that have recorded none are left out.
        """
        found = self._read_reports(STEPS, study_id, trial_id, _parse_steps)
        return {trial_id: list(rows.values()) for trial_id, rows in found.items()}

    def read_samples(self, study_id: int) -> dict[int, dict[int, object]]:
        """Read the packed sample scores by trial id and number of the fit; of a trial's last attempt.

        What they hold is for `hpo.datasets.sample_codec` to read and to check.
        """
        columns = SAMPLES.c.trial_id, SAMPLES.c.attempt, SAMPLES.c.fit, SAMPLES.c.content
        query = sa.select(*columns).where(SAMPLES.c.study_id == study_id)

        def step(connection: sa.Connection) -> dict[int, dict[int, object]]:
            found: dict[int, dict[int, object]] = {}
            last: tuple[int, int] | None = None
            for row in connection.execute(query.order_by(*columns[:3])):
                if last != (row.trial_id, row.attempt):  # what an earlier attempt has kept counts no more
                    last = row.trial_id, row.attempt
                    found[row.trial_id] = {}
                found[row.trial_id][row.fit] = row.content
            return found

        return self.read(step)

    def read_splits(self, study_id: int) -> dict[str, object]:
        """Read the packed validation splits that sample scores are of, by digest."""
        query = sa.select(SPLITS.c.digest, SPLITS.c.content).where(SPLITS.c.study_id == study_id)
        return self.read(lambda connection: {row.digest: row.content for row in connection.execute(query)})

    def _read_reports(
        self, table: sa.Table, study_id: int, trial_id: int | None, read: Callable[[sa.Row[Any]], Result]
    ) -> dict[int, dict[int, Result]]:
        """Read a table of ours by trial id and epoch, in order; of the last attempt at each epoch.

        Rows that `read` cannot read are left out.
        """
        self.flush()
        query = (
            sa.select(table)
            .where(table.c.study_id == study_id, *([table.c.trial_id == trial_id] if trial_id is not None else []))
            .order_by(table.c.trial_id, table.c.epoch, table.c.attempt)
        )

        def step(connection: sa.Connection) -> dict[int, dict[int, Result]]:
            found: dict[int, dict[int, Result]] = {}
            for row in connection.execute(query):
                try:
                    found.setdefault(row.trial_id, {})[row.epoch] = read(row)
                except UnreadableError as error:
                    self.damage.add(study_id, f"a row of {table.name}", error)
            return found

        return self.read(step)

    @with_retries
    def read_last_epochs(self, study_id: int, trial_ids: Collection[int]) -> dict[int, int]:
        """Read the last epoch that each of these trials has in the database, by id."""
        mine = EPOCHS.c.study_id == study_id, EPOCHS.c.trial_id.in_(trial_ids)
        query = sa.select(EPOCHS.c.trial_id, sa.func.max(EPOCHS.c.epoch)).where(*mine).group_by(EPOCHS.c.trial_id)
        with self._transaction_lock, self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)} if trial_ids else {}

    def discard_reports(self, trial_id: int, after: int) -> None:
        """Delete what a trial of this process reported of the epochs after that one, from which it resumes.

        The rungs that it completed with these reports are forgotten as well: a pruner takes it for past them otherwise.
        So are its constraints, if it begins anew: Optuna ignores a second value.

        Raises:
            LeaseLostError: another worker has taken it over.
        """
        trial = self.get_trial(trial_id)
        kept = {step: value for step, value in trial.intermediate_values.items() if step <= after}
        attrs = trial.system_attrs
        stale = [key for key in attrs if key.startswith(RUNG) and attrs[key] not in kept.values()]
        stale += [key for key in attrs if key.startswith(CONSTRAINT) and after < 0]

        def step(connection: sa.Connection) -> None:
            for epoch in (EPOCHS.c.epoch, FITS.c.epoch, STEPS.c.epoch, INTERMEDIATE_VALUES.c.step):
                table = epoch.table
                connection.execute(sa.delete(table).where(table.c.trial_id == trial_id, epoch > after))
            if stale:
                mine = TRIAL_SYSTEM_ATTRS.c.trial_id == trial_id, TRIAL_SYSTEM_ATTRS.c.key.in_(stale)
                connection.execute(sa.delete(TRIAL_SYSTEM_ATTRS).where(*mine))

        study_id = self._study_of[trial_id]
        self._transact(study_id, step, trial_id=trial_id)
        trial.intermediate_values = kept
        trial.system_attrs = {key: value for key, value in attrs.items() if key not in stale}
        with self._state_lock:
            self._caches[study_id].put(trial)


def _parse_steps(row: sa.Row[Any]) -> EpochSteps:
    parts = row.losses, row.seconds
    if not all(isinstance(part, bytes) and len(part) % 4 == 0 for part in parts) or len({*map(len, parts)}) > 1:
        raise UnreadableError("the losses and seconds of an epoch are not as many numbers each")
    losses, seconds = (np.frombuffer(part, FLOATS).astype(np.float32) for part in parts)
    return EpochSteps(row.epoch, losses, seconds)
