"""Parts that stacked optimizers have in common: settings by member, clipping, weight decay, and rates of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.optimizers import has_layer_rates, layer_rate_factor

__all__ = [
    "Clip",
    "Decay",
    "LayerRates",
    "StackedOptimizer",
    "Stepper",
    "column_of",
    "first_members",
    "list_weights",
    "make_slot",
]

WEIGHT_SLOTS = frozenset({"average", "sequence"})  # that hold weights; the others hold what is made of gradients


class StackedOptimizer(Protocol):
    """Optimizer of all members of a stack.

    Attributes:
        slots: its state, by name: a tensor per parameter, of the parameter's shape.
        numbers: the rest of its state, by name: a number per member, (members, 1, 1).
        steps: how many it has done.
    """

    slots: dict[str, list[Tensor]]
    numbers: dict[str, Tensor]
    steps: int

    def advance(self) -> None:
        """Count a step that begins: whatever of it is not the same operations on the same memory each time."""

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters with learning rates (members, 1, 1), after `advance`. It may overwrite the gradients.

        It does the same operations on the same memory each time, so that a graph can replay it; the first step, which
        is never recorded, may do others.
        """

    def averages(self) -> list[Tensor] | None:
        """Return the weights to evaluate, in the order of the parameters; None where those are the parameters."""


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


def list_weights(optimizer: StackedOptimizer) -> list[list[Tensor]]:
    """Return the slots that hold weights, of optimizers that average."""
    return [slot for name, slot in optimizer.slots.items() if name in WEIGHT_SLOTS]


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
        """Return the rates of a parameter's members from those of all, (members, 1, 1)."""
        own = first_members(rate, self._parameters[index])
        return own if self._factors is None else own * self._factors[index]


class Clip:
    """Clipping of gradients to a largest norm, member by member (Pascanu et al., 2013), as clip_grad_norm_ does."""

    def __init__(self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor]) -> None:
        self._on = any(config.gradient_clip for config in configs)
        self._largest = column_of([config.gradient_clip or float("inf") for config in configs], parameters)[-1]
        self._free = self._largest.isinf()  # whose norm does not matter, though it may overflow

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """Clip the gradients of all parameters in place."""
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
        """Add the decay of the parameters to their gradients in place."""
        if self._on:
            for gradient, parameter, share in zip(gradients, parameters, self._shares, strict=True):
                gradient.addcmul_(parameter, share)


class Stepper:
    """Base of the optimizers that step along each parameter's gradient, clipped and with weight decay.

    Attributes:
        SLOTS: names of the slots.
        DECOUPLED: whether weight decay is not a part of the gradient; `_move` then does it.
    """

    SLOTS: ClassVar[tuple[str, ...]] = ()
    DECOUPLED: ClassVar[bool] = False

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.steps = 0
        self.slots = {name: make_slot(parameters) for name in self.SLOTS}
        self.numbers: dict[str, Tensor] = {}
        self._parameters = parameters
        self._clip, self._decay = Clip(configs, parameters), Decay(configs, parameters)
        self._layer_rates = LayerRates(configs, parameters, below)

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        self.steps += 1

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`."""
        self._clip(gradients)
        if not self.DECOUPLED:
            self._decay(gradients, self._parameters)
        down = -rate
        for index, (parameter, gradient) in enumerate(zip(self._parameters, gradients, strict=True)):
            self._move(index, parameter, gradient, self._layer_rates(down, index))

    def averages(self) -> list[Tensor] | None:
        """Return None; see `StackedOptimizer`."""
        return None

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        """Update a parameter, the one at that index.

        Args:
            parameter: (its members, …, …).
            gradient: of its shape; it may be overwritten.
            down: minus the learning rates, (its members, 1, 1).
        """
        raise NotImplementedError
