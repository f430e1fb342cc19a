"""Layers that the built-in models share: normalisation, activation and dropout, as a configuration has them."""

from __future__ import annotations

from torch import nn

from hpo.config import registry
from hpo.config.choices import ACTIVATIONS
from hpo.config.trial_config import TrialConfig

__all__ = ["make_activation", "make_dropout", "make_image_norm", "make_norm"]


def make_activation(config: TrialConfig) -> nn.Module:
    """Return an activation of its own, for one may have weights."""
    layer: nn.Module = registry.resolve(ACTIVATIONS[config.activation])()
    return layer


def make_dropout(config: TrialConfig) -> nn.Module:
    """Return the dropout of hidden units behind their activation.

    Behind SELU it is alpha dropout, which keeps their mean and variance (Klambauer et al., "Self-normalizing neural
    networks", NeurIPS 2017).
    """
    return nn.AlphaDropout(config.dropout) if config.activation == "selu" else nn.Dropout(config.dropout)


def make_norm(config: TrialConfig, width: int) -> list[nn.Module]:
    """Return the normalisation of so many units, (n, width), if there is any."""
    if config.batch_norm:
        return [nn.BatchNorm1d(width)]
    return [nn.LayerNorm(width)] if config.layer_norm else []


def make_image_norm(config: TrialConfig, channels: int) -> list[nn.Module]:
    """Return the normalisation of images (n, channels, H, W), if there is any.

    Layer normalisation is that of Ba, Kiros and Hinton (2016): over all units of the layer, with a scale and a shift
    for each channel, which is group normalisation in one group.
    """
    if config.batch_norm:
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(1, channels)] if config.layer_norm else []
