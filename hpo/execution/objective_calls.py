"""Trials of a study of an objective function, as one worker runs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hpo.errors import RegistryError
from hpo.execution.objective_call import ObjectiveTrial, call_objective
from hpo.execution.trial_checkpoint import TrialCheckpoint
from hpo.execution.trial_recorder import TrialOutcome, TrialRecorder
from hpo.execution.trial_seed import SEEDLESS, derive_seed
from hpo.study import ClaimedTrial, Study
from hpo.study.attributes import TRIAL_SEED
from hpo.study.files.study_files import StudyFiles
from hpo.training.checkpoint import checkpoint_folder
from hpo.training.environment import describe_environment
from hpo.training.process_state import contain_user_code

__all__ = ["ObjectiveCalls"]

log = logging.getLogger("hpo.execution.worker")


class ObjectiveCalls:
    """Calls of an objective function, one for each trial that a worker claims.

    Args:
        study: the study.
        function: its objective function.
        files: the study's files.
        recorder: tells how the trials ended.
        should_stop: called where the function reports; true, or an error, interrupts it.
    """

    def __init__(
        self,
        study: Study,
        function: Callable[[Any], object],
        files: StudyFiles,
        recorder: TrialRecorder,
        should_stop: Callable[[], bool],
    ) -> None:
        self.study, self.function, self.files = study, function, files
        self.recorder, self.should_stop = recorder, should_stop

    def run(self, claim: ClaimedTrial) -> None:
        """Call the function with a claimed trial, and tell the result.

        Raises:
            RunError: the function returned no number, or takes too long.
            UserExitError: it would have ended the process.
            RegistryError: the study evaluates other seeds, and the function asks for none.
            Exception: whatever the function raises.
        """
        trial = claim.trial
        assert isinstance(trial, ObjectiveTrial)
        self._prepare(claim, trial)
        self._give_seed(claim, trial)
        start = time.perf_counter()
        with contain_user_code():
            result = call_objective(self.function, trial, len(self.study.definition.objectives))
        if result is not None and not trial.seed_asked:
            self._check_seeds()
        if result is None:
            self.recorder.release_interrupted(claim)
            return
        attrs = {"train_seconds": round(time.perf_counter() - start, 3)}
        outcome = TrialOutcome(claim, result.state, result.values, attrs, result.failure, result.message)
        self.recorder.tell(replace(outcome, environment=describe_environment()))
        self._stop_on_request()

    def _prepare(self, claim: ClaimedTrial, trial: ObjectiveTrial) -> None:
        """Give the trial its folder; of an earlier attempt keep the reports up to its checkpoint."""
        storage, optuna_study = self.study.storage, self.study.optuna_study
        trial.folder = checkpoint_folder(self.files.checkpoint(claim.number))
        trial.interrupted = lambda: self.should_stop() or storage.is_lost(claim.id)
        optuna_study._thread_local.in_optimize_loop = True  # so that the function may call trial.study.stop()
        step = TrialCheckpoint(trial.folder).last_step
        if claim.attempt > 1 and step is not None:
            self.study.rewind(claim, step)
        went_on = "begins" if claim.attempt == 1 or step == -1 else "goes on"
        log.info("trial %d %s", claim.number, went_on)

    def _give_seed(self, claim: ClaimedTrial, trial: ObjectiveTrial) -> None:
        """Give the trial its seed, and of an evaluation its parameters."""
        definition = self.study.definition
        if definition.evaluation is None:
            trial.seed = derive_seed(definition.seed, claim.number)
            return
        self.study.suggest_config(claim)
        params = trial.params
        chosen = next(each for each in definition.evaluation.candidates if each.label == params["configuration"])
        trial.seed = params["seed"]
        trial.give(chosen.values)

    def _check_seeds(self) -> None:
        """Refuse to evaluate a function that has never asked for a seed: all its runs would be one and the same.

        Raises:
            RegistryError: neither the evaluated study nor the evaluation has a trial with a seed.
        """
        evaluation = self.study.definition.evaluation
        if evaluation is None:
            return
        evaluated = Study(self.study.storage, evaluation.of)
        if not any(TRIAL_SEED in trial.user_attrs for study in (self.study, evaluated) for trial in study.trials()):
            raise RegistryError(f"study '{evaluation.of}' cannot be evaluated yet: {SEEDLESS}; then evaluate it again")

    def _stop_on_request(self) -> None:
        """End the study for all workers, where the function has called `trial.study.stop()`."""
        if self.study.optuna_study._stop_flag:
            log.info("the objective function has stopped the study")
            self.study.storage.request_stop(self.study.id)
