"""Compatibility of a configuration with a data set, as far as it is known before training."""

from __future__ import annotations

import math

from hpo.config.augmentation import check_augmentation
from hpo.config.image_size import check_image
from hpo.config.model_library import find_library
from hpo.config.model_size import count_dense_parameters, count_outputs
from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.errors import ConfigError

__all__ = ["check_compatible", "check_task"]


def check_task(task: object, dataset: DatasetReference) -> None:
    """Refuse a task that is not the data set's.

    Raises:
        ConfigError: names both.
    """
    if task != dataset.task:
        raise ConfigError(
            f"task = '{task}': the labels of {dataset.name} are for {dataset.task}; leave task out, or say it in the "
            "data set: dataset = { path = …, label = …, task = … }"
        )


def check_compatible(config: TrialConfig, dataset: DatasetReference) -> None:
    """Refuse a configuration with which every trial on a data set would fail.

    A data set that the user has registered is known only when it is loaded, and passes.

    Raises:
        ConfigError: `validation` leaves either split without samples; the model needs images, or larger ones,
            or its augmentation does; its
            `parameter_budget` is too small for layers of one unit.
        RegistryError: the model is of a library that is not installed.
    """
    if dataset.samples is not None:
        held_out = config.validation if config.validation >= 1 else round(config.validation * dataset.samples)
        if config.validation and not 1 <= held_out < dataset.samples:
            raise ConfigError(
                f"validation = {config.validation:.4g}: takes {held_out:g} of {dataset.samples} training samples"
            )
    if dataset.shape is not None and "parameter_budget" in config.effective():
        _check_budget(config, dataset.shape)
    if (library := find_library(config.model)) is not None:
        library.check_installed(config.model)
        if dataset.shape is not None and len(dataset.shape) != 3:
            raise ConfigError(
                f"model = '{config.model}': needs images, but a sample has shape {dataset.shape}; use model = 'mlp'"
            )
    if dataset.shape is not None:
        check_image(config, dataset.shape)
        check_augmentation(config, dataset.shape, dataset.name)


def _check_budget(config: TrialConfig, shape: tuple[int, ...]) -> None:
    """Refuse a budget below the model's smallest size.

    The number of classes is not known yet; with more than one, the smallest size is a little larger.
    """
    narrowest = config.model_copy(update={"width": 1})
    minimum = count_dense_parameters(narrowest, math.prod(shape), count_outputs(config, shape, 1))
    budget = config.parameter_budget
    if budget is not None and budget < minimum:
        raise ConfigError(
            f"parameter_budget = {budget}: layers of one unit already have {minimum} parameters; give more"
        )
