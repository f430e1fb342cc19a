"""Studies and their attributes, as Optuna's storages have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy

from hpo.storage.limits import check_name, check_row
from hpo.storage.stored_values import UnreadableError, parse_system_attr, parse_value, shorten
from hpo.storage.tables import STUDIES, STUDY_DIRECTIONS, STUDY_SYSTEM_ATTRS, STUDY_USER_ATTRS
from hpo.storage.transactions import TransactionalStorage
from hpo.storage.transient_errors import with_retries

__all__ = ["StudyRecords"]


class StudyRecords(TransactionalStorage):
    """Optuna storage's part on studies; what is done to them goes through Optuna's own storage."""

    @contextmanager
    def _naming_deletion(self, study_id: int) -> Iterator[None]:
        """Replace Optuna's KeyError for a study that is not there by one that says so."""
        try:
            yield
        except KeyError:
            raise self._deletion(study_id) from None

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._rdb.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        with self._naming_deletion(study_id):
            self._rdb.delete_study(study_id)
        self._forget(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._check_attr(STUDY_USER_ATTRS, key, value)
        with self._naming_deletion(study_id):
            self._rdb.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._check_attr(STUDY_SYSTEM_ATTRS, key, value)
        with self._naming_deletion(study_id):
            self._rdb.set_study_system_attr(study_id, key, value)

    def _check_attr(self, table: sa.Table, key: str, value: Any) -> None:
        """Check an attribute that Optuna's storage is to write; its own error would not say what is wrong."""
        check_name(key)
        check_row(self.engine.dialect, table, {"key": key, "value_json": json.dumps(value)})

    def get_study_id_from_name(self, study_name: str) -> int:
        with self._state_lock:  # Optuna's Hyperband asks at every check of a trial
            for study_id, cache in self._caches.items():
                if cache.own and cache.name == study_name:
                    return study_id
        study_id = self._rdb.get_study_id_from_name(study_name)
        self._names[study_id] = study_name
        return study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        with self._naming_deletion(study_id):
            return self._rdb.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            with self._naming_deletion(study_id):
                self._directions[study_id] = self._rdb.get_study_directions(study_id)
        return list(self._directions[study_id])

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(STUDY_USER_ATTRS, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_attrs(STUDY_SYSTEM_ATTRS, study_id)

    @with_retries
    def _study_attrs(self, table: sa.Table, study_id: int) -> dict[str, Any]:
        """Read a study's attributes, in one statement that also tells whether the study exists."""
        joined = STUDIES.outerjoin(table, table.c.study_id == STUDIES.c.study_id)
        query = sa.select(table.c.key, table.c.value_json).select_from(joined).where(STUDIES.c.study_id == study_id)
        with self._transaction_lock, self.engine.connect() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise self._deletion(study_id)
        return self._parse_attrs(table, study_id, ((row.key, row.value_json) for row in rows if row.key is not None))

    def _parse_attrs(self, table: sa.Table, study_id: int, texts: Iterable[tuple[str, object]]) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        for key, text in texts:
            try:
                attrs[key] = parse_value(text) if table is STUDY_USER_ATTRS else parse_system_attr(key, text)
            except UnreadableError as error:
                self.damage.add(study_id, f"its attribute {shorten(key)}", error)
        return attrs

    @with_retries
    def get_all_studies(self) -> list[FrozenStudy]:
        # As Optuna's own storage has it, which ends at the first attribute of any study that is no JSON.
        d = STUDY_DIRECTIONS.c
        directions: dict[int, list[StudyDirection]] = {}
        attrs: dict[sa.Table, dict[int, list[tuple[str, object]]]] = {STUDY_USER_ATTRS: {}, STUDY_SYSTEM_ATTRS: {}}
        with self._transaction_lock, self.engine.connect() as connection:
            studies = connection.execute(sa.select(STUDIES).order_by(STUDIES.c.study_id)).all()
            for study_id, name in connection.execute(
                sa.select(d.study_id, sa.cast(d.direction, sa.Text)).order_by(d.study_id, d.objective)
            ):
                known = StudyDirection.__members__.get(name, StudyDirection.NOT_SET)
                directions.setdefault(study_id, []).append(known)
            for table, found in attrs.items():
                for row in connection.execute(sa.select(table)):
                    found.setdefault(row.study_id, []).append((row.key, row.value_json))
        parsed = {
            study_id: [self._parse_attrs(table, study_id, found.get(study_id, ())) for table, found in attrs.items()]
            for study_id, _ in studies
        }
        return [
            FrozenStudy(
                study_name=name,
                direction=None,
                directions=directions.get(study_id, [StudyDirection.NOT_SET]),
                user_attrs=parsed[study_id][0],
                system_attrs=parsed[study_id][1],
                study_id=study_id,
            )
            for study_id, name in studies
        ]
