"""Data sets: the type, its checks, and the files that ours are read from. No torch."""

from hpo.datasets.dataset import Dataset, Split, check_split, flat_labels, is_split, none
from hpo.datasets.idx import fashion_mnist, mnist
from hpo.datasets.reference import DatasetReference, DatasetRow, describe, is_path, load, make_reference

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
    "make_reference",
    "mnist",
    "none",
]
