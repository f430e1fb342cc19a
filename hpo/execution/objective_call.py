"""Call of an objective function: Optuna's trial as the function sees it, and what becomes of the returned value."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from typing_extensions import override

from hpo.config.trial_attributes import warn_of_own_name
from hpo.errors import RunError
from hpo.execution.trial_seed import SeededAttributes
from hpo.study.attributes import TRIAL_SEED
from hpo.study.definition import default_metrics
from hpo.training.divergence import find_divergence
from hpo.training.numbers import to_number
from hpo.utils.text import quantity, shorten, shorten_message

__all__ = ["CallResult", "ObjectiveTrial", "TrialInterrupted", "call_objective"]

log = logging.getLogger("hpo.execution.worker")
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
        measure: measures the time of the sampler and the pruner.
        folder: the folder for files that a later attempt needs; None outside a worker.
        seed: its seed.
        given: values of all parameters, of a trial that is called again; None where the sampler chooses them.
    """

    interrupted: Callable[[], bool] = staticmethod(lambda: False)
    reported: Callable[[float, int], object] = staticmethod(lambda *_: None)
    measure: Callable[[], AbstractContextManager[object]] = staticmethod(nullcontext)
    folder: Path | None = None
    seed: int = 0
    given: Mapping[str, Any] | None = None

    @property
    def seed_asked(self) -> bool:
        """True if the function has asked for the trial's seed."""
        return TRIAL_SEED in self._cached_frozen_trial.user_attrs

    @property
    @override
    def user_attrs(self) -> dict[str, Any]:
        """The user attributes, with the trial's seed as `hpo_seed`, which is stored once it is read."""
        return SeededAttributes(super().user_attrs, self.seed, self._store_seed)

    @override
    def set_user_attr(self, key: str, value: Any) -> None:
        """Store an attribute, as Optuna's trial does; a name that is one of ours is said."""
        warn_of_own_name(key)
        super().set_user_attr(key, value)

    def _store_seed(self) -> None:
        if not self.seed_asked:
            super().set_user_attr(TRIAL_SEED, self.seed)

    def give(self, values: Mapping[str, Any]) -> None:
        """Let the function be called with these parameters, all that it may ask for."""
        self.given = values
        known = self._cached_frozen_trial
        known.params, known.distributions = dict(values), {}

    @override
    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if self.given is None:
            with self.measure():
                return super()._suggest(name, distribution)
        if name not in self.given:
            had = ", ".join(self.given) or "none"
            raise RunError(
                f"the objective function asks for the parameter {name!r}, which the trial that is called again did not "
                f"have ({had}); has the function changed?"
            )
        value = self.given[name]
        if not _contains(distribution, value):
            log.warning(
                "%s = %s: is outside of what the objective function asks for now", name, shorten_message(repr(value))
            )
        return value

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
        with self.measure():
            return super().should_prune()

    def _check(self) -> None:
        try:
            interrupted = self.interrupted()
        except RunError as error:
            raise TrialInterrupted(error) from error
        if interrupted:
            raise TrialInterrupted


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False


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
        raise RunError(
            f"the objective function returned {quantity(len(parts), 'value')}, and the study has "
            f"{quantity(objectives, 'direction')}; {_advise_count(len(parts), objectives)}"
        )
    return [_parse_value(part, objectives) for part in parts]


def _advise_count(returned: int, objectives: int) -> str:
    if returned == 0:
        return f"let it return {'a number' if objectives == 1 else f'{objectives} numbers'}"
    example = ",".join(("minimize", "maximize")[index % 2] for index in range(min(returned, 3)))
    more = ",…" if returned > 3 else ""
    return f"give a direction for each value, as --direction {example}{more}, and another --name"


def _parse_value(value: Any, objectives: int) -> float:
    if value is None:
        wanted = "a number" if objectives == 1 else f"{objectives} numbers"
        raise RunError(f"the objective function returned None; let it return {wanted}")
    if isinstance(value, str):
        raise RunError(f"the objective function returned the text {shorten(value)}; let it return a number")
    return to_number(value, "the returned value")
