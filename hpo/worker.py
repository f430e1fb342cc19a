"""The objective function: claims trials of a study, trains them, tells the results. Joins study and training."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import optuna
import sqlalchemy.exc
from optuna.trial import TrialState

from hpo import registry
from hpo.config import TrialConfig
from hpo.errors import CheckpointError, DataError, HpoError, LeaseLostError, OutOfMemoryError, RegistryError, RunError
from hpo.home import cores
from hpo.study import Claim, Study
from hpo.study.heartbeat import LEASE, Heartbeat
from hpo.study.keeping import StudyFiles
from hpo.study.leases import Holder
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import DataCache
from hpo.training.files import remove
from hpo.training.job import write_weights
from hpo.training.loop import Member, Outcome, device, set_threads, train
from hpo.training.member import Weights
from hpo.training.memory import give_memory_back

__all__ = ["Worker", "share_of_cores"]

log = logging.getLogger("hpo.worker")
ERRORS_IN_A_ROW = 5
DEATHS = 5  # attempts in a row that may end with their worker
LONGEST_MESSAGE = 2000  # characters; MySQL's text holds 64 kB
# What a storage raises of a trial that another worker has taken over, that somebody else has told, or that is deleted.
LOST = "trial %d is not this worker's any more: another has taken it over, or it was told or deleted by somebody"
NOT_OURS = (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError, KeyError)


def share_of_cores(study: Study) -> int:
    """Threads for one more worker: this machine's cores over the study's workers that live on it."""
    here = socket.gethostname()
    others = sum(worker.host == here and not worker.gone for worker in study.storage.workers(study.id))
    return max(1, cores() // (others + 1))


class Reporting(Callback):
    """Stores every epoch of one trial in the study, and stops it where the pruner says so.

    Attributes:
        lost: whether the trial is not this worker's any more; nothing more of it is to be told.
    """

    def __init__(self, study: Study, claim: Claim) -> None:
        self.study = study
        self.claim = claim
        self.lost = False
        objectives = study.definition.objectives
        self.metric = objectives[0].metric if len(objectives) == 1 else None

    def on_start(self, member: Member) -> None:
        """Bring the study to where the trial begins: nothing is stored of later epochs, and all of earlier ones.

        Raises:
            LeaseLostError: the trial is not this worker's any more.
        """
        if self.claim.attempt > 1:
            try:
                self._take_up(member)
            except NOT_OURS as error:
                raise LeaseLostError(LOST % self.claim.number) from error

    def _take_up(self, member: Member) -> None:
        if member.resumed_from:
            log.info("trial %d goes on after epoch %d", self.claim.number, member.resumed_from)
        self.study.rewind(self.claim, member.resumed_from)
        stored = len(self.study.storage.epochs(self.study.id, self.claim.id).get(self.claim.id, []))
        for metrics in member.history[stored:]:
            self._store(metrics)

    def on_epoch(self, member: Member, metrics: dict[str, float]) -> None:
        """Record the metrics; report the objective to Optuna; ask the pruner, except after the last epoch."""
        try:
            reported = self._store(metrics)
            if reported and metrics["epoch"] < member.config.epochs and self.claim.trial.should_prune():
                member.stop("pruned")
        except NOT_OURS:
            self.lost = True
            member.stop("interrupted")

    def _store(self, metrics: dict[str, float]) -> bool:
        """Record an epoch, and report it to Optuna where there is one objective and it is finite."""
        epoch = int(metrics["epoch"])
        self.study.storage.record_epoch(self.claim.id, epoch, metrics)
        value = metrics.get(self.metric, math.nan) if self.metric else math.nan
        if math.isfinite(value):
            self.claim.trial.report(value, epoch)
        return math.isfinite(value)


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
        finished: how many trials it has told, by state.
    """

    study: Study
    device_name: str = "auto"
    threads: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint_every: float = 30.0
    lease: float = LEASE

    def __post_init__(self) -> None:
        self.study.definition.check_registered()
        self.device = device(self.device_name)
        if self.threads:
            set_threads(self.threads)
        self.data = DataCache(self.study.definition.dataset, self.device)
        self.data.load()  # what is wrong with it must be said before a trial is claimed
        self.files = StudyFiles(self.study)
        host, pid = socket.gethostname(), os.getpid()
        # Process numbers come again, and containers share them.
        self.name = f"{host}-{pid}-{secrets.token_hex(2)}"
        self.holder = Holder(self.name, host, pid, str(self.device), self.lease)
        self.finished: dict[str, int] = {}
        self._errors = 0
        self._heartbeat = Heartbeat(self.study.storage, self.study.id, self.holder)

    def run(self) -> None:
        """Claim and train, one trial after the other.

        Raises:
            RunError: too many trials in a row failed by an error, or the database did not answer for too long.
            StudyNotFoundError: the study was deleted.
        """
        storage = self.study.storage
        log.info("worker %s: study %s in %s on %s", self.name, self.study.name, storage.masked_url, self.device)
        storage.patience.asked_to_stop = self._stopping
        try:
            with self._heartbeat:
                self._work()
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
            raise RunError(storage.explain(error)) from error
        finally:
            storage.patience.asked_to_stop = lambda: False

    def _stopping(self) -> bool:
        """Whether to stop: a signal here, `hpo stop` anywhere, or a database that has not answered for minutes."""
        return self.should_stop() or self._heartbeat.stop or self.study.storage.given_up is not None

    def _work(self) -> None:
        told = False
        while not self._stopping():
            try:
                claim = self.study.claim(self.holder)
            except LeaseLostError:
                continue  # this process was suspended as it claimed, for longer than a lease
            if claim is not None:
                self.work_on(claim)
            elif others := self._others():
                if not told:
                    log.info("nothing left to begin; %d trials are with other workers, in case one dies", others)
                told = True
                self._wait(min(5.0, self.lease / 4))
            else:
                log.info("nothing left to begin%s", f": {why}" if (why := self.study.ended()) else "")
                return
        if (error := self.study.storage.given_up) is not None:
            raise RunError(f"{self.study.storage.explain(error)}; given up after 5 minutes")
        if self._heartbeat.stop:
            log.info("stopped, as hpo stop asked")

    def _others(self) -> int:
        """How many trials others have, or are just claiming; once the study has ended nobody claims those that wait."""
        return self.study.storage.held_by_others(self.study.id, waiting=self.study.ended() is None)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            time.sleep(0.1)

    def work_on(self, claim: Claim) -> None:
        """Train one claimed trial and tell the result, whatever it is."""
        try:
            if claim.taken_over:
                self._count_death(claim)
            config = self.study.config(claim)
            log.info("trial %d begins: %s", claim.number, claim.trial.params)
            outcome = self._train(config, claim)
        except (KeyboardInterrupt, SystemExit):
            self.study.storage.release(claim.id)
            raise
        except (DataError, RegistryError):
            # This machine lacks what the study needs; another may have it.
            self.study.storage.release(claim.id)
            raise
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError):
            raise  # the database's trouble is not the trial's fault; it was tried again for minutes
        except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
            log.info(LOST, claim.number)
        except OutOfMemoryError as error:
            self._tell(claim, TrialState.PRUNED, kind="out_of_memory", message=str(error))
        except Exception as error:  # a bug in user code fails its trial, not the worker
            self._failed(claim, error)
        else:
            self._told(claim, config, outcome)

    def _count_death(self, claim: Claim) -> None:
        """Note that the last attempt died; what kills its worker would kill one after the other.

        Raises:
            RunError: that many in a row have died without an epoch or a checkpoint more.
        """
        storage, path = self.study.storage, self._checkpoint(claim)
        epoch = storage.last_epochs(self.study.id, [claim.id]).get(claim.id, 0)
        place = [epoch, path.stat().st_mtime_ns if path.exists() else 0]
        before = storage.get_trial(claim.id).user_attrs.get("deaths", {})
        count = before.get("count", 0) + 1 if before.get("place") == place else 1
        storage.set_trial_user_attr(claim.id, "deaths", {"count": count, "place": place})
        storage.flush()  # before this worker may die as well
        if count >= DEATHS:
            raise RunError(f"{count} workers died of it, or were cut off, and it came no further")

    def _train(self, config: TrialConfig, claim: Claim) -> Outcome:
        """Train, from the checkpoint where there is one that can be used.

        Out of memory is tried once more, after the device's cache has been given back.
        """
        try:
            return self._train_once(config, claim)
        except CheckpointError as error:
            log.warning("trial %d begins anew: %s", claim.number, error)
            remove(self._checkpoint(claim))
        except OutOfMemoryError:
            log.warning("trial %d: out of memory, tried once more", claim.number)
        give_memory_back()
        return self._train_once(config, claim)

    def _train_once(self, config: TrialConfig, claim: Claim) -> Outcome:
        definition, storage = self.study.definition, self.study.storage
        objective = definition.objectives[0]
        path = self._checkpoint(claim)
        spec = CheckpointSpec(
            path,
            resume=path.exists(),
            every=self.checkpoint_every,
            owner=f"{self.study.id}/{claim.id}",
            may_write=lambda: storage.holds(claim.id),
        )
        if claim.attempt > 1 and not spec.resume:
            log.warning("trial %d begins anew: there is no checkpoint %s", claim.number, path)
        reporting = Reporting(self.study, claim)
        (outcome,) = train(
            [config],
            self.data.get(config),
            monitor=objective.metric,
            direction=objective.direction,
            metrics=[registry.metrics.get(o.metric) for o in definition.objectives],
            callbacks=[reporting],
            should_stop=lambda: self._stopping() or storage.is_lost(claim.id),
            checkpoints=[spec],
        )
        if reporting.lost or storage.is_lost(claim.id):
            raise LeaseLostError(LOST % claim.number)
        return outcome

    def _checkpoint(self, claim: Claim) -> Path:
        return self.files.checkpoint(claim.number)

    def _told(self, claim: Claim, config: TrialConfig, outcome: Outcome) -> None:
        if outcome.status == "interrupted":
            self._interrupted(claim)
            return
        values = self._values(outcome)
        attrs = self._described(config, outcome)
        self._errors = 0 if values is not None or outcome.status == "diverged" else self._errors
        if outcome.status == "diverged":
            self._tell(claim, TrialState.PRUNED, values, attrs, kind="diverged", message="a loss was not finite")
        elif values is None:
            self._tell(claim, TrialState.FAIL, None, attrs, kind="error", message="an objective was never finite")
        elif outcome.status == "pruned":
            self._tell(claim, TrialState.PRUNED, values, attrs)
        else:
            with self._keeping(claim, values[0], outcome.weights or {}):
                self._tell(claim, TrialState.COMPLETE, values, attrs)

    def _keeping(self, claim: Claim, value: float, weights: Weights) -> AbstractContextManager[None]:
        """Keep the weights of a trial that is told COMPLETE, if it is among the best, and still this worker's."""
        if not self.study.storage.holds(claim.id):
            return nullcontext()
        return self.files.telling(claim.number, value, lambda path, about: write_weights(path, weights, about))

    def _interrupted(self, claim: Claim) -> None:
        if self.study.storage.in_trouble:
            log.info(
                "trial %d is another worker's once its lease has run out: the database does not answer", claim.number
            )
        elif self.study.storage.release(claim.id):
            log.info("trial %d released: the worker was asked to stop", claim.number)

    def _described(self, config: TrialConfig, outcome: Outcome) -> dict[str, object]:
        """Attributes that Optuna's tools show beside the value."""
        attrs: dict[str, object] = {
            "parameter_count": outcome.parameter_count,
            "train_seconds": round(outcome.train_seconds, 3),
        }
        if outcome.best_epoch is not None:
            attrs["best_epoch"] = outcome.best_epoch
        if config.model == "mlp":
            attrs["widths"] = "-".join(map(str, config.hidden_widths))
        if outcome.history:
            attrs["last_epoch"] = outcome.history[-1]
        return attrs

    def _values(self, outcome: Outcome) -> list[float] | None:
        """One value per objective at the best epoch, or None where one is not finite."""
        if outcome.best is None:
            return None
        known = {**outcome.best, "parameter_count": outcome.parameter_count, "train_seconds": outcome.train_seconds}
        values = [float(known[objective.metric]) for objective in self.study.definition.objectives]
        return values if all(map(math.isfinite, values)) else None

    def _failed(self, claim: Claim, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}".splitlines()[0] if not isinstance(error, HpoError) else str(error)
        log.error(
            "trial %d failed: %s", claim.number, text, exc_info=error.__cause__ or not isinstance(error, HpoError)
        )
        self._tell(claim, TrialState.FAIL, kind="error", message=text)

    def _tell(
        self,
        claim: Claim,
        state: TrialState,
        values: list[float] | None = None,
        attrs: Mapping[str, object] = MappingProxyType({}),
        *,
        kind: str = "",
        message: str = "",
    ) -> None:
        """End a trial, unless it is another worker's by now.

        Raises:
            RunError: too many trials in a row failed by an error.
        """
        storage, optuna_study = self.study.storage, self.study.optuna_study
        failure = {"failure": kind, "message": message[:LONGEST_MESSAGE]} if kind else {}
        try:
            for key, value in {**attrs, **failure}.items():
                storage.set_trial_user_attr(claim.id, key, value)
            optuna_study.sampler.after_trial(optuna_study, storage.get_trial(claim.id), state, values)
            storage.set_trial_state_values(claim.id, state, values)
        except NOT_OURS as error:
            if isinstance(error, KeyError) and self._exists(claim):
                raise  # a sampler's own
            log.info(LOST, claim.number)
            return
        remove(self._checkpoint(claim))
        self.finished[state.name] = self.finished.get(state.name, 0) + 1
        told, why = f" {values}" if values else "", f" ({kind}: {message})" if kind else ""
        log.info("trial %d %s%s%s", claim.number, state.name, told, why)
        if state == TrialState.FAIL:
            self._count_error(claim, message)

    def _exists(self, claim: Claim) -> bool:
        try:
            self.study.storage.get_trial(claim.id)
        except KeyError:
            return False
        return True

    def _count_error(self, claim: Claim, message: str) -> None:
        self._errors += 1
        if self._errors == ERRORS_IN_A_ROW:
            raise RunError(f"{self._errors} trials in a row failed, the last one ({claim.number}) with {message}")
