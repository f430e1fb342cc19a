"""Group of a loop's stack: the trials whose models are one computation; see `hpo.training.loop_stack`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import vmap

from hpo.config.trial_config import TrialConfig
from hpo.errors import CheckpointError, RunError
from hpo.training.device import copy_to_cpu, send_numbers
from hpo.training.member import State, Weights
from hpo.training.optimizers import has_layer_rates
from hpo.training.precision import compute_type
from hpo.training.stacked.averaging import exchange_weights, find_averages, make_average
from hpo.training.stacked.check import load_modules
from hpo.training.stacked.modules import SerialModules, StackedModules
from hpo.training.stacked.noise import noise_key
from hpo.training.stacked.optimizers import make_stacked_optimizer
from hpo.training.stacked.optimizers.base import list_weights
from hpo.training.stacked.optimizers.state import load_state, read_state
from hpo.utils.text import first_line

if TYPE_CHECKING:
    from hpo.training.custom_loop import Trial

__all__ = ["LoopGroup", "Loss"]

Loss = Callable[[Tensor, Tensor], Tensor]
EVALUATION_BATCH = 1024


def _refuse_configs(configs: Sequence[TrialConfig]) -> None:
    """Refuse what a step of a stack cannot do."""
    name = configs[0].model
    if any(config.optimizer == "lbfgs" for config in configs):
        raise RunError(
            f"objective '{name}': trial.stack has no optimizer lbfgs, which computes a batch several times; take "
            "another one, or write a loop of one trial"
        )
    if any(compute_type(config) == torch.float16 for config in configs):
        raise RunError(
            f"objective '{name}': trial.stack does not scale losses, as precision float16 needs; take bfloat16, or "
            "write a loop of one trial"
        )


def _loss_key(loss: object) -> Hashable:
    """Return what is equal for losses that compute the same of other numbers: a function's code, or a class."""
    if isinstance(loss, partial):
        return partial, _loss_key(loss.func), tuple(sorted(loss.keywords)), len(loss.args)
    if isinstance(loss, FunctionType | MethodType):
        return loss.__code__
    return id(loss) if isinstance(loss, BuiltinFunctionType) else (type(loss).__module__, type(loss).__qualname__)


class LoopGroup:
    """Trials whose models are one computation."""

    def __init__(
        self,
        trials: Sequence[Trial],
        modules: Sequence[nn.Module],
        shape: tuple[int, ...],
        device: torch.device,
        *,
        alone: bool,
    ) -> None:
        self.trials = list(trials)
        self._names = [list(module.state_dict()) for module in modules]
        configs = [trial.config for trial in trials]
        _refuse_configs(configs)
        self.noise_keys = [noise_key(config) for config in configs]
        made = SerialModules if alone else StackedModules
        by_layer = any(map(has_layer_rates, configs))
        self.stack = made(modules, shape, device, by_layer=by_layer, precision=compute_type(configs[0]))
        load_modules(self.stack, modules)
        self._update = make_stacked_optimizer(configs, self.stack.parameters, self.stack.below)
        self._average = make_average(configs, self.stack.parameters)
        if self.stack.normalised and any(config.averages_weights for config in configs):
            raise RunError(
                f"objective '{configs[0].model}': trial.stack cannot average the weights of models with batch "
                "normalisation, whose statistics would have to be measured anew; train them one at a time, or without "
                "averages"
            )
        self._gradients = [torch.empty_like(each) for each in self.stack.parameters]
        self._joint: dict[Hashable, bool] = {}  # by what a loss computes: a lambda is a new function at every step

    def step(self, x: Tensor, y: Tensor, loss: Loss, rates: Sequence[float], *, several: bool) -> Tensor:
        """Do an optimizer step of every trial; return the losses before it, (trials,).

        Args:
            x, y: a batch of all trials; or (trials, n, …) where there are several.
            loss: of one model.
            rates: learning rates of the trials.
            several: whether each trial has a batch of its own.
        """
        outputs = self.stack.forward(self.stack.flatten(x), train=True).mT.clone().requires_grad_()
        losses = self._losses(outputs, y, loss, several=several)
        (by_outputs,) = torch.autograd.grad(losses.sum(), outputs)
        rate = send_numbers(rates, self.stack.output.dtype, x.device).view(-1, 1, 1)
        with torch.no_grad():
            self.stack.backward(x, by_outputs.mT, self._gradients, add=False)
            if self._update is not None:
                self._update.advance()
                with self.stack.keep_idle(list_weights(self._update)):
                    self._update.step(self._gradients, rate)
            else:
                for numbers, gradient in zip(self.stack.parameters, self._gradients, strict=True):
                    numbers.sub_(gradient * rate)
            if self._average is not None:
                self._average.step()
        return losses.detach()

    def end_epoch(self) -> None:
        """Take the epoch's weights into their averages, where there are such."""
        if self._average is not None:
            self._average.end_epoch()

    def predict(self, x: Tensor) -> Tensor:
        """Return outputs (trials, n, outputs) for samples (n, …), of the weights to evaluate."""
        with exchange_weights(self.stack.parameters, find_averages(self._update, self._average)):
            parts = [
                self.stack.forward(self.stack.flatten(each), train=False).mT.clone()
                for each in torch.split(x, EVALUATION_BATCH)
            ]
        return torch.cat(parts, 1)

    def _losses(self, outputs: Tensor, y: Tensor, loss: Loss, *, several: bool) -> Tensor:
        """Return each member's loss; at once, where the first time shows that this gives the same."""
        key = _loss_key(loss)
        if self._joint.get(key, True):
            try:
                joint: Tensor = vmap(loss, (0, 0 if several else None), randomness="error")(outputs, y)
                if key in self._joint:
                    return joint
            except Exception:  # what vmap has no rule for
                self._joint[key] = False
        alone = torch.stack([loss(each, y[index] if several else y) for index, each in enumerate(outputs)])
        if key not in self._joint:
            self._joint[key] = joint.shape == alone.shape and torch.allclose(joint, alone, rtol=1e-5, atol=1e-7)
        return alone

    def _index(self, trial: Trial) -> int:
        return next(index for index, each in enumerate(self.trials) if each is trial)

    def weights(self, trial: Trial) -> Weights:
        """Return a copy of the weights that a trial is evaluated with, on the CPU, as its module's state dict."""
        return self._copy(trial, find_averages(self._update, self._average) or self.stack.parameters)

    def _copy(self, trial: Trial, parameters: Sequence[Tensor]) -> Weights:
        index = self._index(trial)
        tensors = {**self.stack.views(index, parameters), **self.stack.statistics(index)}
        return {name: copy_to_cpu(tensors[name]) for name in self._names[index]}

    def state(self, trial: Trial) -> State:
        """Return what a checkpoint of a trial holds."""
        slots = read_state([self._update, self._average], self._index(trial), self.stack.views)
        weights, steps = self._copy(trial, self.stack.parameters), self._update.steps if self._update else 0
        return {"weights": weights, "slots": slots, "steps": steps}

    @torch.no_grad()
    def load(self, trial: Trial, state: State) -> None:
        """Load what `state` returned.

        Raises:
            CheckpointError: it is another model's.
        """
        index = self._index(trial)
        tensors = {**self.stack.views(index, self.stack.parameters), **self.stack.statistics(index)}
        try:
            for name in self._names[index]:
                tensors[name].copy_(state["weights"][name])
            load_state([self._update, self._average], index, self.stack.views, state["slots"])
            if self._update is not None:
                self._update.steps = int(state["steps"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"the model does not fit its checkpoint: {first_line(error)}") from error
