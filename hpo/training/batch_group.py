"""Groups of batches, along whose mean gradient the optimizer does one step."""

from __future__ import annotations

from torch import Tensor

from hpo.config.trial_config import TrialConfig

__all__ = ["BatchGroup"]


class BatchGroup:
    """Group of `gradient_accumulation` batches, or of those that are left at the end of an epoch.

    Every sample weighs the same: the step is that of one batch of all of them, but for normalisation over batches. Mean
    gradients of batches are added, each multiplied by its `share` of a whole group; the sum of a smaller group is then
    multiplied by its `correction`.

    Args:
        config: with `gradient_accumulation` and `batch_size`.
    """

    def __init__(self, config: TrialConfig) -> None:
        self._batches = config.batches_per_step
        self._whole = self._batches * config.batch_size
        self._count = 0
        self._samples: int | Tensor = 0

    @property
    def begun(self) -> bool:
        """True if it has a batch."""
        return self._count > 0

    @property
    def whole(self) -> bool:
        """True if it has all its batches."""
        return self._count == self._batches

    def share(self, samples: int) -> float:
        """Return the share of a batch of so many samples in a whole group."""
        return samples / self._whole

    def add(self, samples: int | Tensor) -> None:
        """Count a batch of so many samples: one number, or that of each member of a stack, (members, 1, 1)."""
        self._count += 1
        self._samples = self._samples + samples

    @property
    def correction(self) -> float | Tensor:
        """Factor from the sum of gradients to their mean over the samples; 1 of a whole group of whole batches."""
        return self._whole / self._samples

    def clear(self) -> None:
        """Begin the next group."""
        self._count, self._samples = 0, 0
