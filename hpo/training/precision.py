"""Mixed precision: forward passes in 16 bits, weights and outputs in 32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpo.config.trial_config import TrialConfig

__all__ = ["Precision", "compute_type"]


def compute_type(config: TrialConfig) -> torch.dtype | None:
    """Return the type of a model's products as its `precision` says, where it uses that; None for its weights' own."""
    name = str(config.effective().get("precision", "float32"))
    found: torch.dtype | None = None if name == "float32" else getattr(torch, name)
    return found


class Precision:
    """Precision of a model of the user's own, as its parameter `precision` says, where it uses that.

    The 16-bit types are torch's autocast: products in 16 bits, sums and weights in 32. Under `float16`, whose smallest
    number is 6e-8, losses are scaled so that gradients do not vanish (Micikevicius et al., "Mixed Precision Training",
    ICLR 2018); a step whose gradients overflow is left out, and the scale halved.

    Args:
        config: whose `precision` decides.
        device: where the model is.
    """

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        self._type = compute_type(config)
        self._device = device.type
        self._scaler = torch.amp.GradScaler(device.type) if self._type is torch.float16 else None

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return the outputs for samples x (n, *shape), in float32."""
        if self._type is None:
            outputs: Tensor = module(x)
            return outputs
        with torch.autocast(self._device, self._type):
            outputs = module(x)
        return outputs.float()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients, scaled where the precision asks for it."""
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer, clip: Callable[[], object] | None) -> None:
        """Do a step of the optimizer, along gradients that `clip` has shortened."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        if clip is not None:
            clip()
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    def state(self) -> dict[str, Any] | None:
        """Return the scaler's state for a checkpoint, or None where there is no scaler."""
        return None if self._scaler is None else self._scaler.state_dict()

    def load(self, state: dict[str, Any] | None) -> None:
        """Load the state that `state` returned."""
        if self._scaler is not None and state is not None:
            self._scaler.load_state_dict(state)
