"""Cache of a worker's data: the data set as read, and its splits that are in use."""

from __future__ import annotations

import logging
import random
import weakref
from dataclasses import dataclass

import numpy as np
import torch

from hpo.config.augmentation import augmentation_key
from hpo.config.resampling import Division
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference, load
from hpo.training.data import Data, augment_data, prepare_data, samples_key
from hpo.training.process_state import contain_user_code

__all__ = ["DataCache"]

log = logging.getLogger("hpo.training")


@dataclass
class CachedData:
    """Data in a cache, and how often each of its tensors had been written to."""

    data: weakref.ref[Data]
    versions: list[int]


class DataCache:
    """Cache of a worker: the data set as read, its last split on the device, and all other splits in use.

    A split is in use as long as somebody holds its `Data`, as the trials of a cohort do that differ in it. The fits of
    a trial on folds hold one for each, with the samples scaled as its own training part asks; fits of other trials on
    the same division share it.

    Args:
        reference: the data set.
        device: where its tensors are kept.
    """

    def __init__(self, reference: DatasetReference, device: torch.device) -> None:
        self.reference = reference
        self.device = device
        self._dataset: Dataset | None = None
        self._last: Data | None = None
        self._in_use: dict[tuple[object, ...], CachedData] = {}  # by split and scaling, then by order and augmentation

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

    def get(self, config: TrialConfig, division: Division | None = None) -> Data:
        """Return the data for a fit: the same object as long as one of equal samples and order is in use.

        Data whose samples are the same, in another order or augmented in another way, share their tensors.

        Args:
            config: of the fit; see `hpo.config.resampling.Fit.config`.
            division: of its samples; None is the configuration's own validation split.

        Raises:
            DataError, RegistryError: as `hpo.datasets.load`; or the data cannot be divided so.
            ConfigError: `validation` or `augment` does not fit the data, or there are too few samples for the division.
            RequestError: a package for the augmentation is missing.
        """
        key = samples_key(config, division)
        self._forget_unused()
        batches = config.seed_of_order, augmentation_key(config)
        found = self._find((*key, batches))
        if found is None:
            same = [each for each in self._in_use if each[:-1] == key]
            relative = self._find(same[0]) if same else None
            if relative is None:
                self._last = None  # freed first: a split that nobody uses any more would double the memory
            found = self._prepare(config, division) if relative is None else augment_data(relative, config)
            self._in_use[*key, batches] = CachedData(weakref.ref(found), _count_writes(found))
        self._last = found
        return found

    def _find(self, key: tuple[object, ...]) -> Data | None:
        return self._in_use[key].data() if key in self._in_use else None

    def _forget_unused(self) -> None:
        """Forget data that nobody uses, and those whose samples a model has changed."""
        for key, each in list(self._in_use.items()):
            data = each.data()
            if data is not None and each.versions != _count_writes(data):
                log.warning("%s: a model has changed its samples in place; they are prepared anew", self.reference.name)
                data = None
            if data is None:
                del self._in_use[key]

    @contain_user_code()
    def _prepare(self, config: TrialConfig, division: Division | None) -> Data:
        return prepare_data(self.load(), config, self.device, self.reference.name, division)


def _seed_generators() -> None:
    """Seed the generators that a data set's function may draw from, such as for a random split."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _count_writes(data: Data) -> list[int]:
    """Return how often each of the data's tensors has been written to, by torch's own count, which views share."""
    return [tensor._version for tensor in (data.x_train, data.y_train, data.x_val, data.y_val)]
