"""Stacked optimizers that divide the gradient by a measure of its past: RMSprop, Adagrad and Adadelta."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.stacked.optimizers.base import Stepper, column_of, make_slot

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


class RMSprop(Stepper):
    """RMSprop: see torch.optim.RMSprop, with its smoothing of 0.99."""

    SLOTS = ("square",)
    SMOOTHING = 0.99

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        if any(config.momentum for config in configs):
            self.slots["momentum"] = make_slot(parameters)
        self._momentum = column_of([config.momentum for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        square = self.slots["square"][index]
        square.mul_(self.SMOOTHING).addcmul_(gradient, gradient, value=1 - self.SMOOTHING)
        along = gradient.div_(square.sqrt().add_(self._epsilon[index]))
        if "momentum" in self.slots:
            velocity = self.slots["momentum"][index]
            along = torch.addcmul(along, velocity, self._momentum[index], out=velocity)
        parameter.addcmul_(along, down)


class Adagrad(Stepper):
    """Adagrad (Duchi et al., 2011): see torch.optim.Adagrad, without a decay of its rate, which is a schedule's."""

    SLOTS = ("square",)

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        square = self.slots["square"][index]
        square.addcmul_(gradient, gradient)
        parameter.addcmul_(gradient.div_(square.sqrt().add_(self._epsilon[index])), down)


class Adadelta(Stepper):
    """Adadelta (Zeiler, 2012): see torch.optim.Adadelta."""

    SLOTS = ("square", "moved")

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        self._keep = column_of([config.rho for config in configs], parameters)
        self._new = column_of([1 - config.rho for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        square, moved = self.slots["square"][index], self.slots["moved"][index]
        keep, new, epsilon = self._keep[index], self._new[index], self._epsilon[index]
        square.mul_(keep).addcmul_(gradient * gradient, new)
        along = moved.add(epsilon).sqrt_().div_(square.add(epsilon).sqrt_()).mul_(gradient)
        moved.mul_(keep).addcmul_(along * along, new)
        parameter.addcmul_(along, down)
