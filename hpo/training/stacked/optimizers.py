"""Optimizers over stacked weights: each formula once for all members, their settings broadcast over the stack.

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

__all__ = ["StackedOptimizer", "make_stacked_optimizer", "optimizer_family"]


class StackedOptimizer(Protocol):
    """One optimizer for all members of a stack.

    Attributes:
        slots: what it remembers, by name: a tensor per parameter, of the parameter's shape.
        steps: how many it has done.
    """

    slots: dict[str, list[Tensor]]
    steps: int

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Change the parameters at these learning rates, (members, 1, 1). The gradients may be used up."""


def optimizer_family(config: TrialConfig) -> str:
    """Which members one update serves. `descent` is SGD that remembers nothing and changes no gradient."""
    kind = "sgd" if config.optimizer in ("sgd", "momentum", "nesterov") else config.optimizer
    even = config.layer_learning_rate_decay == 1
    plain = even and not (config.momentum or config.weight_decay or config.gradient_clip)
    return "descent" if kind == "sgd" and plain else kind


def make_stacked_optimizer(
    configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
) -> StackedOptimizer | None:
    """The update of members of one family; None for `descent`, whose step is a part of backpropagation.

    Args:
        configs: the members.
        parameters: what they learn.
        below: of each parameter, for each member that has it, by how many layers it is below the output.
    """
    kinds: dict[str, Callable[[Sequence[TrialConfig], Sequence[Tensor], Sequence[Sequence[int]]], StackedOptimizer]] = {
        "sgd": Sgd, "rmsprop": RmsProp, "adam": Adam, "adamw": Adam, "nadam": Nadam
    }  # fmt: skip
    kind = optimizer_family(configs[0])
    return None if kind == "descent" else kinds[kind](configs, parameters, below)


def column_of(values: Sequence[float], parameters: Sequence[Tensor]) -> list[Tensor]:
    """A number per member, broadcast over each parameter, (its members, 1, 1)."""
    whole = parameters[-1].new_tensor(values).view(-1, 1, 1)
    return [whole[: len(parameter)] for parameter in parameters]


def of_the_first(numbers: Tensor, parameter: Tensor) -> Tensor:
    """The numbers of the members that a parameter has: a prefix of all."""
    count = parameter.shape[0]
    return numbers if numbers.shape[0] == count else numbers[:count]


def zeros(parameters: Sequence[Tensor]) -> list[Tensor]:
    """A slot."""
    return [torch.zeros_like(parameter) for parameter in parameters]


class LayerRates:
    """The learning rates of each parameter's members, (its members, 1, 1); see
    `hpo.training.optimizers.layer_rate_factors`.
    """

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self._parameters = parameters
        self._factors: list[Tensor] | None = None
        if any(config.layer_learning_rate_decay != 1 for config in configs):
            decays = [config.layer_learning_rate_decay for config in configs]
            self._factors = [
                parameter.new_tensor([decay**layers for decay, layers in zip(decays, depths, strict=False)])
                .view(-1, 1, 1)
                for parameter, depths in zip(parameters, below, strict=True)
            ]  # fmt: skip

    def __call__(self, rate: Tensor, index: int) -> Tensor:
        own = of_the_first(rate, self._parameters[index])
        return own if self._factors is None else own * self._factors[index]


class Clip:
    """Gradients scaled down to a largest norm, member by member (Pascanu et al., 2013), as clip_grad_norm_ does."""

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
            gradient.mul_(of_the_first(factors, gradient))


class Decay:
    """Weight decay as a part of the gradient."""

    def __init__(self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor]) -> None:
        self._on = any(config.weight_decay for config in configs)
        self._shares = column_of([config.weight_decay for config in configs], parameters)

    def __call__(self, gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        if self._on:
            for gradient, parameter, share in zip(gradients, parameters, self._shares, strict=True):
                gradient.addcmul_(parameter, share)


class Sgd:
    """SGD with momentum, also Nesterov's, weight decay and clipping: see torch.optim.SGD."""

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.steps = 0
        self.slots = {"momentum": zeros(parameters)}
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._of_layer = LayerRates(configs, parameters, below)
        self._momentum = column_of([config.momentum for config in configs], parameters)
        # The step is along a * velocity + b * gradient.
        nesterov = [config.optimizer == "nesterov" for config in configs]
        ahead = [config.momentum if each else 1.0 for config, each in zip(configs, nesterov, strict=True)]
        self._a = column_of(ahead, parameters)
        self._b = column_of([float(each) for each in nesterov], parameters) if any(nesterov) else None

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """See `StackedOptimizer`."""
        self.steps += 1
        self._clip(gradients)
        self._decay(gradients, self._parameters)
        down = -rate
        each = zip(self._parameters, gradients, self.slots["momentum"], strict=True)
        for index, (parameter, gradient, velocity) in enumerate(each):
            torch.addcmul(gradient, velocity, self._momentum[index], out=velocity)
            along = self._of_layer(down, index)
            parameter.addcmul_(velocity, along if self._b is None else along * self._a[index])
            if self._b is not None:
                parameter.addcmul_(gradient, along * self._b[index])


class RmsProp:
    """See torch.optim.RMSprop, with its smoothing of 0.99."""

    SMOOTHING = 0.99

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.steps = 0
        self.slots = {"square": zeros(parameters)}
        if any(config.momentum for config in configs):
            self.slots["momentum"] = zeros(parameters)
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._of_layer = LayerRates(configs, parameters, below)
        self._momentum = column_of([config.momentum for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """See `StackedOptimizer`."""
        self.steps += 1
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
            parameter.addcmul_(along, self._of_layer(down, index))


class Adam:
    """Adam and AdamW: see torch.optim.Adam. Torch's fused kernel goes over members of equal settings in one call."""

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.slots = {"mean": zeros(parameters), "square": zeros(parameters)}
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
        """Members of equal settings: one call, or one a layer where layers have rates of their own."""
        numbers: dict[str, Any] = {
            "beta1": one.beta1,
            "beta2": one.beta2,
            "weight_decay": one.weight_decay,
            "eps": one.epsilon,
        }
        held: dict[float, list[tuple[int, slice]]] = {}
        for index, depths in enumerate(below):
            if part.start < len(depths):
                held.setdefault(one.layer_learning_rate_decay ** depths[part.start], []).append((index, part))
        self._runs += [(part.start, factor, numbers, parts) for factor, parts in held.items()]

    @property
    def steps(self) -> int:
        """See `StackedOptimizer`."""
        return int(self._count.item())

    @steps.setter
    def steps(self, count: int) -> None:
        self._count.fill_(count)

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """See `StackedOptimizer`."""
        self._clip(gradients)
        self._count.add_(1)
        if not self._lists:  # the gradients' memory never changes either
            four = self._parameters, gradients, self.slots["mean"], self.slots["square"]
            self._lists = [[[tensors[i][part] for i, part in parts] for tensors in four] for *_, parts in self._runs]
        rates = rate.flatten().unbind()
        for (start, factor, numbers, parts), lists in zip(self._runs, self._lists, strict=True):
            counts = [self._count] * len(parts)
            own = rates[start] if factor == 1 else rates[start] * factor
            self._kernel(*lists, [], counts, lr=own, amsgrad=False, maximize=False, **numbers)


def _adam_settings(member: tuple[TrialConfig, int]) -> tuple[object, ...]:
    """Equal for members, each with its number of hidden layers, whose steps have the same settings throughout."""
    config, depth = member
    layers = (config.layer_learning_rate_decay, depth) if config.layer_learning_rate_decay != 1 else ()
    decays = config.schedule, config.warmup, config.final_rate, config.epochs
    return config.beta1, config.beta2, config.weight_decay, config.epsilon, config.learning_rate, decays, layers


class Nadam:
    """See torch.optim.NAdam, with its momentum decay of 0.004."""

    DECAY = 0.004

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self._done = 0
        self.slots = {"mean": zeros(parameters), "square": zeros(parameters)}
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._of_layer = LayerRates(configs, parameters, below)
        whole = parameters[-1].new_tensor([0.0], dtype=torch.float64)
        self._beta1 = whole.new_tensor([config.beta1 for config in configs]).view(-1, 1, 1)
        self._beta2 = whole.new_tensor([config.beta2 for config in configs]).view(-1, 1, 1)
        self._mu_product = torch.ones_like(self._beta1)
        self._new1 = column_of([1 - config.beta1 for config in configs], parameters)
        self._new2 = column_of([1 - config.beta2 for config in configs], parameters)
        self._keep2 = column_of([config.beta2 for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    @property
    def steps(self) -> int:
        """See `StackedOptimizer`."""
        return self._done

    @steps.setter
    def steps(self, count: int) -> None:
        if count != self._done:
            self._done = count
            shares = np.array([self._share(step) for step in range(1, count + 1)])
            each = self._beta1.flatten().cpu().numpy() * shares[:, None]
            self._mu_product.copy_(torch.from_numpy(np.multiply.reduce(each)).view(-1, 1, 1))

    def _share(self, step: int) -> float:
        """Of beta1 that is momentum at a step."""
        return float(1 - 0.5 * 0.96 ** (step * self.DECAY))

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """See `StackedOptimizer`. The factors are tensors throughout: a number from the device would have to be waited
        for.
        """
        self._done += 1
        self._clip(gradients)
        self._decay(gradients, self._parameters)
        mu, after = self._beta1 * self._share(self._done), self._beta1 * self._share(self._done + 1)
        self._mu_product *= mu
        factors = (
            (1 - mu) / (1 - self._mu_product),
            after / (1 - self._mu_product * after),
            1 - self._beta2**self._done,
        )
        by_gradient, by_mean, correction = (
            [of_the_first(factor.to(rate.dtype), parameter) for parameter in self._parameters] for factor in factors
        )
        for index, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            mean, square = self.slots["mean"][index], self.slots["square"][index]
            mean.addcmul_(gradient - mean, self._new1[index])
            square.mul_(self._keep2[index]).addcmul_(gradient * gradient, self._new2[index])
            below = square.div(correction[index]).sqrt_().add_(self._epsilon[index])
            here = self._of_layer(rate, index)
            parameter.sub_(gradient.div_(below).mul_(by_gradient[index] * here))
            parameter.sub_(torch.div(mean, below, out=gradient).mul_(by_mean[index] * here))
