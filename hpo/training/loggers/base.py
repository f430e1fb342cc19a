"""Base class of experiment trackers, and their factory."""

from __future__ import annotations

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from typing_extensions import override

from hpo.config import registry
from hpo.config.parameter import Value
from hpo.errors import RequestError
from hpo.training.callbacks import Callback
from hpo.training.member import Member, Metrics, Status, TrainResult

__all__ = ["TRACKERS", "LoggedTrials", "Tracker", "check_trackers", "make_tracker"]

log = logging.getLogger("hpo.training")
Run = TypeVar("Run")
TRACKERS: Mapping[str, str] = {
    "mlflow": "hpo.training.loggers.mlflow.MLflow",
    "wandb": "hpo.training.loggers.wandb.WandB",
}


@dataclass(frozen=True)
class LoggedTrials:
    """Trials that a tracker logs, in the order in which they are given to `train`.

    Attributes:
        study: the study's name.
        key: identifies the study; another study of the same name has another key.
        numbers: of the trials.
        may_exist: whether each may have a run already, from an earlier attempt.
    """

    study: str
    key: str
    numbers: Sequence[int]
    may_exist: Sequence[bool]

    def name(self, member: Member) -> str:
        """Return the name of a trial's run."""
        return f"{self.study}/trial_{self.numbers[member.number]}"

    def identity(self, member: Member) -> str:
        """Return a text that no other trial has, of this study or another."""
        return f"{self.study}-{self.key}-{self.numbers[member.number]}"


class Tracker(Callback, Generic[Run]):
    """Tracker with one run per trial: its parameters, every epoch's metrics, its status and its best metrics.

    A trial that resumes continues its run. The tracker's own thread makes all calls, so that training does not wait for
    them; the first that fails is logged, and training goes on without the tracker.

    Args:
        trials: the trials to log.
    """

    def __init__(self, trials: LoggedTrials) -> None:
        self._trials = trials
        self._runs: dict[int, Run] = {}
        self._params: dict[int, Mapping[str, Value]] = {}
        self._executor = ThreadPoolExecutor(1, type(self).__name__)
        self._broken = False

    @staticmethod
    @abstractmethod
    def check() -> None:
        """Refuse a tracker that cannot be used from here.

        Raises:
            RequestError: its package is missing, or its server does not answer.
        """

    @abstractmethod
    def begin(self, member: Member, params: Mapping[str, Value], may_exist: bool) -> Run:
        """Return the run of a trial, an existing one or a new one.

        Args:
            member: the trial.
            params: its effective parameters.
            may_exist: whether an earlier attempt may have begun the run.
        """

    @abstractmethod
    def add_params(self, run: Run, params: Mapping[str, Value]) -> None:
        """Add parameters that an objective function asked for after the run had begun."""

    @abstractmethod
    def record(self, run: Run, metrics: Mapping[str, float], epoch: int) -> None:
        """Add an epoch's metrics."""

    @abstractmethod
    def end(self, run: Run, status: Status | None, summary: Mapping[str, float]) -> None:
        """End a run; a status of None means that an error ended it."""

    @override
    def on_start(self, member: Member) -> None:
        """Begin a trial's run, or continue it; earlier epochs are logged only in a new run."""
        rows = [dict(row) for row in member.history]
        params = dict(member.params)
        self._submit(lambda: self._begin(member, params, rows))

    def _begin(self, member: Member, params: Mapping[str, Value], rows: Sequence[Metrics]) -> None:
        may_exist = self._trials.may_exist[member.number]
        self._runs[member.number] = run = self.begin(member, params, may_exist)
        self._params[member.number] = params
        for row in () if may_exist else rows:
            self.record(run, _finite(row), int(row["epoch"]))

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Log an epoch's metrics."""
        row = dict(metrics)
        self._submit(lambda: self.record(self._runs[member.number], _finite(row), int(row["epoch"])))

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Log the status and the best metrics, and end the run."""
        summary, params = _finite(outcome.summary, without=()), dict(member.params)
        self._submit(lambda: self._end(member.number, outcome.status, summary, params))

    def _end(self, number: int, status: Status, summary: Mapping[str, float], params: Mapping[str, Value]) -> None:
        run = self._runs.pop(number)
        if late := {name: value for name, value in params.items() if name not in self._params[number]}:
            self.add_params(run, late)
        self.end(run, status, summary)

    def close(self) -> None:
        """End the runs that are still open after an error, and wait until everything has been logged."""
        self._submit(self._end_open)
        self._executor.shutdown()

    def _end_open(self) -> None:
        for number in list(self._runs):
            self.end(self._runs.pop(number), None, {})

    def _submit(self, call: Callable[[], None]) -> None:
        self._executor.submit(self._run_guarded, call)

    def _run_guarded(self, call: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            call()
        except Exception as error:  # of a tool, its network or its disk: none is worth a trial
            self._broken = True
            why = " ".join(str(error).split())[:300] or type(error).__name__
            log.warning("%s: %s; training goes on without it", type(self).__name__, why)


def _finite(row: Mapping[str, float], without: Sequence[str] = ("epoch",)) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in without and math.isfinite(value)}


def make_tracker(name: str, trials: LoggedTrials) -> Tracker[Any]:
    """Make the tracker of that name, one of `TRACKERS`."""
    tracker: Tracker[Any] = registry.resolve(TRACKERS[name])(trials)
    return tracker


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be used from here, before a trial is claimed.

    Raises:
        RequestError: a package is missing, or a server does not answer.
    """
    for name in names:
        registry.resolve(TRACKERS[name]).check()


def missing_package_error(package: str) -> RequestError:
    """Return the error for a tracker whose package is not installed."""
    return RequestError(
        f"--tracker {package}: its package is missing; install it with: pip install 'torch-hpo[{package}]'"
    )


def set_default_env(**variables: str) -> None:
    """Set environment variables of a tool where they are not set yet."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
