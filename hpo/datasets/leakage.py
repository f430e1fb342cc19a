"""Leakage and other faults of a data set, looked for in its samples and labels. NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.config.resampling import Division
from hpo.datasets.column_leaks import MOST_LABELS, NamedLabels, count_distinct, find_columns
from hpo.datasets.data_facts import ClassFacts, DataFacts, DataIssue, Overlap, TargetFact, describe_facts
from hpo.datasets.dataset import Dataset, guess_task, is_split, read_labels
from hpo.datasets.fold_split import divide_rows, goes_by_time
from hpo.datasets.row_split import split_rows
from hpo.errors import ConfigError
from hpo.utils.home import cores

__all__ = ["collect_facts", "find_issues"]

Array = np.ndarray[Any, Any]
CHUNK = 2**20  # bytes hashed at once, in the cache of a core
MIXER = np.uint64(0x9E3779B97F4A7C15)  # odd, of no pattern
FEWEST = 30  # targets, of which less can be said by chance
SKEWED, FAR = 2.0, 10.0  # skewness; robust standard deviations from the median
SHARE = 0.2  # that validates where no study says how many do
NAMED = 5  # classes that are listed


def collect_facts(
    dataset: Dataset,
    validation: float,
    seed: int,
    test: Any = None,
    division: Division | None = None,
    *,
    integers: bool = False,
) -> DataFacts | None:
    """Look at a data set as it is split for training; None of one that gives batches, which is not in memory.

    It takes about as long as reading the data from a file: samples are hashed, and columns looked at in 20,000 samples.

    Args:
        dataset: as `hpo.datasets.load` returns it.
        validation: the share or number of training samples that validate, where the data set has no validation data.
        seed: of the split.
        test: the test data (x, y), if they may be read.
        division: of the training samples, where trials are fitted on several; its first part stands for all.
        integers: whether models take samples as whole numbers. Unless their columns have names, they are sequences of
            codes then, as are those with a vocabulary, and one place in a sequence is no column that could be left out.

    Raises:
        ConfigError: `validation` does not fit the data, or there are too few samples for the division.
        DataError: groups or times do not fit the data; or labels cannot be read.
    """
    if not is_split(dataset.train):
        return None
    part: Any = dataset.train
    x, y = part
    task = dataset.task or guess_task(y)
    labels = NamedLabels(read_labels(y, "train", task), task, dataset.output_names)
    train, held = np.arange(len(labels.values)), np.arange(0)
    own: Any = dataset.validation if division is None and is_split(dataset.validation) else None
    if division is not None:
        rows = dataset.groups, dataset.times
        train, held = divide_rows(labels.values, division, seed, task, *rows, share=validation)
    elif dataset.validation is None and validation:
        train, held = split_rows(labels.values, validation, seed, task, dataset.groups, dataset.times)
    keys = _Keys.read(x, labels.values)
    validating = labels.values[held] if own is None else read_labels(own[1], "validation", task)
    parts = {"validation": keys.take(held) if own is None else _Keys.read(own[0], validating)}
    if is_split(test):
        parts["test"] = _Keys.read(test[0], read_labels(test[1], "test", task))
    codes = (integers or dataset.vocabulary is not None) and not dataset.features
    has_columns = len(x.shape) == 2 and not codes
    return DataFacts(
        task=task,
        train=len(train),
        validation=len(validating),
        test=len(parts["test"].samples) if "test" in parts else None,
        distinct=count_distinct(keys.samples),
        overlaps=tuple(
            _compare(name, part, keys if name == "test" else keys.take(train))
            for name, part in parts.items()
            if len(part.samples)
        ),
        columns_seen=_count_columns(dataset, x) if has_columns else 0,
        columns=tuple(find_columns(dataset, _flat(x), labels)) if has_columns else (),
        classes=None if task == "regression" else _count_classes(labels, train, validating, dataset.classes),
        targets=tuple(_find_odd_targets(labels)) if task == "regression" else (),
        unlabelled=_count_unlabelled(dataset),
        late=_count_late(dataset, train, held),
        validated=_count_validated(division, dataset.times, len(train), len(labels.values)),
    )


def find_issues(dataset: Dataset, test: Any = None) -> list[DataIssue]:
    """Return what is to be said of a data set that no study splits yet, as if a fifth of it validated.

    Args:
        dataset: as `hpo.datasets.load` returns it.
        test: the test data (x, y), if they may be read.

    Raises:
        DataError: groups or times do not fit the data; or labels cannot be read.
    """
    try:
        facts = collect_facts(dataset, SHARE, 0, test)
    except ConfigError:  # too few samples for that
        facts = collect_facts(dataset, 0, 0, test)
    issues = [] if facts is None else describe_facts(facts)
    return [issue for issue in issues if dataset.validation is not None or issue.topic != "validation_set"]


# Copies


@dataclass(frozen=True)
class _Keys:
    """Hashes of samples, (N,), and of samples with their labels, (N,)."""

    samples: Array
    pairs: Array

    @classmethod
    def read(cls, x: Any, labels: Array) -> _Keys:
        """Hash the samples of a part: 64 bits, of which two of a million are equal by chance once in 10⁷ times."""
        return cls(*_hash_rows(_flat(x), labels.reshape(len(labels), -1)))

    def take(self, index: Array) -> _Keys:
        """Return those of some samples."""
        return _Keys(self.samples[index], self.pairs[index])


def _flat(x: Any) -> Array:
    """Return samples as a matrix (N, numbers)."""
    if hasattr(x, "detach"):  # a tensor
        x = x.detach().cpu()
        x = x.float() if str(x.dtype).endswith("bfloat16") else x
    array = np.asarray(x)
    return array.reshape(len(array), -1)


def _hash_rows(x: Array, labels: Array) -> tuple[Array, Array]:
    """Return 64-bit hashes (N,) of rows, and of rows with their labels (N, columns)."""
    samples, pairs = np.empty(len(x), np.uint64), np.empty(len(x), np.uint64)
    step = max(1, CHUNK // max(1, x.shape[1] * x.itemsize))

    def read(start: int) -> None:
        rows = slice(start, start + step)
        samples[rows] = _mix(np.full(len(x[rows]), x.shape[1], np.uint64), x[rows])
        pairs[rows] = _mix(samples[rows].copy(), labels[rows])

    with ThreadPoolExecutor(cores()) as pool:  # NumPy computes without Python's lock
        list(pool.map(read, range(0, len(x), step)))
    return samples, pairs


def _mix(hashes: Array, rows: Array) -> Array:
    """Mix rows (n, numbers) into their hashes (n,), a word of 32 bits at a time, and return these."""
    content = rows + rows.dtype.type(0) if rows.dtype.kind == "f" else rows  # -0.0 and 0.0 are one number
    size = content.shape[1] * content.itemsize
    padded = np.zeros((len(content), -(-size // 4) * 4), np.uint8)
    padded[:, :size] = np.ascontiguousarray(content).view(np.uint8)
    for word in np.ascontiguousarray(padded.view(np.uint32).T):
        hashes ^= word
        hashes *= MIXER
        hashes ^= hashes >> np.uint64(32)
    return hashes


def _compare(part: Any, keys: _Keys, train: _Keys) -> Overlap:
    copies, equal = _are_in(keys.samples, train.samples), _are_in(keys.pairs, train.pairs)
    return Overlap(
        part=part, samples=len(copies), equal=int((copies & equal).sum()), other=int((copies & ~equal).sum())
    )


def _are_in(keys: Array, others: Array) -> Array:
    """Return whether each key is among others; by sorting, which is faster than `np.isin` of a million."""
    ordered = np.sort(others)
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    found: Array = ordered[places] == keys
    return found


def _count_validated(division: Division | None, times: Array | None, train: int, samples: int) -> int:
    """Count the samples that all folds validate together: of folds by time not the first ones; 0 without folds."""
    if division is None or division.kind == "holdout":
        return 0
    return samples - train if goes_by_time(division, times) else samples


def _count_late(dataset: Dataset, train: Array, held: Array) -> int:
    """Count training samples that are later than the first validation sample, though rows are split by time."""
    if dataset.times is None or not len(held):
        return 0
    return int((dataset.times[train] > dataset.times[held].min()).sum())


# Labels


def _count_classes(labels: NamedLabels, train: Array, validating: Array, classes: int | None) -> ClassFacts:
    y = labels.values
    if labels.task == "multilabel":
        of_train, of_validation = (part.sum(0).astype(np.int64) for part in (y[train], validating))
        every = y.mean(0)
        uneven = int(np.abs(every - 0.5).argmax())
        largest, share = uneven, float(max(every[uneven], 1 - every[uneven]))
    else:
        count = max(classes or 0, int(y.max()) + 1)
        of_train, of_validation = (np.bincount(part, minlength=count) for part in (y[train], validating))
        largest = int((of_train + of_validation).argmax())
        share = float((of_train + of_validation)[largest] / (len(train) + len(validating)))
    both = of_train + of_validation
    lacking = np.flatnonzero(of_train == 0), np.flatnonzero(of_validation == 0)
    if not len(validating):
        lacking = lacking[0], np.arange(0)
    return ClassFacts(
        classes=len(both),
        largest=labels.name(largest),
        largest_share=share,
        smallest=labels.name(int(both.argmin())),
        smallest_count=int(both.min()),
        rarest_in_validation=int(min(of_validation[of_validation > 0], default=0)),
        lacking_in_training=tuple(labels.name(int(each)) for each in lacking[0][:NAMED]),
        lacking_in_validation=tuple(labels.name(int(each)) for each in lacking[1][:NAMED]),
        lacking_counts=(len(lacking[0]), len(lacking[1])),
    )


def _find_odd_targets(labels: NamedLabels) -> Iterator[TargetFact]:
    for number in range(min(labels.values.shape[1], MOST_LABELS)):
        y = labels.values[:, number].astype(np.float64)
        spread = float(y.std())
        if not spread or len(y) < FEWEST:
            continue
        skewness = float((((y - y.mean()) / spread) ** 3).mean())
        median = float(np.median(y))
        robust = 1.4826 * float(np.median(np.abs(y - median)))
        outliers = int((np.abs(y - median) > FAR * robust).sum()) if robust else 0
        if abs(skewness) >= SKEWED:
            yield TargetFact(
                name=labels.name(number) if labels.names or labels.values.shape[1] > 1 else "",
                skewness=skewness,
                outliers=outliers,
                low=float(y.min()),
                median=median,
                high=float(y.max()),
            )


def _count_unlabelled(dataset: Dataset) -> int:
    """Count the rows that are missing between those of the training data, and of the test data held out of them."""
    if "train" not in dataset.rows or not len(dataset.rows["train"]):
        return 0
    used = [dataset.rows[part] for part in ("train", "test") if part in dataset.rows]
    rows = np.concatenate(used)
    return int(rows.max()) - count_distinct(rows)


def _count_columns(dataset: Dataset, x: Any) -> int:
    """Count the columns of samples: a date is one, whatever features it has."""
    return len({feature.source for feature in dataset.features}) or int(x.shape[1])
