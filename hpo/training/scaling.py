"""Scaling of samples and targets by statistics of the training part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Scaling"]

Array = np.ndarray[Any, Any]
CHUNK = 1024  # samples converted at once: the peak of memory stays near the size of the result


@dataclass(frozen=True)
class Scaling:
    """x -> (x - shift) / scale, one pair per channel of an image or per feature."""

    shift: Array
    scale: Array

    def apply(self, x: Array, index: Array | None = None) -> Tensor:
        """Return the samples `index` (by default all) of x, shape (N, channels or features, …), scaled to float32."""
        size = len(x) if index is None else len(index)
        scaled = np.empty((size, *x.shape[1:]), dtype=np.float32)
        shift, scale = (_over_channels(value, x.ndim).astype(np.float32) for value in (self.shift, self.scale))
        for i in range(0, size, CHUNK):
            rows = slice(i, i + CHUNK)
            np.subtract(x[rows] if index is None else x[index[rows]], shift, out=scaled[rows], dtype=np.float32)
            scaled[rows] /= scale
        return torch.from_numpy(scaled)

    @classmethod
    def fit(cls, kind: str, x: Array, index: Array) -> Scaling:
        """Fit the scaling `input_scaling` of that kind to the samples `index` of x.

        `standard` has mean 0 and deviation 1, `unit` runs from 0 to 1 and `symmetric` from -1 to 1. The range of
        uint8 is 0 to 255 whatever the samples hold; other numbers have their own.
        """
        if kind == "standard":
            shift, scale = _moments(x, index)
        else:
            low, high = _byte_range(x.shape[1]) if x.dtype == np.uint8 else _range(x, index)
            shift, scale = (low, high - low) if kind == "unit" else ((low + high) / 2, (high - low) / 2)
        return cls(shift, np.where(scale > 0, scale, 1.0))


def _over_channels(values: Array, dimensions: int) -> Array:
    shaped: Array = values.reshape(1, -1, *(1,) * (dimensions - 2))
    return shaped


def _chunks(x: Array, index: Array) -> Iterator[Array]:
    """Yield the samples in float64, a few at a time, shape (n, channels or features, rest)."""
    for i in range(0, len(index), CHUNK):
        rows = x[index[i : i + CHUNK]]
        yield rows.reshape(len(rows), x.shape[1], -1).astype(np.float64)


def _moments(x: Array, index: Array) -> tuple[Array, Array]:
    count = len(index) * int(np.prod(x.shape[2:]))
    mean = sum(chunk.sum((0, 2)) for chunk in _chunks(x, index)) / count
    centre = _over_channels(np.asarray(mean), 3)
    variance = sum(((chunk - centre) ** 2).sum((0, 2)) for chunk in _chunks(x, index)) / count
    return np.asarray(mean), np.sqrt(variance)


def _byte_range(channels: int) -> tuple[Array, Array]:
    return np.zeros(channels), np.full(channels, 255.0)


def _range(x: Array, index: Array) -> tuple[Array, Array]:
    lows, highs = zip(*((chunk.min((0, 2)), chunk.max((0, 2))) for chunk in _chunks(x, index)), strict=True)
    return np.min(lows, 0), np.max(highs, 0)
