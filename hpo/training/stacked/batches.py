"""Batches of stacks: padded samples, which all members share, or the choice of each member's among several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hpo.training.device import send_numbers
from hpo.training.stacked.mlp import batch_width

__all__ = ["BatchChoice", "Feed", "PaddedSamples", "StackBatch"]


@dataclass(frozen=True)
class Feed:
    """Batches of a member in an epoch.

    Attributes:
        stream: number of its batches among those of all members; members that share their batches have the same.
        last: how many samples the last batch of an epoch has.
    """

    stream: int
    last: int


class StackBatch(NamedTuple):
    """Batch of several streams, or of one that all members share; the dimension of the streams is then left out.

    Attributes:
        x: padded samples, (streams, n, width).
        y: classes (streams, n), labels or targets (streams, n, columns).
        target: what gradients need of them, (streams, outputs, n).
        w: weights, as many as samples or as numbers in y.
        sizes: of each stream, how many of the n samples are its own; the others fill up. None where all are.
        valid: which of the samples count, (members, n); None where all do.
        shape: of a sample, where it is another than that of the data: of a batch of sequences as long as its longest.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    w: Tensor | None = None
    sizes: Sequence[int] | None = None
    valid: Tensor | None = None
    shape: tuple[int, ...] | None = None

    @property
    def counts(self) -> int | Tensor:
        """Number of samples that count: one for all, or (members, 1, 1)."""
        return self.x.shape[-2] if self.valid is None else self.valid.sum(1).view(-1, 1, 1)


class PaddedSamples:
    """Memory of batches as stacks read them: features, a one, and zeros.

    Args:
        shape: of a sample.
        like: a tensor of the samples' type and device.
        places: how many batches are kept at a time.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor, places: int) -> None:
        self._dimensions, self._features, self._places = len(shape), math.prod(shape), places
        self._like = like
        self._memory: dict[tuple[int, ...], Tensor] = {}  # by what is before the samples' dimension
        self._views: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}  # making one takes as long as a small copy

    def pad(self, x: Tensor, place: int = 0) -> Tensor:
        """Return samples (…, n, *shape) padded, (…, n, width). Batches at one place share memory."""
        *streams, n, _ = (flat := x.flatten(x.ndim - self._dimensions)).shape
        batch, features = self._find_views(tuple(streams), n, place)
        if flat.data_ptr() != features.data_ptr():  # else they lie there already; see `room`
            features.copy_(flat)
        return batch

    def room(self, n: int, place: int = 0) -> Tensor:
        """Return memory for n samples (n, features), from which `pad` need not copy them."""
        return self._find_views((), n, place)[1]

    def _find_views(self, streams: tuple[int, ...], n: int, place: int) -> tuple[Tensor, Tensor]:
        """Return a batch (*streams, n, width), and its part for the features."""
        key = *streams, n, place
        if key not in self._views:
            batch = self._make_room(streams, n)[place, ..., :n, :]
            self._views[key] = batch, batch[..., : self._features]
        return self._views[key]

    def _make_room(self, streams: tuple[int, ...], n: int) -> Tensor:
        """Return memory of all places for n samples of each stream, (places, *streams, n or more, width)."""
        memory = self._memory.get(streams)
        if memory is None or memory.shape[-2] < n:
            memory = self._like.new_zeros(self._places, *streams, n, batch_width(self._features))
            memory[..., self._features] = 1
            self._memory[streams] = memory
            self._views.clear()
        return memory


class BatchChoice:
    """Choice of a stack's batches among those of all streams.

    Args:
        positions: of each member's stream among those in a batch; None where batches have no streams.
        device: where the batches are.

    Attributes:
        own: whether each member gets a batch of its own.
    """

    def __init__(self, positions: Sequence[int] | None, device: torch.device) -> None:
        self._positions = list(positions or [])
        self.own = len(set(self._positions)) > 1
        self._ascend = self._positions == list(range(len(self._positions)))
        self._index = torch.tensor(self._positions, dtype=torch.int64, device=device)

    def choose(self, batch: StackBatch) -> StackBatch:
        """Return the batch of the stack: with one for each member, or one that they share."""
        if not self._positions or (batch.sizes is None and self._is_whole(batch)):
            return batch
        n, valid = batch.x.shape[1], None
        if batch.sizes is not None:
            sizes = [batch.sizes[position] for position in self._positions]
            n = max(sizes)
            if min(sizes) < n:
                own = send_numbers(sizes, torch.int64, self._index.device)
                valid = torch.arange(n, device=self._index.device) < own[:, None]
        x, y, target = (self._pick(each) for each in (batch.x[:, :n], batch.y[:, :n], batch.target[..., :n]))
        return StackBatch(x, y, target, None if batch.w is None else self._pick(batch.w[:, :n]), valid=valid)

    def _pick(self, streams: Tensor) -> Tensor:
        if not self.own:
            return streams[self._positions[0]]
        return streams.index_select(0, self._index)

    def _is_whole(self, batch: StackBatch) -> bool:
        """Return whether the members get all streams, each one."""
        return self.own and self._ascend and batch.x.shape[0] == len(self._positions)
