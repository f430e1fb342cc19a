"""Stacks of a training loop of the user's own: several trials' models, trained by one loop; see `Trial.stack`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training.data import epoch_seed
from hpo.training.device import send_numbers
from hpo.training.loop_group import LoopGroup, Loss
from hpo.training.loop_schedule import WHAT_STEPS_ARE
from hpo.training.member import State
from hpo.training.precision import compute_type
from hpo.training.process_state import contain_user_code
from hpo.training.schedules import rate_at
from hpo.training.stacked.check import find_differing_part, find_parameter_obstacle, why_modules_alone
from hpo.training.stacked.noise import noise_seed
from hpo.training.stacked.optimizers import optimizer_family
from hpo.training.stacked.structure import number_structures, structure_of
from hpo.utils.text import quantity

if TYPE_CHECKING:
    from hpo.training.custom_loop import Trial
    from hpo.training.loop_run import LoopRun

__all__ = ["Stack"]


class Stack:
    """Models of several trials, which one training loop trains at once; `hpo.Trial.stack` makes it.

    Models of equal shapes are one batched computation each, checked against the models alone before it is trusted;
    others are computed one after the other. Every trial keeps its own configuration, optimizer, learning rate, dropout,
    value and checkpoint.

    Attributes:
        trials: those in training: an `hpo.Trial` each, with its `config`, its `report`, and whatever a trial has. It
            changes between epochs alone.
    """

    def __init__(
        self, runs: Sequence[LoopRun], trials: Sequence[Trial], build: Callable[[TrialConfig], nn.Module]
    ) -> None:
        self._runs = dict(zip(map(id, trials), runs, strict=True))
        self.trials = list(trials)
        self._build_module = build
        self._modules = {id(trial): build(trial.config) for trial in trials}
        self._states: dict[int, State | None] = {id(trial): self._run(trial).state for trial in trials}
        for trial in trials:
            run = self._run(trial)
            run.keep(self._modules[id(trial)])
            run.member.resumable = run.file is not None
        self._shape: tuple[int, ...] | None = None
        self._steps: int | None = None  # of an epoch, where rates follow schedules
        self._step = 0  # how many of them are done
        self._groups: list[LoopGroup] = []
        self._checked: dict[Hashable, str | None] = {}
        self._trains = False  # whether the epoch's steps go on

    def _run(self, trial: Trial) -> LoopRun:
        return self._runs[id(trial)]

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def configs(self) -> list[TrialConfig]:
        """The configurations of the trials in training."""
        return [trial.config for trial in self.trials]

    @property
    def should_stop(self) -> bool:
        """True when the loop should return: no trial is in training any more, or the worker is to stop."""
        return all(trial.should_stop for trial in self.trials)

    def epochs(self, steps: int | None = None) -> Iterator[int]:
        """Yield the epochs from 1, or from the one after the last checkpoint, while any trial is in training.

        A trial leaves at its last epoch, or where it is pruned, paused or diverges. Checkpoints are written here, one
        for each trial.

        Args:
            steps: calls of `step` in an epoch; each then has the learning rate of each trial's `schedule` and warm-up.

        Raises:
            RunError: an epoch has ended without a report of a trial, or `steps` is not at least 1.
            CheckpointError: a trial's checkpoint does not fit its model; the trial then begins anew.
        """
        if steps is not None and steps < 1:
            name = self.trials[0].config.model
            raise RunError(f"objective '{name}': stack.epochs(steps={steps}): must be at least 1")
        self._steps = steps
        while True:
            self.trials = [
                each for each in self.trials if each.epoch < each.config.epochs and not self._run(each).stopped
            ]
            stopping = self.should_stop
            # Together, so that a later attempt finds all of them at one epoch.
            if stopping or any(trial.checkpoint_due for trial in self.trials):
                for trial in self.trials:
                    if trial.epoch > self._run(trial).saved:
                        trial.save(self._state(trial))
            if stopping:
                return
            epoch = self.trials[0].epoch + 1
            seed = epoch_seed(self.trials[0].config.seed_of_order, epoch)
            torch.manual_seed(seed)
            self._keep_states()
            self._trains, self._step = True, 0
            try:
                yield epoch
            except GeneratorExit:  # the loop returns
                self._save_paused()
                raise
            for trial in self.trials:
                if trial.epoch < epoch and not self._run(trial).stopped:
                    raise RunError(
                        f"objective '{trial.config.model}': epoch {epoch} has no report of trial {trial.number}"
                    )
            self._end_stopped()

    def _end_stopped(self) -> None:
        """End the trials that leave others behind, so that pruners, samplers and other workers know of them.

        The last ones end with the loop, which may return a value.
        """
        self._save_paused()
        runs = [self._run(trial) for trial in self.trials]
        if not all(run.stopped for run in runs):
            for run in runs:
                if run.stopped:
                    run.end()

    def _save_paused(self) -> None:
        for trial in self.trials:
            if self._run(trial).member.stopped == "paused" and trial.epoch > self._run(trial).saved:
                trial.save(self._state(trial))

    def step(
        self,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        rates: Sequence[float] | None = None,
        *,
        own: bool | None = None,
    ) -> Tensor:
        """Do one optimizer step of every trial on a batch; return the loss of each before it, (trials,).

        Optimizers and their settings are those of each configuration: `optimizer`, `learning_rate`, `momentum`,
        `weight_decay`, `gradient_clip`, … where the loop `uses` them, else their defaults.

        Args:
            x: samples (n, …), which all trials see; or (trials, n, …) with `y` (trials, n, …) for batches of their own.
            y: their labels.
            loss: `(outputs, y) -> mean loss` of one model, such as `torch.nn.functional.cross_entropy`.
            rates: learning rates of this step; by default each configuration's `learning_rate`, or what its schedule
                makes of that where `epochs` was given the number of steps.
            own: of the first batch, whether it is the trials' own; by default as its shape shows.

        Raises:
            RunError: the numbers of rates, or of batches, and trials differ; `own` is not given, and the shape may mean
                either; or an epoch has more steps than `epochs` was given.
        """
        given = self._scheduled_rates() if rates is None else rates
        if len(given) != len(self.trials):
            name = self.trials[0].config.model
            raise RunError(
                f"objective '{name}': stack.step has {len(given)} rates for {len(self.trials)} trials; give one for "
                "each"
            )
        if self._shape is None:
            self._begin_shape(x[0] if self._has_own_batches(x, y, loss, own) else x)
        assert self._shape is not None
        several = len(self._shape) < x.ndim - 1
        if several and len(x) != len(self.trials):
            raise RunError(
                f"objective '{self.trials[0].config.model}': stack.step has the batches of {len(x)} trials, and "
                f"{len(self.trials)} are in training; give one for each of stack.trials"
            )
        indices, parts = [], []
        for group, places in self._placed():
            index = send_numbers(places, torch.int64, x.device)
            part, labels = (x[index], y[index]) if several else (x, y)
            indices.append(index)
            parts.append(group.step(part, labels, loss, [given[place] for place in places], several=several))
        losses = torch.cat(parts)  # models may be of different types
        return torch.empty_like(losses).index_copy_(0, torch.cat(indices), losses)

    def _scheduled_rates(self) -> list[float]:
        """Return the learning rate of each trial at the next step, and count it."""
        if self._steps is None:
            return [trial.config.learning_rate for trial in self.trials]
        if self._step == self._steps:
            trial = self.trials[0]
            raise RunError(
                f"objective '{trial.config.model}': stack.epochs(steps={self._steps}): epoch {trial.epoch + 1} has "
                f"more steps; {WHAT_STEPS_ARE}"
            )
        rates = [
            rate_at(
                trial.config,
                trial.epoch * self._steps + self._step,
                trial.config.epochs * self._steps,
                self._run(trial).count_falls(),
            )
            for trial in self.trials
        ]
        self._step += 1
        return rates

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return each trial's outputs for samples (n, …), without dropout: (trials, n, outputs).

        They are of averaged weights, where a configuration asks for such. Epochs that `swa` averages end with the first
        prediction, or the report.
        """
        if self._shape is None:
            self._begin_shape(x)
        self._end_epoch()
        outputs: dict[int, Tensor] = {}
        for group, places in self._placed():
            outputs |= dict(zip(places, group.predict(x), strict=True))
        return torch.stack([outputs[place] for place in range(len(self.trials))])

    def report(self, **metrics: Sequence[float] | Tensor | float) -> None:
        """Report an epoch of every trial, and let the pruner judge them then; see `Trial.report`.

        Args:
            metrics: by name; a number for each of `trials`, or one that is the same for all.

        Raises:
            RunError: there are more or fewer numbers than trials.
        """
        self._end_epoch()
        columns = {name: self._read_metric(name, values) for name, values in metrics.items()}
        trials = list(self.trials)
        reported = []
        for place, trial in enumerate(trials):
            row = {name: column[place] for name, column in columns.items()}
            if self._run(trial).report(None, None, row, judge=False):
                reported.append(trial)
        if reported:
            self._run(reported[0]).judge([self._run(trial).member for trial in reported])

    def _end_epoch(self) -> None:
        """Let averages take in the epoch's weights, once."""
        if self._trains:
            self._trains = False
            for group in self._groups:
                group.end_epoch()

    def _read_metric(self, name: str, values: Any) -> Sequence[object]:
        """Return the numbers of a metric, one for each trial."""
        count = len(self.trials)
        if isinstance(values, str | bytes | Mapping):
            kind = type(values).__name__
            raise RunError(f"stack.report: {name} is of type {kind}; give a number for each of the {count} trials")
        try:
            column = list(values)
        except TypeError:  # one number, or a tensor without dimensions
            return [values] * count
        if len(column) != count:
            raise RunError(
                f"stack.report: {name} has {len(column)} numbers for {count} trials; give one for each of stack.trials"
            )
        return column

    # Groups of equal shapes.

    def _has_own_batches(self, x: Tensor, y: Tensor, loss: Loss, own: bool | None) -> bool:
        """Return whether a first batch is the trials' own, (trials, n, …): whether models and loss take it so."""
        if own is not None:
            return own
        if x.ndim < 3 or len(x) != len(self.trials) or x.shape[:2] != y.shape[:2]:
            return False
        module = deepcopy(self._modules[id(self.trials[0])]).to(x.device).eval()
        with torch.no_grad(), contain_user_code():
            shared, each = _takes(module, loss, x, y), _takes(module, loss, x[0], y[0])
        if shared and each:
            name, shape, trials = self.trials[0].config.model, tuple(x.shape), quantity(len(x), "trial")
            raise RunError(
                f"objective '{name}': stack.step: samples {shape} of {trials} may be one batch of sequences, or a "
                "batch of each trial's own; say own=False or own=True"
            )
        return each

    def _begin_shape(self, x: Tensor) -> None:
        """Take the shape of a sample from samples (n, …), and build the groups."""
        self._shape = tuple(x.shape[1:])
        self._build(x)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _build(self, x: Tensor) -> None:
        """Group the trials by their models' structure, optimizer family and type; also in a prediction that needs no
        gradients, before the first step.
        """
        assert self._shape is not None
        groups: dict[Hashable, list[Trial]] = {}
        numbers = number_structures([self._modules[id(trial)] for trial in self.trials])
        for trial, number in zip(self.trials, numbers, strict=True):
            config = trial.config
            key = number, optimizer_family(config), config.averaging, compute_type(config)
            groups.setdefault(key, []).append(trial)
        self._groups = []
        for trials in groups.values():
            modules = [self._modules[id(trial)] for trial in trials]
            structure = structure_of(modules[0])
            if structure not in self._checked:
                self._checked[structure] = self._why_alone(trials, modules, x)
                if self._checked[structure] is not None:
                    self._refuse_parameters(modules[0])
            group = LoopGroup(trials, modules, self._shape, x.device, alone=self._checked[structure] is not None)
            self._groups.append(group)
            for trial in trials:
                if (state := self._states[id(trial)]) is not None:
                    group.load(trial, state)
                self._run(trial).keep_weights(lambda trial=trial, group=group: group.weights(trial))  # type: ignore[misc]
                member = self._run(trial).member
                member.stack, member.alone = 1 if self._checked[structure] else len(trials), self._checked[structure]
        self._begin()

    def _why_alone(self, trials: Sequence[Trial], modules: Sequence[nn.Module], x: Tensor) -> str | None:
        """Return in one phrase why models of one structure are computed one by one; None if they are stacked."""
        assert self._shape is not None
        found = why_modules_alone(modules[:2], x, self._shape, precision=compute_type(trials[0].config))
        if found is None and len(trials) == 1 < len(self.trials):  # what keeps it from others may be its own alone
            return find_differing_part(modules[0], self._build_module(trials[0].config))
        return found

    def _refuse_parameters(self, module: nn.Module) -> None:
        """Refuse models whose parameters one tensor cannot hold, not even where they are computed one by one."""
        if (found := find_parameter_obstacle(module)) is not None:
            raise RunError(
                f"objective '{self.trials[0].config.model}': trial.stack cannot train its model: {found}; write a loop "
                "of one trial, without stack=True"
            )

    def _begin(self) -> None:
        seed = torch.initial_seed()
        for group in self._groups:
            group.stack.noise.begin([noise_seed(key, seed) for key in group.noise_keys])

    def _keep_states(self) -> None:
        """Rebuild the groups where trials have left, and start their noise."""
        if not self._groups:
            return
        if sum(len(group.trials) for group in self._groups) > len(self.trials):
            self._states = {id(trial): self._state(trial) for trial in self.trials}
            assert self._shape is not None
            self._build(torch.zeros(1, *self._shape, device=self.trials[0].device))
        self._begin()

    def _state(self, trial: Trial) -> State:
        for group in self._groups:
            if trial in group.trials:
                return group.state(trial)
        return self._states[id(trial)] or {}

    def _placed(self) -> Iterator[tuple[LoopGroup, list[int]]]:
        """Yield each group with its trials' places among those in training."""
        places = {id(trial): place for place, trial in enumerate(self.trials)}
        for group in self._groups:
            yield group, [places[id(trial)] for trial in group.trials]


def _takes(module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> bool:
    """Return whether a module and a loss take such a batch."""
    try:
        return loss(module(x), y).ndim == 0
    except Exception:  # a model or a loss of the user's can raise anything
        return False
