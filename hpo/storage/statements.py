"""SQL building blocks: statements on trials, attributes and slots, each a part of somebody's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.cache import WriteBuffer
from hpo.storage.limits import check_row
from hpo.storage.stored_values import FIXED
from hpo.storage.tables import (
    EPOCHS,
    FITS,
    INTERMEDIATE_VALUES,
    LEASES,
    PARAMS,
    SAMPLES,
    SPLITS,
    STEPS,
    STUDIES,
    STUDY_DIRECTIONS,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    WORK,
    WORKERS,
    insert_one,
    purge_trials,
    upsert,
    utc_time,
)

__all__ = [
    "FIXED",
    "add_trial",
    "add_trials",
    "count_trials",
    "delete_study",
    "fix_parameters",
    "fixed_row",
    "insert_attrs",
    "insert_slots",
    "purge_study",
    "set_state",
    "value_row",
]

TRIAL_TABLES = [table for table in models.BaseModel.metadata.sorted_tables if "trial_id" in table.c]

REPORTS = (EPOCHS, FITS, STEPS, SAMPLES)  # of ours: what trials report


def count_trials(connection: sa.Connection, study_id: int) -> int:
    """Count a study's trials, which gives the number of its next one."""
    query = sa.select(sa.func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


def add_trial(connection: sa.Connection, study_id: int, number: int, template: FrozenTrial | None = None) -> int:
    """Insert a trial, by default a RUNNING one without parameters or results; return its id."""
    trial_id = _insert_trial(connection, study_id, number, template)
    _purge_reports(connection, [trial_id])
    if template is not None:
        _rows_of(trial_id, template).write(connection)
    return trial_id


def add_trials(connection: sa.Connection, study_id: int, count: int) -> list[int]:
    """Insert RUNNING trials without parameters or results; return their ids."""
    first = count_trials(connection, study_id) if count > 0 else 0
    ids = [_insert_trial(connection, study_id, first + i) for i in range(count)]
    if ids:
        _purge_reports(connection, ids)
    return ids


def _insert_trial(connection: sa.Connection, study_id: int, number: int, template: FrozenTrial | None = None) -> int:
    state = TrialState.RUNNING if template is None else template.state
    began = utc_time() if template is None else template.datetime_start and utc_time(template.datetime_start)
    ended = template and template.datetime_complete and utc_time(template.datetime_complete)
    values = {"number": number, "state": state, "datetime_start": began, "datetime_complete": ended}
    return insert_one(connection, TRIALS, study_id=study_id, **values)


def _purge_reports(connection: sa.Connection, trial_ids: Collection[int]) -> None:
    """Delete what earlier trials with these ids have reported: one look, for hardly ever is there anything."""
    if connection.dialect.name != "sqlite":  # which reuses ids
        return
    left = sa.or_(*(sa.exists().where(table.c.trial_id.in_(trial_ids)) for table in REPORTS))
    if connection.execute(sa.select(left)).scalar():
        for table in REPORTS:
            purge_trials(connection, table, trial_ids)


def _rows_of(trial_id: int, trial: FrozenTrial) -> WriteBuffer:
    rows = WriteBuffer()
    for objective, value in enumerate(trial.values or ()):
        rows.add(VALUES, value_row(trial_id, objective, value))
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        stored = {
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        rows.add(PARAMS, {"trial_id": trial_id, "param_name": name, **stored})
    for table, attrs in ((TRIAL_USER_ATTRS, trial.user_attrs), (TRIAL_SYSTEM_ATTRS, trial.system_attrs)):
        for key, value in attrs.items():
            rows.add(table, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})
    for step, value in trial.intermediate_values.items():
        real, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": real, "intermediate_value_type": kind}
        rows.add(INTERMEDIATE_VALUES, {"trial_id": trial_id, **row})
    return rows


def value_row(trial_id: int, objective: int, value: float) -> dict[str, Any]:
    """Return an objective value as a row of Optuna's table, which cannot hold infinity as such."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}


def set_state(connection: sa.Connection, trial_id: int, state: TrialState) -> bool:
    """Change an unfinished trial's state, to RUNNING only from WAITING; return whether it was changed."""
    changed = sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id)
    if state == TrialState.RUNNING:
        changed = changed.where(TRIALS.c.state == TrialState.WAITING).values(datetime_start=utc_time())
    elif state.is_finished():
        changed = changed.values(datetime_complete=utc_time())
    return connection.execute(changed.values(state=state)).rowcount == 1


def fix_parameters(connection: sa.Connection, trials: Collection[FrozenTrial]) -> None:
    """Fix the parameters of WAITING trials to those that they had, as Optuna's `enqueue_trial` does."""
    upsert(connection, TRIAL_SYSTEM_ATTRS, ("trial_id", "key"), [fixed_row(trial) for trial in trials])


def fixed_row(trial: FrozenTrial) -> dict[str, Any]:
    """Return the row that fixes the parameters of a WAITING trial to those that it had."""
    fixed = {**trial.system_attrs.get(FIXED, {}), **trial.params}
    return {"trial_id": trial._trial_id, "key": FIXED, "value_json": json.dumps(fixed)}


def insert_attrs(connection: sa.Connection, table: sa.Table, owners: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Insert attributes into one of Optuna's attribute tables; `owners` pairs the id of a study or trial with them.

    Raises:
        StorageLimitError: one of them is too long for the database.
    """
    owner_column = "study_id" if "study_id" in table.c else "trial_id"
    rows = [
        {owner_column: owner, "key": key, "value_json": json.dumps(value)}
        for owner, attrs in owners
        for key, value in attrs.items()
    ]
    for row in rows:
        check_row(connection.dialect, table, row)
    if rows:
        connection.execute(sa.insert(table), rows)


def insert_slots(connection: sa.Connection, study_id: int, slots: Sequence[Mapping[str, object]]) -> None:
    """Insert WAITING trials with fixed parameters, as Optuna's `enqueue_trial` leaves them."""
    if not slots:
        return
    first = count_trials(connection, study_id)
    rows = [{"study_id": study_id, "number": first + i, "state": TrialState.WAITING} for i in range(len(slots))]
    connection.execute(sa.insert(TRIALS), rows)
    new = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id, TRIALS.c.number >= first)
    ids = [int(trial_id) for trial_id in connection.execute(new.order_by(TRIALS.c.number)).scalars()]
    for table in (*REPORTS, LEASES):
        purge_trials(connection, table, new)
    fixed = [(i, {FIXED: dict(params)}) for i, params in zip(ids, slots, strict=True)]
    insert_attrs(connection, TRIAL_SYSTEM_ATTRS, fixed)


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Delete a study with its trials from Optuna's tables.

    Optuna's own way reads each row before it deletes it, and so cannot delete what it cannot read.

    Raises:
        KeyError: there is no such study.
    """
    ids = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    for table in TRIAL_TABLES:
        if table is not TRIALS:
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
    for table in (TRIALS, STUDY_DIRECTIONS, STUDY_USER_ATTRS, STUDY_SYSTEM_ATTRS):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    if connection.execute(sa.delete(STUDIES).where(STUDIES.c.study_id == study_id)).rowcount == 0:
        raise KeyError(models.NOT_FOUND_MSG)


def purge_study(connection: sa.Connection, study_id: int) -> None:
    """Delete all that our tables hold of a study."""
    for table in (EPOCHS, FITS, STEPS, SAMPLES, SPLITS, LEASES, WORK, WORKERS):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
