"""Embeddings of a table's features for all members of a stack: categories by one gather, numbers by bins or waves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hpo.training.stacked.parts import Part, Pass, Rows
from hpo.training.tabular_models import FeatureEmbedding, PeriodicEmbedding, PiecewiseLinearEmbedding

__all__ = ["EmbeddingPart"]

aten: Any = torch.ops.aten


class EmbeddingPart(Part):
    """Embedding of categories, and of numbers where the members embed them; see `FeatureEmbedding`.

    Its parameters are those of the numbers' embedding, if any, then all vectors of all categories in one,
    (members, 1, numbers), table by table.
    """

    def __init__(self, name: str, module: FeatureEmbedding, count: int, like: Tensor) -> None:
        self.numbers = NumberPart(f"{name}.number_embedding", module, count, like)
        tables = [tuple(table.shape) for table in module.tables]
        self.width = self.numbers.width + sum(size for _, size in tables)
        self.parameters, self.names = [*self.numbers.parameters], [*self.numbers.names]
        self.shapes = {f"{name}.tables.{index}": shape for index, shape in enumerate(tables)}
        self.vectors = like.new_zeros(count, 1, sum(codes * size for codes, size in tables))
        if tables:
            self.parameters.append(self.vectors)
            self.names.append(list(self.shapes))
        # Of each row that the vectors fill: its category, the place of its number in the first vector, and their size.
        starts, rows, zeros = 0, list[tuple[int, int, int]](), list[int]()
        for category, (codes, size) in enumerate(tables):
            rows += [(category, starts + number, size) for number in range(size)]
            zeros += range(starts, starts + size)
            starts += codes * size
        whole = torch.tensor(rows, dtype=torch.int64, device=like.device).view(-1, 3)
        self.category, self.first, self.size = whole[:, 0].contiguous(), whole[:, 1:2], whole[:, 2:]
        self.zeros = torch.tensor(zeros, dtype=torch.int64, device=like.device)  # places of the vectors of code 0

    def make_pass(self, source: Rows | None, n: int) -> Pass:
        """Make the pass; see `Part`."""
        assert source is None
        h, d = (self.vectors.new_empty(len(self.vectors), self.width, n) for _ in range(2))
        return EmbeddingPass(self, Rows(h, d))

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        own = len(self.numbers.parameters)
        views = self.numbers.views(index, tensors[:own])
        if self.shapes:
            parts = torch.split(tensors[own][index, 0], [codes * size for codes, size in self.shapes.values()])
            views |= {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return views


class EmbeddingPass(Pass):
    """Embedding of a batch."""

    def __init__(self, part: EmbeddingPart, rows: Rows) -> None:
        self.rows, self._part = rows, part
        width = part.numbers.width
        self._numbers = part.numbers.make_pass(rows.h[:, :width], rows.d[:, :width])
        # (members, rows times samples) each, for one gather of all members.
        self._vectors = part.vectors.squeeze(1)
        self._embedded, self._by_embedded = rows.h[:, width:].flatten(1), rows.d[:, width:].flatten(1)
        self._places = part.category.new_empty(0)  # of each number in the vectors, (members, rows times samples)
        self._gradient = torch.empty_like(self._vectors)

    def forward(self, x: Tensor, *, train: bool) -> None:  # noqa: ARG002
        """Write the embeddings; see `Pass`."""
        part = self._part
        self._numbers.forward(x[..., : part.numbers.features].mT)
        if part.shapes:
            begin = part.numbers.features
            codes = x[..., begin : begin + len(part.shapes)].mT.to(torch.int64)
            places = codes.index_select(-2, part.category).mul_(part.size).add_(part.first)
            self._places = places.flatten(-2).expand(len(self._vectors), -1)
            torch.gather(self._vectors, 1, self._places, out=self._embedded)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradients by the parameters; see `Pass`. Vectors of code 0 have none."""
        part = self._part
        own = len(part.numbers.parameters)
        self._numbers.backward(x[..., : part.numbers.features].mT, into[:own], add=add)
        if part.shapes:
            gradient = self._gradient.zero_().scatter_add_(1, self._places, self._by_embedded)
            gradient.index_fill_(1, part.zeros, 0)
            (into[own].add_ if add else into[own].copy_)(gradient.unsqueeze(1))


class NumberPart:
    """Numbers of a table, as they are or embedded.

    Attributes:
        features: how many numbers.
        width: how many rows they fill.
        parameters, names: as `Part` has them: the frequencies of waves, if any, and the linear layers of all features,
            (members, features times (inputs + 1), outputs), whose biases are their last rows.
        bins: edges, least and most of the embedding's bins; None for waves and for numbers as they are.
    """

    def __init__(self, name: str, module: FeatureEmbedding, count: int, like: Tensor) -> None:
        self.features = self.width = module.numbers
        self.parameters, self.names = list[Tensor](), list[list[str]]()
        self.bins: tuple[Tensor, ...] | None = None
        embedding = module.number_embedding
        self.embedded = isinstance(embedding, PeriodicEmbedding | PiecewiseLinearEmbedding)
        if not isinstance(embedding, PeriodicEmbedding | PiecewiseLinearEmbedding):
            return
        _, self.inputs, self.outputs = embedding.linear.weight.shape
        self.width = self.features * self.outputs
        if isinstance(embedding, PeriodicEmbedding):
            self.parameters.append(like.new_zeros(count, *embedding.frequencies.shape))
            self.names.append([f"{name}.frequencies"])
        else:
            self.bins = tuple(each.to(like) for each in (embedding.edges, embedding.least, embedding.most))
        self.parameters.append(like.new_zeros(count, self.features * (self.inputs + 1), self.outputs))
        self.names.append([f"{name}.linear.weight", f"{name}.linear.bias"])

    def make_pass(self, h: Tensor, d: Tensor) -> NumberPass:
        """Make the pass that writes rows h (members, width, n) and reads the gradient d by them."""
        if not self.embedded:
            return NumberPass(h)
        return WavePass(self, h, d) if self.bins is None else BinPass(self, self.bins, h, d)

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors; see `Part`."""
        if not tensors:
            return {}
        *frequencies, linear = (tensor[index] for tensor in tensors)
        weight, bias = self.names[-1]
        by_feature = linear.view(self.features, self.inputs + 1, self.outputs)
        views = {weight: by_feature[:, :-1], bias: by_feature[:, -1:]}
        return views | dict(zip(self.names[0], frequencies, strict=False))


class NumberPass:
    """Numbers as they are, the same for all members."""

    def __init__(self, h: Tensor) -> None:
        self._h = h

    def forward(self, x: Tensor) -> None:
        """Write the rows of numbers x (features, n), or (members, features, n)."""
        self._h.copy_(x)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradients by the parameters x (features, n) has met: there are none."""


class EmbeddedNumberPass(NumberPass, ABC):
    """Numbers that are encoded, then go through a linear layer of their own feature and ReLU.

    The encoded numbers are (members times features, inputs + 1, n), the last of each ones.
    """

    def __init__(self, part: NumberPart, h: Tensor, d: Tensor) -> None:
        super().__init__(h)
        self._part, self._d = part, d
        members, n = len(h), h.shape[2]
        self._weight = self._by_feature(part.parameters[-1])
        self._encoded = h.new_ones(len(self._weight), part.inputs + 1, n)
        self._inputs = self._encoded.view(members, part.features, part.inputs + 1, n)[:, :, :-1]
        self._products = h.new_empty(len(self._weight), part.outputs, n)
        self._sums = self._products.view(h.shape)

    def _by_feature(self, tensor: Tensor) -> Tensor:
        return tensor.view(-1, self._part.inputs + 1, self._part.outputs)

    @abstractmethod
    def encode(self, x: Tensor) -> None:
        """Write the encoded numbers x (features, n)."""

    def forward(self, x: Tensor) -> None:
        """Write the embedded numbers; see `NumberPass`."""
        self.encode(x)
        torch.bmm(self._weight.mT, self._encoded, out=self._products)
        torch.clamp_min(self._sums, 0, out=self._h)

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradients; see `NumberPass`."""
        aten.threshold_backward.grad_input(self._d, self._h, 0, grad_input=self._sums)
        self._by_feature(into[-1]).baddbmm_(self._encoded, self._products.mT, beta=int(add))


class BinPass(EmbeddedNumberPass):
    """Numbers encoded by bins, the same for all members; see `PiecewiseLinearEmbedding`."""

    def __init__(self, part: NumberPart, bins: Sequence[Tensor], h: Tensor, d: Tensor) -> None:
        super().__init__(part, h, d)
        edges, *bounds = (each.view(-1, 1) for each in bins)
        self._low, self._width, self._bounds = edges[:-1], edges[1:] - edges[:-1], bounds

    def encode(self, x: Tensor) -> None:
        """Write the share of each bin that lies below the number."""
        shares = x.unsqueeze(-2).sub(self._low).div_(self._width)
        self._inputs.copy_(torch.clamp(shares, *self._bounds, out=shares))


class WavePass(EmbeddedNumberPass):
    """Numbers encoded by cosines and sines, each member at its own frequencies; see `PeriodicEmbedding`."""

    def __init__(self, part: NumberPart, h: Tensor, d: Tensor) -> None:
        super().__init__(part, h, d)
        self._frequencies = part.parameters[0].unsqueeze(3)
        self._cosines, self._sines = self._inputs.chunk(2, 2)

    def encode(self, x: Tensor) -> None:
        """Write the waves at the numbers."""
        angles = 2 * math.pi * self._frequencies * x.unsqueeze(-2)
        self._cosines.copy_(angles.cos())
        self._sines.copy_(angles.sin())

    def backward(self, x: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradients; see `NumberPass`."""
        weight = self._weight[:, :-1].clone() if add else self._weight[:, :-1]
        super().backward(x, into, add=add)
        by_cosines, by_sines = torch.bmm(weight, self._products).view(self._inputs.shape).chunk(2, 2)
        by_angles = torch.addcmul(by_sines * self._cosines, by_cosines, self._sines, value=-1)
        gradient = by_angles.mul_(x.unsqueeze(-2)).sum(3).mul_(2 * math.pi)
        (into[0].add_ if add else into[0].copy_)(gradient)
