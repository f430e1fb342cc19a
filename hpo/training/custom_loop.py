"""Trials of the user's own training loops, registered with `hpo.training_loop`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpo.config import registry
from hpo.config.registry import Direction
from hpo.config.trial_config import TrialConfig
from hpo.errors import CheckpointError, RequestError, RunError
from hpo.training.checkpoint import Checkpoint, CheckpointFile
from hpo.training.data import Data, epoch_seed
from hpo.training.member import Member, Metrics, State, TrainResult, Weights
from hpo.training.numbers import to_number
from hpo.training.settings import COST_METRICS, TrainSettings
from hpo.utils.text import first_line

__all__ = ["Stateful", "Trial", "run_loop"]

# Which epoch is the best, where the objective is a cost and does not tell one epoch from another.
DEFAULT_MONITORS: Sequence[tuple[str, Direction]] = (("val_accuracy", "maximize"), ("val_loss", "minimize"))


class Stateful(Protocol):
    """Object that a checkpoint can hold: a model, optimizer, scheduler, gradient scaler, sampler of data."""

    def state_dict(self) -> Any:
        """Return the state, in tensors and plain values."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Load a state that `state_dict` returned."""


class Trial:
    """Trial, as a training loop of the user's own sees it.

    ```python
    @hpo.training_loop("mine", uses=["epochs", "learning_rate"])
    def mine(trial: hpo.Trial) -> None:
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), lr=trial.config.learning_rate)
        for epoch in trial.epochs(model=model, optimizer=optimizer):
            ...
            trial.report(train_loss=…, val_loss=…, val_accuracy=…)
    ```

    `epochs` goes on from the last checkpoint, writes the next ones, and ends early where the trial is pruned, where the
    worker is asked to stop, or where the loss is not finite. Where a framework has the loop, use what it is made of:
    `keep`, `state`, `save`, `checkpoint_due`, `report` and `should_stop`.

    Attributes:
        config: the configuration; parameters that the loop declares are attributes of it too.
        device: where to train.
    """

    def __init__(self, run: _LoopRun) -> None:
        self._run = run
        self.config: TrialConfig = run.member.config
        self.device: torch.device = run.data.device

    @property
    def data(self) -> Data:
        """The study's data set, split, scaled and on the device: `x_train` (N, *shape), `y_train` (N,), `x_val` and
        `y_val`, `shape`, `classes`, and `batches(batch_size, epoch)`, in an order that follows from the seed.

        Raises:
            RequestError: the study names none.
        """
        if self._run.data.name == registry.NO_DATA:
            raise RequestError("trial.data: the study names no data set; give it dataset = … in the study file")
        return self._run.data

    @property
    def epoch(self) -> int:
        """The last epoch that was reported, those of earlier attempts too; 0 before the first."""
        return len(self._run.member.history)

    @property
    def should_stop(self) -> bool:
        """True when the loop should return: the trial is pruned or lost, its loss not finite, or the worker is to stop.

        Ask at any time, also in the midst of an epoch, which the next attempt then trains again.
        """
        return self._run.should_stop()

    @property
    def folder(self) -> Path:
        """Folder for files that a later attempt at the trial needs; it is removed when the trial has ended."""
        self._run.folder.mkdir(parents=True, exist_ok=True)
        return self._run.folder

    def keep(self, model: nn.Module) -> None:
        """Count this model's parameters, and keep its weights of the best epoch."""
        self._run.keep(model)

    @property
    def state(self) -> State | None:
        """State that the last attempt saved after `epoch` epochs; None where there is none."""
        return self._run.state

    @property
    def checkpoint_due(self) -> bool:
        """True when it is time to `save`: some seconds after the last time, or each epoch, as the worker is told."""
        return self._run.file is not None and self._run.file.due(self.epoch)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, which the next attempt finds as `state`, after the epochs reported so far.

        Args:
            state: tensors and plain values, which torch reads back with `weights_only`.

        Raises:
            RunError: it holds anything else.
        """
        self._run.save(dict(state))

    def report(self, **metrics: float) -> None:
        """Record the metrics of the next epoch: the study's objectives, and any others.

        Raises:
            RunError: an objective or a constraint's metric is missing, or not a number.
        """
        self._run.report(metrics)

    def epochs(self, **parts: Stateful) -> Iterator[int]:
        """Yield the epochs from 1, or from the one after the last checkpoint, to the parameter `epochs`.

        Args:
            parts: the contents of a checkpoint, by name. The best epoch's weights are kept of the one called `model`.

        Raises:
            RunError: an epoch has ended without a report, or the state of a part cannot be written.
            CheckpointError: a part cannot load its state from the checkpoint; the trial then begins anew.
        """
        run = self._run
        if "epochs" not in self.config.effective():
            raise RunError(f"objective '{self.config.model}': trial.epochs needs the parameter; add uses=['epochs', …]")
        if isinstance(model := parts.get("model"), nn.Module):
            self.keep(model)
        run.load_parts(parts)
        while self.epoch < self.config.epochs and not run.stopped:
            stopping = self.should_stop
            if self.epoch > run.saved and (stopping or self.checkpoint_due):
                self.save({name: part.state_dict() for name, part in parts.items()})
            if stopping:
                return
            epoch = self.epoch + 1
            torch.manual_seed(epoch_seed(self.config.seed, epoch))  # as in our own loop: a resumed epoch draws the same
            yield epoch
            if self.epoch < epoch and not run.stopped:
                raise RunError(f"objective '{self.config.model}': epoch {epoch} ended without trial.report(…)")


class _LoopRun:
    """Training of one trial by a loop of the user's own: the private side of `Trial`.

    Attributes:
        member: the trial.
        data: of the study.
        file: its checkpoints, or None.
        folder: for the loop's own files.
        state: of the checkpoint to begin from; None without one.
        saved: epochs in the last checkpoint.
    """

    def __init__(
        self,
        member: Member,
        data: Data,
        settings: TrainSettings,
        file: CheckpointFile | None,
        checkpoint: Checkpoint | None,
        folder: Path,
    ) -> None:
        self.member, self.data, self.file, self.folder = member, data, file, folder
        self.state: State | None = None
        self.saved = 0
        self._settings = settings
        self._required = [entry.name for entry in settings.metrics if entry.name not in COST_METRICS]
        self._model: nn.Module | None = None
        self._verified = False
        self._seconds_before, self._since = 0.0, time.perf_counter()
        if checkpoint is not None:
            self._resume(checkpoint)

    def _resume(self, checkpoint: Checkpoint) -> None:
        member, self.state, self.saved = self.member, checkpoint.learner, len(checkpoint.history)
        member.history = checkpoint.history
        member.best_epoch, member.best_weights = checkpoint.best_epoch, checkpoint.best_weights
        member.resumed_from, member.seconds = len(checkpoint.history), checkpoint.seconds
        self._seconds_before = checkpoint.seconds

    @property
    def stopped(self) -> bool:
        """True once the trial has ended."""
        return self.member.stopped is not None

    def should_stop(self) -> bool:
        """Return whether the loop should return; a stop on request marks the trial, whose next epoch is incomplete."""
        if not self.stopped and self._settings.should_stop():
            self.member.stop("interrupted")
        return self.stopped

    def keep(self, model: nn.Module) -> None:
        """Count the model's parameters and keep its best weights; see `Trial.keep`."""
        self._model = model
        self.member.parameter_count = sum(each.numel() for each in model.parameters() if each.requires_grad)

    def load_parts(self, parts: Mapping[str, Stateful]) -> None:
        """Load each part's state from the checkpoint, where there is one."""
        if self.state is None:
            return
        if missing := sorted(set(parts) ^ set(self.state)):
            raise CheckpointError(
                f"its checkpoint holds {sorted(self.state)}, and the loop has {sorted(parts)}: {missing}"
            )
        for name, part in parts.items():
            try:
                part.load_state_dict(self.state[name])
            except Exception as error:  # a part of the user's can raise anything
                raise CheckpointError(f"'{name}' does not fit its checkpoint: {first_line(error)}") from error

    def save(self, state: State) -> None:
        """Write a checkpoint; see `Trial.save`."""
        if self.file is None:
            return
        self._update_seconds()
        member = self.member
        self.file.write(
            Checkpoint(
                epoch=len(member.history) + 1,
                step=0,
                seconds=member.seconds,
                generators=[],
                history=member.history,
                steps=[],
                best_epoch=member.best_epoch,
                best_weights=member.best_weights,
                learner=state,
            )
        )
        self.saved = len(member.history)
        if not self._verified:  # once an attempt: else a state that cannot be read back shows only when it is needed
            self._verified = True
            try:
                self.file.verify()
            except CheckpointError as error:
                raise RunError(f"objective '{member.config.model}': the state {sorted(state)}: {error}") from error

    def report(self, metrics: Mapping[str, float]) -> None:
        """Record the metrics of the next epoch; see `Trial.report`."""
        member = self.member
        if self.stopped:
            return
        name = member.config.model
        values = {key: to_number(value, f"objective '{name}': trial.report({key}=…)") for key, value in metrics.items()}
        for name in self._required:
            if name not in values:
                raise RunError(
                    f"objective '{member.config.model}': trial.report has no {name}; it has {sorted(values)}"
                )
        self._update_seconds()
        row: Metrics = {"epoch": len(member.history) + 1, **values, "seconds": member.seconds}
        member.end_epoch(row, *self._choose_monitor(row), self._weights)
        for callback in self._settings.callbacks:
            callback.on_epoch(member, row)
        if "epochs" in member.config.effective() and row["epoch"] >= member.config.epochs:
            member.stop("completed")

    def _choose_monitor(self, row: Metrics) -> tuple[str, Direction]:
        """Return the metric that decides which epoch is the best, or `epoch`, by which the last one is."""
        settings = self._settings
        first = [] if settings.monitor is None else [(settings.monitor, settings.direction)]
        monitors = [each for each in (*first, *DEFAULT_MONITORS) if each[0] in row]
        return monitors[0] if monitors else ("epoch", "maximize")

    def _weights(self) -> Weights:
        state = {} if self._model is None else self._model.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items() if isinstance(value, Tensor)}

    def _update_seconds(self) -> None:
        self.member.seconds = self._seconds_before + time.perf_counter() - self._since

    def train(self) -> TrainResult:
        """Call the loop, and return the result."""
        member = self.member
        for callback in self._settings.callbacks:
            callback.on_start(member)
        if not self.stopped:
            self._call()
        member.stop("completed")
        result = TrainResult.of(member, self._model)
        for callback in self._settings.callbacks:
            callback.on_end(member, result)
        return result

    def _call(self) -> None:
        """Call the user's function; one that reports nothing may return its value, or several by name."""
        name = self.member.config.model
        returned = registry.models.get(name).load()(Trial(self))
        if returned is not None and not self.member.history and not self.stopped:
            self.report(returned if isinstance(returned, Mapping) else {self._settings.monitor or "value": returned})
        if not self.member.history and not self.stopped:
            raise RunError(f"objective '{name}': it reported nothing; call trial.report(…) after each epoch")


def run_loop(
    config: TrialConfig,
    number: int,
    data: Data,
    settings: TrainSettings,
    file: CheckpointFile | None,
) -> TrainResult:
    """Train a configuration with the user's loop that it names as its model.

    Args:
        config: the configuration.
        number: its position among those that `hpo.training.loop.train` was given.
        data: the study's data set, on the device.
        settings: see `hpo.training.loop.train`.
        file: the trial's checkpoints; None for none.

    Raises:
        CheckpointError: the checkpoint to begin from is missing, damaged or another trial's.
        RunError: the loop reports nothing, or something other than numbers.
    """
    checkpoint = None if file is None else file.load()
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory(prefix="hpo-") as temporary:
        folder = Path(temporary) if file is None else file.folder
        member = Member(config, number)
        return _LoopRun(member, data, settings, file, checkpoint, folder).train()
