"""Torch optimizers of single models, and the learning rates of their layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hpo.config import registry
from hpo.config.choices import OPTIMIZERS
from hpo.config.trial_config import TrialConfig

__all__ = ["layer_rate_factors", "make_optimizer", "weight_layers"]

# A fused CPU kernel updates all of a parameter at once. Measured on 2 cores, batch 128, per step, MLP 512-256:
# adam 4.4 to 2.7 ms, plain sgd 2.4 to 2.3 ms; sgd with momentum does not gain (3.5 to 3.9 ms).
FUSED = {"torch.optim.Adam", "torch.optim.AdamW"}


def weight_layers(module: nn.Module) -> list[list[nn.Parameter]]:
    """Return a model's parameters by layer; each layer begins with a module whose weights have two or more dimensions.

    Layers are in the order in which the model registers its modules; weights that two share belong to the first one.
    """
    layers: list[list[nn.Parameter]] = []
    seen = set[nn.Parameter]()
    for part in module.modules():
        new = [each for each in part.parameters(recurse=False) if each.requires_grad and each not in seen]
        seen.update(new)
        if new and (not layers or any(parameter.ndim > 1 for parameter in new)):
            layers.append([])
        if new:
            layers[-1] += new
    return layers


def layer_rate_factors(config: TrialConfig, layers: int) -> list[float]:
    """Return the learning rate of each of so many layers, as a multiple of the output layer's.

    Clark et al., "ELECTRA" (ICLR 2020), and Howard and Ruder, "ULMFiT" (ACL 2018), make it smaller from layer to layer
    towards the input; a `layer_learning_rate_decay` above 1 makes it larger.
    """
    return [config.layer_learning_rate_decay ** (layers - 1 - layer) for layer in range(layers)]


def make_optimizer(config: TrialConfig, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Return the torch optimizer of a configuration, for parameters, or groups of them."""
    choice = OPTIMIZERS[config.optimizer]
    keywords: dict[str, Any] = {name: _argument(config, source) for name, source in choice.arguments.items()}
    keywords |= choice.fixed
    if keywords.get("nesterov") and not config.momentum:
        keywords["nesterov"] = False  # torch refuses it without momentum, where it is plain SGD anyway
    if choice.target in FUSED:
        keywords["fused"] = True
    optimizer: torch.optim.Optimizer = registry.resolve(choice.target)(parameters, **keywords)
    return optimizer


def _argument(config: TrialConfig, source: str | tuple[str, ...]) -> Any:
    return getattr(config, source) if isinstance(source, str) else tuple(getattr(config, name) for name in source)
