"""Augmentation of training images: its parameters, and the samples that it takes."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.config.trial_config import TrialConfig
from hpo.config.values import Value
from hpo.errors import ConfigError

__all__ = ["AUGMENTATION_PARAMETERS", "augmentation_key", "check_augmentation"]

AUGMENTATION_PARAMETERS = "augment", "crop_padding", "cutout_size", "randaugment_operations", "randaugment_magnitude"
COLOURS = (1, 3)  # channels that RandAugment takes


def augmentation_key(config: TrialConfig) -> tuple[Value, ...]:
    """Return a key that is equal for trials whose training images are changed alike; empty where they are not."""
    if config.augment is None:
        return ()
    values = config.effective()
    return tuple(values[name] for name in AUGMENTATION_PARAMETERS if name in values)


def check_augmentation(config: TrialConfig, shape: Sequence[int], name: str) -> None:
    """Check that a configuration's augmentation, if it has one, takes the samples of a data set.

    Args:
        config: of a trial.
        shape: of a sample, (channels, H, W) of images.
        name: of the data set.

    Raises:
        ConfigError: they are no images, or have another number of channels; the model takes whole numbers.
    """
    if not (names := augmentation_key(config)[:1]):
        return
    if config.integers:
        raise ConfigError(
            f"augment = '{config.augment}': changes images, but model '{config.model}' takes whole numbers; leave "
            "augment out"
        )
    if len(shape) != 3:
        raise ConfigError(
            f"augment = '{config.augment}': changes images, but a sample of {name} has shape {tuple(shape)}; leave "
            "augment out"
        )
    if "randaugment" in str(names[0]) and shape[0] not in COLOURS:
        raise ConfigError(
            f"augment = '{config.augment}': RandAugment changes grey images and colours, but those of {name} have "
            f"{shape[0]} channels"
        )
