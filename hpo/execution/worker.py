"""The objective function: claims trials of a study, trains them, tells the results. Joins study and training."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc

from hpo.config import registry
from hpo.config.cohort_key import cohort_key, stack_key
from hpo.config.parameter import Value
from hpo.errors import (
    CheckpointError,
    DataError,
    HpoError,
    LeaseLostError,
    OutOfMemoryError,
    RegistryError,
    RequestError,
    RunError,
)
from hpo.execution.cohort_claims import CohortClaimer
from hpo.execution.heartbeat import LEASE, Heartbeat
from hpo.execution.study_callback import RunningTrial, StudyCallback
from hpo.execution.test_set import TestSetEvaluator
from hpo.execution.trial_recorder import TrialRecorder
from hpo.storage.leases import WorkerInfo
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.files.study_files import StudyFiles
from hpo.training.checkpoint import CheckpointSpec, delete_checkpoint
from hpo.training.cohort_size import measure_cohort_size
from hpo.training.data import DataCache
from hpo.training.device import select_device, set_threads
from hpo.training.environment import describe_environment
from hpo.training.loggers.base import LoggedTrials, Tracker, check_trackers, make_tracker
from hpo.training.loggers.tensorboard import TensorBoard
from hpo.training.loop import train
from hpo.training.memory import release_memory
from hpo.training.settings import TrainSettings
from hpo.utils.home import cores

__all__ = ["Worker", "cores_per_worker"]

log = logging.getLogger("hpo.execution.worker")
DEATHS = 5  # attempts in a row that may end with their worker
# Trials that a sampler is asked for at once, and the part of the budget that they may be: see benchmarks/pinning.py. On
# the template mnist_mlp 8 of 60 cost nothing measurable, 32 twice the trials; on quickstart 8 of 16 cost half a point.
ADAPTIVE, SHARE = 8, 8
FIRST_LOOK = 0.25  # seconds to the first look whether the others are done; each further one waits twice as long
MOST = 256  # trials of a cohort, however small
GIVEN_UP = "; given up after 5 minutes"
# What is no trial's fault: this machine lacks what the study needs, and another may have it; or the database's trouble,
# which was tried again for minutes.
INFRASTRUCTURE_ERRORS = (DataError, RegistryError, optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError)


def cores_per_worker(study: Study) -> int:
    """Threads for one more worker: this machine's cores over the study's workers that live on it."""
    here = socket.gethostname()
    others = sum(worker.host == here and not worker.gone for worker in study.storage.read_workers(study.id))
    return max(1, cores() // (others + 1))


@dataclass
class Worker:
    """Trains trials of one study until nothing is left to begin, or until it is asked to stop.

    Attributes:
        study: what it works on.
        device_name: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: of torch; None leaves torch's own choice.
        should_stop: asked between steps and between trials.
        checkpoint_every: seconds between checkpoints of a trial; 0 writes one after each epoch.
        lease: seconds for which it holds a trial without a sign of life.
        cohort: how many trials it trains at the same time, at most; None leaves that to what the device trains well,
            and to what an adaptive sampler can be asked for at once.
        tensorboard: the folder that TensorBoard events of every trial are written to, in STUDY/trial_N; or None.
        trackers: `mlflow`, `wandb`: what else is told of every trial; see `hpo.training.loggers.base`.
    """

    study: Study
    device_name: str = "auto"
    threads: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint_every: float = 30.0
    lease: float = LEASE
    cohort: int | None = None
    tensorboard: Path | None = None
    trackers: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.study.definition.check_registered()
        check_trackers(self.trackers)
        if self.tensorboard is not None:
            _make(self.tensorboard)
        self.device = select_device(self.device_name)
        if self.threads:
            set_threads(self.threads)
        self.data = DataCache(self.study.definition.dataset, self.device)
        dataset = self.data.load()  # what is wrong with it must be said before a trial is claimed
        evaluates = self.study.definition.evaluation is not None
        if evaluates and dataset.test is None:
            raise DataError(f"{self.study.definition.dataset.name}: has no test set; give `test` in its hpo.Dataset")
        self.files = StudyFiles(self.study)
        host, pid = socket.gethostname(), os.getpid()
        # Process numbers come again, and containers share them.
        self.name = f"{host}-{pid}-{secrets.token_hex(2)}"
        self.holder = WorkerInfo(self.name, host, pid, str(self.device), self.lease)
        self.work = WorkRecorder()
        look = TestSetEvaluator(self.study, self.data) if evaluates else None
        self._telling = TrialRecorder(self.study, self.files, self.work, look)
        self._companions = CohortClaimer(self.study)
        self._sizes: dict[tuple[Value, ...], int] = {}
        self._heartbeat = Heartbeat(self.study.storage, self.study.id, self.holder, self.work)

    @property
    def finished(self) -> dict[str, int]:
        """How many trials it has told, by state."""
        return self._telling.finished

    def run(self) -> None:
        """Claim and train, one cohort after the other.

        Raises:
            RunError: too many trials in a row failed by an error, or the database did not answer for too long.
            StudyNotFoundError: the study was deleted.
        """
        storage = self.study.storage
        log.info("worker %s: study %s in %s on %s", self.name, self.study.name, storage.masked_url, self.device)
        storage.retry_policy.stop_requested = self._stopping
        try:
            with self._heartbeat:
                self._work()
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
            raise RunError(f"{storage.explain(error)}{GIVEN_UP if storage.outage_error else ''}") from error
        finally:
            storage.retry_policy.stop_requested = lambda: False

    def _stopping(self) -> bool:
        """Whether to stop: a signal here, `hpo stop` anywhere, or a database that has not answered for minutes."""
        return self.should_stop() or self._heartbeat.stop or self.study.storage.outage_error is not None

    def _work(self) -> None:
        told, pause = False, FIRST_LOOK
        while not self._stopping():
            try:
                with self.work.measure("storage"):
                    claim = self.study.claim(self.holder)
            except LeaseLostError:
                continue  # this process was suspended as it claimed, for longer than a lease
            if claim is not None:
                self.work_on(claim)
                pause = FIRST_LOOK
            elif others := self._others():
                if not told:
                    log.info("nothing left to begin; %d trials are with other workers, in case one dies", others)
                told = True
                self._wait(pause)
                pause = min(2 * pause, 5.0, self.lease / 4)
            else:
                log.info("nothing left to begin%s", f": {why}" if (why := self.study.stop_reason()) else "")
                return
        if (error := self.study.storage.outage_error) is not None:
            raise RunError(f"{self.study.storage.explain(error)}{GIVEN_UP}")
        if self._heartbeat.stop:
            log.info("stopped, as hpo stop asked")

    def _others(self) -> int:
        """How many trials others have, or are just claiming; once the study has ended nobody claims those that wait."""
        return self.study.storage.count_held_by_others(self.study.id, waiting=self.study.stop_reason() is None)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            time.sleep(0.1)

    def work_on(self, claim: ClaimedTrial) -> None:
        """Train a claimed trial, and what is trained along with it, and tell the results, whatever they are."""
        try:
            cohorts = self._cohorts(claim)
            self._telling.check()
            for entries in cohorts:
                self._train_cohort(entries)
                self._telling.check()
        except (KeyboardInterrupt, SystemExit, HpoError):
            self._telling.release()
            raise

    # Claiming.

    def _cohorts(self, claim: ClaimedTrial) -> list[list[RunningTrial]]:
        """The trial with its companions; those of them that do not fit after all, by themselves."""
        first = self._begin(claim)
        if first is None:
            return []
        entries = [first, *filter(None, map(self._begin, self._more(first)))]
        cohorts: dict[object, list[RunningTrial]] = {}
        for entry in entries:
            cohorts.setdefault(cohort_key(entry.config), []).append(entry)
        return list(cohorts.values())

    def _begin(self, claim: ClaimedTrial) -> RunningTrial | None:
        """Sample a claimed trial; None where that went wrong, and is told."""
        self._telling.open[claim.id] = claim
        with self._answering(claim):
            if claim.taken_over:
                self._count_death(claim)
            with self.work.measure("sampling"):
                config = self.study.suggest_config(claim)
            log.info("trial %d begins: %s", claim.number, claim.trial.params)
            return RunningTrial(claim, config)
        return None

    def _more(self, first: RunningTrial) -> list[ClaimedTrial]:
        """Claim what is trained along with a trial."""
        if self.cohort == 1 or "train_seconds" in self.study.definition.metrics:
            return []  # a time is a trial's own only where it is trained alone
        if registry.models.get(first.config.model).loop:
            return []  # a loop of the user's own has one trial
        key = stack_key(first.config)
        size = 1 if key is None else self.cohort or self._size(first, key)
        with self.work.measure("storage"):
            try:
                claims = self._companions.claim(self.holder, first.claim, first.config, size)
            except KeyError:  # the study was deleted; the next claim says so
                return []
            except (HpoError, *INFRASTRUCTURE_ERRORS):
                raise
            except Exception as error:  # a sampler's own; what it was asked for waits again
                log.warning("trial %d is trained alone: %s: %s", first.claim.number, type(error).__name__, error)
                return []
        self._telling.open |= {claim.id: claim for claim in claims}
        return claims

    def _size(self, first: RunningTrial, key: tuple[Value, ...]) -> int:
        """How many trials the device trains well, as measured once for each batch size and whatever else they share."""
        if key not in self._sizes:
            fixed = self.study.definition.fixed
            asked = max(1, min(ADAPTIVE, self.study.budget.trials // SHARE))
            configs = self._companions.configs(first.claim, first.config) if fixed else [first.config] * asked
            try:
                with self.work.measure("training"):
                    size = measure_cohort_size(configs, self.data.get(first.config), min(len(configs), MOST))
            except INFRASTRUCTURE_ERRORS:
                raise
            except Exception as error:  # the trial's own training meets it again, and answers for it
                log.warning("how many trials fit in a cohort could not be measured: %s", error)
                return 1
            if first.claim.taken_over:
                return size  # of the few whose workers are gone; those that wait may be more
            self._sizes[key] = size
        return self._sizes[key]

    def _count_death(self, claim: ClaimedTrial) -> None:
        """Note that the last attempt died; what kills its worker would kill one after the other.

        Raises:
            RunError: that many in a row have died without an epoch or a checkpoint more.
        """
        storage, path = self.study.storage, self._checkpoint(claim)
        epoch = storage.read_last_epochs(self.study.id, [claim.id]).get(claim.id, 0)
        place = [epoch, path.stat().st_mtime_ns if path.exists() else 0]
        before = storage.get_trial(claim.id).user_attrs.get("deaths", {})
        count = before.get("count", 0) + 1 if before.get("place") == place else 1
        storage.set_trial_user_attr(claim.id, "deaths", {"count": count, "place": place})
        storage.flush()  # before this worker may die as well
        if count >= DEATHS:
            raise RunError(f"{count} workers died of it, or were cut off, and it came no further")

    # Training.

    def _train_cohort(self, entries: Sequence[RunningTrial]) -> None:
        """Train a cohort; where an error ends it, its trials one by one, so that each answers for itself."""
        if len(entries) == 1:
            return self._train_alone(entries[0])
        try:
            return self._train(entries)
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception as error:
            log.warning("a cohort of %d trials ended by an error; each is trained alone: %s", len(entries), error)
        release_memory()
        for entry in [entry for entry in entries if entry.claim.id in self._telling.open]:
            self._train_alone(entry)
            self._telling.check()
        return None

    def _train_alone(self, entry: RunningTrial) -> None:
        """Train one trial, from its checkpoint where there is one that can be used.

        Out of memory is tried once more, after the device's cache has been given back.
        """
        with self._answering(entry.claim):
            try:
                return self._train([entry])
            except CheckpointError as error:
                log.warning("trial %d begins anew: %s", entry.claim.number, error)
                delete_checkpoint(self._checkpoint(entry.claim))
            except OutOfMemoryError:
                log.warning("trial %d: out of memory, tried once more", entry.claim.number)
            release_memory()
            self._train([entry])
        return None

    @contextmanager
    def _answering(self, claim: ClaimedTrial) -> Iterator[None]:
        """What goes wrong in here is this trial's fault, and is told."""
        try:
            yield
        except INFRASTRUCTURE_ERRORS:
            raise
        except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
            self._telling.lost(claim)
        except OutOfMemoryError as error:
            self._telling.out_of_memory(claim, error)
        except Exception as error:  # a bug in user code fails its trial, not the worker
            self._telling.failed(claim, error)

    def _train(self, entries: Sequence[RunningTrial]) -> None:
        """Train trials at the same time; each is told soon after it has ended."""
        definition, telling = self.study.definition, self._telling
        objective = definition.objectives[0]
        reporting = StudyCallback(self.study, entries, telling.ended, self.work)
        for entry in entries:
            entry.cohort = len(entries)

        def should_stop() -> bool:
            telling.tell()  # asked between steps: what ended with the same epoch has all ended by now
            return self._stopping() or reporting.all_lost

        self.work.cohorts += 1
        self.work.members += len(entries)
        trackers = self._trackers(entries)
        try:
            with self.work.measure("training"):
                data = self.data.get(entries[0].config)
                for entry in entries:
                    entry.environment = describe_environment(data)
                outcomes = train(
                    [entry.config for entry in entries],
                    data,
                    TrainSettings(
                        monitor=objective.metric,
                        direction=objective.direction,
                        metrics=[registry.metrics.get(name) for name in definition.metrics],
                        callbacks=[reporting, *self._events(entries), *trackers],
                        should_stop=should_stop,
                        record_steps=definition.record_steps,
                    ),
                    checkpoints=[self._spec(entry.claim) for entry in entries],
                )
            for entry, outcome in zip(entries, outcomes, strict=True):
                reporting.end(entry, outcome)
        finally:
            telling.tell()
            for tracker in trackers:
                tracker.close()

    def _events(self, entries: Sequence[RunningTrial]) -> list[TensorBoard]:
        """What writes them, after what is told of a trial that is lost."""
        if self.tensorboard is None:
            return []
        folder = self.tensorboard / self.study.name
        return [TensorBoard([folder / f"trial_{entry.claim.number}" for entry in entries])]

    def _trackers(self, entries: Sequence[RunningTrial]) -> list[Tracker[Any]]:
        """What else is told of them; a trial that was begun before, or in its cohort, may have a run already."""
        numbers, again = zip(
            *((each.claim.number, each.claim.attempt > 1 or each.begun) for each in entries), strict=True
        )
        tracked = LoggedTrials(self.study.name, self.files.key, numbers, again)
        return [make_tracker(name, tracked) for name in self.trackers]

    def _spec(self, claim: ClaimedTrial) -> CheckpointSpec:
        storage, path = self.study.storage, self._checkpoint(claim)
        if claim.attempt > 1 and not path.exists():
            log.warning("trial %d begins anew: there is no checkpoint %s", claim.number, path)
        return CheckpointSpec(
            path,
            resume=path.exists(),
            every=self.checkpoint_every,
            owner=f"{self.study.id}/{claim.id}",
            may_write=lambda: storage.holds(claim.id),
        )

    def _checkpoint(self, claim: ClaimedTrial) -> Path:
        return self.files.checkpoint(claim.number)


def _make(folder: Path) -> None:
    """Make the folder of TensorBoard's events, so that one that cannot be is refused before a trial is claimed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise RequestError(f"--tensorboard {folder}: cannot be made ({why}); choose another folder") from error
