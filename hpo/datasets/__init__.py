"""Data sets: the type, its checks, and the files that ours are read from. No torch."""

from hpo.datasets.data_facts import DataFacts, DataIssue, describe_facts, list_serious_issues
from hpo.datasets.dataset import Dataset, Split, check_split, flat_labels, guess_task, is_split, none, read_labels
from hpo.datasets.features import Feature, SampleShape
from hpo.datasets.fold_split import divide_rows
from hpo.datasets.idx import fashion_mnist, mnist
from hpo.datasets.leakage import collect_facts, find_issues
from hpo.datasets.outer_fold import OuterFold, list_outer_folds
from hpo.datasets.reference import (
    DatasetReference,
    DatasetRow,
    check_unchanged,
    describe,
    full_name,
    is_path,
    load,
    make_reference,
)
from hpo.datasets.row_split import split_rows
from hpo.datasets.source import DatasetSource

__all__ = [
    "DataFacts",
    "DataIssue",
    "Dataset",
    "DatasetReference",
    "DatasetRow",
    "DatasetSource",
    "Feature",
    "OuterFold",
    "SampleShape",
    "Split",
    "check_split",
    "check_unchanged",
    "collect_facts",
    "describe",
    "describe_facts",
    "divide_rows",
    "fashion_mnist",
    "find_issues",
    "flat_labels",
    "full_name",
    "guess_task",
    "is_path",
    "is_split",
    "list_outer_folds",
    "list_serious_issues",
    "load",
    "make_reference",
    "mnist",
    "none",
    "read_labels",
    "split_rows",
]
