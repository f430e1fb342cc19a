"""Features of tables: what the columns of a raw matrix mean, and the shape of a sample that holds categories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

__all__ = ["Feature", "SampleShape"]


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
