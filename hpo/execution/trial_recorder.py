"""Recorder of the results of a worker's trials; trials that end together are told in one transaction."""

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
from hpo.datasets.sample_codec import pack_scores, pack_split
from hpo.datasets.sample_error import sampling_error
from hpo.datasets.sample_scores import SampleScores, ValidationSplit
from hpo.errors import HpoError, RunError, StorageLostError, StudyDeletedError
from hpo.execution.study_callback import LOST, NOT_OURS, RunningTrial
from hpo.storage.leased_storage import TellRequest
from hpo.storage.study_storage import ENVIRONMENT
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.attributes import FIT_RETURNS, FITS, RACED, STAGE_EPOCHS, STANDARD_ERROR, VALUE_FROM
from hpo.study.constraints import INFEASIBLE, compute_violations
from hpo.study.files.study_files import StudyFiles
from hpo.study.standard_error import standard_error
from hpo.training.checkpoint import delete_checkpoint
from hpo.training.divergence import find_divergence
from hpo.training.member import TrainResult, Weights
from hpo.training.standalone import write_weights
from hpo.utils.text import format_traceback, shorten_message, summarize_error

__all__ = ["TrialOutcome", "TrialRecorder"]

log = logging.getLogger("hpo.execution.worker")
ERRORS_IN_A_ROW = 5
NOT_RELEASED = "trial %d is free for another worker once its lease has expired: the database does not answer"


@dataclass(frozen=True)
class TrialOutcome:
    """Outcome of a trial, as the study stores it.

    Attributes:
        claim: the claimed trial.
        state, values: Optuna's state and values of it.
        attrs: user attributes, which Optuna's tools show beside the values.
        failure: kind of failure; empty without one.
        message: the failure in a line.
        weights: weights of its best epoch, which are kept if the trial is among the best.
        environment: versions and hardware that it was trained with.
        violations: violation of each constraint; at most 0 if it is kept.
        samples: scores of the validation samples of each fit, with the splits that they are of; empty where there are
            none.
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
    samples: Sequence[tuple[SampleScores, ValidationSplit]] = ()


class TrialRecorder:
    """Recorder that tells the study how the trials of one worker ended.

    Args:
        study: the study.
        files: its files.
        work: recorder of the worker's time and counts.
        test: evaluator of each trial that ended well; the metrics that it returns become attributes.

    Attributes:
        open: the worker's trials that are neither told nor lost nor released, by id.
        finished: number of trials that it has told, by state.
    """

    def __init__(
        self,
        study: Study,
        files: StudyFiles,
        work: WorkRecorder,
        test: Callable[[RunningTrial, TrainResult], Mapping[str, float]] | None = None,
    ) -> None:
        self.study = study
        self.files = files
        self.work = work
        self.test = test
        self.open: dict[int, ClaimedTrial] = {}
        self.finished: dict[str, int] = {}
        self._results: list[tuple[RunningTrial, TrainResult]] = []
        self._errors_in_a_row = 0
        self._deletion_failed = False
        self._fatal_error: RunError | None = None

    def add(self, trial: RunningTrial, result: TrainResult) -> None:
        """Add the result of a trial that has ended; `tell_all` tells it."""
        self._results.append((trial, result))

    def tell_all(self) -> None:
        """Tell the results that have been added, in one transaction; release the interrupted and the paused trials."""
        if not self._results:
            return
        results, self._results = self._results, []
        for trial, _ in results:
            trial.lost = trial.lost or self.study.storage.is_lost(trial.claim.id)
            if trial.lost:
                self.drop(trial.claim)
        results = [(trial, result) for trial, result in results if not trial.lost]
        interrupted = [trial.claim for trial, result in results if result.status == "interrupted"]
        self.give_back(interrupted, "the worker was asked to stop")
        self._pause([each for each in results if each[1].status == "paused"])
        self._tell([self._make_outcome(*each) for each in results if each[1].status not in ("interrupted", "paused")])

    def check_errors(self) -> None:
        """Stop the worker after too many errors.

        Raises:
            RunError: too many trials in a row failed.
        """
        if self._fatal_error is not None:
            raise self._fatal_error

    def drop(self, claim: ClaimedTrial) -> None:
        """Drop a trial that is not this worker's any more; nothing is told of it."""
        self.open.pop(claim.id, None)
        log.info(LOST, claim.number)

    def tell_error(self, claim: ClaimedTrial, error: Exception) -> None:
        """Tell that an error failed a trial."""
        text = shorten_message(str(error)) if isinstance(error, HpoError) else summarize_error(error)
        if claim.id not in self.open:
            # The database has its result, or it is another worker's: what has failed is what came after that.
            log.warning("trial %d had ended before this error, which changes nothing of it: %s", claim.number, text)
            return
        shown = error.__cause__ or (None if isinstance(error, HpoError) else error)
        trace = "" if shown is None else f"\n{format_traceback(shown)}"
        log.error("trial %d failed: %s%s", claim.number, text, trace)
        self._tell([TrialOutcome(claim, TrialState.FAIL, failure="error", message=text)])

    def tell_out_of_memory(self, claim: ClaimedTrial, error: Exception) -> None:
        """Tell that a trial needs more memory than the device has."""
        self._tell([TrialOutcome(claim, TrialState.PRUNED, failure="out_of_memory", message=str(error))])

    def tell(self, outcome: TrialOutcome) -> None:
        """Tell how a trial ended, unless it is another worker's by now."""
        self._tell([outcome])

    def release_interrupted(self, claim: ClaimedTrial) -> None:
        """Release a trial that was interrupted, or drop it if it is another worker's by now."""
        if self.study.storage.is_lost(claim.id):
            self.drop(claim)
        else:
            self.give_back([claim], "the worker was asked to stop")

    def release(self) -> None:
        """Release all open trials, so that other workers may claim them."""
        if self.study.storage.loss is None:
            with self.work.measure("storage"):
                self.study.storage.release_all(list(self.open))
        self.open.clear()

    def give_back(self, claims: Collection[ClaimedTrial], why: str) -> None:
        """Let trials wait again, where the database answers at once; `why` is for the log."""
        storage = self.study.storage
        if not claims:
            return
        unavailable = storage.is_unavailable  # and then its answer is not waited for
        with self.work.measure("storage"):
            released = [] if unavailable else storage.release_all([claim.id for claim in claims])
        for claim in claims:
            self.open.pop(claim.id, None)
            if storage.loss is not None:
                continue  # there is nobody to release it to; the worker ends, and says why
            if unavailable:
                log.info(NOT_RELEASED, claim.number)
            elif claim.id in released:
                log.info("trial %d released: %s", claim.number, why)

    def _pause(self, results: Sequence[tuple[RunningTrial, TrainResult]]) -> None:
        """Let trials wait for their promotion, with all that is stored of them if they are never promoted."""
        with self.work.measure("storage"):
            outcomes = [self._make_outcome(trial, result) for trial, result in results]
            epochs = {trial.claim.id: int(result.history[-1]["epoch"]) for trial, result in results}
            own = [outcome.claim for outcome in outcomes if self._write_attributes(outcome)]
            released = self.study.storage.release_all([claim.id for claim in own], epochs) if own else []
        for claim in own:
            self.open.pop(claim.id, None)
            if claim.id in released:
                log.info("trial %d pauses after epoch %d", claim.number, epochs[claim.id])

    def close_paused(self, number: int) -> None:
        """Clean up after a paused trial that has been ended, and count it."""
        self._delete_checkpoint(number)
        self.finished["PRUNED"] = self.finished.get("PRUNED", 0) + 1
        self.work.told += 1
        log.info("trial %d PRUNED: it was paused, and never promoted", number)

    # Outcomes.

    def _make_outcome(self, trial: RunningTrial, result: TrainResult) -> TrialOutcome:
        violations = compute_violations(self.study.definition.constraints, _constrained_metrics(result))
        outcome = self._judge(trial, result, violations)
        return replace(outcome, environment=trial.environment, violations=violations)

    def _judge(self, trial: RunningTrial, result: TrainResult, violations: Mapping[str, float]) -> TrialOutcome:
        claim, attrs = trial.claim, self._attributes(trial, result)
        try:
            test_metrics = self._test(trial, result)
        except (StorageLostError, StudyDeletedError):
            raise
        except RunError as error:  # raised by a metric, or out of memory
            return TrialOutcome(claim, TrialState.FAIL, None, attrs, "error", shorten_message(str(error)))
        metrics, attrs = {**_final_metrics(result), **test_metrics}, {**attrs, **test_metrics}
        values = self._values(metrics) if result.best or result.returned else None
        if cause := result.cause or find_divergence(test_metrics, self._objectives):
            return TrialOutcome(claim, TrialState.PRUNED, values, attrs, "diverged", cause)
        if message := self._describe_violations(result, violations):
            # Not COMPLETE, so that nothing takes it for a candidate. Optuna's samplers ask for its violations first.
            return TrialOutcome(claim, TrialState.PRUNED, values, attrs, INFEASIBLE, message)
        if result.status in ("pruned", "paused"):
            return TrialOutcome(claim, TrialState.PRUNED, values, attrs)
        if values is None:
            missing = ", ".join(name for name in self._objectives if name not in metrics)
            return TrialOutcome(claim, TrialState.FAIL, None, attrs, "error", f"it was never measured: {missing}")
        samples = _sample_scores(result)
        attrs = {**_measure_error(samples), **attrs}
        return TrialOutcome(claim, TrialState.COMPLETE, values, attrs, weights=result.weights, samples=samples)

    def _describe_violations(self, result: TrainResult, violations: Mapping[str, float]) -> str:
        """Return the constraints that a trial violates, in a line."""
        metrics = _constrained_metrics(result)
        violated = [each for each in self.study.definition.constraints if violations.get(each.text, 0.0) > 0]
        return "; ".join(f"{each.text}, but it is {metrics[each.metric]:.6g}" for each in violated)

    def _test(self, trial: RunningTrial, result: TrainResult) -> Mapping[str, float]:
        if self.test is None or result.status not in ("completed", "early_stopped"):
            return {}
        name = trial.config.model
        if result.module is None and registry.models.get(name).loop:
            raise RunError(f"training loop '{name}': pass its model to trial.epochs(model=…), so that it can be tested")
        if result.weights is None:
            return {}
        return self.test(trial, result)

    def _attributes(self, trial: RunningTrial, result: TrainResult) -> dict[str, object]:
        attrs: dict[str, object] = {
            **({"parameter_count": result.parameter_count} if result.parameter_count else {}),
            "train_seconds": round(result.train_seconds, 3),
            "cohort": trial.cohort,
        }
        attrs |= self._fit_attributes(trial, result)
        if result.best_epoch is not None:
            attrs["best_epoch"] = result.best_epoch
        if registry.models.get(trial.config.model).loop:
            attrs[VALUE_FROM] = result.origin
        if result.returned:
            attrs["returned"] = _epoch_text(result.returned)
        if "depth" in registry.models.get(trial.config.model).uses:
            attrs["widths"] = "-".join(map(str, result.config.hidden_widths))
        if "parameter_budget" in trial.config.effective():
            attrs["width"] = result.config.width  # which followed from the budget
        if result.history:
            attrs["last_epoch"] = _epoch_text(result.history[-1])
        return attrs

    def _fit_attributes(self, trial: RunningTrial, result: TrainResult) -> dict[str, object]:
        """Return how many fits a trial's value is the mean of, and how sure it is; nothing for a trial of one."""
        joint = trial.joint
        if joint is None:
            return {}
        attrs: dict[str, object] = {FITS: len(joint.fits), **({RACED: trial.dropped} if trial.dropped else {})}
        if joint.limit is not None:
            attrs[STAGE_EPOCHS] = joint.limit
        values = joint.best_values(self._objectives[0])
        of_fits = [(fit, values[fit.number]) for fit in joint.fits if fit.number in values]
        if (error := standard_error(of_fits, joint.ratio)) is not None:
            attrs[STANDARD_ERROR] = error
        if self._objectives[0] in result.returned:
            attrs[FIT_RETURNS] = {str(number): value for number, value in values.items()}
        return attrs

    @property
    def _objectives(self) -> list[str]:
        return [objective.metric for objective in self.study.definition.objectives]

    def _values(self, metrics: Mapping[str, float]) -> list[float] | None:
        """Return one value per objective; None if one is missing or not finite."""
        values = [float(metrics.get(name, math.nan)) for name in self._objectives]
        return values if all(map(math.isfinite, values)) else None

    # The transaction.

    def _tell(self, outcomes: Sequence[TrialOutcome]) -> None:
        """End trials, except those that are another worker's by now."""
        with self.work.measure("storage"):
            own = [outcome for outcome in outcomes if self._write_attributes(outcome)]
            requests = [_make_request(outcome) for outcome in own]
            with self.files.keep_best_weights([files for outcome in own if (files := self._weights_to_keep(outcome))]):
                try:
                    refused = self.study.storage.tell(requests) if requests else {}
                except KeyError as error:  # the study was deleted
                    refused = {each.trial_id: error for each in requests}
                except StorageLostError as error:
                    return self._note_loss(own, error)
                for outcome in own:
                    self.drop(outcome.claim) if outcome.claim.id in refused else self._close(outcome)
        return None

    def _note_loss(self, outcomes: Sequence[TrialOutcome], loss: StorageLostError) -> None:
        """Let go of trials whose results nobody can store; the worker ends after the checkpoints of the others."""
        self.study.storage.loss = loss
        for outcome in outcomes:
            self.open.pop(outcome.claim.id, None)
            log.warning("trial %d %s, not stored: %s", outcome.claim.number, outcome.state.name, _values_text(outcome))

    def _write_attributes(self, outcome: TrialOutcome) -> bool:
        """Write all that is stored beside the values; return false if the trial is another worker's."""
        storage, optuna_study, claim = self.study.storage, self.study.optuna_study, outcome.claim
        failure = {"failure": outcome.failure, "message": outcome.message} if outcome.failure else {}
        try:
            for key, value in {**outcome.attrs, **failure}.items():
                storage.set_trial_user_attr(claim.id, key, value)
            for text, violation in outcome.violations.items():
                if text not in claim.trial.constraints:
                    claim.trial.set_constraint(text, violation)
            if outcome.environment:
                storage.set_trial_system_attr(claim.id, ENVIRONMENT, dict(outcome.environment))
            claim.sampler.after_trial(optuna_study, storage.get_trial(claim.id), outcome.state, outcome.values)
        except NOT_OURS as error:
            if isinstance(error, KeyError) and self._exists(claim):
                raise  # a sampler's own
            self.drop(claim)
            return False
        return True

    def _exists(self, claim: ClaimedTrial) -> bool:
        try:
            self.study.storage.get_trial(claim.id)
        except KeyError:
            return False
        return True

    def _weights_to_keep(self, outcome: TrialOutcome) -> tuple[int, float, partial[None]] | None:
        """Return number, value and writer of the weights of a trial that is COMPLETE and still this worker's."""
        if outcome.weights is None or outcome.values is None or not self.study.storage.holds(outcome.claim.id):
            return None
        return outcome.claim.number, outcome.values[0], partial(_write, outcome.weights)

    def _close(self, outcome: TrialOutcome) -> None:
        """Clean up after a trial that has been told, and count it."""
        claim, state = outcome.claim, outcome.state
        self.open.pop(claim.id, None)
        self._delete_checkpoint(claim.number)
        self.finished[state.name] = self.finished.get(state.name, 0) + 1
        self.work.told += 1
        values = f" {_values_text(outcome)}" if outcome.values else ""
        failure = f" ({outcome.failure}: {outcome.message})" if outcome.failure else ""
        log.info("trial %d %s%s%s", claim.number, state.name, values, failure)
        if state == TrialState.FAIL:
            self._count_error(claim, outcome.message)
        elif outcome.failure != "out_of_memory":
            self._errors_in_a_row = 0

    def _delete_checkpoint(self, number: int) -> None:
        """Delete the checkpoint of a trial that has been told; a failure is said once, and `hpo gc` does it later."""
        try:
            delete_checkpoint(self.files.checkpoint(number))
        except OSError as error:
            if not self._deletion_failed:
                why = error.strerror or error
                log.warning(
                    "checkpoints of finished trials stay (%s); remove them with hpo gc: %s", why, error.filename
                )
            self._deletion_failed = True

    def _count_error(self, claim: ClaimedTrial, message: str) -> None:
        self._errors_in_a_row += 1
        if self._errors_in_a_row == ERRORS_IN_A_ROW:
            text = f"{self._errors_in_a_row} trials in a row failed, the last one ({claim.number}) with {message}"
            self._fatal_error = RunError(text)


def _make_request(outcome: TrialOutcome) -> TellRequest:
    """Return what the storage is told of a trial."""
    samples = [pack_scores(scores, split) for scores, split in outcome.samples]
    splits = {split.digest: pack_split(split) for _, split in outcome.samples}
    return TellRequest(outcome.claim.id, outcome.state, outcome.values, samples, splits)


def _sample_scores(result: TrainResult) -> list[tuple[SampleScores, ValidationSplit]]:
    """Return the sample scores of a trial's fits; none where a fit has none, or the best epoch decides no value."""
    if result.returned or result.origin != "best epoch":
        return []
    found = [(log.result(fit, result.best_epoch), log.split) for fit, log in enumerate(result.sample_logs)]
    kept = [(scores, split) for scores, split in found if scores is not None]
    return kept if len(kept) == len(found) else []


def _measure_error(samples: Sequence[tuple[SampleScores, ValidationSplit]]) -> dict[str, object]:
    """Return the standard error of a trial of one fit; that of an accuracy follows from the number of free samples."""
    if len(samples) != 1 or (samples[0][0].metric == "val_accuracy" and samples[0][1].groups is None):
        return {}
    error = sampling_error(*samples[0])
    return {} if error is None else {STANDARD_ERROR: error}


def _values_text(outcome: TrialOutcome) -> str:
    return str(outcome.values) if outcome.values else outcome.message


def _final_metrics(result: TrainResult) -> dict[str, float]:
    """Return the metrics that a trial's values are of: its best epoch's, its costs, and what its loop returned."""
    costs = {"parameter_count": float(result.parameter_count), "train_seconds": result.train_seconds}
    return {**(result.best or {}), **costs, **result.returned}


def _constrained_metrics(result: TrainResult) -> dict[str, float]:
    """Return the metrics that constraints apply to: of a pruned trial, only what further epochs would not change."""
    metrics = _final_metrics(result)
    return {"parameter_count": metrics["parameter_count"]} if result.status in ("pruned", "paused") else metrics


def _epoch_text(epoch: Mapping[str, float]) -> str:
    """Return an epoch's metrics as a line for people; the table of epochs has every metric with every digit."""
    return ", ".join(f"{name} {value:.4g}" for name, value in epoch.items() if name not in ("learning_rate", "seconds"))


def _write(weights: Weights, path: Path, about: Mapping[str, str]) -> None:
    write_weights(path, weights, about)
