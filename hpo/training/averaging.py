"""Averages of a single model's weights, with which it is evaluated: torch's, and those that an optimizer makes.

Sources: Polyak and Juditsky, 1992 (averages); Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization", UAI 2018 (SWA); Defazio et al., "The Road Less Scheduled", 2024 (schedule-free).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from hpo.config.choices import OPTIMIZERS
from hpo.config.trial_config import TrialConfig
from hpo.training.member import State

__all__ = ["Average", "make_average", "measure_batch_norm"]


class Average(Protocol):
    """Average of the weights of a model in training."""

    def step(self) -> None:
        """Take in the weights after a step."""

    def end_epoch(self) -> nn.Module:
        """Take in the weights after an epoch; return the model to evaluate, which may be the one in training."""

    def state(self) -> State:
        """Return the state, for a checkpoint."""

    def load(self, state: State) -> None:
        """Load what `state` returned."""


def make_average(config: TrialConfig, module: nn.Module, optimizer: torch.optim.Optimizer) -> Average | None:
    """Return the average of a model's weights that a configuration asks for; None where it is evaluated as it is."""
    if OPTIMIZERS[config.optimizer].averages:
        return OptimizerAverage(module, optimizer)
    return None if config.averaging is None else TorchAverage(config, module)


class TorchAverage:
    """Average by torch: exponential moving, of every step; or stochastic, of the last epochs.

    Args:
        config: says which.
        module: the model in training.
    """

    def __init__(self, config: TrialConfig, module: nn.Module) -> None:
        self._of_steps = config.averaging == "ema"
        ema: Any = get_ema_multi_avg_fn  # torch gives them no types
        swa: Any = get_swa_multi_avg_fn
        function = ema(config.ema_decay) if self._of_steps else swa()
        self._first, self._epochs = config.first_averaged_epoch, 0
        self._module, self._average = module, AveragedModel(module, multi_avg_fn=function)

    def step(self) -> None:
        """Take in a step's weights; see `Average`."""
        if self._of_steps:
            self._average.update_parameters(self._module)

    def end_epoch(self) -> nn.Module:
        """Take in an epoch's weights; see `Average`."""
        self._epochs += 1
        if not self._of_steps and self._epochs >= self._first:
            self._average.update_parameters(self._module)
        return self._average.module if self._average.n_averaged else self._module

    def state(self) -> State:
        """Return the state; see `Average`."""
        return {"model": self._average.state_dict(), "epochs": self._epochs}

    def load(self, state: State) -> None:
        """Load a state; see `Average`."""
        self._average.load_state_dict(state["model"])
        self._epochs = state["epochs"]


class OptimizerAverage:
    """Average that an optimizer makes beside the weights in training: averaged SGD, and schedule-free ones.

    Args:
        module: the model in training.
        optimizer: of its weights.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer, self._average = module, optimizer, deepcopy(module)

    def step(self) -> None:
        """Do nothing; see `Average`."""

    @torch.no_grad()
    def end_epoch(self) -> nn.Module:
        """Compute the average from the optimizer's state; see `Average`."""
        self._average.load_state_dict(self._module.state_dict())
        own = dict(zip(self._module.parameters(), self._average.parameters(), strict=True))
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                state = self._optimizer.state[parameter]
                if "ax" in state:
                    own[parameter].copy_(state["ax"])
                elif "z" in state:  # as the optimizer's own `eval` has it, which would change the weights in training
                    own[parameter].lerp_(state["z"], 1 - 1 / group["betas"][0])
        return self._average

    def state(self) -> State:
        """Return nothing: it follows from the weights and the optimizer; see `Average`."""
        return {}

    def load(self, state: State) -> None:
        """Do nothing; see `Average`."""


@torch.no_grad()
def measure_batch_norm(
    module: nn.Module,
    frozen: Sequence[nn.Module],
    forward: Callable[[Tensor], object],
    batches: Callable[[], Iterable[Tensor]],
) -> None:
    """Measure the statistics of a model's batch normalisation anew, as means over batches: `update_bn` of torch.

    Torch's would measure layers of a frozen backbone too, which keep the statistics that they came with.

    Args:
        module: the model.
        frozen: its layers that keep their statistics.
        forward: computes it for samples (n, *shape).
        batches: returns a pass through the training data.
    """
    found = (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    norms = [norm for norm in found if norm not in frozen]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.train()
    for norm in frozen:
        norm.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # for a mean over all batches
    for x in batches():
        forward(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
