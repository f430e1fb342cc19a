"""Call of an objective function: Optuna's trial as the function sees it, and what becomes of the returned value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from typing_extensions import override

from hpo.errors import RunError
from hpo.study.definition import default_metrics
from hpo.training.divergence import find_divergence
from hpo.training.numbers import to_number

__all__ = ["CallResult", "ObjectiveTrial", "TrialInterrupted", "call_objective"]

(VALUE,) = default_metrics(1)


class TrialInterrupted(BaseException):
    """Interruption of an objective function: the worker is to stop, or its trial is lost, takes too long or diverged.

    It passes through the function's `except Exception`.

    Attributes:
        error: that fails the trial; None if it is to be given back as it is.
        divergence: what was not finite; empty if nothing was.
    """

    def __init__(self, error: RunError | None = None, divergence: str = "") -> None:
        super().__init__(error)
        self.error, self.divergence = error, divergence


class ObjectiveTrial(optuna.trial.Trial):
    """Optuna's trial in a worker: it interrupts the function where it reports, if the worker is to stop.

    Attributes:
        interrupted: called at each report; true, or an error, raises `TrialInterrupted`.
        reported: called with each value and its step.
        folder: the folder for files that a later attempt needs; None outside a worker.
    """

    interrupted: Callable[[], bool] = staticmethod(lambda: False)
    reported: Callable[[float, int], object] = staticmethod(lambda *_: None)
    folder: Path | None = None

    @override
    def report(self, value: float, step: int) -> None:
        """Report an intermediate value, as Optuna's trial does; one that is not finite ends the trial as diverged."""
        super().report(value, step)
        self.reported(float(value), step)
        if cause := find_divergence({VALUE: float(value)}, [VALUE]):
            raise TrialInterrupted(divergence=f"the objective function reported: {cause} at step {step}")
        self._check()

    @override
    def should_prune(self) -> bool:
        """Ask the study's pruner, as Optuna's trial does."""
        self._check()
        return super().should_prune()

    def _check(self) -> None:
        try:
            interrupted = self.interrupted()
        except RunError as error:
            raise TrialInterrupted(error) from error
        if interrupted:
            raise TrialInterrupted


@dataclass(frozen=True)
class CallResult:
    """End of a call: the state and values of its trial, and kind and message of a failure, if it is one."""

    state: TrialState
    values: list[float] | None = None
    failure: str = ""
    message: str = ""


def call_objective(function: Callable[[Any], object], trial: ObjectiveTrial, objectives: int) -> CallResult | None:
    """Call an objective function with a trial; return None if it was interrupted.

    As in Optuna, a pruned trial has the value that it reported last. Other than there, a value that is not finite,
    returned or reported, prunes the trial as diverged, so that the sampler learns from it.

    Args:
        function: the objective function.
        trial: its argument.
        objectives: number of values that it is to return.

    Raises:
        RunError: it returned something else than that many numbers, or takes too long.
        Exception: whatever the function raises.
    """
    try:
        returned = function(trial)
    except TrialInterrupted as interruption:
        if interruption.error is not None:
            raise interruption.error from None
        if interruption.divergence:
            return CallResult(TrialState.PRUNED, None, "diverged", interruption.divergence)
        return None
    except optuna.TrialPruned:
        return CallResult(TrialState.PRUNED, _read_last_report(trial))
    values = _parse_values(returned, objectives)
    named = dict(zip(default_metrics(objectives), values, strict=True))
    if find_divergence(named, named) is None:
        return CallResult(TrialState.COMPLETE, values)
    shown = ", ".join(map(str, values))
    return CallResult(TrialState.PRUNED, None, "diverged", f"the objective function returned {shown}")


def _read_last_report(trial: ObjectiveTrial) -> list[float] | None:
    reports = trial._cached_frozen_trial.intermediate_values
    last = reports[max(reports)] if reports else math.nan
    return [last] if math.isfinite(last) else None


def _parse_values(returned: object, objectives: int) -> list[float]:
    parts = list(returned) if isinstance(returned, Sequence) and not isinstance(returned, str | bytes) else [returned]
    if len(parts) != objectives:
        wanted = "1 direction" if objectives == 1 else f"{objectives} directions"
        raise RunError(f"the objective function returned {len(parts)} values, and the study has {wanted}")
    return [_parse_value(part, objectives) for part in parts]


def _parse_value(value: Any, objectives: int) -> float:
    if value is None:
        wanted = "a number" if objectives == 1 else f"{objectives} numbers"
        raise RunError(f"the objective function returned None; let it return {wanted}")
    return to_number(value, "the returned value")
