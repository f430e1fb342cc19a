"""Leases, which are workers' time-limited claims on trials, and the list of workers. All times are those of
`hpo.storage.clock`.

Every function is a part of a transaction. A lease carries the number of the attempt; whoever takes an expired one over
raises it, and the old worker, which no longer finds its own number there, may write nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.storage.clock import database_clock, start_clock
from hpo.storage.identity import KEY, StudyIdentity
from hpo.storage.limits import is_among
from hpo.storage.stored_values import PAUSED, is_finite, is_whole
from hpo.storage.tables import (
    LEASES,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIALS,
    WORKERS,
    upsert,
    upsert_one,
    utc_time,
)

__all__ = [
    "HAS_WORKER",
    "OPTUNA",
    "PAUSED_AT",
    "ClaimableTrial",
    "Lease",
    "LeaseState",
    "Promotion",
    "RenewalResult",
    "WorkerInfo",
    "WorkerRow",
    "claim",
    "claim_all",
    "count_held_by_others",
    "count_live_workers",
    "delete_leases",
    "find_all_claimable",
    "find_claimable",
    "insert_lease",
    "insert_leases",
    "is_held",
    "lease_states",
    "read_workers",
    "register_worker",
    "release",
    "renew",
    "request_stop",
    "unpause",
    "unregister_worker",
]  # fmt: skip

FORGET_AFTER = 86400.0  # seconds after which a worker that died is no longer listed
OPTUNA = "optuna:"  # what the holders of trials under Optuna's own loops begin with; no worker does
HAS_WORKER = LEASES.c.worker.not_like(f"{OPTUNA}%")  # nor has a trial that waits
IS_WAITING = TRIALS.c.state == TrialState.WAITING
_PAUSED = sa.select(TRIAL_SYSTEM_ATTRS.c.value_json).where(
    TRIAL_SYSTEM_ATTRS.c.trial_id == TRIALS.c.trial_id, TRIAL_SYSTEM_ATTRS.c.key == PAUSED
)
# The epoch at which a WAITING trial is paused, as text; NULL where it is not. One that nobody has begun is not looked
# up.
PAUSED_AT = sa.case((TRIALS.c.datetime_start.is_not(None), _PAUSED.correlate(TRIALS).scalar_subquery()), else_=None)
Promotion = tuple[int, int]  # a paused trial's id, and the epoch at which it is paused


@dataclass(frozen=True)
class WorkerInfo:
    """A worker that claims trials.

    Attributes:
        name: unique to this process.
        host, pid, device: where it runs.
        seconds: how long its leases last unless they are renewed.
    """

    name: str
    host: str
    pid: int
    device: str
    seconds: float


@dataclass(frozen=True)
class ClaimableTrial:
    """A trial that may be claimed, and the number of its last attempt; `waiting` unless its worker has died."""

    trial_id: int
    attempt: int
    waiting: bool
    paused: bool = False


@dataclass(frozen=True)
class WorkerRow:
    """A row of the table of workers.

    Attributes:
        name, host, pid, device: as it has announced itself.
        seen: how many seconds ago it was last heard of.
        gone: whether its leases have run out.
        stop: whether it is asked to stop.
        trial_ids: the trials it holds.
    """

    name: str
    host: str
    pid: int
    device: str
    seen: float
    gone: bool
    stop: bool
    trial_ids: list[int]


# Claiming.


def find_claimable(
    connection: sa.Connection,
    study_id: int,
    worker: WorkerInfo,
    held: Collection[int],
    *,
    waiting: bool = True,
    promoted: Sequence[Promotion] = (),
) -> ClaimableTrial | None:
    """Find the trial to claim next: one whose worker has died, else one to promote, else the first one that waits.

    A lease of the worker's own which it does not know it holds counts as gone: its connection was lost after the
    database had done as asked, and before it could say so.

    Args:
        connection: of the transaction.
        study_id: whose trial.
        worker: for whom.
        held: ids of the trials that the worker knows it holds.
        waiting: whether one that waits will do.
        promoted: paused trials that are to go on, the most promising first.
    """
    gone = _is_abandoned(connection, worker, held)
    query = _claimable(study_id, _is_free(promoted) | gone if waiting else gone, promoted).limit(1)
    if connection.dialect.name == "postgresql":
        # What others are claiming just now is passed over. InnoDB would lock, on its way, rows that it does not return,
        # so that of several who look at once nobody finds any: there, as everywhere, `claim` decides.
        query = query.with_for_update(of=TRIALS, skip_locked=True)
    row = connection.execute(query).first()
    return None if row is None else _claimable_trial(row)


def find_all_claimable(
    connection: sa.Connection,
    study_id: int,
    worker: WorkerInfo,
    held: Collection[int],
    *,
    waiting: bool,
    promoted: Sequence[Promotion] = (),
) -> list[ClaimableTrial]:
    """Find every trial that waits, those to promote first, or else every one whose worker has died, by number; `claim`
    and `claim_all` decide.
    """
    rule = _is_free(promoted) if waiting else _is_abandoned(connection, worker, held)
    return [_claimable_trial(row) for row in connection.execute(_claimable(study_id, rule, promoted))]


def _is_free(promoted: Sequence[Promotion]) -> sa.ColumnElement[bool]:
    """Return an expression for whether a trial waits for a worker: it is not paused, or is paused there no longer."""
    ready = [sa.and_(TRIALS.c.trial_id == trial_id, PAUSED_AT.in_([str(epoch)])) for trial_id, epoch in promoted]
    return sa.and_(IS_WAITING, sa.or_(PAUSED_AT.is_(None), *ready))


def _is_abandoned(connection: sa.Connection, worker: WorkerInfo, held: Collection[int]) -> sa.ColumnElement[bool]:
    orphan = (LEASES.c.worker == worker.name) & LEASES.c.trial_id.not_in(held)
    # One that waited again may be run by another tool, which knows no leases: that one has no worker.
    expired = HAS_WORKER & (LEASES.c.expires < database_clock(connection))
    return sa.and_(TRIALS.c.state == TrialState.RUNNING, orphan | expired)


def _claimable(study_id: int, rule: sa.ColumnElement[bool], promoted: Sequence[Promotion]) -> sa.Select[Any]:
    first = [(TRIALS.c.trial_id == trial_id, 1 + place) for place, (trial_id, _) in enumerate(promoted)]
    order = sa.case((TRIALS.c.state != TrialState.WAITING, 0), *first, else_=1 + len(promoted))
    return (
        sa.select(TRIALS.c.trial_id, TRIALS.c.state, LEASES.c.attempt, PAUSED_AT.label("paused"))
        .select_from(TRIALS.outerjoin(LEASES, TRIALS.c.trial_id == LEASES.c.trial_id))
        .where(TRIALS.c.study_id == study_id, rule)
        .order_by(order, TRIALS.c.number)
    )


def _claimable_trial(row: sa.Row[Any]) -> ClaimableTrial:
    waiting = row.state == TrialState.WAITING
    return ClaimableTrial(row.trial_id, row.attempt or 0, waiting, waiting and row.paused is not None)


def _promote(connection: sa.Connection, trials: Collection[ClaimableTrial]) -> None:
    """Note that trials which were paused are paused no longer; a part of the transaction that claims them."""
    if paused := [each.trial_id for each in trials if each.paused]:
        unpause(connection, paused)


def unpause(connection: sa.Connection, trial_ids: Collection[int]) -> None:
    """Delete the attributes that keep trials from being claimed."""
    attrs = TRIAL_SYSTEM_ATTRS.c
    connection.execute(sa.delete(TRIAL_SYSTEM_ATTRS).where(is_among(attrs.trial_id, trial_ids), attrs.key == PAUSED))


def claim(connection: sa.Connection, study_id: int, found: ClaimableTrial, worker: WorkerInfo) -> bool:
    """Claim a trial for its next attempt; return whether no other worker was faster."""
    if found.waiting:
        mine = TRIALS.c.trial_id == found.trial_id, TRIALS.c.state == TrialState.WAITING
        begun = sa.update(TRIALS).where(*mine).values(state=TrialState.RUNNING, datetime_start=utc_time())
        if connection.execute(begun).rowcount == 0:
            return False
        _promote(connection, [found])
        insert_lease(connection, study_id, found.trial_id, found.attempt + 1, worker)
        return True
    # Whoever writes to the trial holds its row meanwhile; afterwards he will find that it is not his.
    state = sa.select(TRIALS.c.state).where(TRIALS.c.trial_id == found.trial_id).with_for_update()
    if connection.execute(state).scalar() != TrialState.RUNNING:
        return False  # its worker has released it since, or somebody has ended it
    now = database_clock(connection)
    lease = sa.update(LEASES).where(
        LEASES.c.trial_id == found.trial_id,
        LEASES.c.attempt == found.attempt,
        # Once more: its worker may have renewed it since.
        (LEASES.c.worker == worker.name) | (HAS_WORKER & (LEASES.c.expires < now)),
    )
    taken = lease.values(worker=worker.name, attempt=found.attempt + 1, expires=now + worker.seconds)
    return connection.execute(taken).rowcount == 1


def claim_all(
    connection: sa.Connection, study_id: int, found: Collection[ClaimableTrial], worker: WorkerInfo
) -> list[ClaimableTrial]:
    """Claim WAITING trials, with four statements; return those that no other worker claimed first."""
    ids = [each.trial_id for each in found]
    query = sa.select(TRIALS.c.trial_id).where(TRIALS.c.trial_id.in_(ids), IS_WAITING).order_by(TRIALS.c.trial_id)
    # Named by their ids, InnoDB locks no others; and it waits for those that somebody else is claiming just now.
    query = query.with_for_update(skip_locked=connection.dialect.name == "postgresql")
    free = set(connection.execute(query).scalars()) if ids else set()
    taken = [each for each in found if each.trial_id in free]
    if taken:
        begun = sa.update(TRIALS).where(TRIALS.c.trial_id.in_(free))
        connection.execute(begun.values(state=TrialState.RUNNING, datetime_start=utc_time()))
        _promote(connection, taken)
        insert_leases(connection, study_id, {each.trial_id: each.attempt + 1 for each in taken}, worker)
    return taken


def insert_leases(connection: sa.Connection, study_id: int, attempts: Mapping[int, int], worker: WorkerInfo) -> None:
    """Insert the leases of trials that nobody holds; `attempts` is by trial id."""
    expires = connection.execute(sa.select(database_clock(connection))).scalar_one() + worker.seconds
    same = {"study_id": study_id, "worker": worker.name, "expires": expires}
    rows = [{"trial_id": trial_id, "attempt": attempt, **same} for trial_id, attempt in attempts.items()]
    upsert(connection, LEASES, ("trial_id",), rows)


def insert_lease(connection: sa.Connection, study_id: int, trial_id: int, attempt: int, worker: WorkerInfo) -> None:
    """Insert the lease of a trial that nobody holds."""
    expires = database_clock(connection) + worker.seconds
    values = {"study_id": study_id, "attempt": attempt, "worker": worker.name, "expires": expires}
    upsert_one(connection, LEASES, ("trial_id",), trial_id=trial_id, **values)


def release(connection: sa.Connection, study_id: int, attempts: Mapping[int, int]) -> None:
    """Release trials to wait again, keeping the numbers of their last attempts, which are by trial id."""
    same = {"study_id": study_id, "worker": None, "expires": 0.0}
    rows = [{"trial_id": trial_id, "attempt": attempt, **same} for trial_id, attempt in attempts.items()]
    upsert(connection, LEASES, ("trial_id",), rows)


def delete_leases(connection: sa.Connection, trial_ids: Collection[int]) -> None:
    """Delete the leases of finished trials."""
    connection.execute(sa.delete(LEASES).where(is_among(LEASES.c.trial_id, trial_ids)))


# Holding.


def is_held(connection: sa.Connection) -> sa.ColumnElement[bool]:
    """Return an expression for whether a lease is held: by a worker, dead or alive, or by a loop of Optuna's that is
    alive.
    """
    return HAS_WORKER | (LEASES.c.expires >= database_clock(connection))


@dataclass(frozen=True)
class Lease:
    """A lease as the worker that holds it remembers it."""

    worker: str
    attempt: int


@dataclass(frozen=True)
class LeaseState:
    """A trial's state, the worker that holds it, and the number of the attempt."""

    state: TrialState
    attempt: int | None
    worker: str | None


def lease_states(connection: sa.Connection, trial_ids: Collection[int], *, leased: bool) -> dict[int, LeaseState]:
    """Read the lease states of trials by id, and lock their rows. Deleted trials are left out.

    Args:
        connection: of the transaction.
        trial_ids: which.
        leased: only those that have a lease, whose rows are locked as well: PostgreSQL reads a row that it does not
            lock as it was before it waited for those it does.
    """
    rows = connection.execute(_lease_states_query(leased), {"ids": list(trial_ids)}) if trial_ids else ()
    return {row.trial_id: LeaseState(row.state, row.attempt, row.worker) for row in rows}


@cache
def _lease_states_query(leased: bool) -> sa.Select[Any]:
    return (
        sa.select(TRIALS.c.trial_id, TRIALS.c.state, LEASES.c.attempt, LEASES.c.worker)
        .select_from(TRIALS.join(LEASES, TRIALS.c.trial_id == LEASES.c.trial_id, isouter=not leased))
        .where(TRIALS.c.trial_id.in_(sa.bindparam("ids", expanding=True)))
        .order_by(TRIALS.c.trial_id)
        .with_for_update(of=[TRIALS, LEASES] if leased else TRIALS)
    )


@dataclass(frozen=True)
class RenewalResult:
    """Result of renewing a worker's leases.

    Attributes:
        held: the attempts that it holds, by trial id.
        stop: whether it has been asked to stop.
        same_study: whether its study is the one that it began with; None where there is no study of that id.
    """

    held: dict[int, int]
    stop: bool
    same_study: bool | None


def renew(connection: sa.Connection, worker: WorkerInfo, study: StudyIdentity | None = None) -> RenewalResult:
    """Renew all leases of a worker and its sign of life; read what it still holds.

    Args:
        connection: of the transaction.
        worker: whose leases.
        study: the study that it began with; None does not ask.
    """
    now = database_clock(connection)
    mine = LEASES.c.worker == worker.name
    connection.execute(sa.update(LEASES).where(mine).values(expires=now + worker.seconds))
    me = WORKERS.c.worker == worker.name
    connection.execute(sa.update(WORKERS).where(me).values(seen=now, gone=now + worker.seconds))
    held = sa.select(LEASES.c.trial_id, LEASES.c.attempt).where(mine)
    asked = sa.select(sa.literal_column("-1"), sa.case((WORKERS.c.stop, 1), else_=0)).where(me)
    parts = [held, asked] if study is None else [held, asked, _select_same(study)]
    rows = {row[0]: row[1] for row in connection.execute(sa.union_all(*parts))}
    same = None if rows.get(-2) is None and study is not None else bool(rows.get(-2, 1))
    return RenewalResult({i: attempt for i, attempt in rows.items() if i >= 0}, bool(rows.get(-1)), same)


def _select_same(study: StudyIdentity) -> sa.Select[Any]:
    """Select whether the study of that id has the key; no row where it has none."""
    key = STUDY_USER_ATTRS.c
    same = sa.case((key.value_json == json.dumps(study.key), 1), else_=0)
    row = sa.select(sa.literal_column("-2"), same)
    return row.where(key.study_id == study.study_id, key.key == KEY)


def count_held_by_others(connection: sa.Connection, study_id: int, held: Collection[int], *, waiting: bool) -> int:
    """Count the RUNNING trials of a study that workers hold, dead or alive, apart from those in `held`.

    Another tool may have ended a trial without knowing of its lease.

    Args:
        connection: to read with.
        study_id: whose trials.
        held: ids of trials that are not counted.
        waiting: whether those that wait and are not paused count as well: others are claiming them just now.
    """
    theirs = (TRIALS.c.state == TrialState.RUNNING) & HAS_WORKER & LEASES.c.trial_id.not_in(held)
    counted = theirs | _is_free(()) if waiting else theirs
    joined = TRIALS.outerjoin(LEASES, TRIALS.c.trial_id == LEASES.c.trial_id)
    query = sa.select(sa.func.count()).select_from(joined).where(TRIALS.c.study_id == study_id, counted)
    return int(connection.execute(query).scalar_one())


# Workers.


def register_worker(connection: sa.Connection, study_id: int, worker: WorkerInfo) -> None:
    """Add a worker to its study's list, and drop those that died long ago."""
    start_clock(connection)
    now = database_clock(connection)
    connection.execute(sa.delete(WORKERS).where(WORKERS.c.study_id == study_id, WORKERS.c.gone < now - FORGET_AFTER))
    values = {"host": worker.host, "pid": worker.pid, "device": worker.device, "seen": now, "stop": False}
    values |= {"study_id": study_id, "gone": now + worker.seconds}
    upsert_one(connection, WORKERS, ("worker",), worker=worker.name, **values)


def unregister_worker(connection: sa.Connection, worker: WorkerInfo) -> None:
    """Remove a worker from the list."""
    connection.execute(sa.delete(WORKERS).where(WORKERS.c.worker == worker.name))


def request_stop(connection: sa.Connection, study_id: int) -> int:
    """Ask all workers of a study to stop; return how many are alive."""
    live = WORKERS.c.study_id == study_id, WORKERS.c.gone > database_clock(connection)
    return connection.execute(sa.update(WORKERS).where(*live).values(stop=True)).rowcount


def count_live_workers(connection: sa.Connection, study_id: int) -> int:
    """Count the workers of a study that are alive."""
    live = WORKERS.c.study_id == study_id, WORKERS.c.gone > database_clock(connection)
    return int(connection.execute(sa.select(sa.func.count()).select_from(WORKERS).where(*live)).scalar_one())


def read_workers(connection: sa.Connection, study_id: int) -> list[WorkerRow]:
    """Read the workers of a study by name, with the trials that they hold; two statements.

    Those whose times are no numbers are left out.
    """
    now = database_clock(connection)
    leases = (
        sa.select(LEASES.c.worker, LEASES.c.trial_id)
        .join_from(LEASES, TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id)
        .where(LEASES.c.study_id == study_id, LEASES.c.worker.is_not(None), TRIALS.c.state == TrialState.RUNNING)
    )
    held: dict[str, list[int]] = {}
    for name, trial_id in connection.execute(leases.order_by(LEASES.c.trial_id)):
        held.setdefault(name, []).append(trial_id)
    query = sa.select(WORKERS, (now - WORKERS.c.seen).label("ago"), (WORKERS.c.gone < now).label("is_gone"))
    rows = connection.execute(query.where(WORKERS.c.study_id == study_id).order_by(WORKERS.c.worker))
    return [
        WorkerRow(
            name=str(row.worker),
            host=str(row.host),
            pid=row.pid if is_whole(row.pid) else 0,
            device=str(row.device),
            seen=max(0.0, row.ago),
            gone=bool(row.is_gone),
            stop=bool(row.stop),
            trial_ids=held.get(row.worker, []),
        )
        for row in rows
        if is_finite(row.ago)
    ]
