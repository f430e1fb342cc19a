"""Conversion of samples and labels to tensors on a device: scaled, encoded, or as the whole numbers that they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo.config.choices import Task
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Feature, Split, check_split, is_split, read_labels
from hpo.datasets.table_encoder import TableEncoder
from hpo.errors import DataError
from hpo.training.scaling import Scaling

__all__ = [
    "INTEGERS",
    "Conversion",
    "channels_first",
    "convert_batch",
    "count_codes",
    "load_part",
    "scaling_kind",
    "to_integers",
]

Array = np.ndarray[Any, Any]
Batch = tuple[Tensor, Tensor]
INTEGERS = "integers"  # in the place of a scaling's kind
LARGEST_EXACT = 2**24  # whole number up to which float32 has each


def scaling_kind(config: TrialConfig) -> str:
    """Return how a configuration has samples scaled: its `input_scaling`, or `integers` where its model takes those."""
    return INTEGERS if config.integers else config.input_scaling


def channels_first(x: Any) -> Array:
    """Return samples as an array in torch's layout: (N, features) or (N, channels, H, W)."""
    if isinstance(x, Tensor):
        tensor = x.detach().cpu()
        array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    else:
        array = np.asarray(x)
        if array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
    grey: Array = array[:, None]
    return grey if array.ndim == 3 else array


def to_integers(x: Any, where: str, names: Sequence[str] = (), vocabulary: int | None = None) -> Array:
    """Return samples (N, …) as int64, in their own layout.

    Args:
        x: the samples.
        where: the beginning of an error's line.
        names: of the columns, where they have some.
        vocabulary: how many codes there are, where that is known.

    Raises:
        DataError: one is no whole number, or no code from 0 to vocabulary - 1.
    """
    array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) and x.dtype != torch.bfloat16 else x)
    if array.dtype.kind not in "bui":
        wrong = ~(np.isfinite(array) & (array % 1 == 0))
        wrong |= np.abs(array) > (LARGEST_EXACT if array.dtype.itemsize <= 4 else 2 * LARGEST_EXACT**2)
        if wrong.any():
            advice = "its model takes whole numbers (integers=True); give integers, or another model"
            raise DataError(f"{where}: {_locate(array, wrong, names)}; {advice}")
    whole: Array = array.astype(np.int64)
    if vocabulary is not None and whole.size and (whole.min() < 0 or whole.max() >= vocabulary):
        found = _locate(whole, (whole < 0) | (whole >= vocabulary), names)
        raise DataError(
            f"{where}: {found}; codes are from 0 to {vocabulary - 1}, as in training; give `vocabulary` in its "
            "hpo.Dataset if there are more"
        )
    return whole


def _locate(array: Array, wrong: Array, names: Sequence[str]) -> str:
    """Return the first wrong number, and where it is."""
    place = tuple(int(each) for each in np.argwhere(wrong)[0])
    feature = f"feature '{names[place[1]]}' of " if names else ""
    return f"{feature}sample {place[0]} {'is' if names else 'holds'} {array[place]:g}"


def count_codes(parts: Iterable[Tensor]) -> int | None:
    """Return how many codes from 0 samples have: the largest and one; None where one is negative, or there are none."""
    bounds = [(int(part.min()), int(part.max())) for part in parts if part.numel()]
    if not bounds or min(low for low, _ in bounds) < 0:
        return None
    return 1 + max(high for _, high in bounds)


@dataclass(frozen=True)
class Conversion:
    """Conversion of a part of a data set to tensors on a device; see `Data` for the attributes.

    Without a scaling or an encoder only bytes are scaled: the statistics of a data set that gives batches are not
    known.
    """

    kind: str
    task: Task
    classes: int
    device: torch.device
    scaling: Scaling | None = None
    target_scaling: Scaling | None = None
    encoder: TableEncoder | None = None
    features: Sequence[Feature] = ()
    shape: tuple[int, ...] | None = None  # of an array of samples, before it is encoded
    vocabulary: int | None = None
    collated: bool = False  # by a function of the user's, so that the layout is the model's

    def read(self, x: Any, where: str) -> Array:
        """Return samples as an array in the layout that models see; where they take whole numbers, as int64."""
        if self.kind == INTEGERS and not self.features:
            return to_integers(x, where, vocabulary=self.vocabulary)
        return channels_first(x)

    def samples(self, x: Array, index: Array | None = None, where: str = "") -> Tensor:
        """Return the samples `index` (by default all) of what `read` returned, as the model sees them."""
        if self.encoder is not None:
            encoded = self.encoder.apply(x, index)
            if self.kind == INTEGERS:
                encoded = to_integers(encoded, where, self.encoder.names)
            return torch.from_numpy(encoded).to(self.device)
        if self.kind == INTEGERS:
            return torch.from_numpy(x if index is None else x[index]).to(self.device)
        assert self.scaling is not None
        return self.scaling.apply(x, index).to(self.device)

    def labels(self, labels: Array, index: Array | None = None) -> Tensor:
        """Return the labels `index` (by default all) of those that `read_labels` returned; targets are scaled."""
        chosen = labels if index is None else labels[index]
        if self.task == "classification":
            return torch.from_numpy(chosen.astype(np.int64)).to(self.device)
        tensor = torch.from_numpy(chosen) if self.target_scaling is None else self.target_scaling.apply(chosen)
        return tensor.to(self.device)

    def check(self, x: Any, y: Any, where: str) -> Array:
        """Check a part, and return its labels as `read_labels` does."""
        check_split(x, y, where, self.classes, self.task, self.features)
        return read_labels(y, where, self.task)


def load_part(part: Split | Iterable[Split], where: str, how: Conversion) -> Batch:
    """Return a validation or test part as tensors on the device; batches are joined."""
    pieces = [part] if is_split(part) else list(part)
    if not pieces:
        raise DataError(f"{where}: holds no batches; give at least one")
    parts = [_convert_part(x, y, where, how) for x, y in pieces]
    x, y = (torch.cat(tensors) if len(tensors) > 1 else tensors[0] for tensors in zip(*parts, strict=True))
    return x, y


def _convert_part(x: Any, y: Any, where: str, how: Conversion) -> Batch:
    labels = how.check(x, y, where)
    samples = how.read(x, where)
    if how.shape is not None and samples.shape[1:] != how.shape:
        raise DataError(f"{where}: samples of shape {samples.shape[1:]}, not {how.shape} as train; make them equal")
    if how.scaling is None and how.encoder is None and how.kind != INTEGERS:
        return convert_batch(x, y, where, how)
    return how.samples(samples, where=where), how.labels(labels)


def convert_batch(x: Any, y: Any, where: str, how: Conversion) -> Batch:
    """Convert a batch of a data set that streams: only uint8 is scaled."""
    labels = how.check(x, y, where)
    if how.kind == INTEGERS:
        return how.samples(how.read(x, where)), how.labels(labels)
    if not isinstance(x, Tensor):
        x = torch.from_numpy(np.require(x if how.collated else channels_first(x), requirements=["C", "W"]))
    tensor = x[:, None] if x.ndim == 3 and not how.collated else x
    moved = tensor.to(how.device, non_blocking=tensor.is_pinned())
    if moved.dtype == torch.uint8:
        moved = moved.float() / 255
        moved = moved * 2 - 1 if how.kind == "symmetric" else moved
    return moved.float(), how.labels(labels)
