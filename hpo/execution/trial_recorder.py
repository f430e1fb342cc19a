"""How trials end: what a worker tells the study of them, those that ended together in one transaction."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from optuna.trial import TrialState

from hpo.config import registry
from hpo.errors import HpoError, RunError
from hpo.execution.study_callback import LOST, NOT_OURS, RunningTrial
from hpo.storage.leased_storage import TellRequest
from hpo.storage.study_storage import ENVIRONMENT
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.constraints import INFEASIBLE, compute_violations
from hpo.study.files.study_files import StudyFiles
from hpo.training.checkpoint import delete_checkpoint
from hpo.training.member import TrainResult, Weights
from hpo.training.standalone import write_weights
from hpo.utils.text import summarize_error

__all__ = ["TrialRecorder"]

log = logging.getLogger("hpo.execution.worker")
ERRORS_IN_A_ROW = 5
LATER = "trial %d is another worker's once its lease has run out: the database does not answer"
LONGEST_MESSAGE = 2000  # characters; MySQL's text holds 64 kB


@dataclass(frozen=True)
class Result:
    """What becomes of a trial.

    Attributes:
        claim: the trial.
        state, values: as Optuna has them.
        attrs: attributes that Optuna's tools show beside the value.
        failure: the kind of failure, or nothing.
        message: the failure in a line.
        weights: of its best epoch; they are kept if the trial is among the best.
        environment: what it was trained with.
        violations: by how much it violates each constraint; at most 0 where it does not.
    """

    claim: ClaimedTrial
    state: TrialState
    values: list[float] | None = None
    attrs: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    failure: str = ""
    message: str = ""
    weights: Weights | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    violations: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


class TrialRecorder:
    """Tells the study how the trials of one worker ended.

    Args:
        study: whose trials.
        files: of the study.
        work: takes the time and the count.
        look: asked of each trial that ended well for what is measured afterwards, as attributes, before it is told.

    Attributes:
        open: the worker's trials that are neither told nor lost nor released, by id.
        finished: how many trials it has told, by state.
    """

    def __init__(
        self,
        study: Study,
        files: StudyFiles,
        work: WorkRecorder,
        look: Callable[[RunningTrial, TrainResult], Mapping[str, float]] | None = None,
    ) -> None:
        self.study = study
        self.files = files
        self.work = work
        self.look = look
        self.open: dict[int, ClaimedTrial] = {}
        self.finished: dict[str, int] = {}
        self._ended: list[tuple[RunningTrial, TrainResult]] = []
        self._errors = 0
        self._too_many: RunError | None = None

    def ended(self, entry: RunningTrial, outcome: TrainResult) -> None:
        """Note that a trial has ended; `tell` tells it."""
        self._ended.append((entry, outcome))

    def tell(self) -> None:
        """Tell all that has ended since, in one transaction; give back what was interrupted."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        for entry, _ in ended:
            entry.lost = entry.lost or self.study.storage.is_lost(entry.claim.id)
            if entry.lost:
                self.lost(entry.claim)
        ended = [(entry, outcome) for entry, outcome in ended if not entry.lost]
        self._interrupted([entry.claim for entry, outcome in ended if outcome.status == "interrupted"])
        self._tell(
            [
                replace(
                    self._result(entry, outcome),
                    environment=entry.environment,
                    violations=compute_violations(self.study.definition.constraints, _decided(outcome)),
                )
                for entry, outcome in ended
                if outcome.status != "interrupted"
            ]
        )

    def check(self) -> None:
        """Go no further once too much has failed.

        Raises:
            RunError: too many trials in a row failed by an error.
        """
        if self._too_many is not None:
            raise self._too_many

    def lost(self, claim: ClaimedTrial) -> None:
        """A trial is another's, and nothing is told of it."""
        self.open.pop(claim.id, None)
        log.info(LOST, claim.number)

    def failed(self, claim: ClaimedTrial, error: Exception) -> None:
        """A trial failed by an error."""
        text = str(error) if isinstance(error, HpoError) else summarize_error(error)
        log.error(
            "trial %d failed: %s", claim.number, text, exc_info=error.__cause__ or not isinstance(error, HpoError)
        )
        self._tell([Result(claim, TrialState.FAIL, failure="error", message=text)])

    def out_of_memory(self, claim: ClaimedTrial, error: Exception) -> None:
        """A trial needs more memory than there is."""
        self._tell([Result(claim, TrialState.PRUNED, failure="out_of_memory", message=str(error))])

    def release(self) -> None:
        """Give back all that is open."""
        with self.work.measure("storage"):
            self.study.storage.release_all(list(self.open))
        self.open.clear()

    def _interrupted(self, claims: Collection[ClaimedTrial]) -> None:
        storage = self.study.storage
        if not claims:
            return
        unavailable = storage.is_unavailable  # and then it is not waited for
        with self.work.measure("storage"):
            released = [] if unavailable else storage.release_all([claim.id for claim in claims])
        for claim in claims:
            self.open.pop(claim.id, None)
            if unavailable:
                log.info(LATER, claim.number)
            elif claim.id in released:
                log.info("trial %d released: the worker was asked to stop", claim.number)

    # What came out.

    def _result(self, entry: RunningTrial, outcome: TrainResult) -> Result:
        claim, attrs = entry.claim, self._described(entry, outcome)
        try:
            looked = self._looked(entry, outcome)
        except RunError as error:  # of a metric, or out of memory
            return Result(claim, TrialState.FAIL, None, attrs, "error", str(error))
        values, attrs = self._values(outcome, looked), {**attrs, **looked}
        if outcome.status == "diverged":
            return Result(claim, TrialState.PRUNED, values, attrs, "diverged", "a loss was not finite")
        if broken := self._broken(outcome):
            # Not COMPLETE, so that nothing takes it for a candidate. Optuna's samplers ask for its violations first.
            return Result(claim, TrialState.PRUNED, values, attrs, INFEASIBLE, broken)
        if values is None:
            return Result(claim, TrialState.FAIL, None, attrs, "error", "an objective was never finite")
        if outcome.status == "pruned":
            return Result(claim, TrialState.PRUNED, values, attrs)
        return Result(claim, TrialState.COMPLETE, values, attrs, weights=outcome.weights)

    def _broken(self, outcome: TrainResult) -> str:
        """The constraints that a trial violates, in a line."""
        known = _decided(outcome)
        held = compute_violations(self.study.definition.constraints, known)
        broken = [each for each in self.study.definition.constraints if held.get(each.text, 0.0) > 0]
        return "; ".join(f"{each.text}, but it is {known[each.metric]:.6g}" for each in broken)

    def _looked(self, entry: RunningTrial, outcome: TrainResult) -> Mapping[str, float]:
        if self.look is None or outcome.status not in ("completed", "early_stopped"):
            return {}
        name = entry.config.model
        if outcome.module is None and registry.models.get(name).loop:
            raise RunError(f"objective '{name}': name its model, as in trial.epochs(model=…), to have it tested")
        if outcome.weights is None:
            return {}
        return self.look(entry, outcome)

    def _described(self, entry: RunningTrial, outcome: TrainResult) -> dict[str, object]:
        attrs: dict[str, object] = {
            **({"parameter_count": outcome.parameter_count} if outcome.parameter_count else {}),
            "train_seconds": round(outcome.train_seconds, 3),
            "cohort": entry.cohort,
        }
        if outcome.best_epoch is not None:
            attrs["best_epoch"] = outcome.best_epoch
        if "depth" in registry.models.get(entry.config.model).uses:
            attrs["widths"] = "-".join(map(str, outcome.config.hidden_widths))
        if "parameter_budget" in entry.config.effective():
            attrs["width"] = outcome.config.width  # which followed from it
        if outcome.history:
            attrs["last_epoch"] = _in_words(outcome.history[-1])
        return attrs

    def _values(self, outcome: TrainResult, looked: Mapping[str, float]) -> list[float] | None:
        """One value per objective at the best epoch, or None where one is missing or not finite."""
        if outcome.best is None:
            return None
        known = {**_known(outcome), **looked}
        values = [float(known.get(objective.metric, math.nan)) for objective in self.study.definition.objectives]
        return values if all(map(math.isfinite, values)) else None

    # Telling it.

    def _tell(self, results: Sequence[Result]) -> None:
        """End trials, but those that are another worker's by now."""
        with self.work.measure("storage"):
            mine = [result for result in results if self._described_there(result)]
            told = [TellRequest(result.claim.id, result.state, result.values) for result in mine]
            with self.files.keep_best_weights([kept for result in mine if (kept := self._kept(result))]):
                try:
                    refused = self.study.storage.tell(told) if told else {}
                except KeyError as error:  # the study was deleted
                    refused = {each.trial_id: error for each in told}
            for result in mine:
                self.lost(result.claim) if result.claim.id in refused else self._settled(result)

    def _described_there(self, result: Result) -> bool:
        """Write what is told beside the value; false where the trial is another's."""
        storage, optuna_study, claim = self.study.storage, self.study.optuna_study, result.claim
        failure = {"failure": result.failure, "message": result.message[:LONGEST_MESSAGE]} if result.failure else {}
        try:
            for key, value in {**result.attrs, **failure}.items():
                storage.set_trial_user_attr(claim.id, key, value)
            for text, value in result.violations.items():
                if text not in claim.trial.constraints:
                    claim.trial.set_constraint(text, value)
            if result.environment:
                storage.set_trial_system_attr(claim.id, ENVIRONMENT, dict(result.environment))
            claim.sampler.after_trial(optuna_study, storage.get_trial(claim.id), result.state, result.values)
        except NOT_OURS as error:
            if isinstance(error, KeyError) and self._exists(claim):
                raise  # a sampler's own
            self.lost(claim)
            return False
        return True

    def _exists(self, claim: ClaimedTrial) -> bool:
        try:
            self.study.storage.get_trial(claim.id)
        except KeyError:
            return False
        return True

    def _kept(self, result: Result) -> tuple[int, float, partial[None]] | None:
        """What is needed to keep its weights, where it is told COMPLETE and still this worker's."""
        if result.weights is None or result.values is None or not self.study.storage.holds(result.claim.id):
            return None
        return result.claim.number, result.values[0], partial(_write, result.weights)

    def _settled(self, result: Result) -> None:
        claim, state = result.claim, result.state
        self.open.pop(claim.id, None)
        delete_checkpoint(self.files.checkpoint(claim.number))
        self.finished[state.name] = self.finished.get(state.name, 0) + 1
        self.work.told += 1
        told = f" {result.values}" if result.values else ""
        why = f" ({result.failure}: {result.message})" if result.failure else ""
        log.info("trial %d %s%s%s", claim.number, state.name, told, why)
        if state == TrialState.FAIL:
            self._count_error(claim, result.message)
        elif result.failure != "out_of_memory":
            self._errors = 0

    def _count_error(self, claim: ClaimedTrial, message: str) -> None:
        self._errors += 1
        if self._errors == ERRORS_IN_A_ROW:
            text = f"{self._errors} trials in a row failed, the last one ({claim.number}) with {message}"
            self._too_many = RunError(text)


def _known(outcome: TrainResult) -> dict[str, float]:
    """The metrics of a trial at its best epoch, where it has one, and what it cost."""
    counted = {"parameter_count": float(outcome.parameter_count), "train_seconds": outcome.train_seconds}
    return {**(outcome.best or {}), **counted}


def _decided(outcome: TrainResult) -> dict[str, float]:
    """What constraints are held against: of a trial that a pruner stopped, what more epochs would not have changed."""
    known = _known(outcome)
    return {"parameter_count": known["parameter_count"]} if outcome.status == "pruned" else known


def _in_words(epoch: Mapping[str, float]) -> str:
    """An epoch's results as a line, as people read attributes; the table of epochs has every number and digit."""
    return ", ".join(f"{name} {value:.4g}" for name, value in epoch.items() if name not in ("learning_rate", "seconds"))


def _write(weights: Weights, path: Path, about: Mapping[str, str]) -> None:
    write_weights(path, weights, about)
