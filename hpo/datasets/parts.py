"""Parts of a data set: the test samples are held out of the training data where a file brings none of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.datasets.dataset import Dataset, check_dataset, check_split
from hpo.datasets.labels import code_labels, fit_coding
from hpo.datasets.notes import describe_held_out, describe_task
from hpo.datasets.row_split import split_rows
from hpo.datasets.source import DatasetSource
from hpo.errors import ConfigError, DataError
from hpo.utils.text import shorten

__all__ = [
    "NO_TEST",
    "TEST_SHARE",
    "check_class_count",
    "check_fraction",
    "choose_test_rows",
    "complete_dataset",
    "tell_held_out",
]

Array = np.ndarray[Any, Any]
NO_TEST = 0  # the fraction that holds none out
TEST_SHARE = 0.2  # held out where neither the file nor the study says otherwise
SEED = 0  # the same rows for every study on a file


def complete_dataset(dataset: Dataset, source: DatasetSource, where: str, notes: Sequence[str] = ()) -> Dataset:
    """Return a data set as a file's reader gives it: labels coded, test samples held out, and all of it checked.

    Args:
        dataset: as the file has it; its labels may be texts.
        source: how much is held out as test, where the data set has none; and the task.
        where: the beginning of an error's line: the file.
        notes: what is to be told beside the task and what is held out.

    Raises:
        DataError: a part cannot be used.
    """
    asked = replace(dataset, task=source.asked_task or dataset.task)
    assert isinstance(asked.train, tuple)
    coding = fit_coding(asked.train[1], f"{where}, train", asked.task, tuple(asked.output_names))
    checked = check_dataset(code_labels(asked, where, coding), where)
    check_class_count(checked, source, where)
    held, told = checked, ""
    if checked.test is not None:
        held = replace(checked, test=_check_test(checked, where))
    elif source.test != NO_TEST:
        held = _hold_out(checked, source, where)
        told = tell_held_out(held, source)
    names = source.label or (tuple(asked.output_names) if coding.task != "classification" else ())
    notes = (describe_task(coding.task, coding.reason, names), *notes, told)
    return replace(held, notes=tuple(note for note in notes if note))


def check_class_count(dataset: Dataset, source: DatasetSource, where: str) -> None:
    """Check that labels have two classes where the task that is asked for is `binary`, and more for `multiclass`.

    Raises:
        DataError: they have another number.
    """
    if source.task in ("binary", "multiclass") and (source.task == "binary") != (dataset.classes == 2):
        raise DataError(f"{where}: its labels have {dataset.classes:,} classes, which is not {source.task}")


def tell_held_out(dataset: Dataset, source: DatasetSource) -> str:
    """Return which samples of a data set were held out as test."""
    held = len(dataset.rows["test"])
    total = held + len(dataset.rows["train"])
    return describe_held_out(source, held, total, dataset.groups, dataset.times, "samples")


def _check_test(dataset: Dataset, where: str) -> Callable[[], Any]:
    """Return a function that reads the test data and checks them, which is not done before they are needed."""

    def read() -> Any:
        part = dataset.test() if callable(dataset.test) else dataset.test
        assert isinstance(part, tuple)
        assert dataset.task is not None
        x, y = part
        check_split(x, y, f"{where}, test", dataset.classes, dataset.task, dataset.features)
        return part

    return read


def check_fraction(source: DatasetSource, where: str, *, has_test: bool) -> None:
    """Check that no fraction is asked for where there are test data.

    Raises:
        DataError: it is.
    """
    if has_test and source.test is not None:
        raise DataError(f"{where}: has test data of its own, so none can be held out; leave out test = {source.test}")


def choose_test_rows(
    labels: Array,
    source: DatasetSource,
    task: Task,
    where: str,
    groups: Array | None = None,
    times: Array | None = None,
) -> tuple[Array, Array]:
    """Return the indices of the samples that stay and of those that are held out as test, both ascending.

    Args:
        labels: as training has them, (N,) or (N, columns).
        source: its `test` is the fraction; by default a fifth.
        task: what the labels mean.
        where: the beginning of an error's line: the file.
        groups: of each sample, (N,): those of one stay together.
        times: of each sample, (N,): the latest are held out.

    Raises:
        DataError: the fraction leaves either side without samples.
    """
    share = TEST_SHARE if source.test is None else source.test
    if isinstance(share, str) or not 0 < share < 1:
        what = "a file or folder, or a fraction between 0 and 1, or 0 for none"
        raise DataError(f"{where}: test = {shorten(share)}; it must be {what}")
    try:
        return split_rows(labels, share, SEED, task, groups, times, name="test")
    except (ConfigError, DataError) as error:
        raise DataError(f"{where}: {error}") from error


def _hold_out(dataset: Dataset, source: DatasetSource, where: str) -> Dataset:
    assert dataset.task is not None
    assert isinstance(dataset.train, tuple)
    x, y = dataset.train
    assert isinstance(y, np.ndarray)
    rest, taken = choose_test_rows(y, source, dataset.task, where, dataset.groups, dataset.times)
    test_x, test_y = x[taken], y[taken]
    rows: Mapping[str, Array] = dataset.rows or {"train": np.arange(1, len(x) + 1)}
    return replace(
        dataset,
        train=(x[rest], y[rest]),
        test=lambda: (test_x, test_y),
        rows={**rows, "train": rows["train"][rest], "test": rows["train"][taken]},
        groups=_choose(dataset.groups, rest),
        times=_choose(dataset.times, rest),
        weights=_choose(dataset.weights, rest),
    )


def _choose(values: Array | None, index: Array) -> Array | None:
    return None if values is None else values[index]
