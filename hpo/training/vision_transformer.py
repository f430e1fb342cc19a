"""Small vision transformer: patches of an image as tokens, blocks of attention, and the mean of the tokens.

Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), with the mean in place of a token of its own for the
class, as Beyer, Zhai and Kolesnikov, "Better plain ViT baselines for ImageNet-1k" (2022), have it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.config.image_size import check_image
from hpo.config.trial_config import TrialConfig
from hpo.training.layers import make_activation, make_dropout

__all__ = ["SelfAttention", "TransformerBlock", "VisionTransformer", "vit"]

DEVIATION = 0.02  # of the first position embeddings


class SelfAttention(nn.Module):
    """Attention of several heads of tokens to each other (Vaswani et al., 2017).

    It computes what `nn.MultiheadAttention` does, of linear layers that are initialised, looked into and stacked as all
    others are, and the same in training and evaluation.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.values = nn.Linear(width, width), nn.Linear(width, width)
        # A bias would shift all scores of a query alike, which softmax takes away: Adam would follow rounding noise.
        self.keys = nn.Linear(width, width, bias=False)
        self.outputs = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (n, tokens, width) of tokens of that shape."""
        by_head = (
            each(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.queries, self.keys, self.values)
        )
        mixed = F.scaled_dot_product_attention(*by_head)  # (n, heads, tokens, width / heads)
        outputs: Tensor = self.outputs(mixed.transpose(1, 2).flatten(2))
        return outputs


class TransformerBlock(nn.Module):
    """Attention, then a hidden layer of `hidden_factor` times the width for each token, each added to what it reads.

    Layer normalisation comes first in both. Dropout follows each linear layer but those of queries, keys and values.
    """

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        width, hidden = config.width, max(1, round(config.width * config.hidden_factor))
        self.attention = nn.Sequential(
            nn.LayerNorm(width), SelfAttention(width, config.heads), nn.Dropout(config.dropout)
        )
        self.dense = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            make_activation(config),
            make_dropout(config),
            nn.Linear(hidden, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (n, tokens, width) of tokens of that shape."""
        x = x + self.attention(x)
        outputs: Tensor = x + self.dense(x)
        return outputs


class VisionTransformer(nn.Module):
    """Vision transformer of `depth` blocks, on images whose sides `patch_size` divides."""

    def __init__(self, config: TrialConfig, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, width = shape
        size = config.patch_size
        self.patches = nn.Conv2d(channels, config.width, size, stride=size)
        tokens = (height // size) * (width // size)
        self.positions = nn.Parameter(torch.empty(tokens, config.width).normal_(std=DEVIATION))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*(TransformerBlock(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width)
        self.outputs = nn.Linear(config.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, outputs) of images (n, channels, H, W)."""
        tokens = self.dropout(self.patches(x).flatten(2).transpose(1, 2) + self.positions)
        outputs: Tensor = self.outputs(self.norm(self.blocks(tokens)).mean(1))
        return outputs


def vit(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a vision transformer; see `VisionTransformer`. At depth 0 it is the output layer alone.

    Raises:
        ConfigError: the samples are not images, or no whole number of patches.
    """
    check_image(config, shape)
    if not config.depth:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
    return VisionTransformer(config, shape, classes)
