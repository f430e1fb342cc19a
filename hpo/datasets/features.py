"""Features of tables: what the columns of a raw matrix mean, and the shape of a sample that holds categories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from hpo.errors import DataError

__all__ = ["Feature", "SampleShape", "check_matrix", "find_wrong"]

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

    @property
    def source(self) -> str:
        """The name that people know: the column of the file, or its own where it is of none."""
        return self.column or self.name


class SampleShape(tuple[int, ...]):
    """Shape of a sample as models see it: (channels, H, W) or (features,).

    Attributes:
        categories: how many codes each category has, from 0; the last features are these codes, the first are numbers.
    """

    categories: tuple[int, ...]
    _vocabulary: int | str | None

    def __new__(cls, sizes: Iterable[int], categories: Iterable[int] = (), vocabulary: int | str | None = None) -> Self:
        """Return the shape with those sizes; for a vocabulary that is not known, give the reason in words."""
        shape = super().__new__(cls, sizes)
        shape.categories = tuple(categories)
        shape._vocabulary = vocabulary
        return shape

    @property
    def vocabulary(self) -> int | None:
        """Of samples that are codes, such as token ids: how many there are, from 0. None where models see numbers.

        Raises:
            DataError: no code has a bound; the message says why.
        """
        if isinstance(self._vocabulary, str):
            raise DataError(f"shape.vocabulary is not known: {self._vocabulary}")
        return self._vocabulary

    def __getnewargs__(self) -> tuple[tuple[int, ...], tuple[int, ...], int | str | None]:
        """Return what a copy is made of."""
        return tuple(self), self.categories, self._vocabulary


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
    most = [len(feature.categories) if feature.kind == "category" else None for feature in features]
    if wrong := find_wrong(x, [feature.name for feature in features], most):
        raise DataError(f"{where}: {wrong}")


def find_wrong(x: Any, names: Sequence[str], most: Sequence[int | None]) -> str | None:
    """Return what is wrong with the first wrong value of a raw matrix (N, columns), and what to do.

    Args:
        x: the matrix, with NaN where a value is missing.
        names: of its columns.
        most: the largest code of each category; None for numbers.
    """
    coded = np.array([each is not None for each in most])
    largest = np.array([each for each in most if each is not None])
    for start in range(0, len(x), CHUNK):
        rows = np.asarray(x[start : start + CHUNK])
        wrong, codes = np.isinf(rows), rows[:, coded]
        with np.errstate(invalid="ignore"):
            # Comparisons with NaN are false.
            wrong[:, coded] |= (codes < 0) | (codes > largest) | (codes != np.floor(codes)) & ~np.isnan(codes)
        if wrong.any():
            row, column = (int(each) for each in np.argwhere(wrong)[0])
            code = most[column]
            what = f"feature '{names[column]}' of sample {start + row} is {rows[row, column]}"
            if code is None:
                return f"{what}; replace it, or make it NaN if it is missing"
            return f"{what}; a category is a code from 0 to {code}, or NaN if it is missing"
    return None
