"""Trainer of trials of several fits: all fits at once, or in goes where memory is short, and in stages where a trial
earns its later fits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hpo.config import registry
from hpo.config.model_size import resolve_width
from hpo.config.resampling import Fit
from hpo.execution.study_callback import NOT_OURS, RunningTrial, StudyCallback
from hpo.execution.trial_links import make_link
from hpo.study import Study
from hpo.study.attributes import STAGE_EPOCHS, read_whole
from hpo.study.racing import count_stages
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data
from hpo.training.data_cache import DataCache
from hpo.training.environment import describe_environment
from hpo.training.fits import FitCallback, JointTrial, fit_config
from hpo.training.loop import train
from hpo.training.member import Member, TrainResult
from hpo.training.settings import TrainSettings

__all__ = ["FitTrainer"]

log = logging.getLogger("hpo.execution.worker")
ENDS = ("completed", "early_stopped")


class FitTrainer:
    """Trainer of the cohorts of a study whose trials have several fits.

    Args:
        study: the study.
        data: its data set, on the device.
        checkpoint: returns the options of the checkpoints of a trial's fit.

    Attributes:
        tried: how many fits were trained at the same time, the last time; 0 while there were none.
    """

    def __init__(
        self, study: Study, data: DataCache, checkpoint: Callable[[RunningTrial, Fit], CheckpointSpec]
    ) -> None:
        resampling = study.definition.resampling
        assert resampling is not None
        self._study, self._data, self._checkpoint = study, data, checkpoint
        self._fits = resampling.fits
        self._stages = count_stages(resampling)
        self.tried = 0

    @property
    def first(self) -> int:
        """The number of fits that a trial is begun with."""
        return self._stages[0]

    def train(
        self,
        trials: Sequence[RunningTrial],
        settings: TrainSettings,
        study_callback: StudyCallback,
        at_once: int | None = None,
    ) -> list[TrainResult]:
        """Train trials, each to its end, and return their results in the same order.

        Args:
            trials: the cohort.
            settings: those of `train`, with the callbacks of trials.
            study_callback: the one of them that stores epochs.
            at_once: how many fits are trained at the same time at most; None is as many as there are.
        """
        self.tried = 0
        callback = FitCallback(settings.callbacks, study_callback.on_report)
        for position, trial in enumerate(trials):
            trial.joint = self._join(trial, position, settings)
            trial.cohort = len(trials)
        running = list(trials)
        while running:
            self._train_fits(running, replace(settings, callbacks=[callback]), callback, at_once)
            running = self._select(running, callback, study_callback)
        return [_joint(trial).result for trial in trials]

    def _join(self, trial: RunningTrial, position: int, settings: TrainSettings) -> JointTrial:
        """Return what joins a trial's fits: its first ones, or as many as an earlier attempt has begun."""
        config, data = trial.config, self._load(trial, self._fits[0])
        loop = bool(registry.models.get(config.model).loop)
        if not loop:
            settings = settings.resolve(config, len(data.y_val))
        trial.environment = describe_environment(data)
        member = Member(resolve_width(config, data.shape, data.classes), position)
        joint = JointTrial(config, member, settings, loop, ratio=len(data.y_val) / max(1, len(data.y_train)))
        known = [0]
        if trial.claim.attempt > 1 or trial.started:
            known += [fit.number for fit in self._fits if self._checkpoint(trial, fit).resume]
        count = next(count for count in self._stages if count > max(known))
        joint.fits, joint.last = self._fits[:count], count == len(self._fits)
        joint.judged = count == self.first
        if not joint.judged:
            joint.limit = read_whole(self._study.storage.get_trial(trial.claim.id).user_attrs, STAGE_EPOCHS)
        return joint

    def _load(self, trial: RunningTrial, fit: Fit) -> Data:
        return self._data.get(fit.config(trial.config), fit.division)

    def _train_fits(
        self,
        running: Sequence[RunningTrial],
        settings: TrainSettings,
        callback: FitCallback,
        at_once: int | None,
    ) -> None:
        """Train the fits that trials have not trained yet."""
        for go in _divide(running, at_once):
            open_fits = [(trial, fit) for trial, fit in go if _joint(trial).member.stopped is None]
            if not open_fits:
                continue
            self.tried = len(open_fits)
            callback.places = [(_joint(trial), fit.number) for trial, fit in open_fits]
            for trial in running:
                _joint(trial).expect([fit.number for each, fit in open_fits if each is trial])
            train(
                [fit_config(trial.config, fit, loop=_joint(trial).loop) for trial, fit in open_fits],
                [self._load(trial, fit) for trial, fit in open_fits],
                settings,
                checkpoints=[self._checkpoint(trial, fit) for trial, fit in open_fits],
                links=[make_link(self._study, trial.claim) for trial, _ in open_fits],
            )

    def _select(
        self, trials: Sequence[RunningTrial], callback: FitCallback, study_callback: StudyCallback
    ) -> list[RunningTrial]:
        """Return the trials that earn more fits; end the others."""
        going = [trial for trial in trials if not _joint(trial).told and _joint(trial).member.stopped in ENDS]
        metric = self._study.definition.objectives[0].metric
        values = {trial.claim.number: _joint(trial).best_values(metric) for trial in going}
        rivals = {
            trial.claim.number: values[trial.claim.number]
            for trial in going
            if not study_callback.is_infeasible(_joint(trial).member, _joint(trial).member.final_metrics)
        }
        earned = []
        for trial in going:
            joint = _joint(trial)
            loss = study_callback.race.judge_stage(trial.claim.number, values[trial.claim.number], rivals)
            if loss is None:
                count = next(count for count in self._stages if count > len(joint.fits))
                joint.extend(self._fits[:count])
                joint.last = count == len(self._fits)
                try:
                    self._study.storage.set_trial_user_attr(trial.claim.id, STAGE_EPOCHS, joint.limit)
                except NOT_OURS:  # the others go on
                    trial.lost, joint.member.stopped = True, "interrupted"
                    callback.tell(joint)
                else:
                    earned.append(trial)
                continue
            log.info("trial %d is dropped after %d of %d fits: %s", trial.claim.number, len(joint.fits),
                     len(self._fits), loss.text)  # fmt: skip
            trial.dropped, joint.member.stopped = loss.text, "pruned"
            joint.limit = len(joint.member.history)
            callback.tell(joint)
        if earned:
            self._study.storage.flush()  # before their later fits have checkpoints
        return earned


def _joint(trial: RunningTrial) -> JointTrial:
    assert trial.joint is not None
    return trial.joint


def _divide(trials: Sequence[RunningTrial], at_once: int | None) -> Iterator[list[tuple[RunningTrial, Fit]]]:
    """Yield the fits that are yet to be trained, as many at the same time as may be."""
    fits = [(t, fit) for t in trials for fit in _joint(t).fits if fit.number not in _joint(t).curves]
    size = len(fits) if at_once is None else at_once
    for first in range(0, len(fits), max(1, size)):
        yield fits[first : first + size]
