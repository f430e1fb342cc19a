"""Data sets in training: split, scaled and resident on the device as float32 tensors.

Everything random follows from the seed alone: the split from (seed), the order of an epoch from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo.config.registry import NO_DATA
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference, Split, check_split, flat_labels, is_split, load
from hpo.datasets.map_style import Samples
from hpo.errors import ConfigError, DataError
from hpo.training.process_state import contain_user_code
from hpo.training.split import split

__all__ = ["Data", "DataCache", "Scaling", "epoch_seed", "prepare_data"]

log = logging.getLogger("hpo.training")
Array = np.ndarray[Any, Any]
Batch = tuple[Tensor, Tensor]
CHUNK = 1024  # samples converted at once: the peak of memory stays near the size of the result
ORDER, NOISE = 1, 2  # purposes of a random stream, so that no two share their numbers


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a 63-bit seed for torch's own generator (dropout) in an epoch, from (seed, epoch) alone."""
    return int(np.random.SeedSequence([seed, NOISE, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Scaling:
    """x -> (x - shift) / scale, one pair per channel of an image or per feature."""

    shift: Array
    scale: Array

    def apply(self, x: Array, index: Array | None = None) -> Tensor:
        """Return the samples `index` (by default all) of x, shape (N, channels or features, …), scaled to float32."""
        size = len(x) if index is None else len(index)
        scaled = np.empty((size, *x.shape[1:]), dtype=np.float32)
        shift, scale = (_over_channels(value, x.ndim).astype(np.float32) for value in (self.shift, self.scale))
        for i in range(0, size, CHUNK):
            rows = slice(i, i + CHUNK)
            np.subtract(x[rows] if index is None else x[index[rows]], shift, out=scaled[rows], dtype=np.float32)
            scaled[rows] /= scale
        return torch.from_numpy(scaled)

    @classmethod
    def fit(cls, kind: str, x: Array, index: Array) -> Scaling:
        """Fit the scaling `input_scaling` of that kind to the samples `index` of x.

        `standard` has mean 0 and deviation 1, `unit` runs from 0 to 1 and `symmetric` from -1 to 1. The range of
        uint8 is 0 to 255 whatever the samples hold; other numbers have their own.
        """
        if kind == "standard":
            shift, scale = _moments(x, index)
        else:
            low, high = _byte_range(x.shape[1]) if x.dtype == np.uint8 else _range(x, index)
            shift, scale = (low, high - low) if kind == "unit" else ((low + high) / 2, (high - low) / 2)
        return cls(shift, np.where(scale > 0, scale, 1.0))


def _over_channels(values: Array, dimensions: int) -> Array:
    shaped: Array = values.reshape(1, -1, *(1,) * (dimensions - 2))
    return shaped


def _chunks(x: Array, index: Array) -> Iterator[Array]:
    """Yield the samples in float64, a few at a time, shape (n, channels or features, rest)."""
    for i in range(0, len(index), CHUNK):
        rows = x[index[i : i + CHUNK]]
        yield rows.reshape(len(rows), x.shape[1], -1).astype(np.float64)


def _moments(x: Array, index: Array) -> tuple[Array, Array]:
    count = len(index) * int(np.prod(x.shape[2:]))
    mean = sum(chunk.sum((0, 2)) for chunk in _chunks(x, index)) / count
    centre = _over_channels(np.asarray(mean), 3)
    variance = sum(((chunk - centre) ** 2).sum((0, 2)) for chunk in _chunks(x, index)) / count
    return np.asarray(mean), np.sqrt(variance)


def _byte_range(channels: int) -> tuple[Array, Array]:
    return np.zeros(channels), np.full(channels, 255.0)


def _range(x: Array, index: Array) -> tuple[Array, Array]:
    lows, highs = zip(*((chunk.min((0, 2)), chunk.max((0, 2))) for chunk in _chunks(x, index)), strict=True)
    return np.min(lows, 0), np.max(highs, 0)


def _channels_first(x: Any) -> Array:
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


@dataclass
class Data:
    """Data set on a device, for one split and scaling. Tensors of samples are float32 in torch's layout.

    Attributes:
        x_train, y_train: (N, *shape) and (N,) of int64; empty where the data set gives batches.
        x_val, y_val: the validation split.
        shape: of one sample: (channels, H, W) or (features,).
        classes: the number of classes; labels are below it.
        device: where the tensors are.
        seed: decides the order of the samples.
        dataset: the data set as it was loaded.
        name: what error messages call it.
        input_scaling: the kind of the scaling.
        scaling: shift and scale of the samples; None where the data set gives batches.

    Where all samples are for training (`validation` 0), the validation split has none.
    """

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int
    device: torch.device
    seed: int
    dataset: Dataset
    name: str
    input_scaling: str
    scaling: Scaling | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x_val.shape[1:])

    @property
    def raw_bytes(self) -> bool:
        """True where the samples were bytes, from 0 to 255, before they were scaled."""
        part: Any = self.dataset.validation if self.streams else self.dataset.train
        x = part[0] if is_split(part) else next(iter(part))[0]
        return str(x.dtype).endswith("uint8")

    @property
    def streams(self) -> bool:
        """True where training reads its batches from the data set instead of resident samples."""
        return not is_split(self.dataset.train)

    @cached_property
    def digest(self) -> str:
        """Digest of the labels on both sides of the split, and of the scaling, hence of every training sample."""
        arrays = [self.y_train.cpu().numpy(), self.y_val.cpu().numpy()]
        arrays += [self.scaling.shift, self.scaling.scale] if self.scaling else []
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]

    def steps(self, batch_size: int) -> int:
        """Return the steps of one epoch. A last batch of one sample is left out: it has no statistics."""
        if isinstance(self.dataset.train, Samples):
            return _steps(len(self.dataset.train), batch_size)
        if self.streams:
            assert isinstance(self.dataset.train, Sized)
            return len(self.dataset.train)
        return _steps(len(self.y_train), batch_size)

    def batches(self, batch_size: int, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch, x (n, *shape) and y (n,), in the order that follows from (seed, epoch)."""
        if isinstance(self.dataset.train, Samples):
            return self._convert_batches(self._read_batches(self.dataset.train, batch_size, epoch))
        if self.streams:
            return self._convert_batches(self.dataset.train)
        return self._resident_batches(batch_size, epoch)

    def _resident_batches(self, batch_size: int, epoch: int) -> Iterator[Batch]:
        samples = len(self.y_train)
        order = torch.from_numpy(self._order(samples, epoch)).to(self.device)
        for i in range(_steps(samples, batch_size)):
            index = order[i * batch_size : (i + 1) * batch_size]
            yield self.x_train.index_select(0, index), self.y_train.index_select(0, index)

    def _read_batches(self, samples: Samples, batch_size: int, epoch: int) -> Iterator[Split]:
        order = self._order(len(samples), epoch)
        for i in range(_steps(len(samples), batch_size)):
            yield samples.read(order[i * batch_size : (i + 1) * batch_size].tolist())

    def _order(self, samples: int, epoch: int) -> Array:
        return np.random.default_rng([self.seed, ORDER, epoch]).permutation(samples)

    def _convert_batches(self, batches: Iterable[Split]) -> Iterator[Batch]:
        where = f"{self.name}, train"
        for x, y in batches:
            yield _convert_batch(x, y, where, self.input_scaling, self.classes, self.device)

    @contain_user_code()
    def test(self) -> Batch:
        """Read the test set, and scale it as the training split is: x (N, *shape) and y (N,), on the device.

        Raises:
            DataError: the data set has none, or a wrong one.
        """
        part = self.dataset.test() if callable(self.dataset.test) else self.dataset.test
        if part is None:
            raise DataError(f"{self.name}: has no test set; give `test` in its hpo.Dataset")
        return _load_part(
            part, f"{self.name}, test", self.input_scaling, self.classes, self.device, self.scaling, self.shape
        )


def _steps(samples: int, batch_size: int) -> int:
    whole, rest = divmod(samples, batch_size)
    return whole + (rest > 1 or (rest == 1 and whole == 0))


def prepare_data(dataset: Dataset, config: TrialConfig, device: torch.device, name: str = "data set") -> Data:
    """Split, scale and move a data set, as a configuration asks.

    Batches of a data set that streams are not scaled, for their statistics are not known: their numbers are used as
    they are, except uint8, which is brought to 0..1, or to -1..1 where `input_scaling` is `symmetric`.

    Args:
        dataset: a data set from `hpo.datasets.load`, which has checked it.
        config: its `validation`, `seed` and `input_scaling` decide.
        device: where the tensors will be.
        name: what error lines call the data set.

    Raises:
        ConfigError: `validation` does not fit the data.
        DataError: validation data are wrong.
    """
    if name == NO_DATA:
        none = torch.empty(0)
        return Data(none, none, none, none, 0, device, config.seed, dataset, name, config.input_scaling)
    if is_split(dataset.train):
        return _prepare_resident(dataset, config, device, name)
    if dataset.validation is None or dataset.classes is None:
        raise DataError(f"{name}: its training data are batches, so `classes` and `validation` must be given too")
    if not config.validation:
        raise ConfigError(f"validation = 0: {name} gives batches, which its validation data cannot be added to")
    kind, classes = config.input_scaling, dataset.classes
    x_val, y_val = _load_part(dataset.validation, f"{name}, validation", kind, classes, device, None, None)
    none = torch.empty(0)
    return Data(none, none, x_val, y_val, classes, device, config.seed, dataset, name, kind)


def _prepare_resident(dataset: Dataset, config: TrialConfig, device: torch.device, name: str) -> Data:
    x, y = dataset.train
    classes = check_split(x, y, f"{name}, train", dataset.classes) if dataset.classes is None else dataset.classes
    samples, labels = _channels_first(x), flat_labels(y, name).astype(np.int64)
    if dataset.validation is None and config.validation:
        train, validation = split(labels, config.validation, config.seed_of_split)
    else:
        train, validation = np.arange(len(labels)), np.arange(0)
    scaling = Scaling.fit(config.input_scaling, samples, train)
    x_train = scaling.apply(samples, train).to(device)
    y_train = torch.from_numpy(labels[train]).to(device)
    if dataset.validation is None:
        x_val, y_val = scaling.apply(samples, validation).to(device), torch.from_numpy(labels[validation]).to(device)
    else:
        where, shape = f"{name}, validation", tuple(samples.shape[1:])
        x_val, y_val = _load_part(dataset.validation, where, config.input_scaling, classes, device, scaling, shape)
    if dataset.validation is not None and not config.validation:  # its own, which is trained on as well
        x_train, y_train = torch.cat([x_train, x_val]), torch.cat([y_train, y_val])
        x_val, y_val = x_val[:0], y_val[:0]
    return Data(
        x_train, y_train, x_val, y_val, classes, device, config.seed, dataset, name, config.input_scaling, scaling
    )


def _load_part(
    part: Split | Iterable[Split],
    where: str,
    kind: str,
    classes: int,
    device: torch.device,
    scaling: Scaling | None,
    shape: tuple[int, ...] | None,
) -> Batch:
    """Return a validation or test part as tensors on the device; batches are joined."""
    pieces = [part] if is_split(part) else list(part)
    if not pieces:
        raise DataError(f"{where}: holds no batches; give at least one")
    parts = [_convert_part(x, y, where, kind, classes, device, scaling, shape) for x, y in pieces]
    x, y = (torch.cat(tensors) if len(tensors) > 1 else tensors[0] for tensors in zip(*parts, strict=True))
    return x, y


def _convert_part(
    x: Any,
    y: Any,
    where: str,
    kind: str,
    classes: int,
    device: torch.device,
    scaling: Scaling | None,
    shape: tuple[int, ...] | None,
) -> Batch:
    check_split(x, y, where, classes)
    samples = _channels_first(x)
    if shape is not None and samples.shape[1:] != shape:
        raise DataError(f"{where}: samples of shape {samples.shape[1:]}, not {shape} as train; make them equal")
    if scaling is None:
        return _convert_batch(x, y, where, kind, classes, device)
    return scaling.apply(samples).to(device), torch.from_numpy(flat_labels(y, where).astype(np.int64)).to(device)


def _convert_batch(x: Any, y: Any, where: str, kind: str, classes: int, device: torch.device) -> Batch:
    """Convert a batch of a data set that streams: only uint8 is scaled."""
    check_split(x, y, where, classes)
    tensor = x if isinstance(x, Tensor) else torch.from_numpy(np.require(_channels_first(x), requirements=["C", "W"]))
    tensor = tensor[:, None] if tensor.ndim == 3 else tensor
    moved = tensor.to(device)
    if moved.dtype == torch.uint8:
        moved = moved.float() / 255
        moved = moved * 2 - 1 if kind == "symmetric" else moved
    labels = torch.from_numpy(flat_labels(y, where).astype(np.int64))
    return moved.float(), labels.to(device)


class DataCache:
    """Cache of a worker between trials: the data set as read, and its last split on the device.

    Args:
        reference: the data set.
        device: where its tensors are kept.
    """

    def __init__(self, reference: DatasetReference, device: torch.device) -> None:
        self.reference = reference
        self.device = device
        self._dataset: Dataset | None = None
        self._key: tuple[float, int, str] | None = None
        self._data: Data | None = None
        self._versions: list[int] = []

    @contain_user_code()
    def load(self) -> Dataset:
        """Return the data set, which is read once; what it draws at random is the same in each worker.

        Raises:
            DataError, RegistryError: as `hpo.datasets.load`.
        """
        if self._dataset is None:
            _seed_generators()
            self._dataset = load(self.reference)
        return self._dataset

    def get(self, config: TrialConfig) -> Data:
        """Return the data for a configuration, from the cache where the last trial had the same split and scaling.

        Raises:
            DataError, RegistryError: as `hpo.datasets.load`.
            ConfigError: `validation` does not fit the data.
        """
        key = (config.validation, config.seed_of_split, config.input_scaling)
        if self._data is not None and self._versions != _count_writes(self._data):
            log.warning("%s: a model has changed its samples in place; they are prepared anew", self.reference.name)
            self._data = None
        if self._data is None or key != self._key:
            self._data = None  # freed first: two splits at a time would double the memory
            self._data = self._prepare(config)
            self._key, self._versions = key, _count_writes(self._data)
        elif self._data.seed != config.seed:
            self._data = replace(self._data, seed=config.seed)  # the same samples, in another order
        return self._data

    @contain_user_code()
    def _prepare(self, config: TrialConfig) -> Data:
        return prepare_data(self.load(), config, self.device, self.reference.name)


def _seed_generators() -> None:
    """Seed the generators that a data set's function may draw from, such as for a random split."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _count_writes(data: Data) -> list[int]:
    """Return how often each of the data's tensors has been written to, by torch's own count, which views share."""
    return [tensor._version for tensor in (data.x_train, data.y_train, data.x_val, data.y_val)]
