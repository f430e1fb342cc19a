"""Context of a worker: what all its trials share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpo.execution.trial_errors import ErrorRecorder
from hpo.execution.trial_loggers import TrialLoggers
from hpo.execution.trial_recorder import TrialRecorder
from hpo.execution.watchdog import Watchdog
from hpo.execution.worker_options import WorkerOptions
from hpo.storage.leases import WorkerInfo
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import Study
from hpo.study.files.study_files import StudyFiles

__all__ = ["WorkerContext"]


@dataclass(frozen=True)
class WorkerContext:
    """Context of a worker.

    Attributes:
        study: the study whose trials it claims.
        options: how it trains them.
        info: the worker, as the storage knows it.
        files: the study's files.
        work: recorder of the worker's time and counts.
        recorder: tells how trials ended.
        errors: tells which of their errors ended them.
        loggers: makes the loggers of trials.
        watchdog: is told that training gets on.
        stopping: whether the worker is to stop.
    """

    study: Study
    options: WorkerOptions
    info: WorkerInfo
    files: StudyFiles
    work: WorkRecorder
    recorder: TrialRecorder
    errors: ErrorRecorder
    loggers: TrialLoggers
    watchdog: Watchdog
    stopping: Callable[[], bool]
