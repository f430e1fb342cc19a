"""Size of dense models: number of weights, and the width that follows from a `parameter_budget`. No torch."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from hpo.config import registry
from hpo.config.image_size import IMAGE_MODELS, count_image_units
from hpo.config.trial_config import TrialConfig

__all__ = [
    "InputSize",
    "count_dense_parameters",
    "count_outputs",
    "count_units",
    "embedding_sizes",
    "is_dense",
    "measure_input",
    "resolve_width",
]

MAX_WIDTH = 65536
EMBEDDING_FACTOR, LARGEST_EMBEDDING = 1.6, 600  # of fastai's rule for tables


@dataclass(frozen=True)
class InputSize:
    """Size of what a dense model's first layer reads.

    Attributes:
        width: how many numbers.
        parameters: how many weights and biases their embeddings have.
        embedded: whether there are any embeddings.
    """

    width: int
    parameters: int = 0
    embedded: bool = False


def embedding_sizes(config: TrialConfig, shape: tuple[int, ...]) -> list[int]:
    """Return how many numbers each category of a table is embedded in, by the rule of fastai's tabular models."""
    factor = EMBEDDING_FACTOR if config.embedding_factor is None else config.embedding_factor
    codes: tuple[int, ...] = getattr(shape, "categories", ())
    return [max(1, min(LARGEST_EMBEDDING, round(factor * count**0.56))) for count in codes]


def measure_input(config: TrialConfig, shape: tuple[int, ...]) -> InputSize:
    """Return the size of what the first layer of a dense model reads: numbers and categories, embedded or not."""
    values = config.effective()
    codes: tuple[int, ...] = getattr(shape, "categories", ())
    codes = codes if "embedding_factor" in registry.models.get(config.model).uses else ()
    sizes = embedding_sizes(config, shape) if codes else []
    numbers = math.prod(shape) - len(codes)
    tables = sum(count * size for count, size in zip(codes, sizes, strict=True))
    kind = values.get("numeric_embedding")
    if kind is None or not numbers:
        return InputSize(numbers + sum(sizes), tables, bool(codes))
    frequencies = config.periodic_frequencies if kind == "periodic" else 0
    inputs = 2 * frequencies or config.numeric_bins
    each = config.numeric_embedding_size
    return InputSize(numbers * each + sum(sizes), tables + numbers * (frequencies + (inputs + 1) * each), True)


def count_outputs(config: TrialConfig, shape: tuple[int, ...], classes: int) -> int:
    """Return a model's number of outputs: one per value of a sample that it reconstructs, else per class or target.

    Under gaussian_nll there are two per target: all means, then all logarithms of variances.
    """
    if config.reconstructs:
        return math.prod(shape)
    return 2 * classes if config.loss == "gaussian_nll" else classes


def count_dense_parameters(config: TrialConfig, features: int, outputs: int) -> int:
    """Count what a dense model learns: weights and biases, scales and shifts of norms, and slopes of activations.

    A batch norm's shift is in place of a bias, and a latent layer has neither norm nor activation.
    """
    layers, values = (features, *config.hidden_widths, outputs), config.effective()
    hidden = list(config.hidden_widths)
    if config.model == "autoencoder":
        del hidden[len(hidden) // 2]
    norms = sum(hidden) * (1 if values.get("batch_norm") else 2 if values.get("layer_norm") else 0)
    slopes = len(hidden) if config.activation == "prelu" else 0
    return sum(above * below for above, below in pairwise(layers)) + sum(layers[1:]) + norms + slopes


def is_dense(config: TrialConfig, shape: tuple[int, ...]) -> bool:
    """Return whether a model is dense layers of the sample's numbers, and nothing else but what acts on each number."""
    dense = config.model == "autoencoder" or (config.model == "mlp" and not measure_input(config, shape).embedded)
    values = config.effective()
    function, drops = values.get("activation"), values.get("dropout")
    return dense and not (values.get("layer_norm") or function == "prelu" or (function == "selu" and drops))


def count_units(config: TrialConfig, shape: tuple[int, ...]) -> int:
    """Return how many numbers a model computes of a sample, the outputs aside; its width must be known."""
    if config.model in IMAGE_MODELS:
        return count_image_units(config, shape)
    size = measure_input(config, shape)
    embedded = size.width if size.embedded else 0
    if config.model != "resnet_tabular":
        return embedded + sum(config.hidden_widths)
    return embedded + config.depth * round(config.width * (3 + 2 * config.hidden_factor))


def resolve_width(config: TrialConfig, shape: tuple[int, ...], classes: int) -> TrialConfig:
    """Return the configuration with the `width` that follows from its `parameter_budget`; unchanged without a budget.

    It is the width whose number of parameters is nearest to the budget, the smaller one of two; at least 1.

    Args:
        config: a configuration, of any model.
        shape: of one sample.
        classes: number of classes of the data.
    """
    if "parameter_budget" not in config.effective():
        return config
    budget, size, outputs = config.parameter_budget, measure_input(config, shape), count_outputs(config, shape, classes)
    assert budget is not None

    def count(width: int) -> int:
        wide = config.model_copy(update={"width": width})
        return size.parameters + count_dense_parameters(wide, size.width, outputs)

    wider = max(2, 1 + bisect_left(range(1, MAX_WIDTH), budget, key=count))
    width = min((wider - 1, wider), key=lambda each: abs(count(each) - budget))
    return config.model_copy(update={"width": width})
