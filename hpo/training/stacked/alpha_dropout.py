"""Alpha dropout of stacked sequential modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.stacked.member_functions import ALPHA
from hpo.training.stacked.noise import Noise
from hpo.training.stacked.parts import DropoutPart, DropoutPass, Pass, Rows

__all__ = ["AlphaDropoutPart"]


class AlphaDropoutPart(DropoutPart):
    """Alpha dropout (Klambauer et al., 2017): drops to a value, then keeps mean and variance by a linear function."""

    def __init__(self, shares: Sequence[float], noise: Noise, like: Tensor) -> None:
        super().__init__(shares, noise, like)
        self.kept = (1 / self.dropout.scale).nan_to_num_(posinf=0)  # the share of the units
        self.slope = ((1 + (1 - self.kept) * ALPHA**2) * self.kept).rsqrt().nan_to_num_(posinf=0)

    def make_pass(self, source: Rows | None, n: int) -> Pass:  # noqa: ARG002
        """Make the pass; see `Part`."""
        assert source is not None
        h = source.h if source.free else torch.empty_like(source.h)
        return AlphaDropoutPass(self, source, Rows(h, source.d))


class AlphaDropoutPass(DropoutPass):
    """Alpha dropout; its factors are the slope of each unit, which is 0 for those dropped."""

    def __init__(self, part: AlphaDropoutPart, source: Rows, rows: Rows) -> None:
        super().__init__(part, source, rows)
        self._by_factor = part.slope * part.kept
        self._dropped = ALPHA * part.slope * part.kept  # what dropped units become

    def forward(self, x: Tensor, *, train: bool) -> None:
        """Write what is kept, and the value of what is not; see `Pass`."""
        super().forward(x, train=train)
        if train:
            self._factors.mul_(self._by_factor)
            self.rows.h.mul_(self._by_factor).add_(self._factors, alpha=-ALPHA).add_(self._dropped)
