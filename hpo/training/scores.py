"""Scores beside the loss: sums over samples, from which accuracy and R² follow."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TargetMoments", "count_right_labels", "r2_score", "sum_squared_errors"]

CHUNK = 65536  # samples whose errors are computed at once in float64


class TargetMoments:
    """Number, means and sums of squared deviations of targets, in float64, gathered a part at a time.

    Members with samples of their own have moments of their own, in a first dimension of all tensors.

    Parts are joined as Chan, Golub and LeVeque (1983) do it: no large sums are subtracted from each other.

    Args:
        like: samples (n, targets) or (members, n, targets), on the device where the sums are kept.

    Attributes:
        count: the number of samples, of all or (members, 1).
        mean: of each target, (targets,) or (members, targets).
        deviations: the sum of squared deviations from it.
    """

    def __init__(self, like: Tensor) -> None:
        self.count: int | Tensor = 0
        shape = *like.shape[:-2], like.shape[-1]
        self.mean = torch.zeros(shape, dtype=torch.float64, device=like.device)
        self.deviations = torch.zeros_like(self.mean)

    @classmethod
    def of(cls, y: Tensor) -> TargetMoments:
        """Return the moments of targets (N, targets)."""
        moments = cls(y)
        for part in torch.split(y, CHUNK):
            moments.add(part)
        return moments

    def add(self, y: Tensor, valid: Tensor | None = None) -> None:
        """Add samples (n, targets) or (members, n, targets); of each member those that are `valid`, (members, n)."""
        part = y.double()
        n: int | Tensor = y.shape[-2]
        if valid is None:
            mean = part.mean(-2)
            deviations = (part - mean.unsqueeze(-2)).square().sum(-2)
        else:
            counted = valid.unsqueeze(-1).double()
            n = counted.sum(-2)
            mean = (part * counted).sum(-2) / n
            deviations = ((part - mean.unsqueeze(-2)).square() * counted).sum(-2)
        total = self.count + n
        between = mean - self.mean
        self.deviations = self.deviations + deviations + between.square() * (self.count * n / total)
        self.mean = self.mean + between * (n / total)
        self.count = total

    def state(self, member: int) -> Tensor:
        """Return the moments of a member, whose samples all may share, as one tensor (3, targets)."""
        own = member if self.mean.ndim > 1 else ...
        mean, deviations = self.mean[own], self.deviations[own]
        count = self.count[member] if isinstance(self.count, Tensor) else torch.tensor(self.count).to(mean)
        return torch.stack([count.expand_as(mean), mean, deviations])

    def load(self, member: int, state: Tensor) -> None:
        """Load what `state` returned; all members have seen as many samples."""
        own = member if self.mean.ndim > 1 else ...
        count, self.mean[own], self.deviations[own] = state.to(self.mean)
        self.count = int(count[0])


def sum_squared_errors(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the sums over samples of (outputs - target)^2 in float64, (…, targets).

    Args:
        outputs: (…, targets, N).
        target: (targets, N).
    """
    parts = zip(torch.split(outputs, CHUNK, -1), torch.split(target, CHUNK, -1), strict=True)
    return torch.stack([(out.double() - part.double()).square_().sum(-1) for out, part in parts]).sum(0)


def r2_score(errors: Tensor, deviations: Tensor) -> Tensor:
    """Return the mean over targets of 1 - errors / deviations, sums of squares, each (…, targets) or (targets,).

    Of a target that is the same for all samples it is 1 where there is no error and else 0, as scikit-learn has it.
    """
    constant = (errors == 0).double()
    varied = 1 - errors / deviations.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(deviations > 0, varied, constant).mean(-1)


def count_right_labels(outputs: Tensor, y: Tensor) -> Tensor:
    """Count the labels that are right at probability 0.5: outputs (…, L, n) or (n, L), before the sigmoid, as y is."""
    return ((outputs > 0) == (y > 0.5)).sum((-2, -1))
