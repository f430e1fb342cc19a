"""Multilayer perceptrons as one: forward and backward by hand, for all of them at a time.

Everything is feature-major: activations are (members, units, samples), weights (members, outputs, inputs), so that the
first layer of all members is one product on the batch they share, and each deeper layer one batched product. Members
are sorted, deepest first: each layer belongs to a prefix of them. Narrower members are padded; padded weights are zero,
and stay zero, for their gradients are. A layer's bias is its last column of weights, and its input has a row of ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from hpo.training.stacked.layers import ACTIVATIONS, Activation, BatchNorm, Dropout

__all__ = ["ALIGNED", "Network", "StackedMLP"]

# Row lengths of the first layer are multiples of this: with 785 columns a product into the weights of 100 members has
# 73 Gflop/s of 98, with 792 all of them (one thread, batch 128).
ALIGNED = 8
FEW = 16  # samples


@dataclass(frozen=True)
class Network:
    """One member: units per hidden layer, what follows each of them, and the names of its tensors by layer.

    Attributes:
        widths: units per hidden layer.
        activations: of each hidden layer; see `hpo.training.stacked.layers.ACTIVATIONS`.
        dropouts: of each, the share of its units dropped in training.
        linear: what the names of each layer's weight and bias begin with, the output layer's last.
        norm: of each batch normalisation's; empty where there is none.
    """

    widths: tuple[int, ...]
    activations: tuple[str, ...]
    dropouts: tuple[float, ...]
    linear: tuple[str, ...]
    norm: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A hidden layer of the first `count` members, padded to the widest.

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
    def learned(self) -> list[Tensor]:
        """What is learned."""
        return [tensor for tensor in (self.weight, self.gamma, self.beta) if tensor is not None]


Product = tuple[Tensor, Tensor, Tensor]  # what is multiplied, and where the result goes


def _product(a: Tensor, b: Tensor, out: Tensor) -> Product:
    """The batched product a b, or where its place lies transposed in memory, the transposed product."""
    return (a, b, out) if out.is_contiguous() else (b.mT, a.mT, out.mT)


def _multiply(product: Product) -> None:
    a, b, out = product
    torch.bmm(a, b, out=out)


@dataclass
class LayerBuffers:
    """What a layer's forward pass leaves for its backward pass, and the room for both; for one size of batch.

    Attributes:
        up: the product that gives the sums, (count, width, n); None in the first layer.
        sums: see above.
        z: what the activation takes: the sums, or where they are normalised, the result of that.
        h: the activations, with a last row of ones.
        dz: the gradient by h, then by z.
        by_sums: the gradient by the sums; dz itself where nothing is normalised.
        runs: of each activation: the function, its parts of z, h and dz, and where padded units are to be zeroed by it.
        ends: h and dz of the members that end here, and their parts of the last activations and the gradient by those.
        noise: random bits of dropout, its factors, and the units that they multiply in h.
        norm: batch normalisation, where there is one.
        down: the product that gives the gradient by the layer below's activations; None in the first layer.
        by_weight: what the gradient by the weights is the product of; None in the first layer.
    """

    up: Product | None
    sums: Tensor
    z: Tensor
    h: Tensor
    dz: Tensor
    by_sums: Tensor
    runs: list[tuple[Activation, Tensor, Tensor, Tensor, Tensor | None]]
    ends: tuple[Tensor, Tensor, Tensor, Tensor] | None
    noise: tuple[Tensor, Tensor, Tensor] | None
    norm: BatchNorm | None
    down: Product | None
    by_weight: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class BatchBuffers:
    """What batches of one size need: a trace per layer, the outputs, and the gradient by them.

    `up` gives the outputs, `down` the gradient by the last activations, and `by_weight` makes the gradient by the
    output layer's weights; see `LayerBuffers`. Without hidden layers they are not used.
    """

    traces: list[LayerBuffers]
    outputs: Tensor
    by_outputs: Tensor
    up: Product | None = None
    down: Product | None = None
    by_weight: tuple[Tensor, Tensor] | None = None


class StackedMLP:
    """See the module. All members have batch normalisation, or none; all have hidden layers, or none.

    Args:
        networks: the members, deepest first; those of equal depth and activation side by side.
        features: of a sample.
        classes: the number of outputs.
        like: a tensor whose type and device the weights get; they are zero until they are taken up.

    Attributes:
        parameters: all that is learned, (members, …, …) each, where the members are the first ones of the stack.
        inputs: the width of a batch: the features, a one, and zeros up to a multiple of `ALIGNED`.
    """

    def __init__(self, networks: Sequence[Network], features: int, classes: int, like: Tensor) -> None:
        self.networks = list(networks)
        self.features, self.classes = features, classes
        self.inputs = -(-(features + 1) // ALIGNED) * ALIGNED
        self.tracked = 0  # batches that the running statistics have seen
        self._normed = bool(networks[0].norm)
        depth = len(networks[0].widths)
        self._widths = [max(net.widths[i] for net in networks if len(net.widths) > i) for i in range(depth)]
        self.layers = [self._layer(index, like) for index in range(depth)]
        self._widest = max((net.widths[-1] for net in networks if net.widths), default=0)
        self.output = like.new_zeros(len(networks), classes, self._widest + 1 if depth else self.inputs)
        self.parameters = [*(tensor for layer in self.layers for tensor in layer.learned), self.output]
        self._rooms: dict[int, BatchBuffers] = {}
        self._first = (self.layers[0].weight if depth else self.output).flatten(0, 1)

    def _layer(self, index: int, like: Tensor) -> Layer:
        networks = [net for net in self.networks if len(net.widths) > index]
        count, width = len(networks), self._widths[index]
        batch = self.features if self._normed else self.inputs
        inputs = self._widths[index - 1] + (not self._normed) if index else batch
        gamma, beta = (like.new_zeros(count, width, 1) for _ in range(2)) if self._normed else (None, None)
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

    def _seen_of(self, x: Tensor) -> Tensor:
        """The columns of a batch that the first hidden layer reads: a normalised one has no bias."""
        return x[:, : self.features] if self._normed else x

    @property
    def below(self) -> list[list[int]]:
        """Of each of `parameters`, by how many layers it is below the output, for each member that has it."""
        depths = [len(net.widths) for net in self.networks]
        hidden = [
            [depth - i for depth in depths[: layer.count]] for i, layer in enumerate(self.layers) for _ in layer.learned
        ]
        return [*hidden, [0] * len(depths)]

    # Forward.

    def forward(self, x: Tensor, *, train: bool) -> Tensor:
        """The outputs (members, classes, n), of which the next call may reuse the memory, for a batch (n, inputs)."""
        room = self._room(len(x))
        self.tracked += train
        for layer, trace in zip(self.layers, room.traces, strict=True):
            if trace.up is None:
                torch.mm(self._first, self._seen_of(x).t(), out=trace.sums.view(-1, len(x)))
            else:
                _multiply(trace.up)
            if trace.norm is not None:
                trace.norm.forward(train=train)
            for activation, z, h, _, mask in trace.runs:
                activation.forward(z, h)
                if mask is not None:
                    h.mul_(mask)
            if train and layer.dropout is not None and trace.noise is not None:
                bits, factors, h = trace.noise
                layer.dropout.draw(bits, factors)
                h.mul_(factors)
            if trace.ends is not None:
                h, _, last, _ = trace.ends
                last.copy_(h)
        if room.up is None:
            torch.mm(self._first, x.t(), out=room.outputs.view(-1, len(x)))
        else:
            _multiply(room.up)
        return room.outputs

    # Backward.

    def backward(self, x: Tensor, by_outputs: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradient by each parameter to `into`, or add it: to the parameters themselves, for plain descent.

        Backpropagation is linear in the gradient by the outputs, so what that is scaled by scales all. Each weight is
        used for the last time before its own gradient is added.

        Args:
            x: the batch of the last training forward pass, (n, inputs).
            by_outputs: the gradient by its outputs, (members, classes, n).
            into: in the order of `parameters`.
            add: whether to add.
        """
        room, beta, left = self._room(len(x)), int(add), list(into)
        room.by_outputs.copy_(by_outputs)
        if room.down is None or room.by_weight is None:
            left.pop().flatten(0, 1).addmm_(room.by_outputs.flatten(0, 1), x, beta=beta)
            return
        _multiply(room.down)
        left.pop().baddbmm_(*room.by_weight, beta=beta)
        for layer, trace in zip(reversed(self.layers), reversed(room.traces), strict=True):
            self._back_through(layer, trace, left, add)
            if trace.down is None or trace.by_weight is None:
                by_sums = trace.by_sums.flatten(0, 1)
                left.pop().flatten(0, 1).addmm_(by_sums, self._seen_of(x), beta=beta)
            else:
                _multiply(trace.down)
                left.pop().baddbmm_(*trace.by_weight, beta=beta)

    def _back_through(self, layer: Layer, trace: LayerBuffers, left: list[Tensor], add: bool) -> None:
        """From the gradient by a layer's activations to the one by its sums."""
        if trace.ends is not None:
            _, dz, _, d_last = trace.ends
            dz.copy_(d_last)
        if layer.dropout is not None and trace.noise is not None:
            trace.dz.mul_(trace.noise[1])
        for activation, z, h, dz, _ in trace.runs:
            activation.backward(dz, h if activation.of_result else z)
        if trace.norm is not None:
            for gradient in reversed(trace.norm.backward()):
                target = left.pop()
                (target.add_ if add else target.copy_)(gradient)

    # Room.

    def _room(self, n: int) -> BatchBuffers:
        """For batches of that size; that of the two sizes before is kept: an epoch's usual one, and its last one."""
        if n not in self._rooms:
            while len(self._rooms) > 2:
                del self._rooms[next(iter(self._rooms))]
            self._rooms[n] = self._make_room(n)
        return self._rooms[n]

    def _make_room(self, n: int) -> BatchBuffers:
        count, like = len(self.networks), self.output
        outputs, by_outputs = like.new_zeros(2, count, self.classes, n)
        if not self.layers:
            return BatchBuffers([], outputs, by_outputs)
        last, d_last = self._space(count, self._widest + 1, n), self._space(count, self._widest, n)
        last[:, -1] = 1
        traces: list[LayerBuffers] = []
        for index in range(len(self.layers)):
            traces.append(self._make_trace(index, n, traces[-1] if traces else None, last, d_last))
        if self.layers[-1].count == count:
            last, d_last = traces[-1].h, traces[-1].dz
        up = _product(like, last, outputs)
        return BatchBuffers(
            traces,
            outputs,
            by_outputs,
            up,
            _product(like[..., : self._widest].mT, by_outputs, d_last),
            (by_outputs, last.mT),
        )

    def _space(self, count: int, width: int, n: int) -> Tensor:
        """Zeros (count, width, n). A few samples lie one after the other in memory.

        BLAS multiplies four of them by 50 x 50 weights in 0.6 us a member then, else in 2.8; from 16 on that is slower.
        """
        if n < FEW and not self._normed:
            return self.output.new_zeros(count, n, width).mT
        return self.output.new_zeros(count, width, n)

    def _make_trace(self, index: int, n: int, below: LayerBuffers | None, last: Tensor, d_last: Tensor) -> LayerBuffers:
        layer = self.layers[index]
        count, width, inputs = layer.weight.shape
        # The first layer's products are of all members at once.
        whole = layer.weight.new_zeros(2, count, width, n)
        sums, dz = (self._space(count, width, n), self._space(count, width, n)) if below else whole
        z, by_sums = (torch.zeros_like(sums), torch.zeros_like(dz)) if self._normed else (sums, dz)
        h = self._space(count, width + 1, n)
        h[:, -1] = 1
        units, noise = h[:, :width], None
        if layer.dropout is not None:
            bits = torch.empty(-(-sums.numel() // 4), dtype=torch.int64, device=sums.device)
            noise = bits, sums.new_empty(count, width, n), units
        runs = [
            (activation, z[part], units[part], dz[part], None if activation.keeps_zero else self._mask(index, part))
            for activation, part in self._runs(index, count)
        ]
        norm = None
        if layer.gamma is not None and layer.beta is not None:
            norm = BatchNorm(sums, z, dz, by_sums, layer.gamma, layer.beta, layer.mean, layer.variance)
        ends = self._ends(index, h, dz, last, d_last)
        trace = LayerBuffers(None, sums, z, h, dz, by_sums, runs, ends, noise, norm, None, None)
        if below is not None:
            source = below.h[:count, :inputs]
            trace.up = _product(layer.weight, source, sums)
            back = layer.weight[..., : self._widths[index - 1]].mT
            trace.down = _product(back, by_sums, below.dz[:count])
            trace.by_weight = by_sums, source.mT
        return trace

    def _ends(
        self, index: int, h: Tensor, dz: Tensor, last: Tensor, d_last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """See `LayerBuffers`; None where no member ends with that layer, or all do, and its own tensors are the
        last.
        """
        count = self.layers[index].count
        longer = self.layers[index + 1].count if index + 1 < len(self.layers) else 0
        if longer == count or self.layers[-1].count == len(self.networks):
            return None
        part, width = slice(longer, count), min(self._widths[index], self._widest)  # of those that end none is wider
        return h[part, :width], dz[part, :width], last[part, :width], d_last[part, :width]

    def _runs(self, index: int, count: int) -> Iterator[tuple[Activation, slice]]:
        """The activations of the first `count` members at that layer, and which of them have each."""
        start = 0
        for name, members in groupby(net.activations[index] for net in self.networks[:count]):
            stop = start + len(list(members))
            yield ACTIVATIONS[name], slice(start, stop)
            start = stop

    def _mask(self, index: int, part: slice) -> Tensor | None:
        """1 for the units that members have, 0 for those that pad them; None where none does, (members, width, 1)."""
        widths = torch.tensor([net.widths[index] for net in self.networks[part]]).view(-1, 1, 1)
        units = torch.arange(self._widths[index]).view(1, -1, 1) < widths
        return None if bool(units.all()) else units.to(self.output)

    # Its members, one by one.

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """A member's own part of tensors shaped as `parameters`, under the names of its module's parameters."""
        network, left, inputs, padded = self.networks[index], list(tensors), self.features, self.features
        found: dict[str, Tensor] = {}
        for position, (width, layer) in enumerate(zip(network.widths, self.layers, strict=False)):
            mine = [left.pop(0)[index, :width] for _ in layer.learned]
            found[f"{network.linear[position]}.weight"] = mine[0][:, :inputs]
            if self._normed:
                found[f"{network.norm[position]}.weight"] = mine[1][:, 0]
                found[f"{network.norm[position]}.bias"] = mine[2][:, 0]
            else:
                found[f"{network.linear[position]}.bias"] = mine[0][:, padded]
            inputs, padded = width, self._widths[position]
        output = tensors[-1][index]
        found[f"{network.linear[-1]}.weight"] = output[:, :inputs]
        found[f"{network.linear[-1]}.bias"] = output[:, self._widest if self.layers else self.features]
        return found

    def statistics(self, index: int) -> dict[str, Tensor]:
        """A member's part of the running statistics, under the names of its module's buffers."""
        found: dict[str, Tensor] = {}
        for name, width, layer in zip(
            self.networks[index].norm, self.networks[index].widths, self.layers, strict=False
        ):
            for kind, tensor in (("mean", layer.mean), ("var", layer.variance)):
                found[f"{name}.running_{kind}"] = tensor.view(layer.count, layer.width)[index, :width]
            found[f"{name}.num_batches_tracked"] = torch.tensor(self.tracked)
        return found
