"""A residual network on pictures of CIFAR's shape: `hpo launch ./resnet.toml --import resnet --workers 2`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import hpo
from hpo.datasets import mnist


class Residual(nn.Module):
    """Two convolutions beside a short cut (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [[nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)] for _ in range(2)]
        self.layers = nn.Sequential(*layers[0], nn.ReLU(), *layers[1])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


def shifted(x: Tensor, _config: hpo.TrialConfig) -> Tensor:
    """The batch, moved by up to two pixels."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return x.roll((down, right), (2, 3))


@hpo.model("resnet", uses=["channels", "conv_layers", "precision"], augment=shifted)
def resnet(config: hpo.TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A convolution, `conv_layers` residual blocks of `channels` channels, and a dense layer."""
    first = [nn.Conv2d(shape[0], config.channels, 3, stride=2, padding=1), nn.ReLU()]
    blocks = [Residual(config.channels) for _ in range(config.conv_layers)]
    last = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * config.channels, classes)]
    return nn.Sequential(*first, *blocks, *last)


@hpo.dataset("coloured_digits")
def coloured_digits() -> hpo.Dataset:
    """2,000 of MNIST's digits in colours, 32 x 32 x 3."""

    def coloured(part: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
        grey = np.pad(part[0][:count], ((0, 0), (2, 2), (2, 2)))[..., None]
        tints = np.random.default_rng(0).integers(64, 256, (count, 1, 1, 3))
        return (grey * tints // 255).astype(np.uint8), part[1][:count]

    digits = mnist()
    return hpo.Dataset(train=coloured(digits.train, 2000), test=lambda: coloured(digits.test(), 1000))
