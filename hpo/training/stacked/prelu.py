"""Activation function with slopes that are learned, of stacked sequential modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpo.training.stacked.parts import Part, Pass, Rows

__all__ = ["PReLUPart"]


class PReLUPart(Part):
    """PReLU (He et al., 2015): its slope below 0 is learned, one for all units or one for each."""

    def __init__(self, name: str, module: nn.PReLU, count: int, like: Tensor) -> None:
        self.slope = like.new_zeros(count, module.num_parameters, 1)
        self.parameters, self.names = [self.slope], [[f"{name}.weight"]]

    def make_pass(self, source: Rows | None, n: int) -> Pass:  # noqa: ARG002
        """Make the pass; see `Part`."""
        assert source is not None
        return PReLUPass(self.slope, source)

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        return {self.names[0][0]: tensors[0][index, :, 0]}


class PReLUPass(Pass):
    """PReLU; the gradient by its inputs takes the place of the one by its results."""

    def __init__(self, slope: Tensor, source: Rows) -> None:
        self.rows = Rows(torch.empty_like(source.h), source.d, free=True)
        self._slope, self._z = slope, source.h

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the activations; see `Pass`."""
        torch.where(self._z > 0, self._z, self._z * self._slope, out=self.rows.h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradients; see `Pass`."""
        by_slope = (self.rows.d * self._z.clamp_max(0)).sum_to_size(len(self._z), *into[0].shape[1:])
        self.rows.d.mul_(torch.where(self._z > 0, 1, self._slope))
        (into[0].add_ if add else into[0].copy_)(by_slope)
