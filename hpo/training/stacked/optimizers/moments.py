"""Stacked optimizers with running means of the gradient: NAdam, Adamax, RAdam and Lion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.stacked.optimizers.base import Stepper, column_of, first_members

__all__ = ["Adamax", "Lion", "Moments", "NAdam", "RAdam"]


class Moments(Stepper):
    """Base of optimizers that correct running means by factors of the step's number.

    The factors are tensors throughout, in float64: reading a number would wait for the device.
    """

    SLOTS = ("mean", "square")
    FACTORS = 1  # that a step needs

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        whole = parameters[-1].new_tensor([0.0], dtype=torch.float64)
        self._beta1 = whole.new_tensor([config.beta1 for config in configs]).view(-1, 1, 1)
        self._beta2 = whole.new_tensor([config.beta2 for config in configs]).view(-1, 1, 1)
        self._factors = [torch.ones_like(self._beta1) for _ in range(self.FACTORS)]
        self._new1 = column_of([1 - config.beta1 for config in configs], parameters)
        self._new2 = column_of([1 - config.beta2 for config in configs], parameters)
        self._keep2 = column_of([config.beta2 for config in configs], parameters)
        self._epsilon = column_of([config.epsilon for config in configs], parameters)

    def _factor(self, number: int, parameter: Tensor) -> Tensor:
        """Return a factor of the members that have a parameter, (its members, 1, 1)."""
        return first_members(self._factors[number].to(parameter.dtype), parameter)

    def _add_square(self, index: int, gradient: Tensor) -> Tensor:
        """Update the running mean of squares, and return it."""
        square = self.slots["square"][index]
        return square.mul_(self._keep2[index]).addcmul_(gradient * gradient, self._new2[index])

    def _add_gradient(self, index: int, gradient: Tensor) -> Tensor:
        """Update the running mean of gradients, and return it."""
        mean = self.slots["mean"][index]
        return mean.addcmul_(gradient - mean, self._new1[index])


class NAdam(Moments):
    """NAdam (Dozat, 2016): see torch.optim.NAdam, with its momentum decay of 0.004."""

    FACTORS = 3  # of the gradient and of the mean, and the correction of the square
    DECAY = 0.004

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self._steps = 0
        super().__init__(configs, parameters, below)
        self._mu_product = torch.ones_like(self._beta1)

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
        """Count a step; see `StackedOptimizer`."""
        self._steps += 1
        mu, after = self._beta1 * self._momentum_share(self._steps), self._beta1 * self._momentum_share(self._steps + 1)
        self._mu_product *= mu
        self._factors[0].copy_((1 - mu) / (1 - self._mu_product))
        self._factors[1].copy_(after / (1 - self._mu_product * after))
        self._factors[2].copy_(1 - self._beta2**self._steps)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        by_gradient, by_mean, correction = (self._factor(number, parameter) for number in range(3))
        mean, square = self._add_gradient(index, gradient), self._add_square(index, gradient)
        below = square.div(correction).sqrt_().add_(self._epsilon[index])
        parameter.add_(gradient.div_(below).mul_(by_gradient * down))
        parameter.add_(torch.div(mean, below, out=gradient).mul_(by_mean * down))


class Adamax(Moments):
    """Adamax (Kingma and Ba, 2015, algorithm 2): see torch.optim.Adamax."""

    SLOTS = ("mean", "largest")

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        super().advance()
        self._factors[0].copy_(1 - self._beta1**self.steps)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        mean, largest = self._add_gradient(index, gradient), self.slots["largest"][index]
        size = gradient.abs_().add_(self._epsilon[index])
        torch.maximum(largest.mul_(self._keep2[index]), size, out=largest)
        parameter.addcmul_(torch.div(mean, largest, out=gradient), down / self._factor(0, parameter))


class RAdam(Moments):
    """RAdam (Liu et al., 2020): see torch.optim.RAdam.

    While the length rho of the mean of squares is at most 5, its variance is too large, and steps are along the mean.
    """

    FACTORS = 3  # the correction of the mean; the factor of an adaptive step; 1 for one along the mean

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        super().advance()
        kept = self._beta2**self.steps
        most = 2 / (1 - self._beta2) - 1
        rho = most - 2 * self.steps * kept / (1 - kept)
        rectification = ((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)).sqrt()
        adaptive = rho > 5
        self._factors[0].copy_(1 - self._beta1**self.steps)
        self._factors[1].copy_(torch.where(adaptive, rectification * (1 - kept).sqrt(), 0))
        self._factors[2].copy_(~adaptive)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        correction, adaptive, plain = (self._factor(number, parameter) for number in range(3))
        mean, square = self._add_gradient(index, gradient), self._add_square(index, gradient)
        scale = torch.div(adaptive, square.sqrt().add_(self._epsilon[index]), out=gradient).add_(plain)
        parameter.addcmul_(scale.mul_(mean), down / correction)


class Lion(Stepper):
    """Lion, the sign of a momentum: see `hpo.training.optimizers.Lion`."""

    SLOTS = ("mean",)
    DECOUPLED = True

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        self._new1 = column_of([1 - config.beta1 for config in configs], parameters)
        self._new2 = column_of([1 - config.beta2 for config in configs], parameters)
        self._shrinkage = column_of([config.weight_decay for config in configs], parameters)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        mean = self.slots["mean"][index]
        direction = torch.addcmul(mean, gradient - mean, self._new1[index]).sign_()
        parameter.mul_(1 + down * self._shrinkage[index]).addcmul_(direction, down)
        mean.addcmul_(gradient.sub_(mean), self._new2[index])
