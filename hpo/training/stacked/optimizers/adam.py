"""Stacked Adam and AdamW, by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.optimizers import has_layer_rates, layer_rate_factor
from hpo.training.schedules import rate_key
from hpo.training.stacked.optimizers.base import Clip, make_slot

__all__ = ["Adam"]


class Adam:
    """Adam and AdamW: see torch.optim.Adam. Torch's fused kernel goes over members of equal settings in one call."""

    def __init__(
        self, configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
    ) -> None:
        self.slots = {"mean": make_slot(parameters), "square": make_slot(parameters)}
        self.numbers: dict[str, Tensor] = {}
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

    def averages(self) -> list[Tensor] | None:
        """Return None; see `StackedOptimizer`."""
        return None


def _adam_settings(member: tuple[TrialConfig, int]) -> tuple[object, ...]:
    """Return a key that is equal for members, each with its depth, whose steps have the same settings throughout."""
    config, depth = member
    layers = (config.layer_learning_rate_decay, config.head_rate_factor, depth) if has_layer_rates(config) else ()
    rates = rate_key(config) or object()  # which is equal to no other
    return config.beta1, config.beta2, config.weight_decay, config.epsilon, rates, layers
