"""Layers of one member of a stack: torch's own, computed for all members at a time under `torch.func.vmap`.

Torch's rules for vmap are right, but slow for small models. These layers have rules of their own, on the tensors of all
members, in which activations lie feature by feature in memory: a batched product writes them so, batch normalisation
reads its channels side by side, and whatever is computed element by element keeps the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

__all__ = ["MemberDropout", "draw_factors", "make_template"]

Dims = tuple[int | None, ...]


def make_template(module: nn.Module) -> nn.Module:
    """Return a copy of a module whose layers are computed for all members at a time, with the same names of tensors."""
    template = deepcopy(module).requires_grad_(False)
    for part in template.modules():
        if type(part) in MEMBER_LAYERS:  # a subclass may compute something else
            part.__class__ = MEMBER_LAYERS[type(part)]
        if isinstance(part, MemberDropout):
            part.register_buffer("share", torch.zeros(()), persistent=False)
    return template


class MemberFunction(Function):
    """Function of one member's tensors whose vmap rule is its only implementation: gradients are of what that calls."""

    @staticmethod
    def forward(*_: Any) -> Any:
        """Refuse a call outside vmap."""
        raise NotImplementedError("a member's layer is computed under vmap alone")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""


def _stacked(tensor: Tensor | None, dim: int | None, members: int) -> Tensor | None:
    """Return a tensor with its members first; one that they share is expanded."""
    if tensor is None:
        return None
    return tensor.expand(members, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


class _Linear(MemberFunction):
    @staticmethod
    def vmap(info: Any, in_dims: Dims, *tensors: Tensor | None) -> tuple[Tensor, int]:
        x, weight, bias = (_stacked(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, in_dims, strict=True))
        assert x is not None
        assert weight is not None
        product = torch.bmm(weight, x.mT) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, x.mT)
        return product.mT, 0


class MemberLinear(nn.Linear):
    """Linear layer of a member."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Return outputs (n, outputs) of inputs (n, inputs)."""
        if input.ndim != 2:
            return super().forward(input)
        outputs: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return outputs


class _BatchNorm(MemberFunction):
    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Tensor, int]:
        x, *others = (
            _stacked(tensor, dim, info.batch_size) for tensor, dim in zip(arguments[:5], in_dims[:5], strict=True)
        )
        assert x is not None
        mean, variance, gamma, beta = (None if each is None else each.reshape(-1) for each in others)
        train, momentum, epsilon = arguments[5:]
        sums = x.mT.reshape(1, -1, x.shape[1])
        outputs = F.batch_norm(sums, mean, variance, gamma, beta, train, momentum, epsilon)
        return outputs.view(x.mT.shape).mT, 0


class MemberBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of a member."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return normalised inputs (n, channels)."""
        if input.ndim != 2 or self.momentum is None or self.running_mean is None:
            return super().forward(input)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        outputs: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
            input, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return outputs


def draw_factors(like: Tensor, shares: Tensor) -> Tensor:
    """Draw the factors of inverted dropout (Srivastava et al., 2014) from torch's generator: 0, or 1 over what is kept.

    An element takes 16 random bits; drawing them takes an eleventh of the time of torch's Bernoulli numbers on a CPU.

    Args:
        like: (members, …), whose shape and layout the factors get.
        shares: of each member, what is dropped.
    """
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    dropped = (shares * 65536).round_().view(-1, *[1] * (like.ndim - 1))
    least = (dropped - 32768).to(torch.int16)
    factors = torch.empty_like(like)
    drawn = bits.view(torch.int16)[: like.numel()].as_strided(factors.shape, factors.stride())
    return torch.ge(drawn, least, out=factors).mul_(65536 / (65536 - dropped).to(like.dtype))


class _Dropout(MemberFunction):
    @staticmethod
    def vmap(info: Any, in_dims: Dims, *tensors: Tensor) -> tuple[Tensor, int]:
        x, shares = (_stacked(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, in_dims, strict=True))
        assert x is not None
        assert shares is not None
        return x * draw_factors(x.detach(), shares), 0


class MemberDropout(nn.Dropout):
    """Dropout of a member, which drops its own `share`; `drops` is false where no member drops any."""

    share: Tensor
    drops = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return inputs, some of them dropped in training."""
        if not (self.training and self.drops):
            return input
        outputs: Tensor = _Dropout.apply(input, self.share)  # type: ignore[no-untyped-call]
        return outputs


MEMBER_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: MemberLinear,
    nn.BatchNorm1d: MemberBatchNorm,
    nn.Dropout: MemberDropout,
}
