"""Data sets whose images are brought to another size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from hpo.datasets.dataset import Dataset, Split, is_split
from hpo.datasets.image_arrays import Size, resize_images
from hpo.datasets.map_style import Samples

__all__ = ["resize_dataset"]


@dataclass(frozen=True)
class ResizedBatches:
    """Batches of a data set that streams, with their images brought to a size.

    Attributes:
        batches: the user's.
        size: height and width.
        where: the beginning of an error's line: the data set and the part.
    """

    batches: Any
    size: Size
    where: str

    def __len__(self) -> int:
        """Return how many batches there are."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Split]:
        """Yield the batches (x, y)."""
        return ((resize_images(x, self.size, self.where), y) for x, y in self.batches)


def resize_dataset(dataset: Dataset, size: Size | None, where: str) -> Dataset:
    """Return a data set whose images have a height and a width; without a size the same one.

    Args:
        dataset: with the data in memory, or in batches.
        size: height and width.
        where: the beginning of an error's line: the file, or the data set.

    Raises:
        DataError: its samples are no images.
    """
    if size is None:
        return dataset
    test = dataset.test

    def read_test() -> Any:
        return _resize_part(test() if callable(test) else test, size, f"{where}, test")

    train = _resize_part(dataset.train, size, f"{where}, train")
    validation = _resize_part(dataset.validation, size, f"{where}, validation")
    return replace(dataset, train=train, validation=validation, test=None if test is None else read_test)


def _resize_part(part: Split | Iterable[Split] | None, size: Size, where: str) -> Any:
    if part is None or isinstance(part, Samples):  # which are brought to the size as they are read
        return part
    if not is_split(part):
        return ResizedBatches(part, size, where)
    x, y = part
    return resize_images(x, size, where), y
