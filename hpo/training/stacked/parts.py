"""Parts of stacked sequential modules: linear layers, activations, normalisation, dropout and residual blocks.

Everything is feature-major, as in `hpo.training.stacked.mlp`. A part holds the weights of all members; its passes hold
the buffers for one size of batch.

Computing a few members at a time, so that their activations stay in the processor's cache, loses more to the calls than
it gains: 25 models of tables in blocks of 4, 9 and 25 take 285, 235 and 210 us a step and model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.training.stacked.first_product import add_first_product, write_first_product
from hpo.training.stacked.layers import ACTIVATIONS, Activation, BatchNorm, Dropout
from hpo.training.stacked.noise import Noise

__all__ = ["ActivationPart", "DropoutPart", "LinearPart", "NormPart", "Part", "Pass", "ResidualPart", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Activations of all members for one size of batch, and the gradient by them.

    Attributes:
        h: the activations, (members, width, n).
        d: the gradient by them, which the next part's backward pass writes, and which the own one may overwrite.
        free: whether the next part may overwrite h, for no gradient needs it.
    """

    h: Tensor
    d: Tensor
    free: bool = False


class Pass(ABC):
    """Computation of a part for one size of batch.

    Attributes:
        rows: its results.
    """

    rows: Rows

    @abstractmethod
    def forward(self, x: Tensor, *, train: bool) -> None:
        """Write the activations; only a first part reads the batch x (n, inputs), or (members, n, inputs)."""

    @abstractmethod
    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradient by what the forward pass has read, then that by the part's parameters `into`, or add it.

        The order matters: for plain descent `into` are the parameters themselves.
        """


class Part(ABC):
    """Part of all members.

    Attributes:
        parameters: what training changes, (members, …, …) each.
        names: of a member's own parameters, as its module has them; of each of `parameters` one or more.
        normalised: whether it computes statistics of a batch.
    """

    parameters: Sequence[Tensor] = ()
    names: Sequence[Sequence[str]] = ()
    normalised = False

    @abstractmethod
    def make_pass(self, source: Rows | None, n: int) -> Pass:
        """Make the pass for batches of n samples.

        Args:
            source: what it reads; None for the batch.
            n: samples.
        """

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors shaped as `parameters`, by name."""
        return {name: tensor[index] for (name,), tensor in zip(self.names, tensors, strict=True)}

    def statistics(self, index: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return a member's running statistics, by name."""
        return {}


class LinearPart(Part):
    """Linear layer. The first one's biases are the last column of its weights, for a batch has a column of ones.

    Args:
        name: of the module.
        module: of the first member.
        count: members.
        like: a tensor of the weights' type and device.
        first: whether it reads the batch.
    """

    def __init__(self, name: str, module: nn.Linear, count: int, like: Tensor, *, first: bool) -> None:
        self.inputs, self.outputs = module.in_features, module.out_features
        self.joined = first and module.bias is not None
        self.weight = like.new_zeros(count, self.outputs, self.inputs + self.joined)
        self.bias = like.new_zeros(count, self.outputs, 1) if module.bias is not None and not self.joined else None
        self.parameters = [self.weight] if self.bias is None else [self.weight, self.bias]
        weight, bias = f"{name}.weight", f"{name}.bias"
        self.names = [[weight, bias]] if self.joined else [[weight], [bias]][: len(self.parameters)]

    def make_pass(self, source: Rows | None, n: int) -> Pass:
        """Make the pass; see `Part`."""
        h, d = (self.weight.new_empty(len(self.weight), self.outputs, n) for _ in range(2))
        rows = Rows(h, d, free=True)
        return FirstLinearPass(self, rows) if source is None else LinearPass(self, source, rows)

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        weight = tensors[0][index]
        views = {self.names[0][0]: weight[:, : self.inputs]}
        if self.joined:
            views[self.names[0][1]] = weight[:, -1]
        elif self.bias is not None:
            views[self.names[1][0]] = tensors[1][index, :, 0]
        return views


class LinearPass(Pass):
    """Products of each member's weights with its own inputs."""

    def __init__(self, part: LinearPart, source: Rows, rows: Rows) -> None:
        self.rows, self._source = rows, source
        self._weight, self._bias = part.weight, part.bias
        self._back, self._inputs = part.weight.mT, source.h.mT

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the sums; see `Pass`."""
        if self._bias is None:
            torch.bmm(self._weight, self._source.h, out=self.rows.h)
        else:
            torch.baddbmm(self._bias, self._weight, self._source.h, out=self.rows.h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradients; see `Pass`."""
        torch.bmm(self._back, self.rows.d, out=self._source.d)
        into[0].baddbmm_(self.rows.d, self._inputs, beta=int(add))
        if self._bias is not None:
            by_bias = self.rows.d.sum(2, keepdim=True)
            (into[1].add_ if add else into[1].copy_)(by_bias)


class FirstLinearPass(Pass):
    """One product of all members' weights with the batch that they share, or products with their own."""

    def __init__(self, part: LinearPart, rows: Rows) -> None:
        self.rows = rows
        self._weight = part.weight

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the sums; see `Pass`."""
        write_first_product(self._weight, x[..., : self._weight.shape[2]], self.rows.h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradient by the weights; see `Pass`."""
        add_first_product(into[0], self.rows.d, x[..., : self._weight.shape[2]], add=add)


class ActivationPart(Part):
    """Activation function; see `hpo.training.stacked.layers.ACTIVATIONS`."""

    def __init__(self, function: Activation) -> None:
        self.function = function

    def make_pass(self, source: Rows | None, n: int) -> Pass:  # noqa: ARG002
        """Make the pass; see `Part`."""
        assert source is not None
        over = source.free and self.function.of_result
        h = source.h if over else torch.empty_like(source.h)
        free = self.function.of_sign or not self.function.of_result
        return ActivationPass(self.function, source, Rows(h, source.d, free=free))


class ActivationPass(Pass):
    """Activation; the gradient by its inputs takes the place of the one by its results."""

    def __init__(self, function: Activation, source: Rows, rows: Rows) -> None:
        self.rows, self._function, self._z = rows, function, source.h

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the activations; see `Pass`."""
        self._function.forward(self._z, self.rows.h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradient; see `Pass`."""
        self._function.backward(self.rows.d, self.rows.h if self._function.of_result else self._z)


class DropoutPart(Part):
    """Dropout, each member with its own share, by the noise of all."""

    def __init__(self, shares: Sequence[float], noise: Noise, like: Tensor) -> None:
        self.dropout, self.noise = Dropout(shares, like), noise

    def make_pass(self, source: Rows | None, n: int) -> Pass:  # noqa: ARG002
        """Make the pass; see `Part`."""
        assert source is not None
        h = source.h if source.free else torch.empty_like(source.h)
        return DropoutPass(self, source, Rows(h, source.d))


class DropoutPass(Pass):
    """Dropout, in place where no gradient needs what it reads."""

    def __init__(self, part: DropoutPart, source: Rows, rows: Rows) -> None:
        self.rows, self._dropout, self._noise, self._source = rows, part.dropout, part.noise, source.h
        self._factors = torch.empty_like(rows.d)

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write what is kept; see `Pass`."""
        if train:
            self._dropout.draw(self._noise, self._factors)
            torch.mul(self._source, self._factors, out=self.rows.h)
        elif self.rows.h is not self._source:
            self.rows.h.copy_(self._source)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradient; see `Pass`."""
        self.rows.d.mul_(self._factors)


class NormPart(Part):
    """Batch normalisation; all members have seen equally many batches."""

    normalised = True

    def __init__(self, name: str, width: int, count: int, like: Tensor) -> None:
        self.gamma, self.beta = (like.new_zeros(count, width, 1) for _ in range(2))
        self.mean, self.variance = like.new_zeros(count * width), like.new_ones(count * width)
        self.parameters = [self.gamma, self.beta]
        self._name, self.names = name, [[f"{name}.weight"], [f"{name}.bias"]]

    def make_pass(self, source: Rows | None, n: int) -> Pass:  # noqa: ARG002
        """Make the pass; see `Part`."""
        assert source is not None
        return NormPass(self, source, Rows(torch.empty_like(source.h), torch.empty_like(source.d), free=True))

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        return {name: tensor[index, :, 0] for (name,), tensor in zip(self.names, tensors, strict=True)}

    def statistics(self, index: int) -> dict[str, Tensor]:
        """Return a member's running statistics; see `Part`."""
        mean, variance = (each.view(len(self.gamma), -1)[index] for each in (self.mean, self.variance))
        return {f"{self._name}.running_mean": mean, f"{self._name}.running_var": variance}


class NormPass(Pass):
    """Batch normalisation."""

    def __init__(self, part: NormPart, source: Rows, rows: Rows) -> None:
        self.rows = rows
        tensors = source.h, rows.h, rows.d, source.d
        self._norm = BatchNorm(*tensors, part.gamma, part.beta, part.mean, part.variance)

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the normalised rows; see `Pass`."""
        self._norm.forward(train=train)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradients; see `Pass`."""
        for target, gradient in zip(into, self._norm.backward(), strict=True):
            (target.add_ if add else target.copy_)(gradient)


class ResidualPart(Part):
    """Parts whose results are added to what they read. The first is a normalisation, the last linear or a dropout."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.normalised = any(part.normalised for part in parts)
        self.parameters = [each for part in parts for each in part.parameters]
        self.names = [each for part in parts for each in part.names]

    def make_pass(self, source: Rows | None, n: int) -> Pass:
        """Make the pass; see `Part`."""
        assert source is not None
        return ResidualPass(self, source, make_passes(self.parts, source, n))

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        return part_views(self.parts, index, tensors)

    def statistics(self, index: int) -> dict[str, Tensor]:
        """Return a member's running statistics; see `Part`."""
        return {name: each for part in self.parts for name, each in part.statistics(index).items()}


class ResidualPass(Pass):
    """Residual block; the sum takes the place of the last part's results, which no gradient needs."""

    def __init__(self, part: ResidualPart, source: Rows, passes: Sequence[Pass]) -> None:
        self.rows, self._source = passes[-1].rows, source
        self._passes, self._parts = passes, part.parts
        # A dropout's gradient takes the place of the one by the sum, which the shortcut needs.
        self._kept = torch.empty_like(self.rows.d) if isinstance(part.parts[-1], DropoutPart) else None

    def forward(self, x: Tensor, *, train: bool) -> None:
        """Write the sums; see `Pass`."""
        for each in self._passes:
            each.forward(x, train=train)
        self.rows.h.add_(self._source.h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradients; see `Pass`."""
        by_sum = self.rows.d if self._kept is None else self._kept.copy_(self.rows.d)
        backward_through(self._parts, self._passes, x, into, add=add)
        self._source.d.add_(by_sum)


def make_passes(parts: Sequence[Part], source: Rows | None, n: int) -> list[Pass]:
    """Make the passes of parts that follow each other."""
    passes: list[Pass] = []
    for part in parts:
        passes.append(part.make_pass(source, n))
        source = passes[-1].rows
    return passes


def backward_through(
    parts: Sequence[Part], passes: Sequence[Pass], x: Tensor, into: Sequence[Tensor], *, add: bool
) -> None:
    """Do the backward passes, the last one first, with all parts' gradients."""
    end = len(into)
    for part, each in zip(reversed(parts), reversed(passes), strict=True):
        begin = end - len(part.parameters)
        each.backward(x, into[begin:end], add=add)
        end = begin


def part_views(parts: Sequence[Part], index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return a member's views of tensors shaped as the parameters of all parts."""
    views: dict[str, Tensor] = {}
    begin = 0
    for part in parts:
        end = begin + len(part.parameters)
        views |= part.views(index, tensors[begin:end])
        begin = end
    return views


# Modules without weights, by how they look with their default settings.
ACTIVATION_PARTS: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.LeakyReLU: "leaky_relu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Softplus: "softplus",
    nn.SELU: "selu",
}


def find_activation(module: nn.Module) -> Activation | None:
    """Return the activation function of a module with torch's default settings; None for all others."""
    name = ACTIVATION_PARTS.get(type(module))
    return ACTIVATIONS[name] if name is not None and repr(module) == repr(type(module)()) else None
