"""Trials as training loops of the user's own see them, which are registered with `hpo.training_loop`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import deprecated

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RequestError, RunError, find_closest
from hpo.training.data import Data, epoch_seed
from hpo.training.loop_schedule import LoopSchedule
from hpo.training.loop_stack import Stack
from hpo.training.member import State

if TYPE_CHECKING:
    from hpo.training.loop_run import LoopRun

__all__ = ["Stateful", "Trial"]


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
    worker is asked to stop, or where an objective or a loss is not finite. Where a framework has the loop, use what it
    is made of: `keep`, `state`, `save`, `checkpoint_due`, `report` and `should_stop`.

    A loop that was written for Optuna runs as it stands: `suggest_…`, `report(value, step)`, `should_prune`,
    `raise optuna.TrialPruned`, `set_user_attr`, `number`, `params`, and a returned value.

    Attributes:
        config: the configuration; parameters that the loop declares are attributes of it too.
        device: where to train.
    """

    def __init__(self, run: LoopRun) -> None:
        self._run = run
        self.config: TrialConfig = run.member.config
        self.device: torch.device = run.data.device

    def __getattr__(self, name: str) -> NoReturn:
        """Name the nearest attribute; called where there is none of that name.

        Raises:
            AttributeError: always.
        """
        if hasattr(type(self), name):
            object.__getattribute__(self, name)  # a property of ours that raised AttributeError: raise that again
        known = [*(each for each in dir(type(self)) if not each.startswith("_")), "config", "device"]
        near = find_closest(name, known)
        hint = f"did you mean '{near}'?" if near else f"it has {', '.join(sorted(known))}"
        raise AttributeError(f"hpo.Trial has no '{name}'; {hint}")

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
        """Number of epochs that were reported, those of earlier attempts too."""
        return len(self._run.member.history)

    @property
    def should_stop(self) -> bool:
        """True when the loop should return: the trial is pruned, lost or diverged, or the worker is to stop.

        In a loop that trains several, it is true when that holds for all of them.
        Ask at any time, also in the midst of an epoch, which the next attempt then trains again.
        """
        return self._run.should_stop()

    @property
    def folder(self) -> Path:
        """Folder for files that a later attempt at the trial needs; it is removed when the trial has ended."""
        self._run.folder.mkdir(parents=True, exist_ok=True)
        return self._run.folder

    def keep(self, model: nn.Module) -> None:
        """Count this model's parameters, and keep the weights that the trial's value speaks of."""
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

    def report(self, value: float | None = None, /, step: int | None = None, **metrics: float) -> None:
        """Record the metrics of an epoch: the study's objectives, and any others.

        An objective or a loss (a metric whose name ends in `loss`) that is not finite ends the trial as diverged.

        Args:
            value: the study's first objective, as Optuna's `report(value, step)` takes it.
            step: the epoch, from 0 on and with gaps as you like; by default the one after the last. As in Optuna, a
                second report of the same step is ignored.
            metrics: metrics by name.

        Raises:
            RunError: an objective or a constraint's metric is missing, or not a number; or the step is none, or is
                below the last one.
        """
        self._run.report(value, step, metrics)

    def epochs(self, **parts: Stateful) -> Iterator[int]:
        """Yield the epochs from 1, or from the one after the last checkpoint, to the parameter `epochs`.

        Args:
            parts: the contents of a checkpoint, by name. The best epoch's weights are kept of the one called `model`.

        Raises:
            RunError: an epoch has ended without a report, or with more steps than `schedule` was given; or the state of
                a part cannot be written.
            CheckpointError: a part cannot load its state from the checkpoint; the trial then begins anew.
        """
        run = self._run
        if "epochs" not in self.config.effective():
            raise RunError(
                f"objective '{self.config.model}': trial.epochs needs the parameter 'epochs'; add uses=['epochs', …]"
            )
        if isinstance(model := parts.get("model"), nn.Module):
            self.keep(model)
        run.load_parts(parts)
        run.member.resumable = bool(parts) and run.file is not None
        while self.epoch < self.config.epochs and not run.stopped:
            stopping = self.should_stop
            if self.epoch > run.saved and (stopping or self.checkpoint_due):
                self.save({name: part.state_dict() for name, part in parts.items()})
            if stopping:
                return
            epoch = self.epoch + 1
            # As in our own loop: a resumed epoch draws the same.
            torch.manual_seed(epoch_seed(self.config.seed_of_order, epoch))
            try:
                yield epoch
            finally:  # also where the loop returns
                ended = run.member.stopped in ("paused", "interrupted") and self.epoch == epoch
                if ended and self.epoch > run.saved:
                    self.save({name: part.state_dict() for name, part in parts.items()})
            if self.epoch < epoch and not run.stopped:
                raise RunError(f"objective '{self.config.model}': epoch {epoch} ended without trial.report(…)")
            for schedule in run.schedules:
                schedule.check_steps(epoch)

    def schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
        """Return a torch scheduler of the trial's `schedule` and warm-up, to be stepped after each optimizer step.

        ```python
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.config.learning_rate)
        schedule = trial.schedule(optimizer, steps=len(loader))
        for epoch in trial.epochs(model=model, optimizer=optimizer, schedule=schedule):
            for x, y in loader:
                ...
                optimizer.step()
                schedule.step()
            trial.report(…)
        ```

        The loop `uses` the parameters that it is to follow: schedule, gamma, warmup_steps, … Under `reduce_on_plateau`
        it watches what is reported.

        Args:
            optimizer: made with the learning rate of the configuration; groups of other rates keep their ratio to it.
            steps: of the optimizer in an epoch.

        Raises:
            RunError: the loop has no parameter `epochs`, or `steps` is not at least 1.
        """
        if "epochs" not in self.config.effective():
            raise RunError(
                f"objective '{self.config.model}': trial.schedule needs the parameter 'epochs'; add uses=['epochs', …]"
            )
        if steps < 1:
            raise RunError(f"objective '{self.config.model}': trial.schedule(…, steps={steps}): must be at least 1")
        schedule = LoopSchedule(optimizer, self.config, steps, self._run.count_falls)
        self._run.schedules.append(schedule)
        return schedule

    def stack(self, build: Callable[[TrialConfig], nn.Module]) -> Stack:
        """Build the models of all trials that this call of the loop trains, to train them at once.

        ```python
        @hpo.training_loop("mine", uses=["epochs", "learning_rate", "batch_size"], stack=True)
        def mine(trial: hpo.Trial) -> None:
            data = trial.data
            stack = trial.stack(lambda config: build(config, data.classes))
            for epoch in stack.epochs():
                for x, y in data.batches(trial.config.batch_size, epoch):
                    losses = stack.step(x, y, F.cross_entropy)
                outputs = stack.predict(data.x_val)  # (trials, n, classes)
                stack.report(train_loss=losses, val_accuracy=(outputs.argmax(2) == data.y_val).float().mean(1))
        ```

        Args:
            build: makes the model of a configuration; torch is seeded by the configuration's seed of initial weights
                before each.

        Raises:
            RunError: the loop is not registered with `stack=True`, or has no parameter `epochs`.
        """
        name = self.config.model
        if not registry.models.get(name).stack:
            raise RunError(f"objective '{name}': trial.stack needs @hpo.training_loop('{name}', …, stack=True)")
        if "epochs" not in self.config.effective():
            raise RunError(f"objective '{name}': trial.stack needs the parameter 'epochs'; add uses=['epochs', …]")
        runs = self._run.peers
        trials = [self if run is self._run else Trial(run) for run in runs]

        def build_module(config: TrialConfig) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed_of_init)
                module = build(config)
            if not isinstance(module, nn.Module):
                raise RunError(
                    f"objective '{name}': trial.stack(build): build returned no nn.Module but {type(module).__name__}"
                )
            return module

        return Stack(runs, trials, build_module)

    # As Optuna's trial has them.

    @property
    def number(self) -> int:
        """The trial's number; 0 without a study."""
        return self._run.link.number

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that have an effect, and those that the loop has asked for, by name."""
        return {**self.config.effective(), **self._run.suggestions.asked}

    @property
    def datetime_start(self) -> datetime | None:
        """When the trial began."""
        return self._run.started_at

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The attributes that were stored with the trial, those of `set_user_attr` too."""
        return self._run.user_attrs

    def set_user_attr(self, key: str, value: Any) -> None:
        """Store an attribute with the trial: a value that JSON can hold."""
        self._run.set_user_attr(key, value)

    def should_prune(self) -> bool:
        """Return whether the loop should return or raise `optuna.TrialPruned`.

        It is true wherever `should_stop` is, but after the last epoch, when the trial is complete.
        """
        return self._run.should_prune()

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a real number from `low` to `high`; see `suggest_categorical` for where it comes from."""
        return float(self._run.suggestions.number(float, name, low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest a whole number from `low` to `high`; see `suggest_categorical` for where it comes from."""
        return int(self._run.suggestions.number(int, name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of several values.

        A parameter of the configuration is answered from it, and a number outside the bounds that are asked for is
        logged. Any other is asked of the study's sampler and stored with the trial; where the trial is trained again,
        by another worker, `hpo evaluate` or `hpo reproduce`, the answer is the stored one.

        Raises:
            RunError: the configuration has none of the choices; or it has no such parameter, and there is nothing to
                ask.
        """
        return self._run.suggestions.choice(name, choices)

    @deprecated("use suggest_float(name, low, high)", category=FutureWarning)
    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """Suggest a real number, as `suggest_float` does."""
        return self.suggest_float(name, low, high)

    @deprecated("use suggest_float(name, low, high, log=True)", category=FutureWarning)
    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """Suggest a real number on a logarithmic scale, as `suggest_float` does."""
        return self.suggest_float(name, low, high, log=True)

    @deprecated("use suggest_float(name, low, high, step=q)", category=FutureWarning)
    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """Suggest a multiple of `q`, counted from `low`, as `suggest_float` does."""
        return self.suggest_float(name, low, high, step=q)
