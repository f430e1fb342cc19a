"""Layer normalisation of stacked sequential modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpo.training.stacked.parts import Part, Pass, Rows

__all__ = ["LayerNormPart"]


class LayerNormPart(Part):
    """Layer normalisation (Ba, Kiros and Hinton, 2016): of each sample's units, scaled and shifted."""

    def __init__(self, name: str, module: nn.LayerNorm, count: int, like: Tensor) -> None:
        self.epsilon = module.eps
        self.gamma, self.beta = (like.new_zeros(count, module.normalized_shape[0], 1) for _ in range(2))
        self.parameters = [self.gamma, self.beta]
        self.names = [[f"{name}.weight"], [f"{name}.bias"]]

    def make_pass(self, source: Rows | None, n: int) -> Pass:  # noqa: ARG002
        """Make the pass; see `Part`."""
        assert source is not None
        return LayerNormPass(self, source)

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        return {name: tensor[index, :, 0] for (name,), tensor in zip(self.names, tensors, strict=True)}


class LayerNormPass(Pass):
    """Layer normalisation; a gradient by inputs takes the place of the one by results."""

    def __init__(self, part: LayerNormPart, source: Rows) -> None:
        self.rows = Rows(torch.empty_like(source.h), source.d, free=True)
        self._part, self._source = part, source.h
        self._normal = torch.empty_like(source.h)
        self._scale = source.h.new_empty(source.h.shape[0], 1, source.h.shape[2])

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the normalised rows; see `Pass`."""
        torch.sub(self._source, self._source.mean(1, keepdim=True), out=self._normal)
        variance = self._normal.square().mean(1, keepdim=True)
        torch.rsqrt(variance.add_(self._part.epsilon), out=self._scale)
        self._normal.mul_(self._scale)
        torch.addcmul(self._part.beta, self._normal, self._part.gamma, out=self.rows.h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradients; see `Pass`."""
        d = self.rows.d
        gradients = (d * self._normal).sum(2, keepdim=True), d.sum(2, keepdim=True)
        d.mul_(self._part.gamma)
        along = (d * self._normal).mean(1, keepdim=True)
        d.sub_(d.mean(1, keepdim=True)).addcmul_(self._normal, along, value=-1).mul_(self._scale)
        for target, gradient in zip(into, gradients, strict=True):
            (target.add_ if add else target.copy_)(gradient)
