"""Stacked schedule-free AdamW."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.stacked.optimizers.base import column_of, first_members
from hpo.training.stacked.optimizers.moments import Moments

__all__ = ["ScheduleFreeAdamW"]


class ScheduleFreeAdamW(Moments):
    """Schedule-free AdamW (Defazio et al., "The Road Less Scheduled", 2024): see `schedulefree.AdamWScheduleFree`.

    The parameters are the paper's y, at which gradients are taken; the slot `sequence` has its z, and its x, the
    average that is evaluated, follows from both.
    """

    SLOTS = ("sequence", "square")
    DECOUPLED = True

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(configs, parameters, below)
        zeros = parameters[-1].new_zeros(len(configs), 1, 1)
        self.numbers = {"largest_rate": zeros, "weight_sum": zeros.clone()}
        self._keep1 = column_of([config.beta1 for config in configs], parameters)
        self._shrinkage = column_of([config.weight_decay for config in configs], parameters)
        self._share = zeros.clone()  # of z in the average

    def advance(self) -> None:
        """Count a step; see `StackedOptimizer`."""
        super().advance()
        self._factors[0].copy_(1 - self._beta2**self.steps)

    def step(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """Update the parameters; see `StackedOptimizer`. A step weighs the square of the largest rate so far."""
        largest, total = self.numbers.values()
        weight = torch.maximum(largest, rate, out=largest).square()
        total.add_(weight)
        self._share.copy_(torch.where(total > 0, weight / total, 0))
        super().step(gradients, rate)

    def _move(self, index: int, parameter: Tensor, gradient: Tensor, down: Tensor) -> None:
        sequence, share = self.slots["sequence"][index], first_members(self._share, parameter)
        if self.steps == 1:
            sequence.copy_(parameter)
        square = self._add_square(index, gradient)
        below = square.div(self._factor(0, parameter)).sqrt_().add_(self._epsilon[index])
        along = gradient.div_(below).addcmul_(parameter, self._shrinkage[index])
        parameter.lerp_(sequence, share).addcmul_(along, down * (1 - self._keep1[index] * (1 - share)))
        sequence.addcmul_(along, down)

    def averages(self) -> list[Tensor] | None:
        """Return the averages; see `StackedOptimizer`."""
        if not self.steps:
            return None
        each = zip(self._parameters, self.slots["sequence"], self._keep1, strict=True)
        return [parameter.lerp(sequence, 1 - 1 / keep) for parameter, sequence, keep in each]
