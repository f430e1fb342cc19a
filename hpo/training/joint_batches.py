"""Batches of several data sets in memory at once, for members of a stack that have batches of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hpo.training.data import Data

__all__ = ["JointBatch", "joint_batches"]

# Samples, then labels and weights if any, each with a first dimension of streams; and the sizes of the streams' parts.
JointBatch = tuple[Tensor, Tensor, Tensor | None, list[int] | None]
BLOCK_BYTES = 2**20  # of samples that are gathered at a time: a call takes as long as copying some kilobytes


def joint_batches(parts: Sequence[Data], batch_size: int, epoch: int) -> Iterator[JointBatch]:
    """Yield the batches of an epoch, of all parts at a time: x (parts, n, *shape), y, weights and sizes.

    Each part's are those that it gives by itself. Where the last ones are of unequal sizes, the shorter ones are filled
    up with their last sample, and sizes has what is theirs; else it is None.

    Args:
        parts: with samples in memory, of one shape; each of as many steps as the others.
        batch_size: of all of them.
        epoch: from 1.
    """
    steps, samples = parts[0].steps(batch_size), [len(part.y_train) for part in parts]
    longest = min(max(samples), steps * batch_size)
    sizes_of_last = [part.last_batch(batch_size) for part in parts]
    last = None if len(set(sizes_of_last)) == 1 else sizes_of_last
    orders = torch.stack([_fill_up(part.order(epoch), longest) for part in parts])
    size = parts[0].x_train[0].nbytes * batch_size * len(parts)
    block = max(1, BLOCK_BYTES // max(1, size))  # steps
    for first in range(0, steps, block):
        index = orders[:, first * batch_size : (first + block) * batch_size]
        x, y = _gather([part.x_train for part in parts], index), _gather([part.y_train for part in parts], index)
        weights = [part.weights for part in parts if part.weights is not None]
        w = _gather(weights, index) if weights else None
        for step in range(first, min(first + block, steps)):
            places = slice((step - first) * batch_size, (step - first + 1) * batch_size)
            sizes = last if step == steps - 1 else None
            _augment(parts, x[:, places], sizes, epoch, step)
            yield x[:, places], y[:, places], None if w is None else w[:, places], sizes


def _augment(parts: Sequence[Data], x: Tensor, sizes: list[int] | None, epoch: int, step: int) -> None:
    """Change those of the samples x (parts, n, …) in place that are of parts with an augmentation, but for filling."""
    for number, part in enumerate(parts):
        if part.augmentation is not None:
            own = x[number, : sizes[number]] if sizes else x[number]
            own.copy_(part.augmentation(own, part.seed, epoch, step))


def _fill_up(order: Tensor, size: int) -> Tensor:
    """Return that many numbers of an order, its last one as often as some are missing."""
    return torch.cat([order[:size], order[-1:].expand(max(0, size - len(order)))])


def _gather(tensors: Sequence[Tensor], index: Tensor) -> Tensor:
    """Return what index (parts, n) chooses from the tensor of each part: (parts, n, …)."""
    first = tensors[0]
    if all(tensor is first for tensor in tensors):
        return first.index_select(0, index.flatten()).view(*index.shape, *first.shape[1:])
    gathered = first.new_empty(*index.shape, *first.shape[1:])
    for tensor, own, out in zip(tensors, index, gathered, strict=True):
        torch.index_select(tensor, 0, own, out=out)
    return gathered
