"""Reader of batches of a map-style data set, in worker processes of torch's DataLoader while training goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpo.datasets import Split
from hpo.datasets.map_style import Samples
from hpo.errors import DataError
from hpo.training.conversion import channels_first

__all__ = ["read_batches"]

Array = np.ndarray[Any, Any]
READING = 3  # purpose of a random stream, beside those of `hpo.training.data`
ENDED = "DataLoader worker"  # torch's error of a process that was killed begins so


def read_batches(
    samples: Samples, batches: Sequence[Array], place: Sequence[int], first: int = 0, *, pin: bool = False
) -> Iterator[Split]:
    """Yield batches of samples, x (n, …) and y (n,) or (n, columns), in their order.

    With `samples.workers` processes that read, the next batches are read while the last one is trained on. What a
    sample or `collate` draws at random then follows from the place and the number of its batch alone, whatever the
    number of processes. Without processes and `collate`, samples draw from the global generators.

    Args:
        samples: the data set.
        batches: the indices of each batch.
        place: (seed of the order, epoch), from which the random numbers follow.
        first: number of the batch to begin with.
        pin: whether tensors are put into pinned memory, from which they are copied to a GPU while that computes.

    Raises:
        DataError: a sample cannot be read, or is not like the first; or a process has ended.
    """
    if not samples.workers and samples.collate is None:
        yield from (samples.read(index.tolist()) for index in batches[first:])
        return
    items = _Batches(samples, batches, tuple(place))
    if not samples.workers:
        for number in range(first, len(batches)):
            with _keep_generators():
                batch = items.read(number)
            yield batch
        return
    loader = DataLoader(
        items,
        batch_size=None,  # an item is a batch
        sampler=range(first, len(batches)),
        num_workers=samples.workers,
        pin_memory=pin,
        generator=torch.Generator(),  # so that nothing is drawn from the global one
    )
    try:
        for batch in loader:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch
    except RuntimeError as error:
        if ENDED not in str(error):
            raise
        raise DataError(
            f"{samples.where}: a process that reads samples has ended; if memory was short, give fewer `workers`"
        ) from error


@dataclass(frozen=True)
class _Batches(Dataset[Any]):
    """Batches as the items of a data set."""

    samples: Samples
    batches: Sequence[Array]
    place: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | str:
        """Return a batch as tensors; or what is wrong, for torch would add a stack trace to an error."""
        try:
            x, y = self.read(number)
        except DataError as error:
            return str(error)
        if not isinstance(x, Tensor):
            x = torch.from_numpy(np.ascontiguousarray(x if self.samples.collate else channels_first(x)))
        return x, torch.as_tensor(y)

    def read(self, number: int) -> Split:
        """Return a batch, drawn at random from seeds of its own."""
        _seed_generators([*self.place, number])
        return self.samples.read(self.batches[number].tolist())


@contextmanager
def _keep_generators() -> Iterator[None]:
    """Put the generators that samples may draw from back to where they were."""
    numpy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numpy)
            random.setstate(python)


def _seed_generators(place: Sequence[int]) -> None:
    """Seed the generators that a sample may draw from."""
    seeds = np.random.SeedSequence([place[0], READING, *place[1:]]).generate_state(3)
    torch.manual_seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    random.seed(int(seeds[2]))
