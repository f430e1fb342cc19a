"""Copies of studies in other databases: the same rows, under new ids.

Rows are copied raw, table by table, so that times, types and internal values arrive exactly. Only three things change:
ids, which the target assigns, also if they are part of a study attribute's key or value; trials in training, which
arrive as WAITING; and the study's key, because a copy has folders of its own for checkpoints and weights.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError

from hpo.errors import StudyConflictError
from hpo.storage.statements import FIXED
from hpo.storage.stored_values import UnreadableError, is_whole, parse_distribution, parse_param, parse_value
from hpo.storage.study_storage import StudyStorage
from hpo.storage.tables import (
    EPOCHS,
    INTERMEDIATE_VALUES,
    LEASES,
    PARAMS,
    STEPS,
    STUDIES,
    STUDY_DIRECTIONS,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    insert_one,
    metadata,
)
from hpo.study.attributes import read_table
from hpo.study.files.artifacts import list_artifact_ids
from hpo.study.files.study_files import KEY, StudyFiles, list_local_weights, study_folder
from hpo.study.input.study_file import check_name
from hpo.study.study import Study

__all__ = ["copy_files", "copy_study"]

log = logging.getLogger("hpo.study")
REPORTS = (INTERMEDIATE_VALUES, EPOCHS, STEPS)
BATCH = 2000  # rows read and inserted at a time

# Keys and values of study attributes that hold ids of trials: notes, artifacts and skipped trials of optuna-dashboard
# 0.21, and the parents that Optuna's genetic samplers have selected for a generation.
KEYS_WITH_ID = re.compile(r"(dashboard:|dashboard:artifacts:|preference:skip_trial:)(\d+)(:.*|)")
VALUES_OF_IDS = re.compile(r"\w+:parent:\d+")

Row = dict[str, Any]


def copy_study(study: Study, target: StudyStorage, name: str) -> Study:
    """Copy a study with all its trials in one transaction of the target, then its kept weights and its artifacts.

    The source is read as it is at one moment, and is not changed. A RUNNING trial arrives as WAITING, with its
    parameters fixed and without its reports, because its checkpoint belongs to the one in training.

    Raises:
        DefinitionError: the name is no valid name of a study.
        StudyConflictError: the target has a study of that name.
    """
    _copy_rows(study, target, check_name(name))
    copied = Study(target, name)
    copy_files(study, copied)
    return copied


def _copy_rows(study: Study, target: StudyStorage, name: str) -> None:
    study.storage.flush()  # this process may have buffered writes

    def step(connection: sa.Connection) -> None:
        try:
            new_study_id = insert_one(connection, STUDIES, study_name=name)
        except IntegrityError as error:
            raise StudyConflictError(
                f"{target.masked_url} has a study '{name}' already; give the copy another name with --as NEWNAME"
            ) from error
        with _read_snapshot(study.storage) as source:
            _Copier(source, connection, study.id, new_study_id).run()

    target.write(step)


@contextmanager
def _read_snapshot(storage: StudyStorage) -> Iterator[sa.Connection]:
    """Open a connection that sees the storage as it is now, whatever others write meanwhile."""
    with storage.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # its driver begins no transaction for reads
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


class _Copier:
    """Copier of one study from one database to another.

    Attributes:
        source, target: the two connections.
        study_id, new_study_id: the study's ids there.
    """

    def __init__(self, source: sa.Connection, target: sa.Connection, study_id: int, new_study_id: int) -> None:
        self.source = source
        self.target = target
        self.study_id = study_id
        self.new_study_id = new_study_id
        self.ids: dict[int, int] = {}  # of trials: new by old
        self.running: set[int] = set()  # old ids of the trials in training

    def run(self) -> None:
        """Copy everything; trials first, since the rest refers to them."""
        self._copy_trials()
        for table in (STUDY_DIRECTIONS, STUDY_USER_ATTRS, STUDY_SYSTEM_ATTRS):
            self._copy(table, self._select_by_study(table), self._move_study_row)
        for table in (PARAMS, VALUES, TRIAL_USER_ATTRS, TRIAL_SYSTEM_ATTRS, *REPORTS, LEASES):
            self._copy(table, self._select_by_trials(table), partial(self._move_trial_row, table))
        self._fix_parameters()

    def _copy_trials(self) -> None:
        """Insert the trials in order, and read the ids that they were given."""
        query = sa.select(TRIALS).where(TRIALS.c.study_id == self.study_id)
        ordered = query.order_by(TRIALS.c.number, TRIALS.c.trial_id)
        old = [dict(row) for row in self.source.execute(ordered).mappings()]
        self.running = {row["trial_id"] for row in old if row["state"] == TrialState.RUNNING}
        # They keep their starting time, as a trial does that its worker releases.
        waiting = {"state": TrialState.WAITING}
        owner = {"study_id": self.new_study_id}
        self._insert(TRIALS, ({**row, **owner, **(waiting if row["trial_id"] in self.running else {})} for row in old))
        query = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == self.new_study_id)
        new = self.target.execute(query.order_by(TRIALS.c.number, TRIALS.c.trial_id)).scalars()
        self.ids = {row["trial_id"]: int(trial_id) for row, trial_id in zip(old, new, strict=True)}
        self._delete_leftovers()

    def _delete_leftovers(self) -> None:
        """Delete rows of deleted trials from our tables, since SQLite assigns their ids again."""
        new_ids = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == self.new_study_id)
        for table in metadata.sorted_tables:
            if "trial_id" in table.c:
                self.target.execute(sa.delete(table).where(table.c.trial_id.in_(new_ids)))
            if "study_id" in table.c:
                self.target.execute(sa.delete(table).where(table.c.study_id == self.new_study_id))

    def _select_by_study(self, table: sa.Table) -> sa.Select[Any]:
        return sa.select(table).where(table.c.study_id == self.study_id)

    def _select_by_trials(self, table: sa.Table) -> sa.Select[Any]:
        rows = sa.select(table).join(TRIALS, TRIALS.c.trial_id == table.c.trial_id)
        return rows.where(TRIALS.c.study_id == self.study_id).order_by(*table.primary_key)

    def _move_study_row(self, row: Row) -> Row | None:
        """Return a row of the study as the target has it; None for one that is not copied."""
        if row.get("key") == KEY:
            return None
        row["study_id"] = self.new_study_id
        if (match := KEYS_WITH_ID.fullmatch(row.get("key") or "")) is not None:
            if int(match[2]) not in self.ids:
                return None  # of a deleted trial
            row["key"] = f"{match[1]}{self.ids[int(match[2])]}{match[3]}"
        elif VALUES_OF_IDS.fullmatch(row.get("key") or ""):
            parents = parse_value(row["value_json"])
            if isinstance(parents, list):
                moved = [self.ids[parent] for parent in parents if is_whole(parent) and parent in self.ids]
                row["value_json"] = json.dumps(moved)
        return row

    def _move_trial_row(self, table: sa.Table, row: Row) -> Row | None:
        """Return a row of a trial as the target has it; None for one that is not copied."""
        if row["trial_id"] in self.running and table in REPORTS:
            return None
        row["trial_id"] = self.ids[row["trial_id"]]
        if "study_id" in row:
            row["study_id"] = self.new_study_id
        if table is LEASES:
            row |= {"worker": None, "expires": 0.0}  # no worker's yet; the number of its last attempt stays
        return row

    def _fix_parameters(self) -> None:
        """Fix the parameters of the trials in training: those sampled so far, and those that were fixed already."""
        if not self.running:
            return
        new_ids = [self.ids[trial_id] for trial_id in self.running]
        where = TRIAL_SYSTEM_ATTRS.c.trial_id.in_(new_ids), TRIAL_SYSTEM_ATTRS.c.key == FIXED
        fixed: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in new_ids}
        for row in self.target.execute(sa.select(TRIAL_SYSTEM_ATTRS).where(*where)):
            fixed[row.trial_id] |= read_table({FIXED: parse_value(row.value_json)}, FIXED)
        for row in self.target.execute(sa.select(PARAMS).where(PARAMS.c.trial_id.in_(new_ids))):
            with suppress(UnreadableError):
                value = parse_param(parse_distribution(row.distribution_json), row.param_value)
                fixed[row.trial_id][row.param_name] = value
        self.target.execute(sa.delete(TRIAL_SYSTEM_ATTRS).where(*where))
        rows = [{"trial_id": id_, "key": FIXED, "value_json": json.dumps(params)} for id_, params in fixed.items()]
        self._insert(TRIAL_SYSTEM_ATTRS, rows)

    def _copy(self, table: sa.Table, query: sa.Select[Any], change: Callable[[Row], Row | None]) -> None:
        result = self.source.execute(query.execution_options(yield_per=BATCH))
        for part in result.mappings().partitions():
            self._insert(table, (row for original in part if (row := change(dict(original))) is not None))

    def _insert(self, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows without their ids, which the database assigns."""
        column = table.autoincrement_column
        id_name = None if column is None else column.name
        new_rows = [{name: value for name, value in row.items() if name != id_name} for row in rows]
        for start in range(0, len(new_rows), BATCH):
            self.target.execute(sa.insert(table), new_rows[start : start + BATCH])


def copy_files(study: Study, copied: Study, numbers: Mapping[int, int] | None = None) -> None:
    """Copy the weights and artifacts of a study's trials, as far as they are here, to another study with these trials.

    The header of weights keeps naming the study that trained them.

    Args:
        study: the study that has the files.
        copied: the study that has copies of its trials.
        numbers: new numbers of the trials by old ones; None if they are the same.
    """
    artifacts = study_folder("artifacts", study)
    weights = {
        number if numbers is None else numbers[number]: path
        for number, path in list_local_weights(study).items()
        if numbers is None or number in numbers
    }
    ids = list_artifact_ids(copied)
    saved = [path for each in ids if artifacts is not None and (path := artifacts / each).is_file()]
    if not weights and not saved:
        return
    files = StudyFiles(copied)
    pairs = [(path, files.weights(number)) for number, path in weights.items()]
    for path, to in [*pairs, *((path, files.folder("artifacts") / path.name) for path in saved)]:
        try:
            _link(path, to)
        except OSError as error:
            log.warning("%s: not copied (%s)", path, error.strerror)


def _link(path: os.PathLike[str], to: os.PathLike[str]) -> None:
    """Link a file, or copy it where there are no links: weights are replaced as a whole, never changed."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copy2(path, to)
