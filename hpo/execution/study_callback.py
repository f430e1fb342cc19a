"""What a worker reports while a cohort trains: every epoch of every trial, and how each has ended."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from typing_extensions import override

from hpo.config.trial_config import TrialConfig
from hpo.errors import LeaseLostError
from hpo.storage.study_storage import EpochSteps
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import ClaimedTrial, Study
from hpo.study.constraints import compute_violations
from hpo.training.callbacks import Callback
from hpo.training.member import Member, Metrics, TrainResult

__all__ = ["LOST", "NOT_OURS", "RunningTrial", "StudyCallback"]

log = logging.getLogger("hpo.execution.worker")
# What a storage raises of a trial that another worker has taken over, that somebody else has told, or that is deleted.
LOST = "trial %d is not this worker's any more: another has taken it over, or it was told or deleted by somebody"
NOT_OURS = (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError, KeyError)


@dataclass
class RunningTrial:
    """A claimed trial in training.

    Attributes:
        claim: the trial.
        config: its configuration.
        cohort: how many trials are trained with it, itself among them.
        environment: what it is trained with, as `hpo.training.environment` tells it.
        begun: whether its training has begun in this attempt.
        lost: whether the trial is not this worker's any more; nothing more of it is to be told.
        ended: whether its training has ended.
    """

    claim: ClaimedTrial
    config: TrialConfig
    cohort: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    begun: bool = False
    lost: bool = False
    ended: bool = False


class StudyCallback(Callback):
    """Stores every epoch of a cohort's trials in the study, and stops those of which the pruner says so.

    Args:
        study: whose trials.
        entries: the trials, in the order in which they are given to `train`.
        ended: told of each trial as soon as its training has ended.
        work: takes the time that pruners need.
    """

    def __init__(
        self,
        study: Study,
        entries: Sequence[RunningTrial],
        ended: Callable[[RunningTrial, TrainResult], None],
        work: WorkRecorder,
    ) -> None:
        self.study = study
        self.entries = entries
        self.ended = ended
        self.work = work
        objectives = study.definition.objectives
        self.metric = objectives[0].metric if len(objectives) == 1 else None

    @property
    def all_lost(self) -> bool:
        """Whether no trial that is still in training is this worker's."""
        return all(entry.ended or entry.lost or self.study.storage.is_lost(entry.claim.id) for entry in self.entries)

    @override
    def on_start(self, member: Member) -> None:
        """Bring the study to where the trial begins: nothing is stored of later epochs, and all of earlier ones."""
        entry = self.entries[member.number]
        if self._infeasible(member):
            member.stop("pruned")  # what is known before the first step need not be trained
        again, entry.begun = entry.begun or entry.claim.attempt > 1, True
        if again:
            try:
                self._take_up(entry, member)
            except NOT_OURS:
                self._lose(entry, member)

    def _infeasible(self, member: Member) -> bool:
        known = {"parameter_count": float(member.parameter_count)}
        return any(value > 0 for value in compute_violations(self.study.definition.constraints, known).values())

    def _take_up(self, entry: RunningTrial, member: Member) -> None:
        claim = entry.claim
        if member.resumed_from:
            log.info("trial %d goes on after epoch %d", claim.number, member.resumed_from)
        self.study.rewind(claim, member.resumed_from)
        stored = len(self.study.storage.read_epochs(self.study.id, claim.id).get(claim.id, []))
        for metrics in member.history[stored:]:
            self._store(claim, member, metrics)

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Record the metrics; report the objective to Optuna; ask the pruner, except after the last epoch."""
        entry = self.entries[member.number]
        try:
            reported = self._store(entry.claim, member, metrics)
            if reported and metrics["epoch"] < member.config.epochs and self._should_prune(entry):
                member.stop("pruned")
        except NOT_OURS:
            self._lose(entry, member)

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Pass on what came out."""
        self.end(self.entries[member.number], outcome)

    def end(self, entry: RunningTrial, outcome: TrainResult) -> None:
        """Pass on what came out of a trial, once."""
        if not entry.ended:
            entry.ended = True
            self.ended(entry, outcome)

    def _should_prune(self, entry: RunningTrial) -> bool:
        with self.work.measure("sampling"):
            return entry.claim.trial.should_prune()

    def _lose(self, entry: RunningTrial, member: Member) -> None:
        """The others of its cohort go on."""
        entry.lost = True
        member.stop("interrupted")

    def _store(self, claim: ClaimedTrial, member: Member, metrics: Metrics) -> bool:
        """Record an epoch, and report it to Optuna where there is one objective and it is finite."""
        epoch = int(metrics["epoch"])
        if (steps := member.steps_of(epoch)) is not None:  # first, so that every epoch in the database has them
            self.study.storage.record_steps(claim.id, EpochSteps(epoch, *steps.numpy()))
        self.study.storage.record_epoch(claim.id, epoch, metrics)
        value = metrics.get(self.metric, math.nan) if self.metric else math.nan
        if math.isfinite(value):
            claim.trial.report(value, epoch)
        return math.isfinite(value)
