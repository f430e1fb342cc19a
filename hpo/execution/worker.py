"""Worker of a study: claims trials, trains them in cohorts, and tells their results."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc

from hpo.config import registry
from hpo.config.cohort_key import cohort_key, stack_key
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import (
    CheckpointError,
    DataError,
    HpoError,
    LeaseLostError,
    OutOfMemoryError,
    RegistryError,
    RequestError,
    RunError,
    StorageLostError,
    StudyDeletedError,
    UserExitError,
)
from hpo.execution.cohort_claims import CohortClaimer
from hpo.execution.deaths import DeathCounter
from hpo.execution.heartbeat import Heartbeat
from hpo.execution.loss import explain_loss
from hpo.execution.objective_call import ObjectiveTrial
from hpo.execution.objective_calls import ObjectiveCalls
from hpo.execution.objective_function import ObjectiveFunction, find_function
from hpo.execution.study_callback import RunningTrial, StudyCallback
from hpo.execution.test_set import TestSetEvaluator
from hpo.execution.trial_recorder import TrialRecorder
from hpo.execution.watchdog import Watchdog
from hpo.execution.worker_options import WorkerOptions
from hpo.storage.identity import StudyIdentity
from hpo.storage.leases import WorkerInfo
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.files.study_files import StudyFiles
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec, delete_checkpoint
from hpo.training.cohort_size import measure_cohort_size
from hpo.training.data import DataCache
from hpo.training.device import select_device, set_threads
from hpo.training.environment import describe_environment
from hpo.training.loggers.base import LoggedTrials, Tracker, check_trackers, make_tracker
from hpo.training.loggers.tensorboard import TensorBoard
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.memory import release_memory
from hpo.training.settings import TrainSettings
from hpo.utils.home import cores
from hpo.utils.paths import study_path
from hpo.utils.pause import pause
from hpo.utils.text import first_line, summarize_error

__all__ = ["Worker", "cores_per_worker"]

log = logging.getLogger("hpo.execution.worker")
# Trials that an adaptive sampler is asked for at once: at most so many, and at most this fraction of the budget. See
# benchmarks/pinning.py: on the template mnist_mlp 8 of 60 cost nothing measurable, 32 twice the trials; on quickstart
# 8 of 16 cost half a point.
MAX_ADAPTIVE_COHORT, MIN_BUDGET_PER_TRIAL = 8, 8
FIRST_PAUSE = 0.25  # seconds until the other workers' trials are looked at again; each further pause is twice as long
MAX_COHORT = 256  # trials, however small
GAVE_UP = "; gave up after 5 minutes"
# Errors that are no trial's fault: this machine lacks something that the study needs, and another may have it; or the
# database fails, after minutes of retries, or is no more.
INFRASTRUCTURE_ERRORS = (
    DataError, RegistryError, StorageLostError, StudyDeletedError,
    optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError,
)  # fmt: skip


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
        for change in self.study.definition.declarations.describe_changes():
            log.warning("%s", change)
        check_trackers(self.options.trackers)
        if self.options.tensorboard is not None:
            _create_folder(self.options.tensorboard)
            study_path("", self.study.name, root=self.options.tensorboard)  # refused before a trial is claimed
        self.device = select_device(self.options.device)
        if self.options.cpus:
            set_threads(self.options.cpus)
        self.data = DataCache(self.study.definition.dataset, self.device)
        evaluates = self._check_data()
        self.files = StudyFiles(self.study)
        self.files.check_writable()
        host, pid = socket.gethostname(), os.getpid()
        # Process ids are used again, and containers may have the same ones.
        self.name = f"{host}-{pid}-{secrets.token_hex(2)}"
        self.info = WorkerInfo(self.name, host, pid, str(self.device), self.options.lease)
        self.work = WorkRecorder()
        test_set = TestSetEvaluator(self.study, self.data) if evaluates else None
        self._recorder = TrialRecorder(self.study, self.files, self.work, test_set)
        self._deaths = DeathCounter(self.study, self.files)
        self._claimer = CohortClaimer(self.study)
        self._calls = self._make_calls()
        self._folder_missed = False
        self._cohort_sizes: dict[tuple[Value, ...], int] = {}
        self._watchdog = Watchdog()
        self._watchdog.exits = self.end_process is not None
        identity = StudyIdentity(self.study.id, self.files.key)
        self._heartbeat = Heartbeat(
            self.study.storage, identity, self.info, self.work, self._watchdog, self._end_overdue
        )

    def _make_calls(self) -> ObjectiveCalls | None:
        """Return what runs the trials of an objective function; None where trials are configurations of ours."""
        if self.study.definition.function is None:
            return None
        if self.function is None:
            self.function = find_function(self.study, self.options.function, self.options.imports)
        self.study.trial_type = ObjectiveTrial
        return ObjectiveCalls(self.study, self.function.call, self.files, self._recorder, self._should_interrupt)

    def _check_data(self) -> bool:
        """Load the data set, so that an error in it is raised before a trial is claimed; true for an evaluation."""
        dataset = self.data.load()
        evaluates = self.study.definition.evaluation is not None
        if evaluates and dataset.test is None:
            raise DataError(f"{self.study.definition.dataset.name}: has no test set; give `test` in its hpo.Dataset")
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
                    log.info("nothing left to begin; waiting for %d trials of other workers, in case one dies", others)
                logged = True
                self._wait(pause)
                pause = min(2 * pause, 5.0, self.options.lease / 4)
            else:
                log.info("nothing left to begin%s", f": {why}" if (why := self.study.stop_reason()) else "")
                return
        if self.study.storage.loss is not None:
            raise self.study.storage.loss
        if (error := self.study.storage.outage_error) is not None:
            raise RunError(f"{self.study.storage.explain(error)}{GAVE_UP}")
        if self._heartbeat.stop:
            log.info("stopped, as hpo stop asked")

    def _count_others(self) -> int:
        """Count the trials that others train or may be claiming; in a study that has ended, nobody claims."""
        return self.study.storage.count_held_by_others(self.study.id, waiting=self.study.stop_reason() is None)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            pause(0.1)

    def work_on(self, claim: ClaimedTrial) -> None:
        """Train a claimed trial with the further trials of its cohort, and tell their results, whatever they are."""
        try:
            if self._calls is not None:
                self._call(claim, self._calls)
                return
            cohorts = self._claim_cohorts(claim)
            self._recorder.check_errors()
            for trials in cohorts:
                self._train_cohort(trials)
                self._recorder.check_errors()
        except (KeyboardInterrupt, SystemExit, HpoError):
            self._recorder.release()
            raise

    def _call(self, claim: ClaimedTrial, calls: ObjectiveCalls) -> None:
        """Call the objective function with a claimed trial."""
        self._recorder.open[claim.id] = claim
        limit = self.study.budget.trial_timeout
        with self._record_errors(claim), self._watchdog.watch([RunningTrial(claim, TrialConfig())], limit, loop=True):
            if claim.taken_over:
                self._deaths.count(claim)
            with self.work.measure("training"):
                calls.run(claim)
        self._recorder.check_errors()

    def _should_interrupt(self) -> bool:
        """Return whether an objective function that reports is to be interrupted.

        Raises:
            TrialTimeoutError: it has taken too long.
        """
        self._watchdog.tick(report=True)
        self._watchdog.tick()
        return self._stopping()

    # Claiming.

    def _claim_cohorts(self, claim: ClaimedTrial) -> list[list[RunningTrial]]:
        """Claim the rest of a trial's cohort; trials that do not fit into it after all are cohorts of their own."""
        first = self._start(claim)
        if first is None:
            return []
        trials = [first, *filter(None, map(self._start, self._claim_more(first)))]
        cohorts: dict[object, list[RunningTrial]] = {}
        for trial in trials:
            cohorts.setdefault(cohort_key(trial.config), []).append(trial)
        return list(cohorts.values())

    def _start(self, claim: ClaimedTrial) -> RunningTrial | None:
        """Sample the parameters of a claimed trial; None after an error, which is told."""
        self._recorder.open[claim.id] = claim
        with self._record_errors(claim):
            if claim.taken_over:
                self._deaths.count(claim)
            with self.work.measure("sampling"):
                config = self.study.suggest_config(claim)
            log.info("trial %d begins: %s", claim.number, claim.trial.params)
            return RunningTrial(claim, config)
        return None

    def _claim_more(self, first: RunningTrial) -> list[ClaimedTrial]:
        """Claim further trials to train along with one."""
        if self.options.cohort == 1 or "train_seconds" in self.study.definition.metrics:
            return []  # only a trial that is trained alone has a time of its own
        if registry.models.get(first.config.model).loop:
            return []  # a user's own loop trains one trial
        key = stack_key(first.config)
        size = 1 if key is None else self.options.cohort or self._cohort_size(first, key)
        with self.work.measure("storage"):
            try:
                claims = self._claimer.claim(self.info, first.claim, first.config, size)
            except KeyError:  # the study was deleted, and the next claim will say so
                return []
            except (HpoError, *INFRASTRUCTURE_ERRORS):
                raise
            except Exception as error:  # a sampler's own; the trials that it was asked for wait again
                log.warning("trial %d is trained alone: %s", first.claim.number, summarize_error(error))
                return []
        self._recorder.open |= {claim.id: claim for claim in claims}
        return claims

    def _cohort_size(self, first: RunningTrial, key: tuple[Value, ...]) -> int:
        """Return how many trials the device trains efficiently, measured once for each key."""
        if key not in self._cohort_sizes:
            fixed = self.study.definition.fixed
            adaptive = max(1, min(MAX_ADAPTIVE_COHORT, self.study.budget.trials // MIN_BUDGET_PER_TRIAL))
            configs = self._claimer.candidate_configs(first.claim, first.config) if fixed else [first.config] * adaptive
            try:
                with self.work.measure("training"):
                    size = measure_cohort_size(configs, self.data.get(first.config), min(len(configs), MAX_COHORT))
            except INFRASTRUCTURE_ERRORS:
                raise
            except Exception as error:  # training the trial will raise it again, and fail the trial
                why = first_line(error)
                log.warning("the size of cohorts could not be measured, so trials are trained one by one: %s", why)
                return 1
            if first.claim.taken_over:
                return size  # measured on the few trials whose workers are gone; more trials may be waiting
            self._cohort_sizes[key] = size
        return self._cohort_sizes[key]

    # Training.

    def _train_cohort(self, trials: Sequence[RunningTrial]) -> None:
        """Train a cohort; after an error, train its trials one by one, so that the one to blame fails alone."""
        if len(trials) == 1:
            return self._train_alone(trials[0])
        try:
            return self._train(trials)
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception as error:
            why = first_line(error)
            log.warning("an error ended a cohort of %d trials; each is trained alone: %s", len(trials), why)
        release_memory()
        for trial in [trial for trial in trials if trial.claim.id in self._recorder.open]:
            self._train_alone(trial)
            self._recorder.check_errors()
        return None

    def _train_alone(self, trial: RunningTrial) -> None:
        """Train one trial, from its checkpoint if that can be read.

        A trial that is out of memory is tried once more, after the device's cache has been freed.
        """
        with self._record_errors(trial.claim):
            try:
                return self._train([trial])
            except CheckpointError as error:
                log.warning("trial %d begins anew: %s", trial.claim.number, error)
                delete_checkpoint(self._checkpoint_path(trial.claim))
            except OutOfMemoryError:
                log.warning("trial %d: out of memory; trying once more", trial.claim.number)
            release_memory()
            self._train([trial])
        return None

    @contextmanager
    def _record_errors(self, claim: ClaimedTrial) -> Iterator[None]:
        """Tell an error raised in this context as the trial's own, unless it is the infrastructure's."""
        try:
            yield
        except INFRASTRUCTURE_ERRORS:
            raise
        except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
            self._recorder.drop(claim)
        except OutOfMemoryError as error:
            self._recorder.tell_out_of_memory(claim, error)
        except UserExitError as error:
            with self._record_errors(claim):
                self._outlive(claim, error)
        except Exception as error:  # a bug in user code fails its trial, not the worker
            self._recorder.tell_error(claim, error)

    def _outlive(self, claim: ClaimedTrial, error: RunError) -> None:
        """Count an attempt that would have ended this process as a death; the trial waits for its next one.

        Raises:
            RunError: it has died too often.
        """
        try:
            self._deaths.count(claim, str(error))
        except RunError as final:
            raise final from error.__cause__
        self._recorder.give_back([claim], "it waits for its next attempt")

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
                with self._record_errors(claim):
                    if len(claims) == 1:
                        self._recorder.tell_error(claim, error)
                    else:
                        self._outlive(claim, error)
            self._recorder.release()
            if self.end_process is not None:
                self._heartbeat.unregister()
        except Exception as problem:  # their leases will expire
            log.warning("not told: %s", summarize_error(problem))
        if self.end_process is None:
            log.error("trial %s hangs: %s; interrupt this process to go on", numbers, error)
            return
        self.end_process(f"trial {numbers} hangs: {error}; this worker ends")

    def _train(self, trials: Sequence[RunningTrial]) -> None:
        """Train trials at the same time; the result of each is told soon after it has ended.

        Raises:
            TrialTimeoutError: training took longer than the study allows.
        """
        loop = registry.models.get(trials[0].config.model).loop
        with self._watchdog.watch(trials, self.study.budget.trial_timeout, loop=loop):
            self._train_watched(trials)

    def _train_watched(self, trials: Sequence[RunningTrial]) -> None:
        recorder = self._recorder
        study_callback = StudyCallback(
            self.study, trials, recorder.add, self.work, partial(self._watchdog.tick, report=True)
        )

        def should_stop() -> bool:
            recorder.tell_all()  # called between steps, when every trial that ends with an epoch has ended
            self._watchdog.tick()
            return self._stopping() or study_callback.all_lost

        self.work.cohorts += 1
        self.work.members += len(trials)
        trackers = self._make_trackers(trials)
        callbacks = [study_callback, *self._make_tensorboard(trials), *trackers]
        try:
            results = self._run_training(trials, callbacks, should_stop)
            for trial, result in zip(trials, results, strict=True):
                study_callback.finish(trial, result)
        finally:
            recorder.tell_all()
            for tracker in trackers:
                tracker.close()

    def _run_training(
        self, trials: Sequence[RunningTrial], callbacks: Sequence[Callback], should_stop: Callable[[], bool]
    ) -> list[TrainResult]:
        definition = self.study.definition
        objective = definition.objectives[0]
        with self.work.measure("training"):
            data = self.data.get(trials[0].config)
            environment = describe_environment(data)
            for trial in trials:
                trial.cohort, trial.environment = len(trials), environment
            return train(
                [trial.config for trial in trials],
                data,
                TrainSettings(
                    monitor=objective.metric,
                    direction=objective.direction,
                    metrics=[registry.metrics.get(name) for name in definition.metrics],
                    callbacks=callbacks,
                    should_stop=should_stop,
                    record_steps=definition.record_steps,
                ),
                checkpoints=[self._checkpoint_spec(trial.claim) for trial in trials],
            )

    def _make_tensorboard(self, trials: Sequence[RunningTrial]) -> list[TensorBoard]:
        if self.options.tensorboard is None:
            return []
        folder = study_path("", self.study.name, root=self.options.tensorboard)
        return [TensorBoard([folder / f"trial_{trial.claim.number}" for trial in trials])]

    def _make_trackers(self, trials: Sequence[RunningTrial]) -> list[Tracker[Any]]:
        """Make the trackers; a trial that has been started before, here or elsewhere, may have a run in them."""
        numbers = [trial.claim.number for trial in trials]
        again = [trial.claim.attempt > 1 or trial.started for trial in trials]
        logged = LoggedTrials(self.study.name, self.files.key, numbers, again)
        return [make_tracker(name, logged) for name in self.options.trackers]

    def _checkpoint_spec(self, claim: ClaimedTrial) -> CheckpointSpec:
        storage, path = self.study.storage, self._checkpoint_path(claim)
        if claim.attempt > 1 and not path.exists():
            log.warning("trial %d begins anew: there is no checkpoint %s", claim.number, path)
        return CheckpointSpec(
            path,
            resume=path.exists(),
            every=self.options.checkpoint_every,
            owner=f"{self.study.id}/{claim.id}",
            may_write=lambda: storage.holds(claim.id) and self._may_write_files(),
        )

    def _may_write_files(self) -> bool:
        """Return false once the folder is gone: it goes with its study, and is not to be made again."""
        folder = self.files.folder("checkpoints")
        if not folder.is_dir() and not self._folder_missed:
            self._folder_missed = True
            log.warning("%s: was removed; this worker writes no more checkpoints", folder)
        return not self._folder_missed

    def _checkpoint_path(self, claim: ClaimedTrial) -> Path:
        return self.files.checkpoint(claim.number)


def _create_folder(folder: Path) -> None:
    """Create the folder of TensorBoard's events before a trial is claimed.

    Raises:
        RequestError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise RequestError(f"--tensorboard {folder}: cannot be created ({why}); choose another folder") from error
