"""Graph of an exported model: before it the encoding of a table, and behind it the units of the targets.

It takes the raw matrix of a table, so that its ONNX file needs nothing beside it. It computes what
`hpo.datasets.table_encoder` does with operations that ONNX has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hpo.datasets.table_encoder import QUANTILE_BOUND, TableEncoder
from hpo.export.format import Preprocessing

__all__ = ["TableEncoding", "TargetUnits", "make_graph"]


def make_graph(model: nn.Module, inputs: Preprocessing) -> nn.Module:
    """Return a model of samples as an ONNX file has it: of the raw matrix of a table, and with targets in their units.

    Images and other arrays are still to be scaled.
    """
    before: list[nn.Module] = [TableEncoding(inputs.encoder)] if inputs.encoder is not None else []
    before += [WholeNumbers()] if before and inputs.values == "integer" else []
    behind = [TargetUnits(inputs)] if inputs.task == "regression" else []
    return nn.Sequential(*before, model, *behind) if before or behind else model


class WholeNumbers(nn.Module):
    """Encoded samples as int64."""

    def forward(self, x: Tensor) -> Tensor:
        """Return samples x (n, *shape) of whole numbers as int64."""
        return x.long()


class TargetUnits(nn.Module):
    """Units of targets: see `Preprocessing.to_targets`."""

    shift: Tensor
    scale: Tensor

    def __init__(self, inputs: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(inputs.target_shift))
        self.register_buffer("scale", torch.tensor(inputs.target_scale))

    def forward(self, outputs: Tensor) -> Tensor:
        """Return targets (n, T), or their means and standard deviations (n, 2 T)."""
        count = len(self.shift)
        means = outputs[:, :count] * self.scale + self.shift
        if outputs.shape[1] == count:
            return means
        return torch.cat([means, torch.exp(outputs[:, count:] / 2) * self.scale], dim=1)


class TableEncoding(nn.Module):
    """Encoding of a table's raw matrix (n, columns): see `TableEncoder`."""

    numeric: Tensor
    categorical: Tensor
    indicated: Tensor
    shift: Tensor
    scale: Tensor
    imputed: Tensor
    codes: Tensor
    starts: Tensor
    ends: Tensor

    def __init__(self, encoder: TableEncoder) -> None:
        super().__init__()
        numbers, categories = encoder.numbers, encoder.categories
        lengths = np.array([len(category.codes) for category in categories], np.int64)
        buffers = {
            "numeric": encoder.positions("number"),
            "categorical": encoder.positions("category"),
            "indicated": np.flatnonzero([number.missing for number in numbers]),
            "shift": np.array([number.shift for number in numbers], np.float32),
            "scale": np.array([number.scale for number in numbers], np.float32),
            "imputed": encoder.imputed,
            "codes": np.array([code for category in categories for code in category.codes], np.float32),
            "starts": np.cumsum(lengths) - lengths,
            "ends": lengths - 1,
        }
        for name, array in buffers.items():
            self.register_buffer(name, torch.from_numpy(array))
        quantiles = [number.quantiles for number in numbers]
        self.deviates = NormalDeviates(quantiles) if any(quantiles) else None

    def forward(self, x: Tensor) -> Tensor:
        """Return encoded samples (n, *shape)."""
        parts = []
        if len(self.numeric):
            numbers = x.index_select(1, self.numeric)
            missing = torch.isnan(numbers)
            scaled = (numbers - self.shift) / self.scale
            if self.deviates is not None:
                scaled = self.deviates(numbers, scaled)
            parts += [torch.where(missing, self.imputed, scaled), missing.float().index_select(1, self.indicated)]
        if len(self.categorical):
            raw = x.index_select(1, self.categorical)
            known = torch.where((raw >= 0) & (raw < self.ends), raw, 0.0).long()
            parts.append(self.codes[self.starts + torch.where(torch.isnan(raw), self.ends, known)])
        return torch.cat(parts, dim=1)


class NormalDeviates(nn.Module):
    """Normal deviates of numbers' ranks among quantiles, in float64: near 1 float32 has too few ranks.

    Args:
        quantiles: of each number; none where it has another scaling.
    """

    columns: Tensor
    order: Tensor
    quantiles: Tensor
    starts: Tensor
    last: Tensor

    def __init__(self, quantiles: Sequence[Sequence[float]]) -> None:
        super().__init__()
        columns = [i for i, values in enumerate(quantiles) if len(values)]
        order = len(columns) + np.arange(len(quantiles))
        order[columns] = np.arange(len(columns))
        self.steps = [1 << bit for bit in reversed(range(max(map(len, quantiles)).bit_length()))]
        size = 2 * self.steps[0]
        table = np.full((len(columns), size), np.inf)
        for row, column in zip(table, columns, strict=True):
            row[: len(quantiles[column])] = quantiles[column]
        buffers = {
            "columns": np.array(columns),
            "order": order,
            "quantiles": table.ravel(),
            "starts": np.arange(len(columns)) * size,
            "last": np.array([len(quantiles[column]) - 1 for column in columns]),
        }
        for name, array in buffers.items():
            self.register_buffer(name, torch.from_numpy(array))

    def forward(self, numbers: Tensor, scaled: Tensor) -> Tensor:
        """Return scaled numbers (n, numbers), those of the columns replaced by their deviates."""
        x = numbers.index_select(1, self.columns).double()
        below, upto = self._count(x, equal=False), self._count(x, equal=True)
        left = self._clamp(upto - 1)
        right = self._clamp(below)
        low, high = self.quantiles[self.starts + left], self.quantiles[self.starts + right]
        between = torch.where(high > low, (x - low) / torch.where(high > low, high - low, 1.0), 0.5)
        rank = (left + (right - left) * between) / self.last
        rank = torch.where(x <= self.quantiles[self.starts], 0.0, rank)
        rank = torch.where(x >= self.quantiles[self.starts + self.last], 1.0, rank)
        return torch.cat([normal_deviate(rank).float(), scaled], dim=1).index_select(1, self.order)

    def _count(self, x: Tensor, *, equal: bool) -> Tensor:
        """Return how many quantiles are below each number, or equal to it, by bisection."""
        count = torch.zeros_like(x, dtype=torch.int64)
        for step in self.steps:
            probe = self.quantiles[self.starts + count + (step - 1)]
            count = count + step * ((probe <= x) if equal else (probe < x)).long()
        return count

    def _clamp(self, index: Tensor) -> Tensor:
        return torch.minimum(index.clamp(min=0), self.last)


# Coefficients of Wichura's algorithm AS 241 (Applied Statistics 37, 1988), from the highest power down: the numerator
# and the denominator for ranks near 0.5, for the tails, and for the far tails. Its relative error is 1e-16.
CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip


def normal_deviate(rank: Tensor) -> Tensor:
    """Return the deviates of the standard normal distribution at ranks from 0 to 1, in float64."""
    offset = rank - 0.5
    centre = offset * _ratio(CENTRE, 0.180625 - offset * offset)
    # The bound is a constant of float32 in ONNX, which is exact enough near 0, but not near 1.
    beyond = torch.minimum(rank, 1 - rank).clamp(min=QUANTILE_BOUND)
    tail = _ratio(TAIL, torch.sqrt(-torch.log(beyond)) - 1.6)
    return torch.where(offset.abs() <= 0.425, centre, torch.where(offset < 0, -tail, tail))


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    above, below = (_polynomial(each, x) for each in coefficients)
    return above / below


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    first, second, *others = coefficients
    value = first * x + second
    for coefficient in others:
        value = value * x + coefficient
    return value
