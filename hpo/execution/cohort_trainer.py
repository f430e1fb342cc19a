"""Trainer of configurations: the trials of a study of models and training loops, in cohorts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hpo.config import registry
from hpo.config.cohort_key import is_measured, stack_key
from hpo.config.resampling import Fit
from hpo.config.trial_config import TrialConfig
from hpo.errors import CheckpointError, HpoError, OutOfMemoryError
from hpo.execution.cohort_claims import CohortClaimer, may_stack
from hpo.execution.cohort_sizes import CohortSizes
from hpo.execution.stack_notes import StackNotes, shape_values
from hpo.execution.study_callback import RunningTrial, StudyCallback
from hpo.execution.trial_errors import INFRASTRUCTURE_ERRORS
from hpo.execution.trial_fits import FitTrainer
from hpo.execution.trial_links import make_link
from hpo.execution.worker_context import WorkerContext
from hpo.study import ClaimedTrial
from hpo.study.racing import Race
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec, delete_checkpoint
from hpo.training.cohort_size import likeness
from hpo.training.data_cache import DataCache
from hpo.training.environment import describe_environment
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.memory import release_memory
from hpo.training.settings import TrainSettings
from hpo.training.stacked.check import warm_up, why_alone
from hpo.utils.text import first_line, summarize_error

__all__ = ["CohortTrainer"]

log = logging.getLogger("hpo.execution.worker")
FREE_CHECKS = 1.0  # seconds of the processor, which others may be using too, for checks of own models in every study
CHECK_SHARE = 0.05  # of the time of training, for further ones


class CohortTrainer:
    """Trainer of the cohorts of one worker.

    Args:
        context: of the worker.
        data: the study's data set, on the device.
    """

    def __init__(self, context: WorkerContext, data: DataCache) -> None:
        self.context, self.data = context, data
        self._claimer = CohortClaimer(context.study, self._is_possible, self._likeness, data.device.type)
        self._sizes = CohortSizes(context, data, self._claimer, self._may_stack)
        self._samples: tuple[tuple[int, ...], int] | None = None
        self._stackable: dict[Hashable, bool] = {}
        self._check_seconds = 0.0
        self._notes = StackNotes(context.study)
        self._folder_missed = False
        several = context.study.definition.several_fits
        self._fits = FitTrainer(context.study, data, self._fit_spec) if several else None
        self._sizes.fits = 1 if self._fits is None else self._fits.first
        self._race = Race(context.study)
        self._at_once: int | None = None  # fits of a trial that the device has memory for, once it had too little

    def run(self, claim: ClaimedTrial) -> None:
        """Train a claimed trial with the further trials of its cohort, and tell their results, whatever they are."""
        recorder = self.context.recorder
        cohorts = self.claim_cohorts(claim)
        recorder.check_errors()
        for trials in cohorts:
            self._train_cohort(trials)
            recorder.check_errors()

    # Claiming.

    def claim_cohorts(self, claim: ClaimedTrial) -> list[list[RunningTrial]]:
        """Claim the rest of a trial's cohort; trials of a loop of the user's own, if the sampler chose one, are
        apart.
        """
        first = self._start(claim)
        if first is None:
            return []
        trials = [first, *filter(None, map(self._start, self._claim_more(first)))]
        for trial in trials:
            self._notes.note_known(trial.config, self.data.device.type)
        cohorts: dict[Hashable, list[RunningTrial]] = {}
        for trial in trials:
            loop = registry.models.get(trial.config.model).loop
            cohorts.setdefault((stack_key(trial.config) or trial.claim.number) if loop else None, []).append(trial)
        return list(cohorts.values())

    def _start(self, claim: ClaimedTrial) -> RunningTrial | None:
        """Sample the parameters of a claimed trial; None after an error, which is told."""
        context = self.context
        context.recorder.open[claim.id] = claim
        with context.errors.record(claim):
            context.errors.count_death(claim)
            with context.work.measure("sampling"):
                config = context.study.suggest_config(claim)
            log.info("trial %d begins: %s", claim.number, claim.trial.params)
            return RunningTrial(claim, config)
        return None

    def _claim_more(self, first: RunningTrial) -> list[ClaimedTrial]:
        """Claim further trials to train along with one."""
        context = self.context
        if context.options.cohort == 1 or "train_seconds" in context.study.definition.metrics:
            return []  # only a trial that is trained alone has a time of its own
        size = self._sizes.choose(first)
        with context.work.measure("storage"):
            try:
                claims = self._claimer.claim(context.info, first.claim, first.config, size)
            except KeyError:  # the study was deleted, and the next claim will say so
                return []
            except (HpoError, *INFRASTRUCTURE_ERRORS):
                raise
            except Exception as error:  # a sampler's own; the trials that it was asked for wait again
                log.warning("trial %d is trained alone: %s", first.claim.number, summarize_error(error))
                return []
        context.recorder.open |= {claim.id: claim for claim in claims}
        return claims

    def _is_possible(self, config: TrialConfig) -> bool:
        """Return whether a configuration's model may be one of a stack, as far as it is known without a check."""
        return may_stack(config, self.data.device.type) and self._stackable.get(_check_key(config), True)

    def _may_stack(self, config: TrialConfig) -> bool:
        """Return whether a configuration's model can be one of a stack; of those to be measured the first is checked.

        Real numbers, such as the share of a dropout, are taken to decide nothing: training looks at every module. Where
        checks have taken their share of the time, a model trains alone for now.
        """
        possible = may_stack(config, self.data.device.type)
        if not possible or not is_measured(config) or registry.models.get(config.model).loop:
            return possible
        key = _check_key(config)
        if key not in self._stackable:
            share = CHECK_SHARE * self.context.work.current_seconds()["training"]
            if self._check_seconds > max(FREE_CHECKS, share):
                self._notes.note_delay(config, "other checks have taken their share of the time")
                return False
            if not self._stackable:
                warm_up()
            since = time.thread_time()
            self._stackable[key] = self._check(config)
            self._check_seconds += time.thread_time() - since
        return self._stackable[key]

    def _check(self, config: TrialConfig) -> bool:
        """Check a model before it is stacked, and note what is found."""
        try:
            with self.context.work.measure("training"):
                why = why_alone(config, self.data.get(config))
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception as error:  # training the trial will raise it again, and fail the trial
            log.warning("model %s is trained alone, for it could not be checked: %s", config.model, first_line(error))
            self._notes.note_check(config, f"it could not be checked: {first_line(error)}")
            return False
        self._notes.note_check(config, why)
        return why is None

    def _likeness(self, config: TrialConfig) -> Hashable:
        """Return a key that is equal for configurations that stack well; see `hpo.training.cohort_size.likeness`."""
        try:
            if self._samples is None:  # their shape and classes are those of the data set
                data = self.data.get(config)
                self._samples = data.shape, data.classes
            return likeness(config, *self._samples, self.data.device.type)
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception:  # training the trial will raise it again, and fail the trial
            return None

    # Training.

    def _train_cohort(self, trials: Sequence[RunningTrial]) -> None:
        """Train a cohort; after an error, model by model, then one by one, so that the one to blame fails alone."""
        if len(trials) == 1:
            return self._train_alone(trials[0])
        try:
            return self._train(trials)
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception as error:
            kinds = {_check_key(trial.config) for trial in trials}
            then = "each is trained alone" if len(kinds) == 1 else "each of its models is trained by itself"
            log.warning("an error ended a cohort of %d trials; %s: %s", len(trials), then, first_line(error))
        release_memory()
        parts: dict[Hashable, list[RunningTrial]] = {}
        for trial in trials:
            parts.setdefault(_check_key(trial.config) if len(kinds) > 1 else trial.claim.number, []).append(trial)
        recorder = self.context.recorder
        for part in parts.values():
            if left := [trial for trial in part if trial.claim.id in recorder.open]:
                for trial in left:
                    trial.ended = False  # it may have been trained, but what came of it was not told
                self._train_cohort(left)
                recorder.check_errors()
        return None

    def _train_alone(self, trial: RunningTrial) -> None:
        """Train one trial, from its checkpoint if that can be read.

        A trial that is out of memory is tried once more, after the device's cache has been freed.
        """
        with self.context.errors.record(trial.claim):
            try:
                return self._train([trial])
            except CheckpointError as error:
                log.warning("trial %d begins anew: %s", trial.claim.number, error)
                delete_checkpoint(self._checkpoint_path(trial.claim))
            except OutOfMemoryError:
                log.warning("trial %d: out of memory; trying once more", trial.claim.number)
                self._train_fewer()
            release_memory()
            return self._train_again(trial)
        return None

    def _train_again(self, trial: RunningTrial) -> None:
        """Train a trial once more; one of several fits with ever fewer of them at once."""
        while True:
            try:
                return self._train([trial])
            except OutOfMemoryError:
                if not self._train_fewer():
                    raise
            release_memory()

    def _train_fewer(self) -> bool:
        """Train half as many fits at once from now on; return whether that is possible."""
        if self._fits is None or self._at_once == 1:
            return False
        self._at_once = max(1, (self._fits.tried or self._at_once or self._fits.first) // 2)
        log.warning("from now on %d fits of a trial are trained at once", self._at_once)
        return True

    def _train(self, trials: Sequence[RunningTrial]) -> None:
        """Train trials at the same time; the result of each is told soon after it has ended.

        Raises:
            TrialTimeoutError: training took longer than the study allows.
        """
        context = self.context
        loop = registry.models.get(trials[0].config.model).loop
        with (
            context.watchdog.watch(trials, context.study.trial_timeout, loop=loop),
            context.loggers.open(trials) as loggers,
        ):
            self._train_watched(trials, loggers)

    def _train_watched(self, trials: Sequence[RunningTrial], loggers: Sequence[Callback]) -> None:
        recorder, work, watchdog = self.context.recorder, self.context.work, self.context.watchdog
        report = partial(watchdog.tick, report=True)
        study_callback = StudyCallback(self.context.study, trials, recorder.add, work, report, self._race)

        def should_stop() -> bool:
            recorder.tell_all()  # called between steps, when every trial that ends with an epoch has ended
            watchdog.tick()
            return self.context.stopping() or study_callback.all_lost

        work.cohorts += 1
        work.members += len(trials)
        try:
            results = self._run_training(trials, study_callback, loggers, should_stop)
            for trial, result in zip(trials, results, strict=True):
                study_callback.finish(trial, result)
        finally:
            recorder.tell_all()

    def _run_training(
        self,
        trials: Sequence[RunningTrial],
        study_callback: StudyCallback,
        loggers: Sequence[Callback],
        should_stop: Callable[[], bool],
    ) -> list[TrainResult]:
        settings = self._settings([study_callback, self._notes, *loggers], should_stop)
        with self.context.work.measure("training"):
            for trial in trials:
                self._note_missing(trial.claim)
            if self._fits is not None:
                return self._fits.train(trials, settings, study_callback, self._at_once)
            data = [self.data.get(trial.config) for trial in trials]
            for trial, each in zip(trials, data, strict=True):
                trial.cohort, trial.environment = len(trials), describe_environment(each)
            return train(
                [trial.config for trial in trials],
                data,
                settings,
                checkpoints=[
                    self._checkpoint_spec(trial.claim, self._checkpoint_path(trial.claim)) for trial in trials
                ],
                links=[make_link(self.context.study, trial.claim) for trial in trials],
            )

    def _settings(self, callbacks: Sequence[Callback], should_stop: Callable[[], bool]) -> TrainSettings:
        definition = self.context.study.definition
        objective = definition.objectives[0]
        return TrainSettings(
            monitor=objective.metric,
            direction=objective.direction,
            objectives=[each.metric for each in definition.objectives],
            metrics=[registry.metrics.get(name) for name in definition.metrics],
            callbacks=callbacks,
            should_stop=should_stop,
            record_steps=definition.record_steps,
            sample_scores=definition.evaluation is None,
            may_stack=self._may_stack,
        )

    # Checkpoints.

    def _note_missing(self, claim: ClaimedTrial) -> None:
        """Log that a trial which was begun before begins anew, for none of its fits has a checkpoint."""
        files, fits = self.context.files, [fit.number for fit in self.context.study.definition.fits]
        places = (place(claim.number, fit) for fit in fits for place in (files.checkpoint, files.previous_checkpoint))
        if claim.attempt > 1 and not any(path.exists() for path in places):
            path = self._checkpoint_path(claim)
            log.warning("trial %d begins anew: there is no checkpoint %s", claim.number, path)

    def _checkpoint_spec(self, claim: ClaimedTrial, path: Path) -> CheckpointSpec:
        study = self.context.study
        return CheckpointSpec(
            path,
            resume=path.exists(),
            every=self.context.options.checkpoint_every,
            owner=f"{study.id}/{claim.id}",
            may_write=lambda: study.storage.holds(claim.id) and self._may_write_files(),
        )

    def _fit_spec(self, trial: RunningTrial, fit: Fit) -> CheckpointSpec:
        """Return the options of the checkpoints of one of a trial's fits."""
        claim, files = trial.claim, self.context.files
        path, previous = files.checkpoint(claim.number, fit.number), files.previous_checkpoint(claim.number, fit.number)
        spec = self._checkpoint_spec(claim, path)
        if fit.number:
            spec = replace(spec, owner=f"{spec.owner}/{fit.number}")
        if registry.models.get(trial.config.model).loop:  # whose fits train one after the other
            return spec
        return replace(spec, resume=path.exists() or previous.exists(), previous=previous, trial=claim.id)

    def _may_write_files(self) -> bool:
        """Return false once the folder is gone: it goes with its study, and is not to be made again."""
        folder = self.context.files.folder("checkpoints")
        if not folder.is_dir() and not self._folder_missed:
            self._folder_missed = True
            log.warning("%s: was removed; this worker writes no more checkpoints", folder)
        return not self._folder_missed

    def _checkpoint_path(self, claim: ClaimedTrial) -> Path:
        return self.context.files.checkpoint(claim.number)


def _check_key(config: TrialConfig) -> Hashable:
    """Return a key that is equal for configurations that one check is for."""
    return config.model, config.batch_size, *shape_values(config).items()
