"""Dataset, the type of a data set, and the checks of its samples and labels. No torch.

Arrays keep the layout of where they come from: a NumPy array has the channels last, as Keras and .npz files have
it; a torch tensor has them first, as torch has it. `hpo.training.data` brings both to torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.config.choices import TASKS, Task
from hpo.datasets.features import Feature, check_matrix
from hpo.datasets.row_split import number_groups
from hpo.errors import DataError, describe_unknown
from hpo.utils.text import quantity, shorten

if TYPE_CHECKING:
    from hpo.datasets.table_schema import TableSchema
    from hpo.datasets.texts import TextEncoder

__all__ = [
    "Dataset",
    "Split",
    "channels_first",
    "check_dataset",
    "check_labels",
    "check_split",
    "flat_labels",
    "guess_task",
    "is_split",
    "none",
    "read_labels",
]

Array = np.ndarray[Any, Any]

Split = tuple[Any, Any]
Part = Split | Iterable[Split]
MAX_CHANNELS = 4
MAX_CLASSES = 1_000_000  # a label of 3,000,000,000 would make a last layer of terabytes
CHUNK = 4096  # samples that are checked at once


@dataclass(frozen=True)
class Dataset:
    """Training, test and validation data, as a function registered with `@hpo.dataset` returns them.

    A part (`train`, `test`, `validation`) is either a tuple `(x, y)`, or an iterable of batches `(x, y)`, or a
    map-style `torch.utils.data.Dataset` of samples `(x, y)`, which is read into memory once.
    `x` holds uint8 or other real numbers: features (N, F), grey images (N, H, W), or colour images, which are
    (N, H, W, C) in a NumPy array and (N, C, H, W) in a torch tensor. `y` holds what is predicted: classes, whole
    numbers from 0 of shape (N,) or (N, 1); several labels, (N, L) of 0 and 1; or real numbers, (N,) or (N, T).

    An iterable is gone through once per epoch, in its own order and batch sizes; it needs a length (`len()`), and
    `classes` and `validation` must be given with it.

    Attributes:
        train: the data that trials learn from.
        test: the test data, or a function that returns them, so that they are not read before they are needed.
        validation: the validation data; by default some of the training data are split off.
        classes: the number of classes; by default the largest training label + 1. Of other tasks the number of
            labels or targets, which follows from the training data.
        task: `classification`, `multilabel` or `regression`; by default what the training labels suggest.
        output_names: the values of the classes in their order, or the names of the labels or targets.
        features: of a table, what the columns of x mean, a raw matrix; empty where x is what models see.
        groups: of each training sample, (N,): those of one group stay on one side of a split.
        times: of each training sample, (N,): validation samples are the latest.
        weights: of each training sample in training, (N,).
        rows: by part, the number of each sample's row in its file, from 1.
        schema: of a table in a file, how new rows are read.
        texts: of texts in a table, how they become token ids.
        notes: remarks on what was guessed or left out, for the user.
        vocabulary: of samples that are codes from 0, such as token ids: how many codes there are. They are for models
            registered with `integers=True` alone, which see it as `shape.vocabulary`; by default that is the largest
            code of the training and validation data + 1.
        collate: makes a batch (x, y) of a list of samples, as torch's `collate_fn` does, such as by padding sequences
            to the longest; all parts are then lists of samples or map-style data sets. x and y are one tensor each.
        workers: how many processes read the samples of a map-style data set in training, batch by batch, while the last
            batch is trained on; nothing is then held in memory. 0 is none.
    """

    train: Part
    test: Part | Callable[[], Part] | None = None
    validation: Part | None = None
    classes: int | None = None
    task: Task | None = None
    output_names: Sequence[str] = ()
    features: Sequence[Feature] = ()
    groups: Array | None = None
    times: Array | None = None
    weights: Array | None = None
    rows: Mapping[str, Array] = field(default_factory=dict)
    schema: TableSchema | None = None
    notes: Sequence[str] = ()
    vocabulary: int | None = None
    collate: Callable[[list[Any]], Split] | None = None
    workers: int = 0
    texts: TextEncoder | None = None

    @cached_property
    def group_numbers(self) -> Array | None:
        """The group of each training sample as a number from 0, (N,); None without groups."""
        return None if self.groups is None else number_groups(np.asarray(self.groups), "group")

    @property
    def labels(self) -> Any:
        """The labels of the training samples; None where these come in batches."""
        if isinstance(self.train, tuple) and is_split(self.train):
            return self.train[1]
        return getattr(self.train, "labels", None)  # of samples that are held one by one


def none() -> Dataset:
    """Return an empty data set, for studies whose training loops read data of their own."""
    return Dataset(train=(np.empty((0, 0), np.float32), np.empty(0, np.int64)), classes=0)


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that models see of a NumPy sample: (1, H, W) for (H, W), and (C, H, W) for (H, W, C)."""
    return {2: (1, *shape), 3: (*shape[2:], *shape[:2])}.get(len(shape), shape)


def is_split(part: Any) -> bool:
    """Return whether a part of a data set is one `(x, y)`, rather than an iterable of batches."""
    return isinstance(part, tuple) and len(part) == 2 and hasattr(part[0], "shape") and hasattr(part[1], "shape")


def check_dataset(dataset: Dataset, where: str) -> Dataset:
    """Check the training and validation data of a user's data set, and return it with its number of classes.

    Args:
        dataset: as the user's function returned it.
        where: the beginning of an error's line: the name of the data set.

    Raises:
        DataError: a split cannot be used, or batches lack what must be given with them.
    """
    classes, task = dataset.classes, dataset.task
    if classes is not None and (not isinstance(classes, int | np.integer) or classes < 1):
        raise DataError(f"{where}: classes = {shorten(classes)}; it must be a whole number, that of the classes")
    if task is not None and task not in TASKS:
        raise DataError(f"{where}: {describe_unknown('task', str(task), TASKS)}")
    if is_split(dataset.train):
        x, y = dataset.train
        task = task or guess_task(y)
        classes = check_split(x, y, f"{where}, train", classes, task, dataset.features)
    elif (held := getattr(dataset.train, "labels", None)) is not None:
        task = task or guess_task(held)
        classes = check_labels(read_labels(held, f"{where}, train", task), f"{where}, train", classes, task)
    elif classes is None or dataset.validation is None:
        raise DataError(f"{where}: its training data are batches, so `classes` and `validation` must be given too")
    elif not hasattr(dataset.train, "__len__"):
        raise DataError(
            f"{where}: its batches have no length, but schedules need the number of steps; give them a __len__"
        )
    _check_roles(dataset, where)
    if dataset.validation is not None and is_split(dataset.validation):
        x, y = dataset.validation
        check_split(x, y, f"{where}, validation", classes, task or "classification", dataset.features)
    return replace(dataset, classes=classes, task=task or "classification")


def _check_roles(dataset: Dataset, where: str) -> None:
    """Check that there is a group, time and weight for each training sample whose label is known."""
    if (labels := dataset.labels) is None:
        return
    for name in ("groups", "times", "weights"):
        values = getattr(dataset, name)
        if values is not None and len(values) != len(labels):
            raise DataError(
                f"{where}: {len(labels)} training samples but {len(values)} {name}; give one for each training sample"
            )


def guess_task(y: Any) -> Task:
    """Return the task that labels suggest: real numbers are targets, several columns of 0 and 1 are labels."""
    labels = _as_array(y)
    several = labels.ndim == 2 and labels.shape[1] > 1
    if several and labels.dtype.kind in "bui" and np.isin(labels, (0, 1)).all():
        return "multilabel"
    return "regression" if several or labels.dtype.kind == "f" else "classification"


def check_split(
    x: Any,
    y: Any,
    where: str,
    classes: int | None = None,
    task: Task = "classification",
    features: Sequence[Feature] = (),
) -> int:
    """Check that a split can be used, and return its number of classes, labels or targets.

    Args:
        x: samples, a NumPy array or a torch tensor in the layout that `Dataset` describes.
        y: what is predicted, as `Dataset` describes it.
        where: the beginning of an error's line: the file or the data set, and the split.
        classes: the bound that all labels must be below, by default the largest label + 1; of other tasks the number
            of labels or targets, by default those of y.
        task: what y means.
        features: of a table, whose numbers may be missing.

    Raises:
        DataError: no samples; a wrong shape, type or count; labels out of range, targets that are not finite.
    """
    _check_samples(x, where, finite=not features)
    if features:
        check_matrix(x, features, where)
    labels = read_labels(y, where, task)
    if len(labels) != len(x):
        raise DataError(f"{where}: {len(x)} samples but {len(labels)} labels; give one label per sample")
    return check_labels(labels, where, classes, task)


def check_labels(labels: Array, where: str, classes: int | None, task: Task) -> int:
    """Check labels that `read_labels` returned, and return the number of classes, labels or targets.

    Args:
        labels: of at least one sample.
        where: the beginning of an error's line.
        classes: see `check_split`.
        task: what they mean.

    Raises:
        DataError: labels are out of range, or targets are not finite.
    """
    if task != "classification":
        return _check_columns(labels, where, classes, task)
    low, high = int(labels.min()), int(labels.max())
    bound = high + 1 if classes is None else classes
    if low < 0 or high >= bound:
        raise DataError(f"{where}: labels from {low} to {high}; they must be from 0 to {bound - 1}, renumber them")
    if bound > MAX_CLASSES:
        raise DataError(f"{where}: {bound:,} classes; there can be {MAX_CLASSES:,}, renumber the labels from 0")
    if bound < 2:
        raise DataError(f"{where}: every label is 0; at least 2 classes are needed")
    return bound


def _check_columns(labels: Array, where: str, columns: int | None, task: Task) -> int:
    """Check labels or targets (N, columns), and return their number."""
    what = "labels" if task == "multilabel" else "targets"
    if columns is not None and labels.shape[1] != columns:
        raise DataError(f"{where}: {labels.shape[1]} {what} per sample, not {columns} as train; make them equal")
    if task == "multilabel" and not np.isin(labels, (0, 1)).all():
        raise DataError(f"{where}: labels other than 0 and 1; several labels per sample are a 0 or a 1 for each")
    bad = np.argwhere(~np.isfinite(labels))
    if len(bad):
        raise DataError(
            f"{where}: the target of sample {int(bad[0][0])} is {labels[tuple(bad[0])]}; remove or replace it"
        )
    return int(labels.shape[1])


def read_labels(y: Any, where: str, task: Task) -> Array:
    """Return labels as training has them: classes (N,), of whole numbers; else (N, columns) of float32.

    Raises:
        DataError: they have a wrong shape or type.
    """
    if task == "classification":
        return flat_labels(y, where)
    labels = _as_array(y)
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or 0 in labels.shape[1:]:
        raise DataError(f"{where}: labels of shape {labels.shape}; they must be (N,) or (N, columns)")
    if labels.dtype.kind not in "buif":
        raise DataError(f"{where}: labels of type {labels.dtype}; they must be numbers")
    return labels.astype(np.float32)


def _as_array(y: Any) -> Array:
    return np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)


def flat_labels(y: Any, where: str) -> Array:
    """Return classes as a NumPy array of shape (N,).

    Raises:
        DataError: they are not whole numbers, or have a shape other than (N,) and (N, 1).
    """
    labels = _as_array(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: labels of shape {labels.shape}; they must be (N,), one class number per sample")
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels of type {labels.dtype}; classes must be whole numbers from 0; to predict real numbers, "
            "say task = 'regression'"
        )
    return labels


def _check_samples(x: Any, where: str, *, finite: bool = True) -> None:
    shape = tuple(x.shape)
    if getattr(x, "is_sparse", False):
        raise DataError(f"{where}: samples are a sparse tensor; give x.to_dense()")
    if len(shape) not in (2, 3, 4):
        raise DataError(f"{where}: samples of shape {shape}; they must be (N, features), (N, H, W) or colour images")
    if 0 in shape:
        raise DataError(f"{where}: no samples (shape {shape}); give at least one")
    if isinstance(x, np.ndarray):
        _check_array(x, where, finite)


def _check_array(x: Array, where: str, finite: bool) -> None:
    if x.dtype.kind not in "buif":
        raise DataError(f"{where}: samples of type {x.dtype}; they must be numbers, save them as uint8 or float32")
    if x.ndim == 4 and x.shape[3] > MAX_CHANNELS:
        raise DataError(
            f"{where}: samples of shape {x.shape} would have {x.shape[3]} channels; "
            "arrays have the channels last, transpose them to (N, H, W, channels)"
        )
    if finite and x.dtype.kind == "f":
        _check_finite(x, where)


def _check_finite(x: Array, where: str) -> None:
    """Refuse samples (N, …) with infinite numbers or NaN; the line names the first, and says how many there are."""
    first, values, samples = "", 0, 0
    for start in range(0, len(x), CHUNK):
        bad = ~np.isfinite(x[start : start + CHUNK])
        if not bad.any():
            continue
        if not first:
            row, *place = (int(each) for each in np.argwhere(bad)[0])
            what = f"feature {place[0]}" if len(place) == 1 else f"the value at {tuple(place)}"
            first = f"{what} of sample {start + row} is {x[(start + row, *place)]}"
        values += int(bad.sum())
        samples += int(bad.reshape(len(bad), -1).any(1).sum())
    if first:
        raise DataError(
            f"{where}: {first} (counted from 0), and {quantity(values, 'value')} of {quantity(samples, 'sample')} "
            f"{'is' if values == 1 else 'are'} not finite in all; remove or replace them"
        )
