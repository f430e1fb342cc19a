"""Loggers of trials, as a worker's options name them: TensorBoard and trackers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import RequestError
from hpo.execution.study_callback import RunningTrial
from hpo.execution.worker_options import WorkerOptions
from hpo.training.callbacks import Callback
from hpo.training.loggers.base import LoggedTrials, check_trackers, make_tracker
from hpo.training.loggers.tensorboard import TensorBoard
from hpo.utils.paths import study_path

__all__ = ["TrialLoggers"]


class TrialLoggers:
    """Factory of the loggers of a worker's trials.

    Args:
        study: the study's name.
        key: identifies the study.
        options: of the worker.

    Raises:
        RequestError: a tracker cannot be reached, or TensorBoard's folder cannot be created.
    """

    def __init__(self, study: str, key: str, options: WorkerOptions) -> None:
        self._study, self._key, self._trackers = study, key, options.trackers
        self._folder: Path | None = None
        check_trackers(options.trackers)
        if options.tensorboard is not None:
            _create_folder(options.tensorboard)
            self._folder = study_path("", study, root=options.tensorboard)  # refused before a trial is claimed

    @contextmanager
    def open(self, trials: Sequence[RunningTrial]) -> Iterator[list[Callback]]:
        """Open the loggers of trials that are trained at the same time.

        A trial that has been started before, here or elsewhere, may have a run in a tracker.
        """
        numbers = [trial.claim.number for trial in trials]
        again = [trial.claim.attempt > 1 or trial.started for trial in trials]
        logged = LoggedTrials(self._study, self._key, numbers, again)
        trackers = [make_tracker(name, logged) for name in self._trackers]
        board = [] if self._folder is None else [TensorBoard([self._folder / f"trial_{n}" for n in numbers])]
        try:
            yield [*board, *trackers]
        finally:
            for tracker in trackers:
                tracker.close()


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise RequestError(f"--tensorboard {folder}: cannot be created ({why}); choose another folder") from error
