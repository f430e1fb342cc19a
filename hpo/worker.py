"""The objective function: claims trials of a study, trains them, tells the results. Joins study and training."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.trial import TrialState

from hpo import registry
from hpo.config import TrialConfig
from hpo.errors import CheckpointError, DataError, HpoError, OutOfMemoryError, RegistryError, RunError
from hpo.home import cores
from hpo.study import Claim, Study
from hpo.study.keeping import StudyFiles
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import DataCache
from hpo.training.files import remove
from hpo.training.job import write_weights
from hpo.training.loop import Member, Outcome, device, set_threads, train

__all__ = ["Worker", "share_of_cores", "worker_name"]

log = logging.getLogger("hpo.worker")
ERRORS_IN_A_ROW = 5


def worker_name() -> str:
    """What a worker is called: its host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"


def share_of_cores(study: Study) -> int:
    """Threads for one more worker: this machine's cores over the workers of the study that train on it now."""
    host = socket.gethostname()
    running = [t for t in study.trials() if t.state == TrialState.RUNNING]
    others = sum(str(trial.user_attrs.get("worker", "")).rpartition("-")[0] == host for trial in running)
    return max(1, cores() // (others + 1))


class Reporting(Callback):
    """Stores every epoch of one trial in the study, and stops it where the pruner says so."""

    def __init__(self, study: Study, claim: Claim) -> None:
        self.study = study
        self.claim = claim
        objectives = study.definition.objectives
        self.metric = objectives[0].metric if len(objectives) == 1 else None

    def on_start(self, member: Member) -> None:
        """Bring the study to where the trial begins: nothing is stored of later epochs, and all of earlier ones."""
        self.study.rewind(self.claim, member.resumed_from)
        stored = len(self.study.storage.epochs(self.study.id).get(self.claim.id, []))
        for metrics in member.history[stored:]:
            self._store(metrics)

    def on_epoch(self, member: Member, metrics: dict[str, float]) -> None:
        """Record the metrics; report the objective to Optuna; ask the pruner, except after the last epoch."""
        reported = self._store(metrics)
        if reported and metrics["epoch"] < member.config.epochs and self.claim.trial.should_prune():
            member.stop("pruned")

    def _store(self, metrics: dict[str, float]) -> bool:
        """Record an epoch, and report it to Optuna where there is one objective and it is finite."""
        epoch = int(metrics["epoch"])
        self.study.storage.record_epoch(self.study.id, self.claim.id, 1, epoch, metrics)
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
        finished: how many trials it has told, by state.
    """

    study: Study
    device_name: str = "auto"
    threads: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint_every: float = 30.0

    def __post_init__(self) -> None:
        self.study.definition.check_registered()
        self.device = device(self.device_name)
        if self.threads:
            set_threads(self.threads)
        self.data = DataCache(self.study.definition.dataset, self.device)
        self.data.load()  # what is wrong with it must be said before a trial is claimed
        self.files = StudyFiles(self.study)
        self.name = worker_name()
        self.finished: dict[str, int] = {}
        self._errors = 0

    def run(self) -> None:
        """Claim and train, one trial after the other.

        Raises:
            RunError: too many trials in a row failed by an error.
        """
        log.info(
            "worker %s: study %s in %s on %s", self.name, self.study.name, self.study.storage.masked_url, self.device
        )
        while not self.should_stop():
            claim = self.study.claim({"worker": self.name})
            if claim is None:
                log.info("nothing left to begin%s", f": {why}" if (why := self.study.ended()) else "")
                return
            self.work_on(claim)

    def work_on(self, claim: Claim) -> None:
        """Train one claimed trial and tell the result, whatever it is."""
        try:
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
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
            # The database's trouble is not the trial's fault; it was tried again for minutes.
            raise RunError(f"trial {claim.number}: {self.study.storage.explain(error)}") from error
        except OutOfMemoryError as error:
            self._tell(claim, TrialState.PRUNED, kind="out_of_memory", message=str(error))
        except Exception as error:  # a bug in user code fails its trial, not the worker
            self._failed(claim, error)
        else:
            self._errors = 0
            self._told(claim, config, outcome)

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
        return self._train_once(config, claim)

    def _train_once(self, config: TrialConfig, claim: Claim) -> Outcome:
        definition = self.study.definition
        objective = definition.objectives[0]
        path = self._checkpoint(claim)
        spec = CheckpointSpec(
            path, resume=path.exists(), every=self.checkpoint_every, owner=f"{self.study.id}/{claim.id}"
        )
        if claim.trial._cached_frozen_trial.intermediate_values and not spec.resume:
            log.warning("trial %d begins anew: it was interrupted, and %s is not here", claim.number, path)
        return train(
            [config],
            self.data.get(config),
            monitor=objective.metric,
            direction=objective.direction,
            metrics=[registry.metrics.get(o.metric) for o in definition.objectives],
            callbacks=[Reporting(self.study, claim)],
            should_stop=self.should_stop,
            checkpoints=[spec],
        )[0]

    def _checkpoint(self, claim: Claim) -> Path:
        return self.files.checkpoint(claim.number)

    def _told(self, claim: Claim, config: TrialConfig, outcome: Outcome) -> None:
        if outcome.status == "interrupted":
            self.study.storage.release(claim.id)
            log.info("trial %d released: the worker was asked to stop", claim.number)
            return
        self._describe(claim, config, outcome)
        values = self._values(outcome)
        if outcome.status == "diverged":
            self._tell(claim, TrialState.PRUNED, values, kind="diverged", message="a loss was not finite")
        elif values is None:
            self._tell(claim, TrialState.FAIL, kind="error", message="an objective was never finite")
        elif outcome.status == "pruned":
            self._tell(claim, TrialState.PRUNED, values)
        else:
            weights = outcome.weights or {}
            with self.files.telling(claim.number, values[0], lambda path, about: write_weights(path, weights, about)):
                self._tell(claim, TrialState.COMPLETE, values)

    def _describe(self, claim: Claim, config: TrialConfig, outcome: Outcome) -> None:
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
        for key, value in attrs.items():
            self.study.storage.set_trial_user_attr(claim.id, key, value)

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
        self._errors += 1
        if self._errors == ERRORS_IN_A_ROW:
            raise RunError(f"{self._errors} trials in a row failed, the last one ({claim.number}) with {text}")

    def _tell(
        self, claim: Claim, state: TrialState, values: list[float] | None = None, *, kind: str = "", message: str = ""
    ) -> None:
        storage = self.study.storage
        if kind:
            storage.set_trial_user_attr(claim.id, "failure", kind)
            storage.set_trial_user_attr(claim.id, "message", message)
        optuna_study = self.study.optuna_study
        optuna_study.sampler.after_trial(optuna_study, storage.get_trial(claim.id), state, values)
        storage.set_trial_state_values(claim.id, state, values)
        remove(self._checkpoint(claim))
        self.finished[state.name] = self.finished.get(state.name, 0) + 1
        log.info(
            "trial %d %s%s%s",
            claim.number,
            state.name,
            f" {values}" if values else "",
            f" ({kind}: {message})" if kind else "",
        )
