"""Query that reads any of a study's trials in one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.limits import MANY
from hpo.storage.stored_values import (
    PAUSED,
    DamageLog,
    UnreadableError,
    is_whole,
    parse_distribution,
    parse_number,
    parse_param,
    parse_system_attr,
    parse_value,
    shorten,
)
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
KINDS = {PARAM: "parameter", SYSTEM_ATTR: "attribute", INTERMEDIATE: "reported value"}
STATES = {state.name: state for state in TrialState}


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
        paused: what keeps trials paused, as the database has it, by id; they are read once that has changed. At most
            MANY of them.
    """

    after: int = -1
    named: tuple[int, ...] = ()
    slots: tuple[int, int] = (1, 0)
    passed: tuple[int, ...] = ()
    anchor: int | None = None
    paused: Mapping[int, str] = field(default_factory=dict)


def read_snapshot(connection: sa.Connection, study_id: int, wanted: TrialQuery, damage: DamageLog) -> Snapshot:
    """Read the study's name, when its trial `wanted.anchor` ended, and the selected trials, in one statement.

    What cannot be read of a trial is left out, and said to `damage`. A COMPLETE trial without its values is FAIL.
    """
    given = {"study": study_id, "after": wanted.after, "named": wanted.named, "anchor": wanted.anchor}
    first, last = wanted.slots
    given |= {"first": first, "last": last, "passed": wanted.passed, "paused": list(wanted.paused)}
    known = [f"{trial_id}:{value}" for trial_id, value in wanted.paused.items()]
    many = len(wanted.named) + len(wanted.passed) + 2 * len(wanted.paused) > MANY
    rows = connection.execute(_query(many), {**given, "known": known})
    return _Assembler(damage).assemble(rows)


@cache  # building it takes longer than running it
def _query(many: bool) -> sa.CompoundSelect[Any]:
    """Build a union of the tables that hold a trial.

    Every row has a kind, the trial's id, a number, two texts, a float, and two times.

    Args:
        many: whether ids are parts of the statement's text, because they are too many for its parameters.
    """
    study_id: sa.BindParameter[int] = sa.bindparam("study", type_=sa.Integer)
    attrs = TRIAL_SYSTEM_ATTRS.c
    named, passed, paused = (
        sa.bindparam(name, expanding=True, literal_execute=many, type_=sa.Integer)
        for name in ("named", "passed", "paused")
    )
    value = sa.cast(attrs.trial_id, sa.String(20)).concat(":").concat(attrs.value_json)
    known = value.in_(sa.bindparam("known", expanding=True, type_=sa.String))
    same = sa.select(attrs.trial_id).where(attrs.trial_id.in_(paused), attrs.key == PAUSED, known)
    begun = (TRIALS.c.state != TrialState.WAITING) | TRIALS.c.datetime_start.is_not(None)
    mine = (TRIALS.c.study_id == study_id) & (
        (TRIALS.c.trial_id > sa.bindparam("after"))
        | TRIALS.c.trial_id.in_(named)
        | sa.and_(
            TRIALS.c.trial_id.in_(paused), (TRIALS.c.state != TrialState.WAITING) | TRIALS.c.trial_id.not_in(same)
        )
        | sa.and_(
            TRIALS.c.trial_id.between(sa.bindparam("first"), sa.bindparam("last")),
            begun,
            TRIALS.c.trial_id.not_in(passed),
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


class _Assembler:
    """Assembler of a snapshot from the rows of the query, in their order."""

    def __init__(self, damage: DamageLog) -> None:
        self.damage = damage
        self.name: str | None = None
        self.anchor: datetime | None = None
        self.found: dict[int, FrozenTrial] = {}
        self.values: dict[int, list[float]] = {}

    def assemble(self, rows: Iterable[Any]) -> Snapshot:
        """Return the snapshot."""
        for kind, trial_id, number, first, second, value, began, ended in rows:
            if kind == STUDY:
                self.name, self.anchor = first, ended and local_time(ended)
            elif kind == TRIAL:
                self._add_trial(trial_id, number, first, began, ended)
            elif (trial := self.found.get(trial_id)) is not None:
                try:
                    self._add_row(trial, kind, number, first, second, value)
                except UnreadableError as error:
                    self._leave_out(trial, kind, first, error)
        for trial_id, told_values in self.values.items():
            if self.found[trial_id].state != TrialState.FAIL:
                self.found[trial_id].values = told_values
        return Snapshot(self.name, self.anchor, list(self.found.values()))

    def _add_trial(
        self, trial_id: int, number: object, state: object, began: datetime | None, ended: datetime | None
    ) -> None:
        if not is_whole(number):
            self._say(None, f"the number of trial id {trial_id}", f"{shorten(number)} is no whole number")
            return
        if state not in STATES:
            self._say(number, "its state, so that it counts as failed", shorten(state))
        self.found[trial_id] = FrozenTrial(
            number=number,
            state=STATES.get(str(state), TrialState.FAIL),
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

    def _add_row(self, trial: FrozenTrial, kind: int, number: Any, first: Any, second: Any, value: Any) -> None:
        """Add a row to its trial.

        Raises:
            UnreadableError: it cannot be read.
        """
        if kind == PARAM:
            distribution = parse_distribution(second)
            trial.params[first] = parse_param(distribution, value)
            trial.distributions[first] = distribution
        elif kind == VALUE:
            self.values.setdefault(trial._trial_id, []).append(parse_number(first, value))
        elif kind == INTERMEDIATE:
            if not is_whole(number):
                raise UnreadableError(f"the step {shorten(number)} is no whole number")
            trial.intermediate_values[number] = parse_number(first, value)
        elif first is not None:
            if kind == USER_ATTR:
                trial.user_attrs[first] = parse_value(second)
            else:
                trial.system_attrs[first] = parse_system_attr(first, second)

    def _leave_out(self, trial: FrozenTrial, kind: int, name: object, error: UnreadableError) -> None:
        if kind == VALUE:
            self._say(trial.number, "its value, so that it counts as failed", error)
            trial.state = TrialState.FAIL if trial.state == TrialState.COMPLETE else trial.state
            self.values.pop(trial._trial_id, None)
        else:
            named = kind in (PARAM, SYSTEM_ATTR)
            self._say(trial.number, f"its {KINDS[kind]}{f' {shorten(name)}' if named else ''}", error)

    def _say(self, trial: object, what: str, why: object) -> None:
        self.damage.add(self.name, what, why, trial=trial)
