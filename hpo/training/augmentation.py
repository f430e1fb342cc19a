"""Augmentation of training images by kornia: flips, crops, cutout (DeVries and Taylor, 2017), and RandAugment (Cubuk,
Zoph, Shlens and Le, 2020). Each image has draws of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hpo.config.augmentation import check_augmentation
from hpo.config.registry import NO_DATA
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, RequestError
from hpo.training.stacked.noise import keep_generators

if TYPE_CHECKING:
    from hpo.training.data import Data

__all__ = ["Augmentation", "make_augmentation"]

Change = Callable[[Tensor], Tensor]
PURPOSE = 3  # of a random stream, beside those in `hpo.training.data`
IN_UNIT = ("crop", "randaugment")  # which take images whose black is 0 and whose white is 1


class Augmentation:
    """Random changes of training images, which follow from (seed, epoch, step) alone.

    Neither the rest of a cohort nor other draws matter, such as those of dropout; torch's generators stay as they were.

    Args:
        changes: in the order in which they are done; each takes and returns images (n, channels, H, W).
        in_unit: of each, whether it takes images whose black is 0 and whose white is 1; else as they are scaled.
        black, white: what these are in scaled images, (channels, 1, 1).
    """

    def __init__(self, changes: Sequence[Change], in_unit: Sequence[bool], black: Tensor, white: Tensor) -> None:
        self._changes = list(zip(changes, in_unit, strict=True))
        self._black, self._range = black, white - black

    @torch.no_grad()
    def __call__(self, x: Tensor, seed: int, epoch: int, step: int) -> Tensor:
        """Return the images of a batch, x (n, channels, H, W), changed; x itself stays as it is.

        Args:
            x: scaled as a model sees them.
            seed: of the order of the data, and of noise.
            epoch: from 1.
            step: of the epoch, from 0.
        """
        words = np.random.SeedSequence([seed, PURPOSE, epoch, step]).generate_state(1, np.uint64)
        with keep_generators(x.device):
            torch.manual_seed(int(words[0] >> np.uint64(1)))
            for change, in_unit in self._changes:
                x = change((x - self._black) / self._range) * self._range + self._black if in_unit else change(x)
        return x


def make_augmentation(config: TrialConfig, data: Data) -> Augmentation | None:
    """Return the augmentation that a configuration asks for; None where it asks for none.

    Args:
        config: of a fit.
        data: what it is trained on; of none, a loop of the user's own has its images.

    Raises:
        ConfigError: samples are no images, or none that an augmentation takes.
        RequestError: kornia is missing.
    """
    if config.augment is None or data.name == NO_DATA or "augment" not in (values := config.effective()):
        return None
    check_augmentation(config, data.shape, data.name)
    try:
        import kornia.augmentation  # noqa: F401
    except ImportError as error:
        raise RequestError(f"augment = '{config.augment}': needs kornia; pip install 'torch-hpo[images]'") from error
    names, (channels, height, width), scales = config.augment.split("+"), data.shape, _find_range(data)
    if "randaugment" in names and scales is None:
        raise ConfigError(
            f"augment = '{config.augment}': RandAugment needs to know what is black and white, but {data.name} gives "
            "batches of real numbers; give bytes (uint8)"
        )
    changes = [_make_change(each, values, (height, width)) for each in names]
    black, white = scales or (torch.zeros(channels), torch.ones(channels))
    in_unit = [name in IN_UNIT for name in names]
    return Augmentation(changes, in_unit, *(each.view(-1, 1, 1).to(data.device) for each in (black, white)))


def _find_range(data: Data) -> tuple[Tensor, Tensor] | None:
    """Return what black and white are in scaled images, by channel, (channels,); None where it is not known.

    Of bytes they are 0 and 255; of other numbers the least and the largest of all channels in the training part.
    """
    if data.streams:
        black = torch.full((data.shape[0],), -1.0 if data.input_scaling == "symmetric" else 0.0)
        return (black, torch.ones_like(black)) if data.raw_bytes else None
    assert data.scaling is not None
    shift, scale = (torch.as_tensor(each, dtype=torch.float32) for each in (data.scaling.shift, data.scaling.scale))
    low, high = 0.0, 255.0
    if not data.raw_bytes:
        by_channel = data.x_train.transpose(0, 1).flatten(1)
        low = float((by_channel.amin(1).cpu() * scale + shift).amin())
        high = float((by_channel.amax(1).cpu() * scale + shift).amax())
    return (low - shift) / scale, ((high if high > low else low + 1) - shift) / scale


def _make_change(name: str, values: Mapping[str, Any], size: tuple[int, int]) -> Change:
    """Return the change of that name, of images of a size (height, width)."""
    from kornia import augmentation
    from kornia.augmentation.auto import RandAugment
    from kornia.augmentation.auto.rand_augment.rand_augment import default_policy

    change: Change
    if name == "flip":
        change = augmentation.RandomHorizontalFlip(p=0.5)
    elif name == "crop":  # what is added around an image is black
        across, down = (max(1, round(values["crop_padding"] * side)) for side in reversed(size))
        change = augmentation.RandomCrop(size, padding=(across, down))
    elif name == "cutout":  # to 0 in what the model sees: under input_scaling = "standard", the mean
        area = values["cutout_size"] ** 2
        change = augmentation.RandomErasing(scale=(area, area), ratio=(1.0, 1.0), value=0.0, p=1.0)
    else:
        operations = [RandAugment(1, values["randaugment_magnitude"], policy=[each]) for each in default_policy]
        change = partial(_apply_operations, operations, values["randaugment_operations"])
    return change


def _apply_operations(operations: Sequence[Change], count: int, x: Tensor) -> Tensor:
    """Apply operations that are drawn for each image with replacement, as the paper has it.

    Kornia's own RandAugment draws them once for all images of a batch.
    """
    grey = x.shape[1] == 1
    x = x.clamp(0, 1).expand(-1, 3, -1, -1).clone()  # one of the operations takes colours alone
    for _ in range(count):
        choice = torch.randint(len(operations), (len(x),))
        for number, operation in enumerate(operations):
            if len(index := torch.nonzero(choice == number)[:, 0]):
                index = index.to(x.device)
                x[index] = operation(x[index])
    return x[:, :1] if grey else x
