"""Query that reads any of a study's trials in one statement."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.tables import (
    INTERMEDIATE_VALUES,
    PARAMS,
    STUDIES,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    local_time,
)

__all__ = ["Snapshot", "TrialQuery", "read_snapshot"]

STUDY, TRIAL, PARAM, VALUE, USER_ATTR, SYSTEM_ATTR, INTERMEDIATE = range(7)


@dataclass(frozen=True)
class Snapshot:
    """Result of a TrialQuery.

    Attributes:
        name: of the study; None where it does not exist.
        anchor: when the trial that was named as anchor ended; None where there is none.
        trials: those that were asked for, by their ids.
    """

    name: str | None
    anchor: datetime | None
    trials: list[FrozenTrial]


@dataclass(frozen=True)
class TrialQuery:
    """Selection of trials: all after an id, those named, and those in a range of ids that no longer wait.

    Attributes:
        after: ids above this one.
        named: ids.
        slots: the first and the last id of slots that nobody had begun, as far as is known; an empty range is (1, 0).
        passed: ids in that range that are not read.
        anchor: the trial whose end tells this study from another that was given its ids.
    """

    after: int = -1
    named: tuple[int, ...] = ()
    slots: tuple[int, int] = (1, 0)
    passed: tuple[int, ...] = ()
    anchor: int | None = None


def read_snapshot(connection: sa.Connection, study_id: int, wanted: TrialQuery) -> Snapshot:
    """Read the study's name, when its trial `wanted.anchor` ended, and the selected trials, in one statement."""
    given = {"study": study_id, "after": wanted.after, "named": wanted.named, "anchor": wanted.anchor}
    first, last = wanted.slots
    return _assemble(connection.execute(_query(), {**given, "first": first, "last": last, "passed": wanted.passed}))


@cache  # building it takes longer than running it
def _query() -> sa.CompoundSelect[Any]:
    """Build a union of the tables that hold a trial.

    Every row has a kind, the trial's id, a number, two texts, a float, and two times.
    """
    study_id: sa.BindParameter[int] = sa.bindparam("study", type_=sa.Integer)
    begun = (TRIALS.c.state != TrialState.WAITING) | TRIALS.c.datetime_start.is_not(None)
    mine = (TRIALS.c.study_id == study_id) & (
        (TRIALS.c.trial_id > sa.bindparam("after"))
        | TRIALS.c.trial_id.in_(sa.bindparam("named", expanding=True))
        | sa.and_(
            TRIALS.c.trial_id.between(sa.bindparam("first"), sa.bindparam("last")),
            begun,
            TRIALS.c.trial_id.not_in(sa.bindparam("passed", expanding=True)),
        )
    )
    wanted = sa.select(TRIALS.c.trial_id).where(mine).cte("wanted")
    ids = sa.select(wanted.c.trial_id)
    text, real = sa.cast(sa.null(), sa.Text), sa.cast(sa.null(), sa.Double)
    time = sa.cast(sa.null(), sa.DateTime)

    def part(kind: int, table: sa.Table, number: Any, first: Any, second: Any, value: Any) -> sa.Select[Any]:
        row: list[Any] = [sa.literal_column(str(kind)), table.c.trial_id, number, first, second, value, time, time]
        return sa.select(*row).where(table.c.trial_id.in_(ids))

    trials = sa.select(
        sa.literal_column(str(TRIAL)).label("kind"),
        TRIALS.c.trial_id.label("trial_id"),
        TRIALS.c.number.label("number"),
        sa.cast(TRIALS.c.state, sa.Text).label("first"),
        text.label("second"),
        real.label("value"),
        TRIALS.c.datetime_start.label("began"),
        TRIALS.c.datetime_complete.label("ended"),
    ).where(TRIALS.c.trial_id.in_(ids))
    anchor = TRIALS.c.trial_id == sa.bindparam("anchor", type_=sa.Integer), TRIALS.c.study_id == study_id
    ended = sa.select(TRIALS.c.datetime_complete).where(*anchor).scalar_subquery()
    zero: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
    none = sa.cast(sa.null(), sa.Integer)
    study = sa.select(sa.literal_column(str(STUDY)), none, none, STUDIES.c.study_name, text, real, time, ended).where(
        STUDIES.c.study_id == study_id
    )
    i, v, p = INTERMEDIATE_VALUES.c, VALUES.c, PARAMS.c
    i_type, v_type = sa.cast(i.intermediate_value_type, sa.Text), sa.cast(v.value_type, sa.Text)
    return sa.union_all(
        trials,
        study,
        part(PARAM, PARAMS, p.param_id, p.param_name, p.distribution_json, p.param_value),
        part(VALUE, VALUES, v.objective, v_type, text, v.value),
        part(USER_ATTR, TRIAL_USER_ATTRS, zero, TRIAL_USER_ATTRS.c.key, TRIAL_USER_ATTRS.c.value_json, real),
        part(SYSTEM_ATTR, TRIAL_SYSTEM_ATTRS, zero, TRIAL_SYSTEM_ATTRS.c.key, TRIAL_SYSTEM_ATTRS.c.value_json, real),
        part(INTERMEDIATE, INTERMEDIATE_VALUES, i.step, i_type, text, i.intermediate_value),
    ).order_by("kind", "trial_id", "number")


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    """Parse a distribution, once each: the trials of a study store the same few."""
    return json_to_distribution(text)


def _empty_trial(trial_id: int, number: int, state: str, began: datetime | None, ended: datetime | None) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState[state],
        value=None,
        datetime_start=began and local_time(began),
        datetime_complete=ended and local_time(ended),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )


def _assemble(rows: Iterable[Any]) -> Snapshot:
    name: str | None = None
    anchor: datetime | None = None
    found: dict[int, FrozenTrial] = {}
    values: dict[int, list[float]] = {}
    value_kinds = models.TrialValueModel.TrialValueType
    step_kinds = models.TrialIntermediateValueModel.TrialIntermediateValueType
    for kind, trial_id, number, first, second, value, began, ended in rows:
        if kind == STUDY:
            name, anchor = first, ended and local_time(ended)
        elif kind == TRIAL:
            found[trial_id] = _empty_trial(trial_id, number, first, began, ended)
        elif kind == PARAM:
            distribution = _distribution(second)
            found[trial_id].distributions[first] = distribution
            found[trial_id].params[first] = distribution.to_external_repr(value)
        elif kind == VALUE:
            told = models.TrialValueModel.stored_repr_to_value(value, value_kinds[first])
            values.setdefault(trial_id, []).append(told)
        elif kind == INTERMEDIATE:
            read = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
            found[trial_id].intermediate_values[number] = read(value, step_kinds[first])
        else:
            attrs = found[trial_id].user_attrs if kind == USER_ATTR else found[trial_id].system_attrs
            attrs[first] = json.loads(second)
    for trial_id, told_values in values.items():
        found[trial_id].values = told_values
    return Snapshot(name, anchor, list(found.values()))
