"""Batch norm, activations and dropout for stacked MLPs, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.training.stacked.noise import Noise, scale_kept

__all__ = ["ACTIVATIONS", "Activation", "BatchNorm", "Dropout", "keep_result"]

aten: Any = torch.ops.aten
SELU = 1.6732632423543772, 1.0507009873554805  # its alpha and scale (Klambauer et al., 2017)
MOMENTUM, EPSILON = 0.1, 1e-5  # of torch's batch normalisation


@dataclass(frozen=True)
class Activation:
    """Activation function of sums z, and its gradient.

    Attributes:
        forward: writes h = f(z) to its second argument.
        backward: multiplies the gradient by h, its first argument, in place, so that it is the gradient by z.
        of_result: whether `backward` takes h as its second argument, instead of z.
        of_sign: whether only the sign of h matters then, so that it may be h after dropout.
        keeps_zero: whether f(0) = 0, so that padded units stay zero.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    of_result: bool = False
    of_sign: bool = False
    keeps_zero: bool = True


ACTIVATIONS: Mapping[str, Activation] = {
    "linear": Activation(lambda z, out: out.copy_(z), lambda _dz, _z: None),  # an autoencoder's latent layer has none
    "relu": Activation(
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda dz, h: aten.threshold_backward.grad_input(dz, h, 0, grad_input=dz),
        of_result=True,
        of_sign=True,
    ),
    "tanh": Activation(
        lambda z, out: torch.tanh(z, out=out),
        lambda dz, h: aten.tanh_backward.grad_input(dz, h, grad_input=dz),
        of_result=True,
    ),
    "sigmoid": Activation(
        lambda z, out: torch.sigmoid(z, out=out),
        lambda dz, h: aten.sigmoid_backward.grad_input(dz, h, grad_input=dz),
        of_result=True,
        keeps_zero=False,
    ),
    "elu": Activation(
        lambda z, out: aten.elu.out(z, 1, 1, 1, out=out),
        lambda dz, z: aten.elu_backward.grad_input(dz, 1, 1, 1, False, z, grad_input=dz),
    ),
    # Given strided memory to write to, torch's float32 kernel on CPUs writes as if it were contiguous.
    "gelu": Activation(
        lambda z, out: out.copy_(F.gelu(z)), lambda dz, z: aten.gelu_backward.grad_input(dz, z, grad_input=dz)
    ),
    "silu": Activation(
        lambda z, out: aten.silu.out(z, out=out), lambda dz, z: aten.silu_backward.grad_input(dz, z, grad_input=dz)
    ),
    "leaky_relu": Activation(
        lambda z, out: aten.leaky_relu.out(z, 0.01, out=out),
        lambda dz, z: aten.leaky_relu_backward.grad_input(dz, z, 0.01, False, grad_input=dz),
    ),
    "mish": Activation(lambda z, out: aten.mish.out(z, out=out), lambda dz, z: dz.copy_(aten.mish_backward(dz, z))),
    "hardswish": Activation(
        lambda z, out: aten.hardswish.out(z, out=out), lambda dz, z: aten.hardswish_backward.out(dz, z, out=dz)
    ),
    "softplus": Activation(
        lambda z, out: aten.softplus.out(z, 1, 20, out=out),
        lambda dz, z: aten.softplus_backward.grad_input(dz, z, 1, 20, grad_input=dz),
        keeps_zero=False,
    ),
    "selu": Activation(
        lambda z, out: aten.elu.out(z, *SELU, 1, out=out),
        lambda dz, z: aten.elu_backward.grad_input(dz, *SELU, 1, False, z, grad_input=dz),
    ),
}


def keep_result(activation: Activation) -> Activation:
    """Return the same function for a layer whose dropout overwrites h: what its gradient needs of h takes z's place."""
    if not activation.of_result or activation.of_sign:
        return activation

    def forward(z: Tensor, out: Tensor) -> None:
        activation.forward(z, z)
        out.copy_(z)

    return replace(activation, forward=forward, of_result=False)


class Dropout:
    """Inverted dropout (Srivastava et al., 2014), each member with its own share, in 65536ths.

    A unit takes 16 random bits; drawing them takes an eleventh of the time of torch's Bernoulli numbers on a CPU.

    Attributes:
        scale: of what is kept, (members, 1, 1).
    """

    def __init__(self, shares: Sequence[float], like: Tensor) -> None:
        dropped = torch.tensor([round(share * 65536) for share in shares], device=like.device).view(-1, 1, 1)
        self._least = (dropped - 32768).clamp_(max=32767).to(torch.int16)
        self.scale = scale_kept((65536 - dropped).to(like.dtype))

    def draw(self, noise: Noise, factors: Tensor) -> None:
        """Fill `factors` (members, units, samples) from the noise of all members: 0, or 1 over the share that is kept.

        There may be fewer members than the noise is of: the first ones.
        """
        numbers = factors[0].numel()
        bits = noise.draw(-(-numbers // 4))[: len(factors)].view(torch.int16)[:, :numbers]
        torch.ge(bits.view(factors.shape), self._least, out=factors)
        factors.mul_(self.scale)
        if noise.kept is not None:
            noise.kept.append(factors.mT.clone())


class BatchNorm:
    """Batch normalisation (Ioffe and Szegedy, 2015) for one size of batch: every unit of every member is a channel.

    Args:
        sums: the input, (members, width, n).
        z: the output, of the same shape.
        by_z, by_sums: the gradients by those.
        gamma, beta: (members, width, 1).
        mean, variance: the running statistics, (members * width,).
    """

    def __init__(
        self,
        sums: Tensor,
        z: Tensor,
        by_z: Tensor,
        by_sums: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
    ) -> None:
        # Views that every step needs: making one takes as long as a small product.
        flat = 1, -1, sums.shape[2]
        self._sums, self._z, self._by_z, self._by_sums = (each.view(flat) for each in (sums, z, by_z, by_sums))
        self._gamma, self._beta = gamma.flatten(), beta.flatten()
        self._running = mean, variance
        self._saved = torch.empty_like(mean), torch.empty_like(mean)
        self._by_gamma, self._by_beta = torch.empty_like(gamma), torch.empty_like(beta)
        self._by_both = self._by_gamma.flatten(), self._by_beta.flatten()

    def forward(self, *, train: bool) -> None:
        """Normalise by the batch in training, and update the running statistics; else normalise by those."""
        saved = self._saved if train else tuple(each.new_empty(0) for each in self._saved)
        aten.native_batch_norm.out(
            self._sums,
            self._gamma,
            self._beta,
            *self._running,
            train,
            MOMENTUM,
            EPSILON,
            out=self._z,
            save_mean=saved[0],
            save_invstd=saved[1],
        )

    def backward(self) -> tuple[Tensor, Tensor]:
        """Write the gradient by the sums; return those by gamma and beta, in memory that the next call reuses."""
        aten.native_batch_norm_backward.out(
            self._by_z,
            self._sums,
            self._gamma,
            *self._running,
            *self._saved,
            True,
            EPSILON,
            (True, True, True),
            out0=self._by_sums,
            out1=self._by_both[0],
            out2=self._by_both[1],
        )
        return self._by_gamma, self._by_beta
