"""A data set that may be larger than memory, read from its file batch by batch.

`python streaming.py` writes the file, here of MNIST's 60,000 digits; `hpo launch ./streaming.toml --import streaming`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import hpo
from hpo.datasets import mnist

FILE = Path(__file__).parent / "digits.records"
RECORD = np.dtype([("x", np.uint8, (28, 28)), ("y", np.int64)])
VALIDATION = 5_000  # the last records


class Batches:
    """The records before the validation records, a block at a time, the blocks in another order each epoch."""

    def __init__(self, size: int) -> None:
        self.records = FILE.stat().st_size // RECORD.itemsize - VALIDATION
        self.size = size

    def __len__(self) -> int:
        return self.records // self.size

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # From torch's global generator, which follows from the study's seed and the epoch: a trial that resumes passes
        # over the batches that it has seen, and two trials see the same ones.
        for block in torch.randperm(len(self)).tolist():
            yield read(block * self.size, self.size)


def read(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many records from `first` on."""
    found = np.fromfile(FILE, RECORD, count, offset=first * RECORD.itemsize)
    return found["x"], found["y"]


@hpo.dataset("digits_on_disk")
def digits_on_disk() -> hpo.Dataset:
    """MNIST's digits, of which no more than a block is in memory at a time, and 5,000 for validation."""
    batches = Batches(512)
    return hpo.Dataset(train=batches, validation=read(batches.records, VALIDATION), classes=10)


if __name__ == "__main__":
    x, y = mnist().train
    records = np.zeros(len(x), RECORD)
    records["x"], records["y"] = x, y
    records.tofile(FILE)
