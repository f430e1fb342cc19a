"""Data sets: the type, its checks, and the files that ours are read from. No torch."""

from hpo.datasets.dataset import (
    Dataset,
    DatasetReference,
    DatasetRow,
    Split,
    check_split,
    describe,
    fashion_mnist,
    flat_labels,
    is_path,
    is_split,
    load,
    mnist,
    none,
    reference,
)

__all__ = [
    "Dataset",
    "DatasetReference",
    "DatasetRow",
    "Split",
    "check_split",
    "describe",
    "fashion_mnist",
    "flat_labels",
    "is_path",
    "is_split",
    "load",
    "mnist",
    "none",
    "reference",
]
