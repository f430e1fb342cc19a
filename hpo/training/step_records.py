"""Records of an epoch's steps of a single model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["LossRecord", "OutputRecord"]


class OutputRecord:
    """Outputs, labels and weights of an epoch's steps, kept on the device.

    Loss and score are computed once, at the end of the epoch, so that no step waits for the device.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []  # outputs, labels and, where there are any, weights; each of as many samples
        self._sizes: list[int] = []  # of the steps
        self._samples = 0
        self._used = 0

    def begin(self, samples: int) -> None:
        """Start an epoch."""
        self._samples, self._used = samples, 0
        self._sizes.clear()

    def add(self, outputs: Tensor, y: Tensor, loss: Tensor | None = None, w: Tensor | None = None) -> None:  # noqa: ARG002
        """Copy a step's outputs (n, outputs), labels (n,) or (n, columns), and weights; the loss is for LossRecord."""
        given = [outputs, y] if w is None else [outputs, y, w]
        end = self._used + len(y)
        if not self._kept or end > len(self._kept[0]):
            self._grow(given, end)
        for kept, each in zip(self._kept, given, strict=True):
            kept[self._used : end] = each
        self._used = end
        self._sizes.append(len(y))

    def _grow(self, given: Sequence[Tensor], needed: int) -> None:
        """Make room for the epoch, or where its size is not known for twice what is needed."""
        size = self._samples if self._samples >= needed else 2 * needed
        old, self._kept = self._kept, [each.new_empty(size, *each.shape[1:]) for each in given]
        for before, kept in zip(old, self._kept, strict=False):
            kept[: self._used] = before[: self._used]

    def read(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the outputs (N, outputs), labels and weights of the epoch's steps."""
        outputs, y, *w = (each[: self._used] for each in self._kept)
        return outputs, y, w[0] if w else None

    def by_step(self) -> Iterator[tuple[Tensor, ...]]:
        """Return the outputs (n, outputs), labels and, where there are any, weights of each step."""
        return zip(*(torch.split(each[: self._used], self._sizes) for each in self._kept), strict=True)

    def state(self) -> list[Tensor] | None:
        """Return a copy of the epoch's outputs, labels, sizes of steps and weights so far; None before a first step."""
        if not self._used:
            return None
        outputs, y, *w = (each[: self._used].clone() for each in self._kept)
        return [outputs, y, torch.tensor(self._sizes), *w]

    def load(self, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`."""
        outputs, y, sizes, *w = state
        self.add(outputs, y, w=w[0] if w else None)
        self._sizes = sizes.tolist()


class LossRecord:
    """Mean losses of an epoch's steps, where outputs are too large to keep; no step waits for the device."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []

    def begin(self, samples: int) -> None:  # noqa: ARG002  as `OutputRecord` has it
        """Start an epoch."""
        self._losses, self._sizes = [], []

    def add(self, outputs: Tensor, y: Tensor, loss: Tensor, w: Tensor | None = None) -> None:  # noqa: ARG002
        """Add a step's mean loss over its samples, as many as labels."""
        self._losses.append(loss)
        self._sizes.append(len(y))

    def by_step(self) -> Tensor:
        """Return the losses, (steps,)."""
        return torch.stack(self._losses)

    def mean(self) -> float:
        """Return the mean over the samples of the steps."""
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        return float((self.by_step().double().cpu() * sizes).sum() / sizes.sum())

    def state(self) -> list[Tensor] | None:
        """Return the losses so far and the sizes of their steps, or None before the first step."""
        return [self.by_step(), torch.tensor(self._sizes)] if self._losses else None

    def load(self, state: Sequence[Tensor]) -> None:
        """Load what `state` returned."""
        self._losses, self._sizes = list(state[0]), state[1].tolist()
