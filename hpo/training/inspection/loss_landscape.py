"""Loss landscape of a trained model, on a plane through its weights.

Li et al., "Visualizing the Loss Landscape of Neural Nets" (NeurIPS 2018): two random directions, each filter of a
direction scaled to the norm of the same filter of the model, so that a step of 1 is a change as large as the weights
themselves whatever their scale. Biases and the parameters of normalisations stay as they are, and so do the running
statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from hpo.training.losses import LossFunction

__all__ = ["POINTS", "Landscape", "compute_landscape", "random_directions"]

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Tensor]
POINTS = 25  # along each direction; an odd number has the model itself in the middle
# Samples per forward pass: 500 take the CNN 32-64 50 ms on 2 cores, and 85 ms all at once; an MLP does not mind.
PART = 128
PURPOSE = 3  # of the random stream: initial weights are drawn from the same seed, and must not be a direction


@dataclass(frozen=True)
class Landscape:
    """Loss and accuracy on a plane through a model's weights.

    Attributes:
        steps: (n,), along each direction; 0, in the middle, is the model itself.
        losses: (n, n), mean loss at weights + steps[i] * second + steps[j] * first; not finite where it overflows.
        accuracies: (n, n), the share of samples that is right.
        samples: how many were evaluated.
    """

    steps: Array
    losses: Array
    accuracies: Array
    samples: int


@torch.no_grad()
def compute_landscape(
    model: nn.Module, loss: LossFunction, x: Tensor, y: Tensor, seed: int, points: int = POINTS
) -> Landscape:
    """Measure the loss of a model on a grid from -1 to 1 in two directions.

    Args:
        model: trained; it is left unchanged, but in evaluation mode.
        loss: the mean loss of outputs (n, classes) against labels (n,).
        x: samples, (n, *shape), on the device of the model.
        y: labels, (n,).
        seed: decides the directions.
        points: along each direction.
    """
    model.eval()
    first, second = random_directions(model, seed)
    steps = np.linspace(-1, 1, points)
    values = np.empty((points, points, 2), dtype=np.float32)
    weights = {name: weight.detach() for name, weight in model.named_parameters() if name in first}
    for i, up in enumerate(steps):
        row = _move(weights, second, up)
        for j, across in enumerate(steps):
            values[i, j] = _evaluate(model, _move(row, first, across), loss, x, y)
    return Landscape(steps.astype(np.float32), values[..., 0], values[..., 1], len(y))


def random_directions(model: nn.Module, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draw two random directions by parameter's name, filter-normalised; without the biases and normalisations.

    A filter holds the incoming weights of one unit: a row of a linear layer, a filter of a convolution. Both directions
    are drawn on the CPU, the same for every device.
    """
    rng = np.random.default_rng([seed, PURPOSE])
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.ndim > 1}
    first, second = ({name: _draw_like(weight, rng) for name, weight in weights.items()} for _ in range(2))
    return first, second


def _draw_like(weight: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a random tensor whose filters have the norms of the weight's."""
    drawn = torch.empty_like(weight).copy_(torch.from_numpy(rng.standard_normal(tuple(weight.shape), np.float32)))
    scale = _filter_norms(weight) / _filter_norms(drawn).clamp_min(torch.finfo(drawn.dtype).tiny)
    return drawn.mul_(scale)


def _filter_norms(weight: Tensor) -> Tensor:
    norms: Tensor = weight.flatten(1).norm(dim=1)
    return norms.view(-1, *(1,) * (weight.ndim - 1))


def _move(weights: Weights, direction: Weights, step: float) -> dict[str, Tensor]:
    return {name: torch.add(weight, direction[name], alpha=float(step)) for name, weight in weights.items()}


def _evaluate(model: nn.Module, weights: Weights, loss: LossFunction, x: Tensor, y: Tensor) -> tuple[float, float]:
    outputs = torch.cat([functional_call(model, dict(weights), (part,)) for part in torch.split(x, PART)])
    return loss(outputs, y).item(), (outputs.argmax(1) == y).float().mean().item()
