"""Features of tables: what the columns of a raw matrix mean, and the shape of a sample that holds categories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from hpo.errors import DataError

__all__ = ["Feature", "SampleShape", "check_matrix"]

CHUNK = 4096  # rows that are checked at once


class Feature(BaseModel):
    """Feature of a table: one column of its raw matrix, which is float32, (samples, features).

    A number is itself, and NaN where it is missing. A category is a code: NaN where it is missing, 0 for any value that
    is not listed, and i + 1 for `categories[i]`.

    Attributes:
        name: of the feature; unique in its table.
        column: of the file, from which it was made; a date gives several features.
        kind: whether it holds numbers or codes.
        missing: whether any training row of the file lacks it.
        categories: the values that have codes of their own, the most frequent first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    column: str
    kind: Literal["number", "category"] = "number"
    missing: bool = False
    categories: tuple[str, ...] = ()


class SampleShape(tuple[int, ...]):
    """Shape of a sample as models see it: (channels, H, W) or (features,).

    Attributes:
        categories: how many codes each category has, from 0; the last features are these codes, the first are numbers.
    """

    categories: tuple[int, ...]

    def __new__(cls, sizes: Iterable[int], categories: Iterable[int] = ()) -> Self:
        """Return the shape with those sizes."""
        shape = super().__new__(cls, sizes)
        shape.categories = tuple(categories)
        return shape

    def __getnewargs__(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what a copy is made of."""
        return tuple(self), self.categories


def check_matrix(x: Any, features: Sequence[Feature], where: str) -> None:
    """Check a raw matrix (N, features): numbers are finite or NaN, and codes are those of their category or NaN.

    Raises:
        DataError: they are not, or the matrix has another number of columns.
    """
    if len(x.shape) != 2 or x.shape[1] != len(features):
        raise DataError(
            f"{where}: samples of shape {tuple(x.shape[1:])}, but there are {len(features)} features; give a column of "
            "numbers for each"
        )
    most = np.array([len(feature.categories) if feature.kind == "category" else np.inf for feature in features])
    coded = np.isfinite(most)
    for start in range(0, len(x), CHUNK):
        rows = np.asarray(x[start : start + CHUNK])
        wrong = np.isinf(rows)
        codes = rows[:, coded]
        # Comparisons with NaN are false.
        wrong[:, coded] |= (codes < 0) | (codes > most[coded]) | (codes != np.floor(codes)) & ~np.isnan(codes)
        if wrong.any():
            row, column = (int(each) for each in np.argwhere(wrong)[0])
            raise DataError(f"{where}: {_describe_wrong(rows[row, column], features[column], start + row)}")


def _describe_wrong(value: Any, feature: Feature, sample: int) -> str:
    if feature.kind == "number":
        return f"feature '{feature.name}' of sample {sample} is {value}; replace it, or make it NaN if it is missing"
    return (
        f"feature '{feature.name}' of sample {sample} is {value}; a category is a code from 0 to "
        f"{len(feature.categories)}, or NaN if it is missing"
    )
