"""Averages of stacked weights, with which members are evaluated; the formulas are those of torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.stacked.optimizers.base import StackedOptimizer, column_of, first_members, make_slot

__all__ = ["StackedAverage", "exchange_weights", "find_averages", "make_average"]


class StackedAverage:
    """Averages of the weights of members that have one kind of `weight_averaging`.

    Args:
        configs: the members.
        parameters: the stacked weights.

    Attributes:
        slots, numbers: see `StackedOptimizer`.
    """

    def __init__(self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor]) -> None:
        self.slots = {"averaged_weights": make_slot(parameters)}
        self.numbers = {"averaged": column_of([0.0] * len(configs), parameters)[-1]}  # steps, or epochs, that are done
        self._parameters = parameters
        self._of_steps = configs[0].averaging == "ema"
        self._new = column_of([1 - config.ema_decay for config in configs], parameters)[-1]
        self._first = column_of([float(config.first_averaged_epoch) for config in configs], parameters)[-1]

    @torch.no_grad()
    def step(self) -> None:
        """Take the weights after a step into moving averages; those of the first step begin them."""
        if self._of_steps:
            done = self.numbers["averaged"]
            self._update(torch.where(done > 0, self._new, 1))

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Take the weights after an epoch into means; before a mean begins, it is the present weights."""
        if not self._of_steps:
            count = self.numbers["averaged"] - self._first + 2
            self._update(1 / count.clamp(min=1))

    def _update(self, shares: Tensor) -> None:
        for average, parameter in zip(self.slots["averaged_weights"], self._parameters, strict=True):
            average.lerp_(parameter, first_members(shares, parameter))
        self.numbers["averaged"] += 1

    def averages(self) -> list[Tensor] | None:
        """Return the averages, in the order of the parameters; None before there are any."""
        return self.slots["averaged_weights"] if bool(self.numbers["averaged"].any()) else None


def make_average(configs: Sequence[TrialConfig], parameters: Sequence[Tensor]) -> StackedAverage | None:
    """Return the averages of members of one kind of averaging; None where weights are not averaged."""
    return None if configs[0].averaging is None else StackedAverage(configs, parameters)


def find_averages(optimizer: StackedOptimizer | None, average: StackedAverage | None) -> list[Tensor] | None:
    """Return the weights to evaluate, averages made by the optimizer or after it; None for the parameters."""
    if average is not None:
        return average.averages()
    return None if optimizer is None else optimizer.averages()


@contextmanager
def exchange_weights(parameters: Sequence[Tensor], averages: Sequence[Tensor] | None) -> Iterator[None]:
    """Put averages in the memory of the parameters for a while; afterwards these have their own bits again."""
    if averages is None:
        yield
        return
    with torch.no_grad():
        kept = [parameter.clone() for parameter in parameters]
        try:
            for parameter, average in zip(parameters, averages, strict=True):
                parameter.copy_(average)
            yield
        finally:
            for parameter, own in zip(parameters, kept, strict=True):
                parameter.copy_(own)
