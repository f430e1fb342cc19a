"""Adapter between a framework's callback and a trial: of an objective function, or of a training loop."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import optuna
import torch

from hpo.errors import RequestError, RunError, describe_unknown
from hpo.execution.trial_checkpoint import checkpoint as make_checkpoint
from hpo.training.custom_loop import Trial
from hpo.training.numbers import to_number

__all__ = [
    "AnyTrial",
    "TrialAdapter",
    "adapt_trial",
    "import_framework",
    "make_callback",
    "read_generators",
    "select_numbers",
    "write_generators",
]

AnyTrial = optuna.trial.BaseTrial | Trial
Callback = TypeVar("Callback")


class TrialAdapter(Protocol):
    """Trial, as a callback sees it."""

    @property
    def folder(self) -> Path | None:
        """Folder for checkpoints; None where no later attempt would find them."""

    @property
    def per_epoch(self) -> bool:
        """True if each report stands for an epoch and has all metrics, false if it is of one metric at a step."""

    def load(self) -> dict[str, Any] | None:
        """Return the state that the last attempt saved; None if there is none."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Save the state after all that has been reported, in tensors and plain values."""

    def save_due(self) -> bool:
        """Return whether it is time to save."""

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Report the metrics of a validation.

        Raises:
            TrialPruned: Optuna's trial is to end here.
            RunError: the metric that decides is not among them.
        """

    def should_stop(self) -> bool:
        """Return whether training is to end without an exception."""


def adapt_trial(trial: AnyTrial | None, monitor: str | None, where: str) -> TrialAdapter:
    """Return the adapter of a trial.

    Args:
        trial: of an objective function or of a training loop; None in the further processes of distributed training.
        monitor: the metric that an objective function's trial reports; None for no reports.
        where: the callback, to begin a message with.

    Raises:
        RequestError: it is not a trial.
    """
    if trial is None:
        return _NoTrial()
    if isinstance(trial, Trial):
        return _LoopTrial(trial)
    if isinstance(trial, optuna.trial.BaseTrial):
        return _FunctionTrial(trial, monitor, where)
    raise RequestError(f"{where}: trial is {type(trial).__name__}; give the trial that your function was called with")


class _NoTrial:
    """Adapter of no trial."""

    folder: Path | None = None
    per_epoch = True

    def load(self) -> dict[str, Any] | None:
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Save nothing."""

    def save_due(self) -> bool:
        return False

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Report nothing."""

    def should_stop(self) -> bool:
        return False


class _FunctionTrial(_NoTrial):
    """Adapter of Optuna's trial: it reports one metric, and prunes by an exception."""

    def __init__(self, trial: optuna.trial.BaseTrial, monitor: str | None, where: str) -> None:
        self._trial, self._monitor, self._where = trial, monitor, where
        study = getattr(trial, "study", None)  # which a FixedTrial has not
        self._reports = monitor is not None and (study is None or len(study.directions) == 1)
        self.per_epoch = monitor is None
        self.folder = getattr(trial, "folder", None)
        self._checkpoint = None if self.folder is None else make_checkpoint(cast("optuna.Trial", trial))

    def load(self) -> dict[str, Any] | None:
        return None if self._checkpoint is None else self._checkpoint.load()

    def save(self, state: Mapping[str, Any]) -> None:
        if self._checkpoint is not None:
            self._checkpoint.save(state)

    def save_due(self) -> bool:
        return self._checkpoint is not None

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        if self._monitor is not None and self._monitor not in metrics:
            raise RunError(f"{self._where}: {describe_unknown('metric', self._monitor, metrics)}")
        if not self._reports:
            return  # Optuna takes reports for a single objective only
        assert self._monitor is not None
        self._trial.report(metrics[self._monitor], step)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"{self._monitor} = {metrics[self._monitor]:g} at step {step}")


class _LoopTrial:
    """Adapter of a training loop's trial: it reports all metrics as those of an epoch, and asks to stop."""

    per_epoch = True

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    @property
    def folder(self) -> Path:
        return self._trial.folder

    def load(self) -> dict[str, Any] | None:
        return self._trial.state

    def save(self, state: Mapping[str, Any]) -> None:
        self._trial.save(state)

    def save_due(self) -> bool:
        return self._trial.checkpoint_due or self._trial.should_stop

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        del step  # it counts its epochs itself
        if float(metrics.get("epoch", 0.0)).is_integer():  # transformers evaluates within epochs too, if it is asked to
            own = {name: value for name, value in metrics.items() if name not in ("epoch", "step")}
            self._trial.report(None, None, **own)

    def should_stop(self) -> bool:
        return self._trial.should_stop


def select_numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return those metrics that are one number each, as floats."""
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = to_number(value, name)
        except RunError:  # a text, a confusion matrix
            continue
    return numbers


def read_generators() -> list[torch.Tensor]:
    """Return the states of torch's generators of random numbers, the CPU's first."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def write_generators(states: Sequence[torch.Tensor]) -> None:
    """Set torch's generators to states that `read_generators` returned; those of devices, if they are as many."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.device_count() == len(states) - 1:
        torch.cuda.set_rng_state_all(list(states[1:]))


def import_framework(module: str, extra: str) -> Any:
    """Import a framework's module.

    Raises:
        RequestError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RequestError(f"{module} is not installed ({error}): pip install 'torch-hpo[{extra}]'") from error


def make_callback(kind: type[Callback], bases: Sequence[str], extra: str) -> Callback:
    """Return a new object of a callback's class that is also a framework's.

    The framework's class is looked up now, not when our module is imported: by now the user has imported the package,
    of those that have the same framework, whose trainer the callback is for.

    Args:
        kind: our class.
        bases: dotted names of the framework's class, one for each package that has it.
        extra: the extra of this package that installs the first of them.

    Raises:
        RequestError: no such package is installed.
    """
    loaded = [name for name in bases if name.rpartition(".")[0] in sys.modules]
    installed = [name for name in bases if importlib.util.find_spec(name.split(".")[0]) is not None]
    return cast(
        "Callback", object.__new__(_derive(cast("type", kind), tuple(loaded or installed[:1] or bases[:1]), extra))
    )


@cache
def _derive(kind: type, bases: tuple[str, ...], extra: str) -> type:
    """Derive a class from ours and the framework's."""
    found = [getattr(import_framework(module, extra), name) for module, _, name in (b.rpartition(".") for b in bases)]
    return type(kind.__name__, (kind, *found), {"__module__": kind.__module__, "__doc__": kind.__doc__})
