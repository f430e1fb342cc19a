"""First products of stacked models: of their weights and the batch, which all members share or each has its own of."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["add_first_product", "write_first_product"]


def write_first_product(weight: Tensor, x: Tensor, out: Tensor) -> None:
    """Write the products of weights (members, units, inputs) and a batch: (members, units, n).

    Args:
        weight: of all members; contiguous.
        x: the batch that they share (n, inputs), in one product; or those of more members (members, n, inputs), or of
            as many, in a batched one. One that they share may be samples (n, features) alone: the bias, which is the
            column of weights behind those of the features, is then added.
        out: contiguous.
    """
    if x.ndim == 2:
        rows, sums, features = weight.view(-1, weight.shape[2]), out.view(-1, len(x)), x.shape[1]
        if features == rows.shape[1]:
            torch.mm(rows, x.t(), out=sums)
        else:
            torch.addmm(rows[:, features, None], rows[:, :features], x.t(), out=sums)
    else:
        torch.bmm(weight, x[: len(weight)].mT, out=out)


def add_first_product(into: Tensor, by_sums: Tensor, x: Tensor, *, add: bool) -> None:
    """Write the gradient by the weights to `into`, or add it, given that by the sums (members, units, n)."""
    if x.ndim == 2:
        into.view(-1, into.shape[2]).addmm_(by_sums.view(-1, len(x)), x, beta=int(add))
    else:
        into.baddbmm_(by_sums, x[: len(into)], beta=int(add))
