"""Log of a call of an objective function, as TensorBoard and trackers show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import optuna
from optuna.trial import TrialState
from typing_extensions import override

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.execution.objective_call import CallResult
from hpo.training.callbacks import Callback
from hpo.training.member import Member, Status, TrainResult

__all__ = ["CallLog"]


@dataclass(eq=False)
class CalledMember(Member):
    """Member whose parameters are those that an objective function has asked for so far."""

    trial: optuna.trial.Trial | None = None

    @property
    @override
    def params(self) -> Mapping[str, Value]:
        """The parameters so far."""
        assert self.trial is not None
        return cast("Mapping[str, Value]", self.trial.params)


@dataclass(frozen=True)
class CallSummary(TrainResult):
    """Result of a call.

    Attributes:
        values: that the function returned, by the names of the objectives.
    """

    values: Mapping[str, float] | None = None

    @property
    @override
    def summary(self) -> Mapping[str, float]:
        """The returned values, and the seconds that the call took."""
        return {**(self.values or {}), "train_seconds": self.train_seconds}


class CallLog:
    """Log of a call, which begins with its first report, for only then are its parameters known.

    Args:
        trial: the trial.
        metrics: names of the objectives.
        loggers: what writes it.
        last_step: the step after which the call goes on; -1 if it begins.
    """

    def __init__(
        self, trial: optuna.trial.Trial, metrics: Sequence[str], loggers: Sequence[Callback], last_step: int
    ) -> None:
        self._metrics, self._loggers = metrics, loggers
        self._member = CalledMember(TrialConfig(), resumed_from=last_step, trial=trial)
        self._begun = False

    def report(self, value: float, step: int) -> None:
        """Log an intermediate value."""
        self._log(step, {self._metrics[0]: value})

    def end(self, result: CallResult | None, seconds: float) -> None:
        """Log how the call ended; None for an interruption."""
        values = (
            None if result is None or result.values is None else dict(zip(self._metrics, result.values, strict=False))
        )
        if not self._begun:
            self._log(0, values or {})
        outcome = CallSummary(
            self._member.config, _find_status(result), [], None, None, 0, seconds, None, values=values
        )
        for logger in self._loggers:
            logger.on_end(self._member, outcome)

    def _log(self, step: int, row: Mapping[str, float]) -> None:
        if not self._begun:
            self._begun = True
            for logger in self._loggers:
                logger.on_start(self._member)
        if row:
            for logger in self._loggers:
                logger.on_epoch(self._member, {"epoch": step, **row})


def _find_status(result: CallResult | None) -> Status:
    if result is None:
        return "interrupted"
    if result.failure == "diverged":
        return "diverged"
    return "pruned" if result.state == TrialState.PRUNED else "completed"
