"""Table of the studies in a storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.config.registry import NO_DATA
from hpo.errors import StudyDamagedError
from hpo.storage.stored_values import is_number, parse_value
from hpo.storage.tables import STUDIES, STUDY_DIRECTIONS, STUDY_USER_ATTRS, TRIALS, VALUES
from hpo.storage.url import check_file, connect_once, make_plain_engine, mask, normalize, translate_connect_errors
from hpo.study.attributes import BUDGET, DEFINITION, StudyAttributes

__all__ = ["list_studies"]


def list_studies(url: str) -> list[dict[str, Any]]:
    """List the studies of a storage: progress, best value, objective, and data set if one is named.

    Evaluations and the studies of outer folds follow the study that they are `of`. Those of other tools have a note,
    and so have those whose definition or budget cannot be read.

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
            rows = _read_rows(connection, mask(parsed))
        engine.dispose()
    return rows


def _read_rows(connection: sa.Connection, storage: str) -> list[dict[str, Any]]:
    ours = sa.select(STUDY_USER_ATTRS.c.study_id, STUDY_USER_ATTRS.c.key, STUDY_USER_ATTRS.c.value_json).where(
        STUDY_USER_ATTRS.c.key.in_([DEFINITION, BUDGET])
    )
    attrs: dict[int, dict[str, Any]] = {}
    for study_id, key, text in connection.execute(ours):
        attrs.setdefault(study_id, {})[key] = parse_value(text)
    state = sa.cast(TRIALS.c.state, sa.Text)
    grouped = sa.select(TRIALS.c.study_id, state, sa.func.count()).group_by(TRIALS.c.study_id, state)
    counts: dict[int, dict[str, int]] = {}
    for study_id, name, count in connection.execute(grouped):
        counts.setdefault(study_id, {})[name] = int(count)
    best = _best_values(connection)
    studies = connection.execute(sa.select(STUDIES.c.study_id, STUDIES.c.study_name).order_by(STUDIES.c.study_name))
    rows = [
        _make_row(StudyAttributes(name, storage, attrs.get(study_id, {})), counts.get(study_id, {}), best.get(study_id))
        for study_id, name in studies
    ]
    return _group(rows)


def _group(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each companion after the study that it is of; one whose study is not here stands by itself."""
    by_name = {row["name"]: row for row in rows}

    def path(row: dict[str, Any]) -> tuple[str, ...]:
        names = [row["name"]]
        while (of := by_name[names[-1]].get("of")) in by_name and of not in names:
            names.append(of)
        return tuple(reversed(names))

    return sorted(rows, key=path)


def _best_values(connection: sa.Connection) -> dict[int, float]:
    """Return the best finite first objective of each study's COMPLETE trials, by the study's id."""
    valued_trials = TRIALS.join(VALUES, VALUES.c.trial_id == TRIALS.c.trial_id)
    finite = sa.cast(VALUES.c.value_type, sa.Text) == models.TrialValueModel.TrialValueType.FINITE.name
    query = (
        sa.select(TRIALS.c.study_id, sa.func.max(VALUES.c.value), sa.func.min(VALUES.c.value))
        .select_from(valued_trials)
        .where(TRIALS.c.state == TrialState.COMPLETE, VALUES.c.objective == 0, finite)
        .group_by(TRIALS.c.study_id)
    )
    d = STUDY_DIRECTIONS.c
    maximized = sa.select(d.study_id).where(d.objective == 0, d.direction == StudyDirection.MAXIMIZE)
    largest_is_best = set(connection.execute(maximized).scalars())
    best = {row[0]: row[1] if row[0] in largest_is_best else row[2] for row in connection.execute(query)}
    return {study_id: float(value) for study_id, value in best.items() if is_number(value)}


def _make_row(attrs: StudyAttributes, counts: Mapping[str, int], best: float | None) -> dict[str, Any]:
    states = {state.name.lower(): counts.get(state.name, 0) for state in TrialState}
    row = {"name": attrs.study, "trials": sum(counts.values()), **states, "best": best}
    if DEFINITION not in attrs.values:
        return {**row, "note": "not made by hpo"}
    try:
        definition, budget = attrs.definition, attrs.budget
    except StudyDamagedError as error:
        return {**row, "note": f"damaged: {error.damage}"}
    return {
        **row,
        "trials": budget.trials,
        "objective": ", ".join(objective.metric for objective in definition.objectives),
        "dataset": None if definition.dataset.name == NO_DATA else definition.dataset.name,
        "sampler": definition.sampler.name,
        "of": definition.companion_of,
    }
