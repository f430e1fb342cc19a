"""Stacked multilayer perceptrons: forward and backward passes by hand, for all of them at a time.

Everything is feature-major: activations are (members, units, samples), weights (members, outputs, inputs), so that the
first layer of all members is one product on the batch they share, and each deeper layer one batched product; members
with batches of their own, (members, n, inputs), have a batched product in the first layer too. Members
are sorted, deepest first: each layer belongs to a prefix of them. Narrower members are padded; padded weights are zero,
and stay zero, for their gradients are. A layer's bias is its last column of weights, and its input has a row of ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from hpo.training.stacked.first_product import add_first_product, write_first_product
from hpo.training.stacked.layers import ACTIVATIONS, Activation, BatchNorm, Dropout, keep_result
from hpo.training.stacked.noise import Noise

__all__ = ["ALIGNED", "Network", "StackedMLP", "batch_width"]

# Row lengths of the first layer are multiples of this: with 785 columns a product into the weights of 100 members has
# 73 Gflop/s of 98, with 792 all of them (one thread, batch 128).
ALIGNED = 8
FEW = 16  # samples


def batch_width(features: int) -> int:
    """Return the numbers of a sample in a batch: its features, a one, and zeros up to a multiple of `ALIGNED`."""
    return -(-(features + 1) // ALIGNED) * ALIGNED


@dataclass(frozen=True)
class Network:
    """Shape of one member, and the names of its tensors by layer.

    Attributes:
        widths: units per hidden layer.
        activations: of each hidden layer; see `hpo.training.stacked.layers.ACTIVATIONS`.
        dropouts: of each, the share of its units dropped in training.
        linear: names of the linear modules, the output layer's last.
        norm: names of the batch normalisations; empty where there are none.
    """

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    dropouts: tuple[float, ...]
    linear: tuple[str, ...]
    norm: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """Hidden layer of the first `count` members, padded to the widest.

    Attributes:
        weight: (count, width, inputs); the last used column is the bias, unless the layer is normalised.
        gamma, beta: of batch normalisation, (count, width, 1); None without it.
        mean, variance: its running statistics, (count * width,).
        dropout: None where no member drops.
    """

    count: int
    width: int
    weight: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    variance: Tensor
    dropout: Dropout | None

    @property
    def parameters(self) -> list[Tensor]:
        """Tensors that training changes."""
        return [tensor for tensor in (self.weight, self.gamma, self.beta) if tensor is not None]


Product = tuple[Tensor, Tensor, Tensor]  # two factors, and the tensor that receives their product


def _product(a: Tensor, b: Tensor, out: Tensor) -> Product:
    """Return the batched product a b, or the transposed product where `out` lies transposed in memory."""
    return (a, b, out) if out.is_contiguous() else (b.mT, a.mT, out.mT)


def _multiply(product: Product) -> None:
    a, b, out = product
    torch.bmm(a, b, out=out)


@dataclass
class LayerBuffers:
    """Buffers of a layer for one size of batch: results of the forward pass, and gradients of the backward pass.

    Attributes:
        up: the product that gives the sums; None in the first layer.
        sums: of the weighted inputs, (count, width, n).
        z: input of the activation: the sums, or the normalised sums.
        h: the activations, with a last row of ones.
        dz: the gradient by h, then by z.
        by_sums: the gradient by the sums; dz itself where nothing is normalised.
        runs: of each activation: the function, its parts of z, h and dz, and where padded units are to be zeroed by it.
        ends: h and dz of the members that end here, and their parts of the last activations and the gradient by those.
        drops: the factors of dropout, and the units that they multiply in h.
        norm: batch normalisation, where there is one.
        down: the product that gives the gradient by the layer below's activations; None in the first layer.
        by_weight: the factors of the gradient by the weights; None in the first layer.
    """

    up: Product | None
    sums: Tensor
    z: Tensor
    h: Tensor
    dz: Tensor
    by_sums: Tensor
    runs: list[tuple[Activation, Tensor, Tensor, Tensor, Tensor | None]]
    ends: tuple[Tensor, Tensor, Tensor, Tensor] | None
    drops: tuple[Tensor, Tensor] | None
    norm: BatchNorm | None
    down: Product | None
    by_weight: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class BatchBuffers:
    """Buffers for batches of one size: those of each layer, the outputs, and the gradient by them.

    `up` gives the outputs, `down` the gradient by the last activations, and `by_weight` makes the gradient by the
    output layer's weights; see `LayerBuffers`. Without hidden layers they are not used.
    """

    layers: list[LayerBuffers]
    outputs: Tensor
    by_outputs: Tensor
    up: Product | None = None
    down: Product | None = None
    by_weight: tuple[Tensor, Tensor] | None = None


class StackedMLP:
    """MLPs that are computed as one. All members have batch normalisation, or none; all have hidden layers, or none.

    Args:
        networks: the members, deepest first; those of equal depth and activation side by side.
        features: of a sample.
        classes: the number of outputs.
        like: a tensor whose type and device the weights get; they are zero until they are loaded.

    Attributes:
        parameters: of all layers, (members, …, …) each, where the members are the first ones of the stack.
        normalised: true with batch normalisation.
        inputs: the width of a batch.
        noise: the random bits of dropouts.
    """

    def __init__(self, networks: Sequence[Network], features: int, classes: int, like: Tensor) -> None:
        self.networks = list(networks)
        self.features, self.classes = features, classes
        self.inputs = batch_width(features)
        self.tracked = 0  # batches that the running statistics have seen
        self.noise = Noise(len(networks), like.device)
        self.normalised = bool(networks[0].norm)
        depth = len(networks[0].widths)
        self._widths = [max(net.widths[i] for net in networks if len(net.widths) > i) for i in range(depth)]
        self.layers = [self._layer(index, like) for index in range(depth)]
        self._widest = max((net.widths[-1] for net in networks if net.widths), default=0)
        self.output = like.new_zeros(len(networks), classes, self._widest + 1 if depth else self.inputs)
        self.parameters = [*(tensor for layer in self.layers for tensor in layer.parameters), self.output]
        self._buffers: dict[int, BatchBuffers] = {}

    def _layer(self, index: int, like: Tensor) -> Layer:
        networks = [net for net in self.networks if len(net.widths) > index]
        count, width = len(networks), self._widths[index]
        batch = self.features if self.normalised else self.inputs
        inputs = self._widths[index - 1] + (not self.normalised) if index else batch
        gamma, beta = (like.new_zeros(count, width, 1) for _ in range(2)) if self.normalised else (None, None)
        shares = [net.dropouts[index] for net in networks]
        return Layer(
            count,
            width,
            like.new_zeros(count, width, inputs),
            gamma,
            beta,
            like.new_zeros(count * width),
            like.new_ones(count * width),
            Dropout(shares, like) if any(shares) else None,
        )

    def _first_inputs(self, x: Tensor) -> Tensor:
        """Return the columns of a batch that the first hidden layer reads: a normalised one has no bias."""
        return x[..., : self.features] if self.normalised else x

    @property
    def below(self) -> list[list[int]]:
        """Layers between each of `parameters` and the output, for each member that has it."""
        depths = [len(net.widths) for net in self.networks]
        hidden = [
            [depth - i for depth in depths[: layer.count]]
            for i, layer in enumerate(self.layers)
            for _ in layer.parameters
        ]
        return [*hidden, [0] * len(depths)]

    # Forward.

    def forward(self, x: Tensor, *, train: bool) -> Tensor:
        """Return the outputs (members, classes, n) for a batch; the next call may reuse their memory.

        Args:
            x: (n, inputs), or one of each member; or (n, features), where nothing is trained.
            train: whether units are dropped, and normalised by the batch.
        """
        batch = self._buffers_for(x.shape[-2])
        for layer, buffers in zip(self.layers, batch.layers, strict=True):
            if buffers.up is None:
                write_first_product(layer.weight, self._first_inputs(x), buffers.sums)
            else:
                _multiply(buffers.up)
            if buffers.norm is not None:
                buffers.norm.forward(train=train)
            for activation, z, h, _, mask in buffers.runs:
                activation.forward(z, h)
                if mask is not None:
                    h.mul_(mask)
            if train and layer.dropout is not None and buffers.drops is not None:
                factors, h = buffers.drops
                layer.dropout.draw(self.noise, factors)
                h.mul_(factors)
            if buffers.ends is not None:
                h, _, last, _ = buffers.ends
                last.copy_(h)
        if batch.up is None:
            write_first_product(self.output, x, batch.outputs)
        else:
            _multiply(batch.up)
        return batch.outputs

    # Backward.

    def backward(self, x: Tensor, by_outputs: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradient by each parameter to `into`, or add it: to the parameters themselves, for plain descent.

        Backpropagation is linear in the gradient by the outputs, so what that is scaled by scales all. Each weight is
        used for the last time before its own gradient is added.

        Args:
            x: the batch of the last training forward pass, (n, inputs), or one of each member.
            by_outputs: the gradient by its outputs, (members, classes, n).
            into: in the order of `parameters`.
            add: whether to add.
        """
        batch, beta, remaining = self._buffers_for(x.shape[-2]), int(add), list(into)
        batch.by_outputs.copy_(by_outputs)
        if batch.down is None or batch.by_weight is None:
            add_first_product(remaining.pop(), batch.by_outputs, x, add=add)
            return
        _multiply(batch.down)
        remaining.pop().baddbmm_(*batch.by_weight, beta=beta)
        for layer, buffers in zip(reversed(self.layers), reversed(batch.layers), strict=True):
            self._backward_through(layer, buffers, remaining, add)
            if buffers.down is None or buffers.by_weight is None:
                add_first_product(remaining.pop(), buffers.by_sums, self._first_inputs(x), add=add)
            else:
                _multiply(buffers.down)
                remaining.pop().baddbmm_(*buffers.by_weight, beta=beta)

    def _backward_through(self, layer: Layer, buffers: LayerBuffers, remaining: list[Tensor], add: bool) -> None:
        """Turn the gradient by a layer's activations into the one by its sums."""
        if buffers.ends is not None:
            _, dz, _, d_last = buffers.ends
            dz.copy_(d_last)
        if layer.dropout is not None and buffers.drops is not None:
            buffers.dz.mul_(buffers.drops[0])
        for activation, z, h, dz, _ in buffers.runs:
            activation.backward(dz, h if activation.of_result else z)
        if buffers.norm is not None:
            for gradient in reversed(buffers.norm.backward()):
                target = remaining.pop()
                (target.add_ if add else target.copy_)(gradient)

    # Buffers.

    def memory(self, n: int) -> object:
        """Return what a step on n samples writes to, for those who need it kept."""
        return self._buffers_for(n)

    def _buffers_for(self, n: int) -> BatchBuffers:
        """Return the buffers for batches of that size; four are kept: an epoch and an evaluation have two each."""
        if n not in self._buffers:
            while len(self._buffers) > 3:
                del self._buffers[next(iter(self._buffers))]
            self._buffers[n] = self._make_buffers(n)
        return self._buffers[n]

    def _make_buffers(self, n: int) -> BatchBuffers:
        count, like = len(self.networks), self.output
        outputs, by_outputs = like.new_zeros(2, count, self.classes, n)
        if not self.layers:
            return BatchBuffers([], outputs, by_outputs)
        last, d_last = self._zeros(count, self._widest + 1, n), self._zeros(count, self._widest, n)
        last[:, -1] = 1
        layers: list[LayerBuffers] = []
        for index in range(len(self.layers)):
            layers.append(self._make_layer_buffers(index, n, layers[-1] if layers else None, last, d_last))
        if self.layers[-1].count == count:
            last, d_last = layers[-1].h, layers[-1].dz
        up = _product(like, last, outputs)
        return BatchBuffers(
            layers,
            outputs,
            by_outputs,
            up,
            _product(like[..., : self._widest].mT, by_outputs, d_last),
            (by_outputs, last.mT),
        )

    def _zeros(self, count: int, width: int, n: int) -> Tensor:
        """Return zeros (count, width, n). A few samples lie one after the other in memory.

        BLAS multiplies four of them by 50 x 50 weights in 0.6 us a member then, else in 2.8; from 16 on that is slower.
        """
        if n < FEW and not self.normalised:
            return self.output.new_zeros(count, n, width).mT
        return self.output.new_zeros(count, width, n)

    def _make_layer_buffers(
        self, index: int, n: int, below: LayerBuffers | None, last: Tensor, d_last: Tensor
    ) -> LayerBuffers:
        layer = self.layers[index]
        count, width, inputs = layer.weight.shape
        # The first layer's products are of all members at once.
        whole = layer.weight.new_zeros(2, count, width, n)
        sums, dz = (self._zeros(count, width, n), self._zeros(count, width, n)) if below else whole
        z, by_sums = (torch.zeros_like(sums), torch.zeros_like(dz)) if self.normalised else (sums, dz)
        h = self._zeros(count, width + 1, n)
        h[:, -1] = 1
        units = h[:, :width]
        drops = None if layer.dropout is None else (sums.new_empty(count, width, n), units)
        runs = [
            (activation, z[part], units[part], dz[part], None if activation.keeps_zero else self._mask(index, part))
            for activation, part in self._activation_runs(index, count)
        ]
        norm = None
        if layer.gamma is not None and layer.beta is not None:
            norm = BatchNorm(sums, z, dz, by_sums, layer.gamma, layer.beta, layer.mean, layer.variance)
        ends = self._ending_members(index, h, dz, last, d_last)
        buffers = LayerBuffers(None, sums, z, h, dz, by_sums, runs, ends, drops, norm, None, None)
        if below is not None:
            source = below.h[:count, :inputs]
            buffers.up = _product(layer.weight, source, sums)
            back = layer.weight[..., : self._widths[index - 1]].mT
            buffers.down = _product(back, by_sums, below.dz[:count])
            buffers.by_weight = by_sums, source.mT
        return buffers

    def _ending_members(
        self, index: int, h: Tensor, dz: Tensor, last: Tensor, d_last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Return `LayerBuffers.ends`: None where no member ends with that layer, or all do and its tensors are last."""
        count = self.layers[index].count
        longer = self.layers[index + 1].count if index + 1 < len(self.layers) else 0
        if longer == count or self.layers[-1].count == len(self.networks):
            return None
        part, width = slice(longer, count), min(self._widths[index], self._widest)  # of those that end none is wider
        return h[part, :width], dz[part, :width], last[part, :width], d_last[part, :width]

    def _activation_runs(self, index: int, count: int) -> Iterator[tuple[Activation, slice]]:
        """Yield the activations of the first `count` members at that layer, and the members that have each."""
        start = 0
        for name, members in groupby(net.activations[index] for net in self.networks[:count]):
            stop = start + len(list(members))
            drops = self.layers[index].dropout is not None
            yield keep_result(ACTIVATIONS[name]) if drops else ACTIVATIONS[name], slice(start, stop)
            start = stop

    def _mask(self, index: int, part: slice) -> Tensor | None:
        """Return 1 for the units that members have and 0 for padding, (members, width, 1); None without padding."""
        widths = torch.tensor([net.widths[index] for net in self.networks[part]]).view(-1, 1, 1)
        units = torch.arange(self._widths[index]).view(1, -1, 1) < widths
        return None if bool(units.all()) else units.to(self.output)

    # Members, one by one.

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors shaped as `parameters`, by the names of its module's parameters."""
        network, remaining, inputs, padded = self.networks[index], list(tensors), self.features, self.features
        views: dict[str, Tensor] = {}
        for position, (width, layer) in enumerate(zip(network.widths, self.layers, strict=False)):
            own = [remaining.pop(0)[index, :width] for _ in layer.parameters]
            views[f"{network.linear[position]}.weight"] = own[0][:, :inputs]
            if self.normalised:
                views[f"{network.norm[position]}.weight"] = own[1][:, 0]
                views[f"{network.norm[position]}.bias"] = own[2][:, 0]
            else:
                views[f"{network.linear[position]}.bias"] = own[0][:, padded]
            inputs, padded = width, self._widths[position]
        output = tensors[-1][index]
        views[f"{network.linear[-1]}.weight"] = output[:, :inputs]
        views[f"{network.linear[-1]}.bias"] = output[:, self._widest if self.layers else self.features]
        return views

    def statistics(self, index: int) -> dict[str, Tensor]:
        """Return a member's part of the running statistics, by the names of its module's buffers."""
        views: dict[str, Tensor] = {}
        for name, width, layer in zip(
            self.networks[index].norm, self.networks[index].widths, self.layers, strict=False
        ):
            for kind, tensor in (("mean", layer.mean), ("var", layer.variance)):
                views[f"{name}.running_{kind}"] = tensor.view(layer.count, layer.width)[index, :width]
            views[f"{name}.num_batches_tracked"] = torch.tensor(self.tracked)
        return views
