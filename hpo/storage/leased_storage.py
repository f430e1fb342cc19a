"""Optuna storage whose trials workers hold under leases: claim, tell and release, one trial or a cohort at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

import optuna
import sqlalchemy as sa
import sqlalchemy.exc
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from typing_extensions import override

from hpo.errors import LeaseLostError, RunError, StorageLostError, StudyDeletedError
from hpo.storage import leases, worker_stats
from hpo.storage.clock import boot_seconds
from hpo.storage.identity import StudyIdentity
from hpo.storage.leases import Promotion, RenewalResult, WorkerInfo, WorkerRow
from hpo.storage.limits import is_among
from hpo.storage.statements import add_trial, add_trials, count_trials, fixed_row, value_row
from hpo.storage.stored_values import PAUSED, parse_value
from hpo.storage.tables import (
    LEASES,
    SAMPLES,
    SPLITS,
    TRIAL_SYSTEM_ATTRS,
    TRIALS,
    VALUES,
    begin,
    lock_study,
    upsert,
    utc_time,
)
from hpo.storage.transient_errors import with_retries
from hpo.storage.worker_stats import WorkRecorder, WorkRow
from hpo.storage.write_behind import WriteBehindStorage

__all__ = ["ATTEMPT", "ClaimOffer", "LeaseGrant", "LeasedStorage", "TellRequest"]

NONE_PAUSED: Mapping[int, int] = MappingProxyType({})
ATTEMPT, WORKER = "attempt", "worker"  # user attributes of a trial: how often it was begun, and who trained it last


@dataclass(frozen=True)
class LeaseGrant:
    """A trial that a worker has claimed.

    Attributes:
        trial_id: the trial's id.
        attempt: the number of this attempt at it, from 1.
        taken_over: whether its worker died, or was cut off, in the last attempt.
    """

    trial_id: int
    attempt: int
    taken_over: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class ClaimOffer:
    """Further trials that a worker may claim along with one that it has claimed.

    Attributes:
        trial_ids: of trials that wait, or whose workers are gone, by number.
        new: how many may be made below the budget.
        workers: how many are alive and share them; at least one.
    """

    trial_ids: list[int]
    new: int
    workers: int


@dataclass(frozen=True)
class TellRequest:
    """The end of a trial.

    Attributes:
        trial_id, state: its id, and the state that it ends in.
        values: its values, where it has any.
        samples: packed sample scores, one for each fit; see `hpo.datasets.sample_codec`.
        splits: packed validation splits that these are of, by digest.
    """

    trial_id: int
    state: TrialState
    values: Sequence[float] | None = None
    samples: Sequence[bytes] = ()
    splits: Mapping[str, bytes] = field(default_factory=dict)


class LeasedStorage(WriteBehindStorage):
    """Optuna storage that hands its trials to workers under leases."""

    def __init__(self, rdb: RDBStorage, *, write_behind: bool = True) -> None:
        super().__init__(rdb, write_behind=write_behind)
        self._lease_ends: dict[str, float] = {}
        self._known_splits: set[tuple[int, str]] = set()  # by study and digest, that the database has

    # Trials, under leases.

    def claim(
        self,
        study_id: int,
        worker: WorkerInfo,
        budget: int | None = None,
        *,
        abandoned: bool = False,
        promoted: Sequence[Promotion] = (),
    ) -> LeaseGrant | None:
        """Claim the next trial for a worker and set it RUNNING under a lease; return None where there is none.

        One whose worker is gone comes first, then one to promote, then one that waits, then, below the budget, a new
        one. Of several workers exactly one gets a trial.

        Args:
            study_id: whose trial.
            worker: for whom.
            budget: up to how many trials in all a new one is made; None makes none.
            abandoned: only one whose worker is gone.
            promoted: paused trials that are to go on, the most promising first; the other paused ones stay.

        Raises:
            KeyError: there is no such study.
        """

        def step(connection: sa.Connection) -> LeaseGrant | None:
            while found := leases.find_claimable(
                connection, study_id, worker, list(self._leases), waiting=not abandoned, promoted=promoted
            ):
                if leases.claim(connection, study_id, found, worker):
                    return LeaseGrant(found.trial_id, found.attempt + 1, taken_over=not found.waiting)
            if budget is None or abandoned:
                return None
            lock_study(connection, study_id)
            number = count_trials(connection, study_id)
            if number >= budget:
                return None
            trial_id = add_trial(connection, study_id, number)
            leases.insert_lease(connection, study_id, trial_id, 1, worker)
            return LeaseGrant(trial_id, 1)

        claimed = self._transact(study_id, step)
        if claimed is not None:
            self._start_attempt(study_id, worker, claimed)
        return claimed

    def claim_more(
        self,
        study_id: int,
        worker: WorkerInfo,
        choose: Callable[[ClaimOffer], tuple[Collection[int], int]],
        budget: int | None = None,
        *,
        abandoned: bool = False,
        promoted: Sequence[Promotion] = (),
    ) -> list[LeaseGrant]:
        """Claim what is to be trained along with a trial, in one transaction; fewer where others are faster.

        Args:
            study_id: whose trials.
            worker: for whom.
            choose: which of what is offered: their ids, and how many new ones.
            budget: up to how many trials in all new ones are made; None makes none.
            abandoned: those whose workers are gone are offered, else those that wait, and new ones.
            promoted: paused trials that are offered before those that wait.

        Raises:
            KeyError: there is no such study.
        """

        def step(connection: sa.Connection) -> list[LeaseGrant]:
            room = 0
            if budget is not None and not abandoned:
                lock_study(connection, study_id)
                room = max(0, budget - count_trials(connection, study_id))
            held = list(self._leases)
            found = leases.find_all_claimable(
                connection, study_id, worker, held, waiting=not abandoned, promoted=promoted
            )
            workers = max(1, leases.count_live_workers(connection, study_id))
            chosen, new = choose(ClaimOffer([each.trial_id for each in found], room, workers))
            ids = set(chosen)
            wanted = [each for each in found if each.trial_id in ids]
            if abandoned:
                taken = [each for each in wanted if leases.claim(connection, study_id, each, worker)]
            else:
                taken = leases.claim_all(connection, study_id, wanted, worker)
            claimed = [LeaseGrant(each.trial_id, each.attempt + 1, taken_over=abandoned) for each in taken]
            return claimed + _insert_trials(connection, study_id, min(new, room), worker)

        claimed = self._transact(study_id, step)
        for each in claimed:
            self._start_attempt(study_id, worker, each)
        return claimed

    def _start_attempt(self, study_id: int, worker: WorkerInfo, claimed: LeaseGrant) -> None:
        self._adopt(study_id, claimed.trial_id, leases.Lease(worker.name, claimed.attempt))
        # Where it has passed to another already, this process was suspended: its next write says so again.
        with suppress(LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
            self.set_trial_user_attr(claimed.trial_id, WORKER, worker.name)
            self.set_trial_user_attr(claimed.trial_id, ATTEMPT, claimed.attempt)

    def release(self, trial_id: int) -> bool:
        """Put a RUNNING trial back to WAITING under its number, its parameters fixed; return whether it was ours."""
        return bool(self.release_all([trial_id]))

    def release_all(self, trial_ids: Collection[int], paused: Mapping[int, int] = NONE_PAUSED) -> list[int]:
        """Put RUNNING trials of one study back to WAITING, in one transaction; return the ids of those that were ours.

        Each waits under its number, its parameters fixed.

        Args:
            trial_ids: which.
            paused: the epochs of those that wait to be promoted, by id; nobody else claims them.
        """

        def step(connection: sa.Connection, ours: Sequence[int]) -> None:
            running = sa.update(TRIALS).where(TRIALS.c.trial_id.in_(ours), TRIALS.c.state == TrialState.RUNNING)
            # They keep the time of their start: so others see that they are no slots that nobody has touched.
            connection.execute(running.values(state=TrialState.WAITING))
            attempts = {trial_id: held.attempt for trial_id in ours if (held := self._leases.get(trial_id))}
            leases.release(connection, self._study_of[ours[0]], attempts)
            rows = [fixed_row(self._trial(trial_id)) for trial_id in ours]
            rows += [
                {"trial_id": trial_id, "key": PAUSED, "value_json": json.dumps(paused[trial_id])}
                for trial_id in ours
                if trial_id in paused
            ]
            upsert(connection, TRIAL_SYSTEM_ATTRS, ("trial_id", "key"), rows)

        try:
            refused = self._settle(trial_ids, step)
        except KeyError:  # the study was deleted
            return []
        return [trial_id for trial_id in trial_ids if trial_id not in refused]

    def end_paused(self, study_id: int, known: Mapping[int, tuple[object, float | None]], total: int) -> bool:
        """End the paused trials of a study as PRUNED, if it is as the caller has found it; return whether it was.

        Args:
            study_id: whose trials.
            known: all that are paused, by id: what keeps each paused, and its value, if it has one.
            total: how many trials the study has.
        """
        theirs = (TRIALS.c.state == TrialState.RUNNING) & leases.HAS_WORKER
        joined = TRIALS.outerjoin(LEASES, TRIALS.c.trial_id == LEASES.c.trial_id)
        query = sa.select(TRIALS.c.trial_id, leases.PAUSED_AT.label("paused")).select_from(joined)
        query = query.where(TRIALS.c.study_id == study_id, (TRIALS.c.state == TrialState.WAITING) | theirs)
        locked = sa.select(TRIALS.c.trial_id).where(is_among(TRIALS.c.trial_id, known)).order_by(TRIALS.c.trial_id)

        def step(connection: sa.Connection) -> bool:
            lock_study(connection, study_id)
            # Whoever promotes one of them holds its row; what is read afterwards stays true until they are ended.
            connection.execute(locked.with_for_update()).all()
            found = {row.trial_id: row.paused and parse_value(row.paused) for row in connection.execute(query)}
            same = found == {trial_id: paused for trial_id, (paused, _) in known.items()}
            if not same or count_trials(connection, study_id) != total:
                return False
            ended = {"state": TrialState.PRUNED, "datetime_complete": utc_time()}
            connection.execute(sa.update(TRIALS).where(is_among(TRIALS.c.trial_id, known)).values(ended))
            rows = [value_row(trial_id, 0, value) for trial_id, (_, value) in known.items() if value is not None]
            upsert(connection, VALUES, ("trial_id", "objective"), rows)
            leases.unpause(connection, known)
            leases.delete_leases(connection, known)
            return True

        return self._transact(study_id, step)

    def tell(self, results: Sequence[TellRequest]) -> dict[int, Exception]:
        """End RUNNING trials of one study that this process runs, in one transaction.

        Returns:
            Of those that are not ours any more, why, by id: as `set_trial_state_values` raises. They are left as they
            are, and the others are ended all the same.

        Raises:
            KeyError: the study was deleted.
        """
        states = {told.trial_id: told.state for told in results}
        tried: set[int] = set()

        def step(connection: sa.Connection, ours: Sequence[int]) -> None:
            tried.update(ours)
            for state in {states[trial_id] for trial_id in ours}:
                ended = TRIALS.c.trial_id.in_([trial_id for trial_id in ours if states[trial_id] == state])
                now = {"state": state, "datetime_complete": utc_time()}
                connection.execute(sa.update(TRIALS).where(ended).values(now))
            mine = [told for told in results if told.trial_id in ours]
            rows = [value_row(told.trial_id, i, value) for told in mine for i, value in enumerate(told.values or ())]
            upsert(connection, VALUES, ("trial_id", "objective"), rows)
            self._write_samples(connection, mine)
            leases.delete_leases(connection, ours)

        def landed(trial_id: int, why: Exception) -> bool:
            # The connection may have been lost after the database had done it, and before it could say so.
            finished = trial_id in tried and isinstance(why, optuna.exceptions.UpdateFinishedTrialError)
            return finished and self._trial(trial_id).state == states[trial_id]

        refused = {trial_id: why for trial_id, why in self._settle(states, step).items() if not landed(trial_id, why)}
        for told in results:
            study_id = self._study_of.get(told.trial_id)
            if told.trial_id not in refused and study_id is not None:
                self._known_splits |= {(study_id, digest) for digest in told.splits}
        return refused

    @override
    def _forget(self, study_id: int) -> None:
        super()._forget(study_id)
        self._known_splits = {each for each in self._known_splits if each[0] != study_id}

    def _write_samples(self, connection: sa.Connection, results: Sequence[TellRequest]) -> None:
        """Write the sample scores of trials, and the splits that this process has not written yet."""
        rows = [
            {
                "trial_id": told.trial_id,
                "attempt": held.attempt if (held := self._leases.get(told.trial_id)) else 1,
                "fit": fit,
                "study_id": self._study_of[told.trial_id],
                "content": content,
            }
            for told in results
            for fit, content in enumerate(told.samples)
        ]
        upsert(connection, SAMPLES, ("trial_id", "attempt", "fit"), rows)
        splits = {(self._study_of[told.trial_id], *each): None for told in results for each in told.splits.items()}
        new = [
            {"study_id": study_id, "digest": digest, "content": content}
            for study_id, digest, content in sorted(splits)
            if (study_id, digest) not in self._known_splits
        ]
        upsert(connection, SPLITS, ("study_id", "digest"), new)

    def _settle(
        self, trial_ids: Collection[int], step: Callable[[sa.Connection, Sequence[int]], None]
    ) -> dict[int, Exception]:
        """Do `step` to the trials that are still ours, then let go of them; return why the others were refused, by id.

        Raises:
            KeyError: the study was deleted.
        """
        with self._state_lock:
            studies = {self._study_of[trial_id] for trial_id in trial_ids if trial_id in self._study_of}
        if not studies:
            return {trial_id: KeyError(f"there is no trial {trial_id}") for trial_id in trial_ids}
        [study_id] = studies

        def ours(connection: sa.Connection, ids: Sequence[int]) -> None:
            if ids:
                step(connection, ids)

        return self.retry_policy(lambda: self._transact_each(study_id, ours, trial_ids, True))[1]

    # Workers.

    def register_worker(self, study_id: int, worker: WorkerInfo) -> None:
        """Add a worker to its study's list."""

        def step(connection: sa.Connection) -> None:
            leases.register_worker(connection, study_id, worker)
            worker_stats.begin_work(connection, study_id, worker.name)

        self.write(step)
        self._lease_ends[worker.name] = boot_seconds() + worker.seconds

    def renew_leases(
        self, worker: WorkerInfo, done: WorkRecorder | None = None, study: StudyIdentity | None = None
    ) -> bool:
        """Renew all leases of a worker and write its statistics, in one try; return whether it has been asked to stop.

        Args:
            worker: whose leases.
            done: its statistics.
            study: the study that it trains, which must still be there.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not answer; that is noted.
            StorageLostError, StudyDeletedError: the database or the study is another one by now, or gone; that is
                noted.
        """
        began = boot_seconds()
        try:
            with self._transaction_lock:
                with self.engine.begin() as connection:
                    begin(connection)
                    renewal = leases.renew(connection, worker, study)
                    if study is not None and not renewal.same_study:
                        raise self._explain_other(study, renewal)
                    if done is not None:
                        worker_stats.write_work(connection, worker.name, done)
                self._apply_renewal(worker, renewal, began)
        except (StorageLostError, StudyDeletedError) as error:
            self.loss = error
            raise
        except sqlalchemy.exc.SQLAlchemyError as error:
            self._note_outage(error)
            if self.loss is not None:
                raise self.loss from error
            raise
        return renewal.stop

    def _explain_other(self, study: StudyIdentity, renewal: RenewalResult) -> RunError:
        if renewal.same_study is None:
            return self._deletion(study.study_id)
        return StorageLostError("the study, or the whole database, was deleted and made again while it was in use")

    def _apply_renewal(self, worker: WorkerInfo, renewal: RenewalResult, began: float) -> None:
        with self._state_lock:
            self._note_recovery()
            self._lease_ends[worker.name] = began + worker.seconds
            gone = [
                trial_id
                for trial_id, held in self._leases.items()
                if held.worker == worker.name and renewal.held.get(trial_id) != held.attempt
            ]
            self._drop_trials({trial_id: LeaseLostError() for trial_id in gone}, ())

    def holds(self, trial_id: int) -> bool:
        """Return whether this process holds a trial as far as it knows: the lease, since its last renewal, has not run
        out.

        Asked before a file is written that the next worker would write as well. The clock goes on while this process,
        or its machine, is suspended. While the database does not answer, a trial counts as held: training goes on, and
        what it has done is to be kept for when the database is back.
        """
        held = self._leases.get(trial_id)
        return held is not None and (
            self._outage is not None or boot_seconds() < self._lease_ends.get(held.worker, 0.0)
        )

    def unregister_worker(self, worker: WorkerInfo, done: WorkRecorder | None = None) -> None:
        """Remove a worker from the list and write its statistics; in one try, for the process is about to end."""
        with self._transaction_lock, self.engine.begin() as connection:
            if done is not None:
                worker_stats.write_work(connection, worker.name, done)
            leases.unregister_worker(connection, worker)

    def request_stop(self, study_id: int) -> int:
        """Ask all workers of a study to stop; return how many are alive."""
        return self.write(lambda connection: leases.request_stop(connection, study_id))

    @with_retries
    def read_work(self, study_id: int) -> list[WorkRow]:
        """Read the statistics of each of a study's workers, dead or alive."""
        with self._transaction_lock, self.engine.connect() as connection:
            return worker_stats.read_work(connection, study_id)

    @with_retries
    def read_workers(self, study_id: int) -> list[WorkerRow]:
        """Read the workers of a study, by name."""
        with self._transaction_lock, self.engine.connect() as connection:
            return leases.read_workers(connection, study_id)

    @with_retries
    def count_held_by_others(self, study_id: int, *, waiting: bool = False) -> int:
        """Count the RUNNING trials of a study that other processes' workers hold, dead or alive.

        Args:
            study_id: whose trials.
            waiting: whether those that wait are counted as well.
        """
        with self._transaction_lock, self.engine.connect() as connection:
            return leases.count_held_by_others(connection, study_id, list(self._leases), waiting=waiting)


def _insert_trials(connection: sa.Connection, study_id: int, count: int, worker: WorkerInfo) -> list[LeaseGrant]:
    """Insert new trials under leases of this worker."""
    ids = add_trials(connection, study_id, count)
    if ids:
        leases.insert_leases(connection, study_id, dict.fromkeys(ids, 1), worker)
    return [LeaseGrant(trial_id, 1) for trial_id in ids]
