"""Trials of a study of an objective function, as one worker runs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from hpo.config.trial_config import TrialConfig
from hpo.errors import RegistryError
from hpo.execution.call_log import CallLog
from hpo.execution.objective_call import ObjectiveTrial, call_objective
from hpo.execution.study_callback import RunningTrial
from hpo.execution.trial_checkpoint import TrialCheckpoint
from hpo.execution.trial_recorder import TrialOutcome
from hpo.execution.trial_seed import SEEDLESS, derive_seed
from hpo.execution.worker_context import WorkerContext
from hpo.study import ClaimedTrial, Study
from hpo.study.attributes import TRIAL_SEED
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import checkpoint_folder
from hpo.training.environment import describe_environment
from hpo.training.process_state import contain_user_code

__all__ = ["ObjectiveCalls"]

log = logging.getLogger("hpo.execution.worker")


class ObjectiveCalls:
    """Calls of an objective function, one for each trial that a worker claims.

    Args:
        context: of the worker.
        function: the study's objective function.
    """

    def __init__(self, context: WorkerContext, function: Callable[[Any], object]) -> None:
        self.context, self.study, self.function = context, context.study, function

    def run(self, claim: ClaimedTrial) -> None:
        """Call the function with a claimed trial, and tell the result, whatever it is."""
        context, running = self.context, RunningTrial(claim, TrialConfig())
        context.recorder.open[claim.id] = claim
        with (
            context.errors.record(claim),
            context.watchdog.watch([running], self.study.trial_timeout, loop=True),
        ):
            context.errors.count_death(claim)
            with context.work.measure("training"), context.loggers.open([running]) as loggers:
                self._call(claim, loggers)
        context.recorder.check_errors()

    def _call(self, claim: ClaimedTrial, loggers: Sequence[Callback]) -> None:
        """Call the function, and tell what it returns.

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
        last_step = max(self.study.storage.get_trial(claim.id).intermediate_values, default=-1)
        call_log = CallLog(trial, self.study.definition.metrics, loggers, last_step)
        trial.reported = call_log.report
        trial.measure = partial(self.context.work.measure, "sampling")
        start = time.perf_counter()
        with contain_user_code(), self._let_stop():
            result = call_objective(self.function, trial, len(self.study.definition.objectives))
        seconds = time.perf_counter() - start
        call_log.end(result, seconds)
        if result is not None and not trial.seed_asked:
            self._check_seeds()
        if result is None:
            self.context.recorder.release_interrupted(claim)
            return
        attrs = {"train_seconds": round(seconds, 3)}
        outcome = TrialOutcome(claim, result.state, result.values, attrs, result.failure, result.message)
        self.context.recorder.tell(replace(outcome, environment=describe_environment()))
        self._stop_on_request()

    def _prepare(self, claim: ClaimedTrial, trial: ObjectiveTrial) -> None:
        """Give the trial its folder; of an earlier attempt keep the reports up to its checkpoint."""
        storage = self.study.storage
        trial.folder = checkpoint_folder(self.context.files.checkpoint(claim.number))
        trial.interrupted = lambda: self._should_interrupt() or storage.is_lost(claim.id)
        step = TrialCheckpoint(trial.folder).last_step
        if claim.attempt > 1 and step is not None:
            self.study.rewind(claim, step)
        went_on = "begins" if claim.attempt == 1 or step == -1 else "goes on"
        log.info("trial %d %s", claim.number, went_on)

    @contextmanager
    def _let_stop(self) -> Iterator[None]:
        """Let the function call `trial.study.stop()`, which Optuna only allows within `Study.optimize`."""
        of_thread = self.study.optuna_study._thread_local
        of_thread.in_optimize_loop = True
        try:
            yield
        finally:
            of_thread.in_optimize_loop = False

    def _should_interrupt(self) -> bool:
        """Return whether a function that reports is to be interrupted.

        Raises:
            TrialTimeoutError: it has taken too long.
        """
        self.context.watchdog.tick(report=True)
        self.context.watchdog.tick()
        return self.context.stopping()

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
            self.study.stop()
