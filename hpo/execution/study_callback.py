"""Callback of training that stores the epochs of a cohort's trials in their study, and prunes them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import optuna
from typing_extensions import override

from hpo.config.trial_config import TrialConfig
from hpo.errors import LeaseLostError
from hpo.storage.study_storage import EpochSteps
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.constraints import compute_violations
from hpo.study.racing import Race
from hpo.training.callbacks import Callback
from hpo.training.fits import JointTrial
from hpo.training.member import Member, Metrics, TrainResult

__all__ = ["LOST", "NOT_OURS", "RunningTrial", "StudyCallback"]

log = logging.getLogger("hpo.execution.worker")
LOST = "trial %d is not this worker's any more: another worker has taken it over, or somebody has ended or deleted it"
# Errors of a storage for a trial that another worker has taken over, that somebody has ended, or that is deleted.
NOT_OURS = (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError, KeyError)


@dataclass
class RunningTrial:
    """A claimed trial in training.

    Attributes:
        claim: the claimed trial.
        config: its configuration.
        cohort: size of its cohort, itself included.
        environment: versions and hardware that it is trained with, from `hpo.training.environment`.
        joint: what joins its fits, where it has several; None for a trial of one.
        dropped: why it was dropped by comparison with another trial on their shared fits; empty for any other.
        started: true once its training has started in this attempt.
        lost: true if the trial is not this worker's any more; nothing more is told of it.
        ended: true once its training has ended.
    """

    claim: ClaimedTrial
    config: TrialConfig
    cohort: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    joint: JointTrial | None = None
    dropped: str = ""
    started: bool = False
    lost: bool = False
    ended: bool = False


class StudyCallback(Callback):
    """Callback that stores every epoch of a cohort's trials in the study, and stops those that its pruner prunes.

    Args:
        study: the study.
        trials: the trials, in the order in which they are given to `train`.
        on_result: called for each trial as soon as its training has ended.
        work: recorder of the time that pruners need.
        on_report: called after every epoch.
        race: of the study's trials, which compares their fits.
    """

    def __init__(
        self,
        study: Study,
        trials: Sequence[RunningTrial],
        on_result: Callable[[RunningTrial, TrainResult], None],
        work: WorkRecorder,
        on_report: Callable[[], object] = lambda: None,
        race: Race | None = None,
    ) -> None:
        self.study = study
        self.trials = trials
        self.on_result = on_result
        self.work = work
        self.on_report = on_report
        objectives = study.definition.objectives
        self.race = race or Race(study)
        self.metric = objectives[0].metric if len(objectives) == 1 else None

    @property
    def all_lost(self) -> bool:
        """True if no trial that is still in training is this worker's."""
        return all(trial.ended or trial.lost or self.study.storage.is_lost(trial.claim.id) for trial in self.trials)

    @override
    def on_start(self, member: Member) -> None:
        """Bring the stored epochs to where the trial starts: all earlier ones, and none of the later ones."""
        trial = self.trials[member.number]
        if self.is_infeasible(member):
            member.stop("pruned")  # its constraints are violated before the first step
        again, trial.started = trial.started or trial.claim.attempt > 1, True
        if again:
            try:
                self._resume(trial, member)
            except NOT_OURS:
                self._mark_lost(trial, member)
        judged = trial.joint is None or trial.joint.judged
        if trial.claim.taken_over and member.resumable and member.history and judged and self.study.pauses:
            self.on_round([member])  # its worker may have died before it could ask

    def is_infeasible(self, member: Member, row: Mapping[str, float] = MappingProxyType({})) -> bool:
        """Return whether a trial violates a constraint by the number of its parameters, or by these metrics."""
        metrics = {**row, "parameter_count": float(member.parameter_count)}
        return any(value > 0 for value in compute_violations(self.study.definition.constraints, metrics).values())

    def _resume(self, trial: RunningTrial, member: Member) -> None:
        claim = trial.claim
        last = int(member.history[-1]["epoch"]) if member.history else -1  # a loop may count its epochs from 0
        if member.history:
            log.info("trial %d goes on after epoch %d", claim.number, last)
        # In a later stage of its fits the stored means are of the first ones: all are written anew.
        later_stage = trial.joint is not None and not trial.joint.judged
        self.study.rewind(claim, -1 if later_stage else last)
        stored = len(self.study.storage.read_epochs(self.study.id, claim.id).get(claim.id, []))
        for metrics in member.history[stored:]:
            self._store(trial, member, metrics)

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Record the metrics; report the objective to Optuna."""
        trial = self.trials[member.number]
        self.on_report()
        try:
            self._store(trial, member, metrics)
        except NOT_OURS:
            self._mark_lost(trial, member)

    @override
    def on_round(self, members: Sequence[Member]) -> None:
        """Ask the pruner about each member, now that all have reported, except after its last epoch."""
        for member in members:
            metrics, trial = member.history[-1], self.trials[member.number]
            if not self._is_reported(metrics) or _is_last(member, metrics):
                continue
            try:
                with self.work.measure("sampling"):
                    ends = self._judge_fits(trial, member) or self.study.judge(trial.claim, resumable=member.resumable)
            except NOT_OURS:
                self._mark_lost(trial, member)
            else:
                if ends is not None:
                    member.stop(ends)

    def _judge_fits(self, trial: RunningTrial, member: Member) -> Literal["pruned"] | None:
        """Compare a trial of several fits with the others on shared fits; return whether it is dropped."""
        if trial.joint is None or not self.race.prunes:
            return None
        position = len(member.history) - 1
        curves = {
            each.claim.number: each.joint.curves
            for each in self.trials
            if each.joint is not None and (each is trial or self._may_rival(each.joint.member, position))
        }
        loss = self.race.judge(trial.claim.number, position, curves)
        if loss is None:
            return None
        trial.dropped = loss.text
        return "pruned"

    def _may_rival(self, member: Member, position: int) -> bool:
        """Return whether a trial keeps its constraints at a position of its history, as far as it has come."""
        return not self.is_infeasible(member, member.history[position] if position < len(member.history) else {})

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Hand on the result of a trial that has ended before its cohort."""
        self.finish(self.trials[member.number], outcome)

    def finish(self, trial: RunningTrial, result: TrainResult) -> None:
        """Hand on the result of a trial, once."""
        if not trial.ended:
            trial.ended = True
            if trial.joint is not None and trial.joint.silent and not trial.lost:
                self._replace_rows(trial, trial.joint.member)
            self.on_result(trial, result)

    def _mark_lost(self, trial: RunningTrial, member: Member) -> None:
        """Stop a trial that is another worker's; the rest of its cohort goes on."""
        trial.lost = True
        member.stop("interrupted")

    def _is_reported(self, metrics: Metrics) -> bool:
        """Return whether an epoch is one that Optuna is told of: there is one objective, and its value is finite."""
        return self.metric is not None and math.isfinite(metrics.get(self.metric, math.nan))

    def _replace_rows(self, trial: RunningTrial, member: Member) -> None:
        """Store the means over all fits of a trial in place of those over its first ones."""
        storage, claim = self.study.storage, trial.claim
        try:
            stored = claim.trial._cached_frozen_trial.intermediate_values
            last = int(member.history[-1]["epoch"]) if member.history else -1
            if any(step > last for step in stored):
                self.study.rewind(claim, last)
            for metrics in member.history:
                self._record(trial, member, metrics)
                if self.metric is not None and self._is_reported(metrics):  # Optuna's handle ignores a second report
                    storage.set_trial_intermediate_value(claim.id, int(metrics["epoch"]), metrics[self.metric])
        except NOT_OURS:
            trial.lost = True

    def _store(self, trial: RunningTrial, member: Member, metrics: Metrics) -> None:
        """Record an epoch, and report it to Optuna."""
        self._record(trial, member, metrics)
        if self.metric is not None and self._is_reported(metrics):
            trial.claim.trial.report(metrics[self.metric], int(metrics["epoch"]))

    def _record(self, trial: RunningTrial, member: Member, metrics: Metrics) -> None:
        """Record an epoch, of each fit too where there are several."""
        claim, epoch = trial.claim, int(metrics["epoch"])
        if trial.joint is not None:
            rows = trial.joint.fit_rows(member.history.index(metrics))
            self.study.storage.record_fits(claim.id, epoch, rows)
        if (steps := member.steps_of(epoch)) is not None:  # first, so that every epoch in the database has them
            self.study.storage.record_steps(claim.id, EpochSteps(epoch, *steps.numpy()))
        self.study.storage.record_epoch(claim.id, epoch, metrics)


def _is_last(member: Member, metrics: Metrics) -> bool:
    """Return whether the epoch is known to be the last; a loop of the user's own may have epochs that only it knows."""
    return "epochs" in member.config.effective() and metrics["epoch"] >= member.config.epochs
