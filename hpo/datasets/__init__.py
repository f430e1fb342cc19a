"""Data sets: the type, its checks, and the files that ours are read from. No torch."""

from hpo.datasets.dataset import Dataset, Split, check_split, flat_labels, guess_task, is_split, none, read_labels
from hpo.datasets.features import Feature, SampleShape
from hpo.datasets.idx import fashion_mnist, mnist
from hpo.datasets.reference import DatasetReference, DatasetRow, describe, is_path, load, make_reference
from hpo.datasets.row_split import split_rows
from hpo.datasets.source import DatasetSource

__all__ = [
    "Dataset",
    "DatasetReference",
    "DatasetRow",
    "DatasetSource",
    "Feature",
    "SampleShape",
    "Split",
    "check_split",
    "describe",
    "fashion_mnist",
    "flat_labels",
    "guess_task",
    "is_path",
    "is_split",
    "load",
    "make_reference",
    "mnist",
    "none",
    "read_labels",
    "split_rows",
]
