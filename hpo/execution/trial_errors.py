"""Errors of trials, as a worker tells them: which fail a trial, and which are the worker's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import sqlalchemy.exc

from hpo.errors import (
    DataError,
    LeaseLostError,
    OutOfMemoryError,
    RegistryError,
    RunError,
    StorageLostError,
    StudyDeletedError,
    UserExitError,
)
from hpo.execution.deaths import DeathCounter
from hpo.execution.trial_recorder import TrialRecorder
from hpo.study import ClaimedTrial

__all__ = ["INFRASTRUCTURE_ERRORS", "ErrorRecorder"]

# Errors that are no trial's fault: this machine lacks something that the study needs, and another may have it; or the
# database fails, after minutes of retries, or is no more.
INFRASTRUCTURE_ERRORS = (
    DataError, RegistryError, StorageLostError, StudyDeletedError,
    optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError,
)  # fmt: skip


class ErrorRecorder:
    """Recorder of the errors that end trials.

    Args:
        recorder: tells how trials ended.
        deaths: counts the attempts that ended, or would have ended, their process.
    """

    def __init__(self, recorder: TrialRecorder, deaths: DeathCounter) -> None:
        self._recorder, self._deaths = recorder, deaths

    @contextmanager
    def record(self, claim: ClaimedTrial) -> Iterator[None]:
        """Tell an error raised in this context as the trial's own, unless it is the infrastructure's."""
        try:
            yield
        except INFRASTRUCTURE_ERRORS:
            raise
        except (LeaseLostError, optuna.exceptions.UpdateFinishedTrialError):
            self._recorder.drop(claim)
        except OutOfMemoryError as error:
            self._recorder.tell_out_of_memory(claim, error)
        except UserExitError as error:
            with self.record(claim):
                self.outlive(claim, error)
        except Exception as error:  # a bug in user code fails its trial, not the worker
            self._recorder.tell_error(claim, error)

    def outlive(self, claim: ClaimedTrial, error: RunError) -> None:
        """Count an attempt that would have ended this process as a death; the trial waits for its next one.

        Raises:
            RunError: it has died too often.
        """
        try:
            self._deaths.count(claim, str(error))
        except RunError as final:
            raise final from error.__cause__
        self._recorder.give_back([claim], "it waits for its next attempt")

    def count_death(self, claim: ClaimedTrial) -> None:
        """Count the death of the last attempt, if its worker died or was cut off.

        Raises:
            RunError: it has died too often.
        """
        if claim.taken_over:
            self._deaths.count(claim)
