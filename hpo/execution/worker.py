"""Worker of a study: claims its trials one after the other, and has them run."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
import sqlalchemy.exc

from hpo.config import registry
from hpo.errors import (
    DataError,
    HpoError,
    LeaseLostError,
    RunError,
    StorageLostError,
    StudyDeletedError,
)
from hpo.execution.cohort_trainer import CohortTrainer
from hpo.execution.data_check import check_data, check_divisions, check_weights
from hpo.execution.deaths import DeathCounter
from hpo.execution.heartbeat import Heartbeat
from hpo.execution.loss import explain_loss
from hpo.execution.objective_call import ObjectiveTrial
from hpo.execution.objective_calls import ObjectiveCalls
from hpo.execution.objective_function import ObjectiveFunction, find_changes, find_function
from hpo.execution.reference_models import train_reference_models
from hpo.execution.test_set import TestSetEvaluator
from hpo.execution.trial_errors import ErrorRecorder
from hpo.execution.trial_loggers import TrialLoggers
from hpo.execution.trial_recorder import TrialRecorder
from hpo.execution.watchdog import Watchdog
from hpo.execution.worker_context import WorkerContext
from hpo.execution.worker_options import WorkerOptions
from hpo.storage.identity import StudyIdentity
from hpo.storage.leases import WorkerInfo
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.files.study_files import StudyFiles
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device, set_threads
from hpo.utils.home import cores
from hpo.utils.pause import pause
from hpo.utils.text import quantity, summarize_error

__all__ = ["Worker", "cores_per_worker"]

log = logging.getLogger("hpo.execution.worker")
# Seconds until the other workers' trials are looked at again, and how much longer each further pause is: an idle worker
# ends at most a fourth of its waiting time late.
FIRST_PAUSE, LONGER = 0.1, 1.25
GAVE_UP = "; gave up after 5 minutes"


def cores_per_worker(study: Study) -> int:
    """Return the threads for one more worker: this machine's cores over the study's live workers on it."""
    here = socket.gethostname()
    others = sum(worker.host == here and not worker.gone for worker in study.storage.read_workers(study.id))
    return max(1, cores() // (others + 1))


@dataclass
class Worker:
    """Worker of one study, in this process. It trains trials until none is left to claim, or until it is stopped.

    Attributes:
        study: the study whose trials it claims.
        options: how it trains them; `cpus` is its number of threads, and None leaves torch's own choice.
        should_stop: called between steps and between trials; true asks for an orderly stop.
        end_process: ends this process, with a line that says why, where training hangs and nothing else can; None where
            the process is not the worker's own, and goes on.
        function: the study's objective function, if it has one; by default the one that the options name.

    Raises:
        RequestError: an option is wrong here: no such device, a tracker that cannot be reached, a folder that cannot be
            created; or `HPO_HOME` cannot be written.
        DataError, RegistryError: the study's data set or something else that it names is not here.
    """

    study: Study
    options: WorkerOptions = field(default_factory=WorkerOptions)
    should_stop: Callable[[], bool] = lambda: False
    end_process: Callable[[str], object] | None = None
    function: ObjectiveFunction | None = None

    def __post_init__(self) -> None:
        self.study.check_trainable()
        self.study.definition.check_registered()
        check_weights(self.study.definition)
        for change in self.study.definition.declarations.describe_changes():
            log.warning("%s", change)
        self.device = select_device(self.options.device)
        if self.options.cpus:
            set_threads(self.options.cpus)
        self._data = data = DataCache(self.study.definition.dataset, self.device)
        evaluates = self._check_data(data)
        self.files = StudyFiles(self.study)
        self.files.check_writable()
        host, pid = socket.gethostname(), os.getpid()
        # Process ids are used again, and containers may have the same ones.
        self.name = f"{host}-{pid}-{secrets.token_hex(2)}"
        self.info = WorkerInfo(self.name, host, pid, str(self.device), self.options.lease)
        self.work = WorkRecorder()
        test_set = TestSetEvaluator(self.study, data) if evaluates else None
        self._recorder = TrialRecorder(self.study, self.files, self.work, test_set)
        self._errors = ErrorRecorder(self._recorder, DeathCounter(self.study, self.files))
        self._watchdog = Watchdog()
        self._watchdog.exits = self.end_process is not None
        self.trials = self._make_trials(data)
        identity = StudyIdentity(self.study.id, self.files.key)
        self._heartbeat = Heartbeat(
            self.study.storage, identity, self.info, self.work, self._watchdog, self._end_overdue
        )

    def _make_trials(self, data: DataCache) -> CohortTrainer | ObjectiveCalls:
        """Return what runs the trials: it trains configurations of ours, or calls an objective function."""
        context = WorkerContext(
            self.study,
            self.options,
            self.info,
            self.files,
            self.work,
            self._recorder,
            self._errors,
            TrialLoggers(self.study.name, self.files.key, self.options),
            self._watchdog,
            self._stopping,
        )
        if self.study.definition.function is None:
            return CohortTrainer(context, data)
        if self.function is None:
            self.function = find_function(self.study, self.options.function, self.options.imports)
            for change in find_changes(self.study, self.function.reference):
                log.warning("%s", change)
        self.study.trial_type = ObjectiveTrial
        return ObjectiveCalls(context, self.function.call)

    def _check_data(self, data: DataCache) -> bool:
        """Load the data set, so that an error in it is raised before a trial is claimed; true if models are tested."""
        dataset = data.load()
        definition = self.study.definition
        evaluates = definition.evaluation is not None and definition.evaluation.tested and definition.configured
        if evaluates and dataset.test is None:
            raise DataError(f"{self.study.definition.dataset.name}: has no test set; give `test` in its hpo.Dataset")
        if definition.configured and definition.dataset.name != registry.NO_DATA:
            check_divisions(definition, dataset)
            check_data(self.study, dataset)
        return evaluates

    @property
    def finished(self) -> dict[str, int]:
        """Number of trials whose results it has told, by state."""
        return self._recorder.finished

    def run(self) -> None:
        """Claim and train one cohort after the other.

        Raises:
            RunError: too many trials in a row failed, or the database did not answer for too long.
            StorageLostError, StudyDeletedError: the database or the study was deleted, or replaced by another.
        """
        storage = self.study.storage
        log.info("worker %s: study %s in %s on %s", self.name, self.study.name, storage.masked_url, self.device)
        storage.retry_policy.stop_requested = self._stopping
        storage.rescue_if_lost()
        try:
            with self._heartbeat:
                self._train_cohorts()
                if not self._stopping() and (not self.study.remaining() or self.study.has_settled()):
                    train_reference_models(self.study, self._data, self._stopping)
            if storage.loss is not None:  # noticed as its statistics were written
                raise storage.loss
        except StudyDeletedError:
            raise
        except StorageLostError as error:
            raise explain_loss(self.study, error, self.files.folder("checkpoints")) from error
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
            if storage.loss is not None:
                raise explain_loss(self.study, storage.loss, self.files.folder("checkpoints")) from error
            raise RunError(f"{storage.explain(error)}{GAVE_UP if storage.outage_error else ''}") from error
        finally:
            storage.retry_policy.stop_requested = lambda: False

    def _stopping(self) -> bool:
        """Return true after a signal here, `hpo stop` anywhere, the database's loss, or minutes without its answer."""
        storage = self.study.storage
        stopped = self.should_stop() or self._heartbeat.stop
        return stopped or storage.loss is not None or storage.outage_error is not None

    def _train_cohorts(self) -> None:
        logged, pause = False, FIRST_PAUSE
        while not self._stopping():
            try:
                with self.work.measure("storage"):
                    claim = self.study.claim(self.info)
            except LeaseLostError:
                continue  # this process was suspended as it claimed, for longer than a lease
            if claim is not None:
                self.work_on(claim)
                pause = FIRST_PAUSE
            elif others := self._count_others():
                if not logged:
                    waits = quantity(others, "trial")
                    log.info("nothing left to begin; waiting for %s of other workers, in case one dies", waits)
                logged = True
                self._wait(pause)
                pause = min(LONGER * pause, 5.0, self.options.lease / 4)
            elif why := self.study.stop_reason():
                log.info("nothing left to begin: %s", why)
                return
            elif not self._go_on_with_paused():
                log.info("nothing left to begin")
                return
        if self.study.storage.loss is not None:
            raise self.study.storage.loss
        if (error := self.study.storage.outage_error) is not None:
            raise RunError(f"{self.study.storage.explain(error)}{GAVE_UP}")
        if self._heartbeat.stop:
            log.info("stopped, as hpo stop asked")

    def _go_on_with_paused(self) -> bool:
        """Promote a paused trial where nothing else is left, or end all that are; return false once none is left."""
        try:
            claim = self.study.claim(self.info, ending=True)
        except LeaseLostError:
            return True
        if claim is not None:
            self.work_on(claim)
            return True
        ended = self.study.end_paused()
        for number in ended or ():
            self._recorder.close_paused(number)
        return ended is None

    def _count_others(self) -> int:
        """Count the trials that others train or may be claiming; in a study that has ended, nobody claims."""
        return self.study.storage.count_held_by_others(self.study.id, waiting=self.study.stop_reason() is None)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            pause(0.1)

    def work_on(self, claim: ClaimedTrial) -> None:
        """Run a claimed trial, with the further ones of its cohort, and tell their results, whatever they are."""
        try:
            self.trials.run(claim)
        except (KeyboardInterrupt, SystemExit, HpoError):
            self._recorder.release()
            raise

    def _end_overdue(self) -> None:
        """End the trials that training does not come back from; called by the heartbeat's thread.

        A trial alone fails. Of a cohort it is not known which is to blame: each counts a death, and waits to be trained
        alone. The process ends too, where it may, for nothing else ends the thread that hangs.
        """
        if (found := self._watchdog.overdue()) is None:
            return
        trials, error = found
        claims = [trial.claim for trial in trials if trial.claim.id in self._recorder.open]
        if not claims:
            return  # told already
        numbers = ", ".join(str(claim.number) for claim in claims)
        log.error("trial %s hangs: %s; the training thread is here:\n%s", numbers, error, self._watchdog.stack())
        try:
            for claim in claims:
                with self._errors.record(claim):
                    if len(claims) == 1:
                        self._recorder.tell_error(claim, error)
                    else:
                        self._errors.outlive(claim, error)
            self._recorder.release()
            if self.end_process is not None:
                self._heartbeat.unregister()
        except Exception as problem:  # their leases will expire
            log.warning("not told: %s", summarize_error(problem))
        if self.end_process is None:
            log.error("trial %s hangs: %s; interrupt this process to go on", numbers, error)
            return
        self.end_process(f"trial {numbers} hangs: {error}; this worker ends")
