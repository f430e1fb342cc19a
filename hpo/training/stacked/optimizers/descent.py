"""Stacked optimizers that descend at given rates: SGD with its kinds of momentum, averaged SGD, and Rprop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.stacked.optimizers.base import Stepper, column_of, first_members

__all__ = ["ASGD", "SGD", "Rprop"]


class SGD(Stepper):
    """SGD with momentum, also Nesterov's, weight decay and clipping: see torch.optim.SGD."""

    SLOTS = ("momentum",)

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        self._momentum = column_of([config.momentum for config in configs], parameters)
        # The step is along a * velocity + b * gradient.
        nesterov = [config.optimizer == "nesterov" for config in configs]
        ahead = [config.momentum if each else 1.0 for config, each in zip(configs, nesterov, strict=True)]
        self._a = column_of(ahead, parameters)
        self._b = column_of([float(each) for each in nesterov], parameters) if any(nesterov) else None

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        velocity = self.slots["momentum"][index]
        torch.addcmul(gradient, velocity, self._momentum[index], out=velocity)
        parameter.addcmul_(velocity, down if self._b is None else down * self._a[index])
        if self._b is not None:
            parameter.addcmul_(gradient, down * self._b[index])


class ASGD(Stepper):
    """Averaged SGD (Polyak and Juditsky, 1992): see torch.optim.ASGD.

    As there, the rate of a step follows from the learning rate and the number of the step before.
    """

    SLOTS = ("average",)

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        self.numbers = {"rate": parameters[-1].new_zeros(len(configs), 1, 1)}  # of the step before
        self._shrinkage = column_of([config.asgd_decay for config in configs], parameters)
        self._power = column_of([config.asgd_power for config in configs], parameters)
        self._start = column_of([float(config.asgd_start) for config in configs], parameters)[-1].double()
        self._share = torch.ones_like(self.numbers["rate"])  # of the weights in their average
        self._before = parameters[-1].new_zeros(())  # how many steps are done

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        self._before.fill_(self.steps)
        self._share.copy_(1 / (self.steps - self._start).clamp_(min=1))
        super().advance()

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`."""
        if self.steps == 1:
            self.numbers["rate"].copy_(rate)
        super().step(gradients, self.numbers["rate"])
        self.numbers["rate"].copy_(rate)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        shrinkage, average = self._shrinkage[index], self.slots["average"][index]
        own = down / (1 - shrinkage * down * self._before) ** self._power[index]
        parameter.mul_(1 + shrinkage * own).addcmul_(gradient, own)
        average.lerp_(parameter, first_members(self._share, parameter))

    def averages(self) -> list[Tensor] | None:
        """Return the averages; see `StackedOptimizer`."""
        return self.slots["average"] if self.steps else None


class Rprop(Stepper):
    """Resilient backpropagation (Riedmiller and Braun, 1993): see torch.optim.Rprop, with its defaults.

    Every weight has a step of its own, which begins at the learning rate, grows while the gradient keeps its sign, and
    shrinks where that changes.
    """

    SLOTS = ("gradient", "size")
    DECOUPLED = True  # it has no weight decay
    GROWTH, SHRINKAGE = 1.2, 0.5
    BOUNDS = 1e-6, 50.0

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        before, size = self.slots["gradient"][index], self.slots["size"][index]
        if self.steps == 1:
            size.copy_((-down).expand_as(size))
        agreement = before.mul_(gradient)
        turned = agreement < 0
        size.mul_(torch.where(turned, self.SHRINKAGE, 1.0)).mul_(torch.where(agreement > 0, self.GROWTH, 1.0))
        size.clamp_(*self.BOUNDS)
        before.copy_(gradient.masked_fill_(turned, 0))
        parameter.addcmul_(gradient.sign_(), size, value=-1)
