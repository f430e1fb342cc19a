"""Table of the studies in a storage."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.storage.tables import STUDIES, STUDY_DIRECTIONS, STUDY_USER_ATTRS, TRIALS, VALUES
from hpo.storage.url import check_file, connect_once, make_plain_engine, normalize, translate_connect_errors
from hpo.study.study import BUDGET, DEFINITION

__all__ = ["list_studies"]


def list_studies(url: str) -> list[dict[str, Any]]:
    """List the studies of a storage: progress, best value, objective and data set. Those of other tools have a note.

    Five statements in all, whatever the studies hold; no trial is read.

    Raises:
        StorageError: the storage cannot be opened.
    """
    parsed = normalize(url)
    check_file(parsed, create=False)
    with translate_connect_errors(parsed):
        if not connect_once(parsed):
            return []
        engine = make_plain_engine(parsed)
        with engine.connect() as connection:
            rows = _read_rows(connection)
        engine.dispose()
    return rows


def _read_rows(connection: sa.Connection) -> list[dict[str, Any]]:
    ours = sa.select(STUDY_USER_ATTRS.c.study_id, STUDY_USER_ATTRS.c.key, STUDY_USER_ATTRS.c.value_json).where(
        STUDY_USER_ATTRS.c.key.in_([DEFINITION, BUDGET])
    )
    attrs = {(row.study_id, row.key): json.loads(row.value_json) for row in connection.execute(ours)}
    grouped = sa.select(TRIALS.c.study_id, TRIALS.c.state, sa.func.count()).group_by(TRIALS.c.study_id, TRIALS.c.state)
    counts = {(row[0], row[1]): int(row[2]) for row in connection.execute(grouped)}
    best = _best_values(connection)
    studies = connection.execute(sa.select(STUDIES.c.study_id, STUDIES.c.study_name).order_by(STUDIES.c.study_name))
    return [_make_row(study_id, name, attrs, counts, best.get(study_id)) for study_id, name in studies]


def _best_values(connection: sa.Connection) -> dict[int, float]:
    """Return the best finite first objective of each study's COMPLETE trials, by the study's id."""
    valued_trials = TRIALS.join(VALUES, VALUES.c.trial_id == TRIALS.c.trial_id)
    finite = VALUES.c.value_type == models.TrialValueModel.TrialValueType.FINITE
    query = (
        sa.select(TRIALS.c.study_id, sa.func.max(VALUES.c.value), sa.func.min(VALUES.c.value))
        .select_from(valued_trials)
        .where(TRIALS.c.state == TrialState.COMPLETE, VALUES.c.objective == 0, finite)
        .group_by(TRIALS.c.study_id)
    )
    d = STUDY_DIRECTIONS.c
    first = sa.select(d.study_id, d.direction).where(d.objective == 0)
    directions = {row[0]: row[1] for row in connection.execute(first)}
    return {
        study_id: float(largest if directions[study_id] == StudyDirection.MAXIMIZE else smallest)
        for study_id, largest, smallest in connection.execute(query)
    }


def _make_row(
    study_id: int,
    name: str,
    attrs: dict[tuple[int, str], Any],
    counts: dict[tuple[int, TrialState], int],
    best: float | None,
) -> dict[str, Any]:
    states = {state.name.lower(): counts.get((study_id, state), 0) for state in TrialState}
    definition = attrs.get((study_id, DEFINITION))
    if definition is None:
        return {"name": name, "trials": sum(states.values()), **states, "best": best, "note": "not made by hpo"}
    return {
        "name": name,
        "trials": attrs[study_id, BUDGET]["trials"],
        **states,
        "best": best,
        "objective": ", ".join(objective["metric"] for objective in definition["objectives"]),
        "dataset": definition["dataset"]["name"],
        "sampler": definition["sampler"]["name"],
    }
