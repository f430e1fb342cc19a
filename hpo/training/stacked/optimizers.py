"""Optimizers of stacked weights: each formula once for all members, with settings broadcast over the stack.

The formulas, and the order of their operations, are those of torch.optim; the sources are named there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.optimizers import has_layer_rates, layer_rate_factor

__all__ = ["StackedOptimizer", "make_stacked_optimizer", "optimizer_family"]


class StackedOptimizer(Protocol):
    """Optimizer of all members of a stack.

    Attributes:
        slots: its state, by name: a tensor per parameter, of the parameter's shape.
        steps: how many it has done.
    """

    slots: dict[str, list[Tensor]]
    steps: int

    def advance(self) -> None:
        """Count a step that begins: whatever of it is not the same operations on the same memory each time."""

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters with learning rates (members, 1, 1), after `advance`. It may overwrite the gradients.

        It does the same operations on the same memory each time, so that a graph can replay it.
        """


def optimizer_family(config: TrialConfig) -> str:
    """Return the family of a configuration's optimizer, which one stacked optimizer serves.

    `descent` is SGD that has no state and changes no gradient.
    """
    kind = "sgd" if config.optimizer in ("sgd", "momentum", "nesterov") else config.optimizer
    plain = not has_layer_rates(config) and not (config.momentum or config.weight_decay or config.gradient_clip)
    return "descent" if kind == "sgd" and plain else kind


def make_stacked_optimizer(
    configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
) -> StackedOptimizer | None:
    """Make the optimizer of members of one family; None for `descent`, whose step is a part of backpropagation.

    Args:
        configs: the members.
        parameters: the stacked weights, (members, outputs, inputs) each; the first members of the stack have them.
        below: layers between each parameter and the output, for each member that has the parameter.
    """
    kinds: dict[str, Callable[[Sequence[TrialConfig], Sequence[Tensor], Sequence[Sequence[int]]], StackedOptimizer]] = {
        "sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": Adam, "nadam": NAdam
    }  # fmt: skip
    kind = optimizer_family(configs[0])
    return None if kind == "descent" else kinds[kind](configs, parameters, below)


def column_of(values: Sequence[float], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return a number per member, to be broadcast over each parameter: (its members, 1, 1)."""
    whole = parameters[-1].new_tensor(values).view(-1, 1, 1)
    return [whole[: len(parameter)] for parameter in parameters]


def first_members(numbers: Tensor, parameter: Tensor) -> Tensor:
    """Return the numbers of the members that have a parameter: the first ones of all."""
    count = parameter.shape[0]
    return numbers if numbers.shape[0] == count else numbers[:count]


def make_slot(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return a slot: zeros like each parameter."""
    return [torch.zeros_like(parameter) for parameter in parameters]


class LayerRates:
    """Learning rates of each parameter's members, (its members, 1, 1).

    See `hpo.training.optimizers.layer_rate_factor`.
    """

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self._parameters = parameters
        self._factors: list[Tensor] | None = None
        if any(map(has_layer_rates, configs)):
            self._factors = [
                parameter.new_tensor([layer_rate_factor(*member) for member in zip(configs, depths, strict=False)])
                .view(-1, 1, 1)
                for parameter, depths in zip(parameters, below, strict=True)
            ]  # fmt: skip

    def __call__(self, rate: Tensor, index: int) -> Tensor:
        own = first_members(rate, self._parameters[index])
        return own if self._factors is None else own * self._factors[index]


class Clip:
    """Clipping of gradients to a largest norm, member by member (Pascanu et al., 2013), as clip_grad_norm_ does."""

    def __init__(self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor]) -> None:
        self._on = any(config.gradient_clip for config in configs)
        self._largest = column_of([config.gradient_clip or float("inf") for config in configs], parameters)[-1]
        self._free = self._largest.isinf()  # whose norm does not matter, though it may overflow

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        if not self._on:
            return
        squares = self._largest.new_zeros(len(self._largest))
        for gradient in gradients:
            norms = torch.linalg.vector_norm(gradient, dim=(1, 2))
            squares[: len(gradient)].addcmul_(norms, norms)
        factors = (self._largest / (squares.sqrt() + 1e-6).view(-1, 1, 1)).clamp_(max=1).masked_fill_(self._free, 1)
        for gradient in gradients:
            gradient.mul_(first_members(factors, gradient))


class Decay:
    """Weight decay as a part of the gradient."""

    def __init__(self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor]) -> None:
        self._on = any(config.weight_decay for config in configs)
        self._shares = column_of([config.weight_decay for config in configs], parameters)

    def __call__(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        if self._on:
            for gradient, parameter, share in zip(gradients, parameters, self._shares, strict=True):
                gradient.addcmul_(parameter, share)


class SGD:
    """SGD with momentum, also Nesterov's, weight decay and clipping: see torch.optim.SGD."""

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.steps = 0
        self.slots = {"momentum": make_slot(parameters)}
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._layer_rates = LayerRates(configs, parameters, below)
        self._momentum = column_of([config.momentum for config in configs], parameters)
        # The step is along a * velocity + b * gradient.
        nesterov = [config.optimizer == "nesterov" for config in configs]
        ahead = [config.momentum if each else 1.0 for config, each in zip(configs, nesterov, strict=True)]
        self._a = column_of(ahead, parameters)
        self._b = column_of([float(each) for each in nesterov], parameters) if any(nesterov) else None

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        self.steps += 1

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`."""
        self._clip(gradients)
        self._decay(gradients, self._parameters)
        down = -rate
        each = zip(self._parameters, gradients, self.slots["momentum"], strict=True)
        for index, (parameter, gradient, velocity) in enumerate(each):
            torch.addcmul(gradient, velocity, self._momentum[index], out=velocity)
            along = self._layer_rates(down, index)
            parameter.addcmul_(velocity, along if self._b is None else along * self._a[index])
            if self._b is not None:
                parameter.addcmul_(gradient, along * self._b[index])


class RMSprop:
    """RMSprop: see torch.optim.RMSprop, with its smoothing of 0.99."""

    SMOOTHING = 0.99

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.steps = 0
        self.slots = {"square": make_slot(parameters)}
        if any(config.momentum for config in configs):
            self.slots["momentum"] = make_slot(parameters)
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._layer_rates = LayerRates(configs, parameters, below)
        self._momentum = column_of([config.momentum for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        self.steps += 1

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`."""
        self._clip(gradients)
        self._decay(gradients, self._parameters)
        down = -rate
        for index, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            square = self.slots["square"][index]
            square.mul_(self.SMOOTHING).addcmul_(gradient, gradient, value=1 - self.SMOOTHING)
            along = gradient.div_(square.sqrt().add_(self._epsilon[index]))
            if "momentum" in self.slots:
                velocity = self.slots["momentum"][index]
                along = torch.addcmul(along, velocity, self._momentum[index], out=velocity)
            parameter.addcmul_(along, self._layer_rates(down, index))


class Adam:
    """Adam and AdamW: see torch.optim.Adam. Torch's fused kernel goes over members of equal settings in one call."""

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.slots = {"mean": make_slot(parameters), "square": make_slot(parameters)}
        self._clip = Clip(configs, parameters)
        self._kernel: Any = torch._fused_adamw_ if configs[0].optimizer == "adamw" else torch._fused_adam_
        self._count = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
        self._parameters = parameters
        self._runs: list[tuple[int, float, dict[str, Any], list[tuple[int, slice]]]] = []
        start = 0
        for _, members in groupby(zip(configs, below[0], strict=True), key=_adam_settings):
            run = list(members)
            self._add_run(run[0][0], slice(start, start + len(run)), below)
            start += len(run)
        self._lists: list[list[list[Tensor]]] = []

    def _add_run(self, one: TrialConfig, part: slice, below: Sequence[Sequence[int]]) -> None:
        """Add members of equal settings: one call of the kernel, or one a layer where layers have their own rates."""
        numbers: dict[str, Any] = {
            "beta1": one.beta1,
            "beta2": one.beta2,
            "weight_decay": one.weight_decay,
            "eps": one.epsilon,
        }
        parts_by_factor: dict[float, list[tuple[int, slice]]] = {}
        for index, depths in enumerate(below):
            if part.start < len(depths):
                parts_by_factor.setdefault(layer_rate_factor(one, depths[part.start]), []).append((index, part))
        self._runs += [(part.start, factor, numbers, parts) for factor, parts in parts_by_factor.items()]

    @property
    def steps(self) -> int:
        """Number of steps done."""
        return int(self._count.item())

    @steps.setter
    def steps(self, count: int) -> None:
        self._count.fill_(count)

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        self._count.add_(1)

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`."""
        self._clip(gradients)
        if not self._lists:  # the gradients' memory never changes either
            state = self._parameters, gradients, self.slots["mean"], self.slots["square"]
            self._lists = [[[tensors[i][part] for i, part in parts] for tensors in state] for *_, parts in self._runs]
        each = rate.flatten()
        rates = (each.float() if each.is_cuda else each).unbind()  # CUDA's kernel takes no rate of float64
        for (start, factor, numbers, parts), lists in zip(self._runs, self._lists, strict=True):
            counts = [self._count] * len(parts)
            own = rates[start] if factor == 1 else rates[start] * factor
            self._kernel(*lists, [], counts, lr=own, amsgrad=False, maximize=False, **numbers)


def _adam_settings(member: tuple[TrialConfig, int]) -> tuple[object, ...]:
    """Return a key that is equal for members, each with its depth, whose steps have the same settings throughout."""
    config, depth = member
    layers = (config.layer_learning_rate_decay, config.head_rate_factor, depth) if has_layer_rates(config) else ()
    decays = config.schedule, config.warmup, config.final_rate, config.epochs
    return config.beta1, config.beta2, config.weight_decay, config.epsilon, config.learning_rate, decays, layers


class NAdam:
    """NAdam: see torch.optim.NAdam, with its momentum decay of 0.004."""

    DECAY = 0.004

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self._steps = 0
        self.slots = {"mean": make_slot(parameters), "square": make_slot(parameters)}
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._layer_rates = LayerRates(configs, parameters, below)
        whole = parameters[-1].new_tensor([0.0], dtype=torch.float64)
        self._beta1 = whole.new_tensor([config.beta1 for config in configs]).view(-1, 1, 1)
        self._beta2 = whole.new_tensor([config.beta2 for config in configs]).view(-1, 1, 1)
        self._mu_product = torch.ones_like(self._beta1)
        # Of the gradient and of the mean, and the correction of the square, at the present step.
        self._factors = [torch.ones_like(self._beta1) for _ in range(3)]
        self._new1 = column_of([1 - config.beta1 for config in configs], parameters)
        self._new2 = column_of([1 - config.beta2 for config in configs], parameters)
        self._keep2 = column_of([config.beta2 for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    @property
    def steps(self) -> int:
        """Number of steps done."""
        return self._steps

    @steps.setter
    def steps(self, count: int) -> None:
        if count != self._steps:
            self._steps = count
            shares = np.array([self._momentum_share(step) for step in range(1, count + 1)])
            each = self._beta1.flatten().cpu().numpy() * shares[:, None]
            self._mu_product.copy_(torch.from_numpy(np.multiply.reduce(each)).view(-1, 1, 1))

    def _momentum_share(self, step: int) -> float:
        """Return the share of beta1 that is momentum at a step."""
        return float(1 - 0.5 * 0.96 ** (step * self.DECAY))

    def advance(self) -> None:
        """Count a step. The factors are tensors throughout: reading a number would wait for the device."""
        self._steps += 1
        mu, after = self._beta1 * self._momentum_share(self._steps), self._beta1 * self._momentum_share(self._steps + 1)
        self._mu_product *= mu
        self._factors[0].copy_((1 - mu) / (1 - self._mu_product))
        self._factors[1].copy_(after / (1 - self._mu_product * after))
        self._factors[2].copy_(1 - self._beta2**self._steps)

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`."""
        self._clip(gradients)
        self._decay(gradients, self._parameters)
        by_gradient, by_mean, correction = (
            [first_members(factor.to(rate.dtype), parameter) for parameter in self._parameters]
            for factor in self._factors
        )
        for index, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            mean, square = self.slots["mean"][index], self.slots["square"][index]
            mean.addcmul_(gradient - mean, self._new1[index])
            square.mul_(self._keep2[index]).addcmul_(gradient * gradient, self._new2[index])
            below = square.div(correction[index]).sqrt_().add_(self._epsilon[index])
            here = self._layer_rates(rate, index)
            parameter.sub_(gradient.div_(below).mul_(by_gradient[index] * here))
            parameter.sub_(torch.div(mean, below, out=gradient).mul_(by_mean[index] * here))
