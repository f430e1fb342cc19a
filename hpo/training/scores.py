"""Scores beside the loss: sums over samples, from which accuracy and R² follow."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TargetMoments", "count_right_labels", "r2_score", "sum_squared_errors"]

CHUNK = 65536  # samples whose errors are computed at once in float64


class TargetMoments:
    """Number, means and sums of squared deviations of targets, in float64, gathered a part at a time.

    Parts are joined as Chan, Golub and LeVeque (1983) do it: no large sums are subtracted from each other.

    Args:
        targets: how many each sample has.
        device: where the sums are.

    Attributes:
        count: the number of samples.
        mean: of each target, (targets,).
        deviations: the sum of squared deviations from it, (targets,).
    """

    def __init__(self, targets: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(targets, dtype=torch.float64, device=device)
        self.deviations = torch.zeros_like(self.mean)

    @classmethod
    def of(cls, y: Tensor) -> TargetMoments:
        """Return the moments of targets (N, targets)."""
        moments = cls(y.shape[1], y.device)
        for part in torch.split(y, CHUNK):
            moments.add(part)
        return moments

    def add(self, y: Tensor) -> None:
        """Add samples (n, targets)."""
        part = y.double()
        mean = part.mean(0)
        n, total = len(y), self.count + len(y)
        between = mean - self.mean
        self.deviations = self.deviations + (part - mean).square().sum(0) + between.square() * (self.count * n / total)
        self.mean = self.mean + between * (n / total)
        self.count = total

    def state(self) -> Tensor:
        """Return the moments as one tensor, (3, targets)."""
        return torch.stack([torch.full_like(self.mean, self.count), self.mean, self.deviations])

    def load(self, state: Tensor) -> None:
        """Load what `state` returned."""
        count, self.mean, self.deviations = state.to(self.mean)
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
    """Return the mean over targets of 1 - errors / deviations, which are sums of squares (…, targets) and (targets,).

    Of a target that is the same for all samples it is 1 where there is no error and else 0, as scikit-learn has it.
    """
    constant = (errors == 0).double()
    varied = 1 - errors / deviations.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(deviations > 0, varied, constant).mean(-1)


def count_right_labels(outputs: Tensor, y: Tensor) -> Tensor:
    """Count the labels that are right at probability 0.5: outputs (…, L, n) or (n, L), before the sigmoid, as y is."""
    return ((outputs > 0) == (y > 0.5)).sum((-2, -1))
