"""Experiment trackers: what they are told of every trial, whichever they are."""

from __future__ import annotations

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
    """The trials that a tracker tells of, in the order in which they are given to `train`.

    Attributes:
        study: the study's name.
        key: the study's own; another study of the same name has another.
        numbers: of the trials.
        again: whether each may have a run already, from an earlier attempt.
    """

    study: str
    key: str
    numbers: Sequence[int]
    again: Sequence[bool]

    def name(self, member: Member) -> str:
        """What a trial's run is called."""
        return f"{self.study}/trial_{self.numbers[member.number]}"

    def identity(self, member: Member) -> str:
        """What no other trial has."""
        return f"{self.study}-{self.key}-{self.numbers[member.number]}"


class Tracker(Callback, Generic[Run]):
    """One run per trial: its parameters, every epoch's metrics, how it ended and with what.

    A trial that resumes goes on in its run. What the tracker has to be told is told by a thread of its own, so that
    training does not wait for it; where that fails, it is logged once, and training goes on without the tracker.

    Args:
        tracked: the trials.
    """

    def __init__(self, tracked: LoggedTrials) -> None:
        self._tracked = tracked
        self._runs: dict[int, Run] = {}
        self._telling = ThreadPoolExecutor(1, type(self).__name__)
        self._told: list[Future[None]] = []
        self._broken = False

    @staticmethod
    @abstractmethod
    def check() -> None:
        """Refuse a tracker that cannot be used from here.

        Raises:
            RequestError: its package is missing, or its server does not answer.
        """

    @abstractmethod
    def begin(self, member: Member, params: Mapping[str, Value], again: bool) -> Run:
        """The run of a trial, found or made."""

    @abstractmethod
    def record(self, run: Run, metrics: Mapping[str, float], epoch: int) -> None:
        """Add an epoch's metrics."""

    @abstractmethod
    def end(self, run: Run, status: Status | None, summary: Mapping[str, float]) -> None:
        """End a run; no status means by an error."""

    @override
    def on_start(self, member: Member) -> None:
        """Begin a trial's run, or go on with it; earlier epochs are told again only to one that is new."""
        rows = [dict(row) for row in member.history]
        self._tell(lambda: self._begin(member, rows))

    def _begin(self, member: Member, rows: Sequence[Metrics]) -> None:
        again = self._tracked.again[member.number]
        self._runs[member.number] = run = self.begin(member, member.config.effective(), again)
        for row in () if again else rows:
            self.record(run, _finite(row), int(row["epoch"]))

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Tell an epoch's metrics."""
        row = dict(metrics)
        self._tell(lambda: self.record(self._runs[member.number], _finite(row), int(row["epoch"])))

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Tell how it ended."""
        best = {f"best_{name}": value for name, value in (outcome.best or {}).items()}
        counted = {"parameter_count": float(outcome.parameter_count), "train_seconds": outcome.train_seconds}
        summary = _finite({**best, **counted}, without=())
        self._tell(lambda: self.end(self._runs.pop(member.number), outcome.status, summary))

    def close(self) -> None:
        """End what is still open, for an error has ended its training, and wait until all has been told."""
        self._tell(self._end_open)
        self._telling.shutdown()

    def _end_open(self) -> None:
        for number in list(self._runs):
            self.end(self._runs.pop(number), None, {})

    def _tell(self, what: Callable[[], None]) -> None:
        self._telling.submit(self._guarded, what)

    def _guarded(self, what: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            what()
        except Exception as error:  # of a tool, its network or its disk: none is worth a trial
            self._broken = True
            why = " ".join(str(error).split())[:300] or type(error).__name__
            log.warning("%s: %s; training goes on without it", type(self).__name__, why)


def _finite(row: Mapping[str, float], without: Sequence[str] = ("epoch",)) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in without and math.isfinite(value)}


def make_tracker(name: str, tracked: LoggedTrials) -> Tracker[Any]:
    """The tracker of that name."""
    made: Tracker[Any] = registry.resolve(TRACKERS[name])(tracked)
    return made


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be used from here, before a trial is claimed.

    Raises:
        RequestError: says what is missing.
    """
    for name in names:
        registry.resolve(TRACKERS[name]).check()


def missing_package_error(package: str) -> RequestError:
    """The line for a tracker whose package is not installed."""
    return RequestError(
        f"--tracker {package}: its package is missing; install it with: pip install 'torch-hpo[{package}]'"
    )


def default(**variables: str) -> None:
    """Set environment variables of a tool that nobody has set."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)
