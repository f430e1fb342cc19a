"""Encoder of tables: the raw matrix becomes the inputs of a model, by the statistics of the training part alone.

The encoded matrix is float32: first the numbers, scaled, those that are missing replaced by the median; then for each
number that may be missing a 0 or a 1 that says so; last the categories, as codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, model_validator

from hpo.datasets.features import Feature, SampleShape, find_wrong
from hpo.utils.home import cores

__all__ = ["QUANTILE_BOUND", "CategoryColumn", "NumberColumn", "TableEncoder"]

Array = np.ndarray[Any, Any]
CHUNK = 4096  # rows that are encoded at once, in the cache of a core
COLUMNS = 8  # that are fitted at once by a core: a cache line of a row-major matrix holds 16
QUANTILES = 1000
# A rank of 0 or 1 has no normal deviate, nor has one that float32 cannot tell from it: 5.2 deviations are the most.
QUANTILE_BOUND = 1e-7
TINY, HUGE = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


class NumberColumn(BaseModel):
    """Encoding of a number: (x - shift) / scale, or by rank the deviate of the normal distribution.

    Attributes:
        name: of the feature.
        median: of the training part; it stands for missing numbers.
        shift, scale: of the values. A number that is constant or missing in the whole training part says nothing, and
            is 0 everywhere: its scale is the largest that there is.
        quantiles: of the training part, ascending and evenly spaced in rank, at least two; empty where shift and scale
            are used.
        missing: whether a further column says where it is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number"] = "number"
    name: str
    median: FiniteFloat
    shift: FiniteFloat = 0.0
    scale: Annotated[FiniteFloat, Field(gt=0)] = HUGE
    quantiles: tuple[FiniteFloat, ...] = Field((), max_length=QUANTILES)
    missing: bool = False

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if len(self.quantiles) == 1 or (np.diff(self.quantiles) < 0).any():
            raise ValueError("quantiles must be two or more, in ascending order")
        return self


class CategoryColumn(BaseModel):
    """Encoding of a category: the code of each value.

    Attributes:
        name: of the feature.
        codes: encoded code of each raw one, from 0: itself, or 0 if the training part has no sample of it. The last is
            that of missing values.
        missing: whether missing values have a code of their own, the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["category"] = "category"
    name: str
    codes: tuple[NonNegativeInt, ...] = Field(min_length=2, max_length=100_000)
    missing: bool = False

    @model_validator(mode="after")
    def _within(self) -> Self:
        if any(code not in (0, raw) for raw, code in enumerate(self.codes)) or (self.codes[-1] and not self.missing):
            raise ValueError("each code must be 0 or its own number, and the last 0 if missing values have none")
        return self

    @property
    def size(self) -> int:
        """The number of codes."""
        return len(self.codes) - (not self.missing)


class TableEncoder(BaseModel):
    """Encoder of the raw matrix of a table (see `hpo.datasets.Feature`). It is stored as JSON.

    Attributes:
        columns: of the raw matrix, in its order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")], ...] = Field(min_length=1)

    @classmethod
    def fit(cls, x: Array, index: Array, features: Sequence[Feature], scaling: str) -> Self:
        """Fit the encoder to the rows `index` of a raw matrix.

        Args:
            x: raw matrix (N, len(features)).
            index: rows of the training part, at least one; others have no influence.
            features: what the columns of x mean.
            scaling: of the numbers. `standard` has mean 0 and deviation 1, `unit` runs from 0 to 1 and `symmetric` from
                -1 to 1; `robust` has median 0 and quartiles 1 apart (where these are equal, deviation 1); `quantile` is
                normally distributed; `none` leaves them as they are.
        """

        def fit(first: int) -> list[NumberColumn | CategoryColumn]:
            columns = zip(features[first : first + COLUMNS], _read_columns(x, index, first), strict=True)
            return [
                _fit_number(feature, values, scaling) if feature.kind == "number" else _fit_category(feature, values)
                for feature, values in columns
            ]

        with ThreadPoolExecutor(cores()) as pool:  # NumPy computes without Python's lock
            return cls(columns=tuple(chain.from_iterable(pool.map(fit, range(0, len(features), COLUMNS)))))

    @cached_property
    def shape(self) -> SampleShape:
        """The shape of an encoded sample."""
        indicators = sum(column.missing for column in self.numbers)
        return SampleShape((len(self.columns) + indicators,), tuple(category.size for category in self.categories))

    @cached_property
    def numbers(self) -> tuple[NumberColumn, ...]:
        """The columns of numbers."""
        return tuple(column for column in self.columns if isinstance(column, NumberColumn))

    @cached_property
    def categories(self) -> tuple[CategoryColumn, ...]:
        """The columns of categories."""
        return tuple(column for column in self.columns if isinstance(column, CategoryColumn))

    def find_wrong(self, x: Array) -> str | None:
        """Return what is wrong with the first wrong value of a raw matrix (N, columns), and what to do."""
        most = [len(each.codes) - 2 if isinstance(each, CategoryColumn) else None for each in self.columns]
        return find_wrong(x, [column.name for column in self.columns], most)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the encoded columns."""
        return (
            *(number.name for number in self.numbers),
            *(f"{number.name} is missing" for number in self.numbers if number.missing),
            *(category.name for category in self.categories),
        )

    def positions(self, kind: Literal["number", "category"]) -> Array:
        """Return which columns of the raw matrix are of that kind."""
        positions: Array = np.flatnonzero([column.kind == kind for column in self.columns])
        return positions

    @cached_property
    def imputed(self) -> Array:
        """The encoded medians (numbers,) of float32, which stand for missing numbers."""
        medians = np.array([[number.median] for number in self.numbers], np.float32)
        self._scale(medians)
        imputed: Array = medians[:, 0]
        return imputed

    @cached_property
    def _apart(self) -> tuple[Array, Array, Array]:
        """The positions of numbers and of categories, and which of the numbers have an indicator."""
        return (
            self.positions("number"),
            self.positions("category"),
            np.flatnonzero([number.missing for number in self.numbers]),
        )

    @cached_property
    def _by_rank(self) -> list[tuple[int, Array]]:
        return [(i, np.array(number.quantiles)) for i, number in enumerate(self.numbers) if number.quantiles]

    @cached_property
    def _affine(self) -> tuple[Array, Array]:
        shift = np.array([number.shift for number in self.numbers], np.float32)
        return shift, np.array([number.scale for number in self.numbers], np.float32)

    @cached_property
    def _codes(self) -> tuple[Array, Array, Array]:
        """The codes of all categories one after the other, where each category's begin, and its code if missing."""
        lengths = np.array([len(category.codes) for category in self.categories], np.intp)
        table = np.array([code for category in self.categories for code in category.codes], np.float32)
        return table, np.cumsum(lengths) - lengths, lengths - 1

    def apply(self, x: Array, index: Array | None = None) -> Array:
        """Return the rows `index` (by default all) of a raw matrix x (N, columns), encoded: float32, (n, *shape)."""
        size = len(x) if index is None else len(index)
        encoded = np.empty((size, *self.shape), np.float32)

        def encode(first: int) -> None:
            rows = slice(first, first + CHUNK)
            self._encode(x[rows] if index is None else x[index[rows]], encoded[rows])

        with ThreadPoolExecutor(cores()) as pool:  # NumPy computes without Python's lock
            list(pool.map(encode, range(0, size, CHUNK)))
        return encoded

    def _encode(self, raw: Array, encoded: Array) -> None:
        """Encode a few rows into an array (n, *shape)."""
        numeric, categorical, indicated = self._apart
        if len(numeric):
            numbers = np.ascontiguousarray(raw.T[numeric])  # column by column, in which scaling is fastest
            missing = np.isnan(numbers)
            self._scale(numbers)
            np.copyto(numbers, self.imputed[:, None], where=missing)
            encoded[:, : len(numeric)] = numbers.T
            encoded[:, len(numeric) : len(numeric) + len(indicated)] = missing[indicated].T
        if len(categorical):
            table, starts, ends = self._codes
            codes = raw[:, categorical]
            codes = np.where(np.isnan(codes), ends, codes).astype(np.intp)
            encoded[:, -len(categorical) :] = table[starts + codes]

    def _scale(self, numbers: Array) -> None:
        """Scale numbers (numbers, n) in place; what is missing stays NaN, or is any number by rank."""
        shift, scale = self._affine
        by_rank = [(i, _deviate(numbers[i], quantiles)) for i, quantiles in self._by_rank]
        with np.errstate(over="ignore"):
            numbers -= shift[:, None]
            numbers /= scale[:, None]
        np.clip(numbers, -HUGE, HUGE, out=numbers)  # far outside of a training part that is nearly constant
        numbers[scale >= HUGE] = 0  # of a constant one, exactly
        for i, deviates in by_rank:
            numbers[i] = deviates


def _read_columns(x: Array, index: Array, first: int) -> Array:
    """Return a few columns, from the first on, of the rows `index`: (columns, n), contiguous."""
    columns = np.empty((min(COLUMNS, x.shape[1] - first), len(index)), np.float32)
    for i in range(0, len(index), CHUNK):
        rows = slice(i, i + CHUNK)
        columns[:, rows] = x[index[rows], first : first + COLUMNS].T
    return columns


def _fit_number(feature: Feature, values: Array, scaling: str) -> NumberColumn:
    """Fit a number to its values, of which some may be NaN. They are sorted in place."""
    values.sort()  # NaN last
    present = values[: len(values) - int(np.isnan(values).sum())]
    if not len(present) or present[0] == present[-1]:
        value = float(present[0]) if len(present) else 0.0
        shift = 0.0 if scaling == "none" else value
        return NumberColumn(name=feature.name, median=value, shift=shift, missing=feature.missing)
    median = _quantiles(present, np.array([0.5]))[0]
    if scaling == "quantile":
        quantiles = _quantiles(present, np.linspace(0, 1, min(QUANTILES, len(present))))
        return NumberColumn(
            name=feature.name, median=median, quantiles=tuple(quantiles.tolist()), missing=feature.missing
        )
    shift, scale = SCALINGS[scaling](present)
    scale = min(scale, HUGE) if scale >= TINY else HUGE
    return NumberColumn(name=feature.name, median=median, shift=shift, scale=scale, missing=feature.missing)


def _quantiles(values: Array, ranks: Array) -> Array:
    """Return the quantiles of ascending values at ranks from 0 to 1, interpolated linearly."""
    position = ranks * (len(values) - 1)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, len(values) - 1)
    low, high = values[below].astype(np.float64), values[above].astype(np.float64)
    quantiles: Array = np.maximum.accumulate(low + (high - low) * (position - below))
    return quantiles


def _standard(values: Array) -> tuple[float, float]:
    mean = float(values.mean(dtype=np.float64))
    parts = (values[i : i + CHUNK] - np.float64(mean) for i in range(0, len(values), CHUNK))  # in the cache of a core
    return mean, math.sqrt(sum(float((part * part).sum()) for part in parts) / len(values))


def _unit(values: Array) -> tuple[float, float]:
    low, high = float(values[0]), float(values[-1])
    return low, high - low


def _symmetric(values: Array) -> tuple[float, float]:
    low, high = float(values[0]), float(values[-1])
    return (low + high) / 2, (high - low) / 2


def _robust(values: Array) -> tuple[float, float]:
    low, median, high = _quantiles(values, np.array([0.25, 0.5, 0.75])).tolist()
    return median, high - low if high > low else _standard(values)[1]


SCALINGS: dict[str, Callable[[Array], tuple[float, float]]] = {
    "standard": _standard,
    "unit": _unit,
    "symmetric": _symmetric,
    "robust": _robust,
    "none": lambda _: (0.0, 1.0),
}


def _deviate(values: Array, quantiles: Array) -> Array:
    """Return the normal deviates of the values' ranks among quantiles; of NaN any.

    A value that several quantiles have gets the middle of their ranks, as in scikit-learn's QuantileTransformer.
    """
    from scipy.special import ndtri  # a fifth of a second, which workers without a table need not wait for

    ranks = np.linspace(0, 1, len(quantiles))
    order = np.argsort(values)
    ascending = values[order].astype(np.float64)  # np.interp finds each beside the last: 3 times as fast
    rank = np.interp(ascending, quantiles, ranks)
    if (np.diff(quantiles) == 0).any():
        rank = (rank - np.interp(-ascending, -quantiles[::-1], -ranks[::-1])) / 2
    rank[: np.searchsorted(ascending, quantiles[0], "right")] = 0
    rank[np.searchsorted(ascending, quantiles[-1]) :] = 1
    deviates = np.empty(len(values), np.float32)
    deviates[order] = ndtri(np.clip(rank, QUANTILE_BOUND, 1 - QUANTILE_BOUND))
    return deviates


def _fit_category(feature: Feature, values: Array) -> CategoryColumn:
    missing = np.isnan(values)
    count = len(feature.categories) + 1
    seen = np.flatnonzero(np.bincount(values[~missing].astype(np.intp), minlength=count))
    codes = np.zeros(count + 1, np.intp)
    codes[seen] = seen
    if feature.missing and missing.any():
        codes[-1] = count
    return CategoryColumn(name=feature.name, codes=tuple(codes.tolist()), missing=feature.missing)
