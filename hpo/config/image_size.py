"""Sizes of the models of images: channels, halvings and patches, and the images that they take. No torch."""

from __future__ import annotations

import math

from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError

__all__ = ["IMAGE_MODELS", "check_image", "count_image_units", "list_channels", "list_halvings"]

IMAGE_MODELS = frozenset({"cnn", "vit"})
ALWAYS_HALVING = 3  # blocks of a CNN


def list_channels(config: TrialConfig) -> tuple[int, ...]:
    """Return the channels of each block of a CNN, from `block_channels` or from `conv_layers` and `channels`."""
    if config.block_channels is not None:
        return tuple(int(channels) for channels in config.block_channels.split("-"))
    return tuple(config.channels << block for block in range(config.conv_layers))


def list_halvings(config: TrialConfig, height: int, width: int) -> list[bool]:
    """Return of each block of a CNN whether it halves height and width.

    The first three always do, for which the image must be large enough; the others while both are at least 2.
    """
    blocks = range(len(list_channels(config)))
    return [block < ALWAYS_HALVING or min(height, width) >> block >= 2 for block in blocks]


def check_image(config: TrialConfig, shape: tuple[int, ...]) -> None:
    """Refuse samples that a model of images cannot take; other models take any.

    Args:
        config: of any model.
        shape: of one sample.

    Raises:
        ConfigError: they are no images, too small for the blocks to halve, or no whole number of patches.
    """
    if config.model not in IMAGE_MODELS:
        return
    if len(shape) != 3:
        raise ConfigError(f"model = '{config.model}': needs images, but a sample has shape {shape}; use model = 'mlp'")
    _, height, width = shape
    if config.model == "cnn":
        _check_halvings(config, height, width)
    elif config.depth and (height % config.patch_size or width % config.patch_size):
        side = math.gcd(height, width)
        sizes = ", ".join(str(size) for size in range(1, side + 1) if side % size == 0)
        raise ConfigError(
            f"patch_size = {config.patch_size}: does not divide the sides of a picture of {height} x {width}; what "
            f"does: {sizes}"
        )


def _check_halvings(config: TrialConfig, height: int, width: int) -> None:
    blocks = len(list_channels(config))
    if min(height, width) >> min(blocks, ALWAYS_HALVING):
        return
    given = f"conv_layers = {blocks}" if config.block_channels is None else f"block_channels = {config.block_channels}"
    each = "" if blocks <= ALWAYS_HALVING else f"the first {ALWAYS_HALVING} blocks halve an image, and "
    raise ConfigError(f"{given}: {each}a {height} x {width} image cannot be halved that often")


def count_image_units(config: TrialConfig, shape: tuple[int, ...]) -> int:
    """Return about how many numbers a model of images computes of a sample, the outputs aside."""
    _, height, width = shape
    if config.model == "cnn":
        return _count_convolved(config, height, width) + config.dense_width
    tokens = (height // config.patch_size) * (width // config.patch_size)
    # Norms, queries, keys, values, attention and sums of a block, then its hidden layer; and the scores of each head.
    block = config.width * (10 + 2 * config.hidden_factor) + config.heads * tokens
    return round(tokens * (config.width + config.depth * block))


def _count_convolved(config: TrialConfig, height: int, width: int) -> int:
    units, maps = 0, 3 if config.residual else 1
    for channels, halves in zip(list_channels(config), list_halvings(config, height, width), strict=True):
        units += maps * channels * height * width
        height, width = (height // 2, width // 2) if halves else (height, width)
        units += channels * height * width
    return units
