"""Single training steps on a part of the data, to find out whether a configuration can be trained at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpo.config import registry
from hpo.config.resampling import Division
from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.datasets.map_style import Samples
from hpo.errors import UserExitError
from hpo.training.callbacks import Callback
from hpo.training.data import Data
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.member import Member, Metrics, TrainResult
from hpo.training.settings import TrainSettings

__all__ = ["SAMPLES", "StepTrainer"]

SAMPLES = 32


class _FirstReport(BaseException):
    """End of a training loop at its first report; it passes through the loop's own `except Exception`."""


class _EndAtFirstReport(Callback):
    def on_epoch(self, member: Member, row: Metrics) -> None:  # noqa: ARG002
        raise _FirstReport


class StepTrainer:
    """Trainer of single steps, each followed by a validation.

    Args:
        reference: the data set, which is loaded.
        settings: monitor and metrics.
        device: where models are trained.
        division: of the samples; None is a configuration's own validation split.

    Raises:
        DataError, RegistryError: as `hpo.datasets.load`.
    """

    def __init__(
        self,
        reference: DatasetReference,
        settings: TrainSettings,
        device: torch.device,
        division: Division | None = None,
    ) -> None:
        self.device = device
        self._division = division
        self._settings = settings
        self._cache = DataCache(reference, device)
        self.dataset = self._cache.load()

    def train(self, config: TrialConfig, *, few: bool) -> TrainResult | None:
        """Train one step; or a training loop of the user's own until its first report, without a result.

        Args:
            config: what to train.
            few: on a few samples; else as many as a step of a trial has, and all samples for validation.

        Raises:
            Exception: whatever the model, the loss or a metric raises; errors as `hpo.training.loop.train`.
        """
        data = _take_part(self._cache.get(config, self._division), config.batch_size, few=few)
        config = config.model_copy(update={"epochs": 1})
        if not registry.models.get(config.model).loop:
            return train([config], data, self._settings)[0]
        try:
            train([config], data, replace(self._settings, callbacks=[_EndAtFirstReport()]))
        except UserExitError as error:
            if not isinstance(error.__cause__, _FirstReport):
                raise
        return None


def _take_part(data: Data, batch_size: int, *, few: bool) -> Data:
    """Return data with the samples of one step, and with few for validation, or all of them."""
    x_val, y_val = _spread(data.x_val, data.y_val, SAMPLES) if few else (data.x_val, data.y_val)
    if data.streams:
        source: Any = data.dataset.train
        first = source.read(range(min(SAMPLES, len(source)))) if isinstance(source, Samples) else next(iter(source))
        return replace(data, dataset=replace(data.dataset, train=[first]), x_val=x_val, y_val=y_val)
    count = min(batch_size, SAMPLES) if few else batch_size
    x_train, y_train = _spread(data.x_train, data.y_train, count)
    weights = None if data.weights is None else _spread(data.weights, data.weights, count)[0]
    return replace(data, x_train=x_train, y_train=y_train, x_val=x_val, y_val=y_val, weights=weights)


def _spread(x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return evenly spaced samples: those of a class may lie side by side."""
    if len(y) <= count:
        return x, y
    index = torch.linspace(0, len(y) - 1, count, dtype=torch.float64, device=y.device).round().long()
    return x[index], y[index]
