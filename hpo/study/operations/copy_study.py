"""Copies of studies in other databases: the same rows, under new ids.

Rows are copied raw, table by table, so that times, types and internal values arrive exactly. Only three things change:
ids, which the target assigns, also if they are part of a study attribute's key or value; trials in training, which
arrive as WAITING; and the study's key, because a copy has folders of its own for checkpoints and weights.

Files come first, and the study is committed last: whoever is killed before that can copy it again.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError

from hpo.errors import RequestError, StudyConflictError, StudyNotFoundError
from hpo.storage.limits import check_row
from hpo.storage.statements import FIXED, insert_attrs
from hpo.storage.stored_values import UnreadableError, is_whole, parse_distribution, parse_param, parse_value
from hpo.storage.study_storage import StudyStorage
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
    insert_one,
    metadata,
)
from hpo.study.attributes import read_table
from hpo.study.files.artifacts import PREFIX
from hpo.study.files.study_files import (
    KEY,
    KINDS,
    draw_key,
    files_by_number,
    link_files,
    make_study_folder,
    study_folder,
)
from hpo.study.input.study_file import check_name
from hpo.study.study import Study
from hpo.utils.paths import ROOM, is_own_file, study_path

__all__ = ["FileCopy", "copy_study"]

log = logging.getLogger("hpo.study")
WEIGHTS = ".safetensors"
REPORTS = (INTERMEDIATE_VALUES, EPOCHS, FITS, STEPS, SAMPLES)
BATCH = 2000  # rows read and inserted at a time
BLOBS = (STEPS, SAMPLES, SPLITS)  # whose rows may be large

# Keys and values of study attributes that hold ids of trials: notes, artifacts and skipped trials of optuna-dashboard
# 0.21, and the parents that Optuna's genetic samplers have selected for a generation.
KEYS_WITH_ID = re.compile(r"(dashboard:|dashboard:artifacts:|preference:skip_trial:)(\d+)(:.*|)")
VALUES_OF_IDS = re.compile(r"\w+:parent:\d+")

Row = dict[str, Any]


def copy_study(study: Study, target: StudyStorage, name: str) -> Study:
    """Copy a study with all its trials, its kept weights and its artifacts: all or nothing.

    The source is read as it is at one moment, and is not changed. A RUNNING trial arrives as WAITING, with its
    parameters fixed and without its reports, because its checkpoint belongs to the one in training.

    Raises:
        DefinitionError: the name is no valid name of a study.
        StudyConflictError: the target has a study of that name.
        StudyNotFoundError: the study was deleted meanwhile.
    """
    name = check_name(name, room=0 if name == study.name else ROOM)
    files = FileCopy(study, target, name)
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
        files.run(connection, new_study_id)

    target.write(step)
    files.link()  # once more: an `hpo gc` that ran meanwhile took the files for those of no study
    return Study(target, name)


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
        for table in (STUDY_DIRECTIONS, STUDY_USER_ATTRS, STUDY_SYSTEM_ATTRS, SPLITS):
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
        size = BATCH // 20 if table in BLOBS else BATCH
        result = self.source.execute(query.execution_options(yield_per=size))
        for part in result.mappings().partitions():
            self._insert(table, (row for original in part if (row := change(dict(original))) is not None))

    def _insert(self, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows without their ids, which the database assigns."""
        column = table.autoincrement_column
        id_name = None if column is None else column.name
        new_rows = [{name: value for name, value in row.items() if name != id_name} for row in rows]
        for row in new_rows:
            check_row(self.target.dialect, table, row)
        for start in range(0, len(new_rows), BATCH):
            self.target.execute(sa.insert(table), new_rows[start : start + BATCH])


class FileCopy:
    """Copy of the weights and artifacts of a study's trials, as far as they are here, for a new study.

    The files are there before the study is, in folders under a key that is drawn for it. Whoever is killed in between
    leaves folders of no study, for `hpo gc`. The header of weights keeps naming the study that trained them.

    Args:
        study: the study that has the files.
        storage: the storage of the new study, which may be the same one.
        name: the new study's name.
        numbers: new numbers of the trials by old ones; None if they are the same.
    """

    def __init__(
        self, study: Study, storage: StudyStorage, name: str, numbers: Mapping[int, int] | None = None
    ) -> None:
        self._url = storage.url
        self._name = name
        self._key = draw_key()
        self._numbers = numbers
        self._sources = _find_sources(study)
        self._ids: set[str] = set()

    def run(self, connection: sa.Connection, study_id: int) -> None:
        """Copy the files, and give the new study its key, in the transaction that inserts it, when its rows are
        there.
        """
        self._ids = {key.removeprefix(PREFIX) for key in connection.execute(_select_artifact_keys(study_id)).scalars()}
        self.link()
        own = STUDY_USER_ATTRS.c.study_id == study_id, STUDY_USER_ATTRS.c.key == KEY
        connection.execute(sa.delete(STUDY_USER_ATTRS).where(*own))  # the one that it was created with
        insert_attrs(connection, STUDY_USER_ATTRS, [(study_id, {KEY: self._key})])

    def link(self) -> None:
        """Link the files that are not there yet."""
        pairs = list(self._list_pairs())
        for kind in KINDS if pairs else ():
            make_study_folder(kind, self._name, self._key, self._url)
        link_files(pairs)

    def _list_pairs(self) -> Iterator[tuple[Path, Path]]:
        for kind, source in self._sources.items():
            to = study_path(kind, self._name, self._key)
            if kind == "artifacts":
                yield from ((source / each, to / each) for each in self._ids if is_own_file(source, each))
                continue
            for number, path in files_by_number(source, WEIGHTS).items():
                if self._numbers is None or number in self._numbers:
                    new = number if self._numbers is None else self._numbers[number]
                    yield path, to / f"{new}{WEIGHTS}"


def _find_sources(study: Study) -> dict[str, Path]:
    """Return the folders of a study's weights and artifacts; none where its key is not one that we have made.

    Raises:
        StudyNotFoundError: the study was deleted meanwhile.
    """
    try:
        folders = {kind: study_folder(kind, study) for kind in ("weights", "artifacts")}
    except RequestError as error:
        log.warning("no files are copied: %s", error)
        return {}
    except KeyError:
        raise StudyNotFoundError(
            f"study '{study.name}' in {study.storage.masked_url} has changed or is deleted"
        ) from None
    return {kind: folder for kind, folder in folders.items() if folder is not None}


def _select_artifact_keys(study_id: int) -> sa.CompoundSelect[Any]:
    """Select the keys of the attributes that name artifacts of a study and its trials."""
    pattern = f"{PREFIX}%"
    of_study = sa.select(STUDY_SYSTEM_ATTRS.c.key).where(STUDY_SYSTEM_ATTRS.c.study_id == study_id)
    of_trials = sa.select(TRIAL_SYSTEM_ATTRS.c.key).join(TRIALS, TRIALS.c.trial_id == TRIAL_SYSTEM_ATTRS.c.trial_id)
    return sa.union(
        of_study.where(STUDY_SYSTEM_ATTRS.c.key.like(pattern)),
        of_trials.where(TRIALS.c.study_id == study_id, TRIAL_SYSTEM_ATTRS.c.key.like(pattern)),
    )
