"""Models of tables: embeddings of categories and numbers, and a residual network."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.config.model_size import embedding_sizes, measure_input
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.layers import make_activation, make_dropout

__all__ = ["FeatureEmbedding", "PeriodicEmbedding", "PiecewiseLinearEmbedding", "ResNetTabular", "resnet_tabular"]

# Share of a normally distributed number that lies beyond either outermost edge; the outermost bins are open.
TAIL = 0.01


class FeatureLinear(nn.Module):
    """Linear layer of its own for each feature, then ReLU: inputs (n, features, inputs) to (n, features * outputs)."""

    def __init__(self, features: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # as torch's Linear starts
        self.weight = nn.Parameter(torch.empty(features, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(features, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, features * outputs)."""
        sums = torch.baddbmm(self.bias, x.transpose(0, 1), self.weight)
        return torch.relu(sums.transpose(0, 1).flatten(1))


class PeriodicEmbedding(nn.Module):
    """Embedding of numbers by their sines and cosines, at learned frequencies drawn from N(0, sigma^2).

    Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular deep learning" (NeurIPS 2022),
    there `PLR`: periodic, linear, ReLU.
    """

    def __init__(self, features: int, frequencies: int, sigma: float, size: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(features, frequencies) * sigma)
        self.linear = FeatureLinear(features, 2 * frequencies, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings (n, features * size) of numbers (n, features)."""
        angles = 2 * math.pi * self.frequencies * x.unsqueeze(2)
        embedded: Tensor = self.linear(torch.cat([angles.cos(), angles.sin()], 2))
        return embedded


class PiecewiseLinearEmbedding(nn.Module):
    """Embedding of numbers by their place among bins: 1 for each bin below, a share of their own bin, 0 above.

    Gorishniy, Rubachev and Babenko (2022), there `Q-LR`. They take quantiles of each feature as the edges. Features
    arrive here scaled, so the edges are the quantiles of what their scaling aims at, the same for all features: of the
    standard normal distribution, or of the uniform one on the interval of `unit` and `symmetric`. With
    numeric_scaling = "quantile" these are the feature's own.
    """

    edges: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, features: int, edges: list[float], size: int) -> None:
        super().__init__()
        bins = len(edges) - 1
        least, most = [-math.inf] + [0.0] * (bins - 1), [1.0] * (bins - 1) + [math.inf]
        # They follow from the configuration and are no part of the weights.
        for name, values in (("edges", edges), ("least", least), ("most", most)):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.linear = FeatureLinear(features, bins, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings (n, features * size) of numbers (n, features)."""
        low, high = self.edges[:-1], self.edges[1:]
        shares = torch.clamp((x.unsqueeze(2) - low) / (high - low), self.least, self.most)
        embedded: Tensor = self.linear(shares)
        return embedded


def bin_edges(config: TrialConfig) -> list[float]:
    """Return the edges of the bins of scaled numbers: `numeric_bins` of them, and one."""
    places = [i / config.numeric_bins for i in range(config.numeric_bins + 1)]
    if config.numeric_scaling is None and config.input_scaling == "unit":
        return places
    if config.numeric_scaling is None and config.input_scaling == "symmetric":
        return [2 * place - 1 for place in places]
    normal = NormalDist()
    return [normal.inv_cdf(TAIL + (1 - 2 * TAIL) * place) for place in places]


class FeatureEmbedding(nn.Module):
    """Input layer for the features of a table: numbers, as they are or embedded, then a learned vector per category.

    A category's code 0, which stands for every value that is not known, is a vector of zeros and stays so. The vectors
    start as those of Gorishniy et al., "Revisiting deep learning models for tabular data" (NeurIPS 2021); their sizes
    are those of `hpo.config.model_size.embedding_sizes`.

    Raises:
        ConfigError: the samples are not flat features.
    """

    def __init__(self, config: TrialConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ConfigError(
                f"numeric_embedding = '{config.numeric_embedding}': needs the features of a table, but a sample has "
                f"shape {tuple(shape)}; leave it out"
            )
        codes: tuple[int, ...] = getattr(shape, "categories", ())
        self.numbers = shape[0] - len(codes)
        self.number_embedding = _make_numeric_embedding(config, self.numbers)
        self.tables = nn.ParameterList(
            _make_table(count, size) for count, size in zip(codes, embedding_sizes(config, shape), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what the next layer reads, (n, width), of samples (n, features)."""
        numbers, codes = x[:, : self.numbers], x[:, self.numbers :].long()
        parts = [self.number_embedding(numbers)] if self.numbers else []
        parts += [F.embedding(codes[:, i], table, padding_idx=0) for i, table in enumerate(self.tables)]
        return torch.cat(parts, 1)


def _make_numeric_embedding(config: TrialConfig, numbers: int) -> nn.Module:
    kind, size = config.effective().get("numeric_embedding"), config.numeric_embedding_size
    if not numbers or kind is None:
        return nn.Identity()
    if kind == "periodic":
        return PeriodicEmbedding(numbers, config.periodic_frequencies, config.periodic_sigma, size)
    return PiecewiseLinearEmbedding(numbers, bin_edges(config), size)


def _make_table(codes: int, size: int) -> nn.Parameter:
    """Return the vectors of so many codes; the first is zero."""
    bound = 1 / math.sqrt(size)
    table = torch.empty(codes, size).uniform_(-bound, bound)
    table[0] = 0
    return nn.Parameter(table)


class ResidualBlock(nn.Module):
    """Block that adds to its inputs: batch norm, or layer norm, linear, activation, dropout, linear, dropout."""

    def __init__(self, config: TrialConfig) -> None:
        super().__init__()
        hidden = max(1, round(config.width * config.hidden_factor))
        self.layers = nn.Sequential(
            _norm(config),
            nn.Linear(config.width, hidden),
            make_activation(config),
            make_dropout(config),
            nn.Linear(hidden, config.width, bias=config.layer_norm),
            nn.Dropout(config.residual_dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n, width) of inputs (n, width)."""
        outputs: Tensor = x + self.layers(x)
        return outputs


class ResNetTabular(nn.Sequential):
    """Residual network for tables of Gorishniy et al., "Revisiting deep learning models for tabular data" (2021).

    A linear layer to `width` units, `depth` blocks, then batch norm, activation and the output layer; at depth 0 the
    output layer alone. With `layer_norm`, that takes batch norm's place. Samples of more dimensions than one are
    flattened. Layers whose sums are all normalised over the batch later have no bias: normalisation takes it away, and
    an optimizer would follow the rounding noise of its gradient.
    """

    def __init__(self, config: TrialConfig, shape: tuple[int, ...], outputs: int) -> None:
        layers = list[nn.Module]([nn.Flatten()] if len(shape) > 1 else [])
        size = measure_input(config, shape)
        layers += [FeatureEmbedding(config, shape)] if size.embedded else []
        if config.depth:
            layers += [nn.Linear(size.width, config.width, bias=config.layer_norm)]
            layers += [ResidualBlock(config) for _ in range(config.depth)]
            layers += [_norm(config), make_activation(config)]
        super().__init__(*layers, nn.Linear(config.width if config.depth else size.width, outputs))


def _norm(config: TrialConfig) -> nn.Module:
    return nn.LayerNorm(config.width) if config.layer_norm else nn.BatchNorm1d(config.width)


def resnet_tabular(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a residual network for tables; see `ResNetTabular`."""
    return ResNetTabular(config, shape, classes)
