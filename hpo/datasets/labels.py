"""Labels as data come with them, and as training has them: classes are numbered, and the task is told.

Classes that are texts, or numbers which do not begin at 0 or leave most out, are numbered in a stable order: numbers by
value, texts by alphabet. Their own values are the data set's `output_names`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.datasets.dataset import Dataset, Split, is_split
from hpo.errors import DataError
from hpo.utils.text import shorten

__all__ = ["LabelCoding", "as_array", "code_labels", "fit_coding", "tell_declared_task", "tell_task"]

Array = np.ndarray[Any, Any]
FEW = 5  # values that an error names
MOST_CLASSES = 20  # that whole numbers of any size are taken for
LEAST_FILLED = 0.9  # of the numbers from 0, or 1, to the largest: then whole numbers count classes, however many


@dataclass(frozen=True)
class LabelCoding:
    """Coding of labels, fitted to those of the training data.

    Attributes:
        task: what is predicted.
        reason: why this task, for a person to read; empty where it was asked for.
        output_names: the values of the classes in their order, or the names of labels or targets; empty where they
            have none but their numbers.
        values: the classes' own values, ascending, (classes,), where they are not numbers from 0.
        one_hot: whether each sample's class is the column that is 1.
    """

    task: Task
    reason: str
    output_names: tuple[str, ...] = ()
    values: Array | None = None
    one_hot: bool = False

    def apply(self, y: Any, where: str) -> Array:
        """Return labels as training has them: classes (N,) of int64; else (N, columns) of float32.

        Raises:
            DataError: a class is none of the training data's, or the shape or type is another.
        """
        labels = as_array(y)
        if self.task != "classification":
            numbers = _as_numbers(labels, where)
            return numbers[:, None] if numbers.ndim == 1 else numbers
        if self.one_hot:
            return self._pick_columns(labels, where)
        flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if self.values is None:
            return flat.astype(np.int64) if _are_whole(flat) else flat
        return self._number(_as_values(flat, self.values.dtype.kind), where)

    def _pick_columns(self, labels: Array, where: str) -> Array:
        if labels.ndim != 2 or labels.dtype.kind not in "buif" or not _is_one_hot(labels):
            raise DataError(
                f"{where}: labels are not one column per class, of which one is 1, as train; make them alike"
            )
        return np.asarray(labels.argmax(1))

    def _number(self, labels: Array, where: str) -> Array:
        assert self.values is not None
        index = np.searchsorted(self.values, labels).clip(0, len(self.values) - 1)
        unseen = np.flatnonzero(self.values[index] != labels)
        if len(unseen):
            known = ", ".join(map(str, self.output_names[:FEW])) + (", …" if len(self.output_names) > FEW else "")
            raise DataError(
                f"{where}: the label of sample {int(unseen[0])} is {shorten(str(labels[unseen[0]]), 40)}, which no "
                f"training sample has; theirs are {shorten(known, quote=False)}: correct it, or leave the sample out"
            )
        return index.astype(np.int64)


def as_array(y: Any) -> Array:
    """Return labels as a NumPy array, with texts as texts."""
    labels = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    if labels.dtype.kind == "O" and all(isinstance(value, str) for value in labels.flat):
        return labels.astype(str)
    return labels


def tell_task(y: Any) -> tuple[Task, str]:
    """Return the task that labels of unknown meaning suggest, and why.

    Several columns of which exactly one is 1 in each row are classes; other columns of 0 and 1 are labels; real numbers
    are targets, and so are whole ones that are too many, or too far apart, for classes; all else are classes.
    """
    labels = as_array(y)
    columns = labels.shape[1] if labels.ndim == 2 else 1
    if columns > 1 and labels.dtype.kind in "buif":
        if _is_one_hot(labels):
            return "classification", f"exactly one of its {columns} columns is 1 in each row"
        if np.isin(labels, (0, 1)).all():
            return "multilabel", f"its {columns} columns hold 0 and 1"
        return "regression", f"its {columns} columns hold numbers"
    if len(labels) and _are_whole(labels):
        values = np.unique(labels)
        task: Task = "classification" if _count_classes(values, len(labels), labels.dtype.kind) else "regression"
        return task, f"its labels are {len(values):,} different whole numbers"
    if labels.dtype.kind == "f":
        return "regression", "its labels are real numbers"
    kind = {"U": "texts", "S": "texts", "b": "true and false"}.get(labels.dtype.kind, "whole numbers")
    return "classification", f"its labels are {kind}"


def _count_classes(values: Array, samples: int, kind: str) -> bool:
    """Return whether whole numbers look like those of classes, rather than quantities.

    A class has several samples, so few values are classes; more are if they are numbered from 0 or 1 with few gaps.

    Args:
        values: the different ones, ascending.
        samples: how many have them.
        kind: of their type; real numbers are hardly written for many classes.
    """
    if len(values) > max(2, samples // 2):
        return False
    numbered = values[0] in (0, 1) and len(values) >= LEAST_FILLED * (float(values[-1]) - float(values[0]) + 1)
    return len(values) <= MOST_CLASSES or (kind != "f" and bool(numbered))


def tell_declared_task(y: Any) -> Task:
    """Return the task of labels whose data set is registered for classification: whole numbers are its classes."""
    labels = as_array(y)
    several = labels.ndim == 2 and labels.shape[1] > 1
    return "classification" if labels.dtype.kind in "iu" and not several else tell_task(labels)[0]


def fit_coding(y: Any, where: str, task: Task | None = None, names: Sequence[str] = ()) -> LabelCoding:
    """Return the coding of training labels.

    Args:
        y: the labels: (N,) or (N, columns).
        where: the beginning of an error's line.
        task: what they mean; by default what they suggest.
        names: those of the columns, or of the classes that are numbers from 0.

    Raises:
        DataError: they are of no type that can be predicted.
    """
    labels = as_array(y)
    task = task or ("classification" if _are_named(labels, names) else None)
    chosen, reason = (task, "") if task else tell_task(labels)
    if labels.ndim not in (1, 2) or not len(labels):
        return LabelCoding(chosen, reason, tuple(names))  # which the checks of a data set refuse
    if labels.dtype.kind not in "buifU":
        raise DataError(
            f"{where}: a label is {shorten(labels.flat[0], 40)}; labels must be numbers or texts, one kind for all"
        )
    if chosen != "classification":
        _check_varied(_as_numbers(labels, where), where, chosen)
        return LabelCoding(chosen, reason, tuple(names))
    if labels.ndim == 2 and labels.shape[1] > 1:
        return LabelCoding(chosen, reason, tuple(names), one_hot=labels.dtype.kind in "buif" and _is_one_hot(labels))
    return _number_classes(labels.reshape(-1), where, reason, names)


def _as_numbers(labels: Array, where: str) -> Array:
    """Return targets or labels as float32."""
    try:
        return labels.astype(np.float32)
    except ValueError as error:
        wrong = next(str(text) for text in labels.flat if not _is_number(str(text)))
        raise DataError(
            f"{where}: the label {shorten(wrong, 40)} is no number, which the task asks for; correct it, or leave "
            "`task` out"
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_varied(targets: Array, where: str, task: Task) -> None:
    columns = targets.reshape(len(targets), -1)
    constant = (columns == columns[:1]).all(0)
    if len(columns) < 2 or not (constant.any() if task == "regression" else constant.all()):
        return
    column = int(constant.argmax())
    what = "its target" if task == "regression" else "its label"
    which = f"column {column + 1} of {what}s" if columns.shape[1] > 1 else what
    raise DataError(f"{where}: {which} is {columns[0, column]:g} in every sample; there is nothing to learn")


def _number_classes(labels: Array, where: str, reason: str, names: Sequence[str]) -> LabelCoding:
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise DataError(f"{where}: the label of sample {int(np.isnan(labels).argmax())} is nan; remove or replace it")
    if labels.dtype.kind in "iuf" and _are_whole(labels):
        if _are_named(labels, names) or _are_numbered(labels):
            return LabelCoding("classification", reason, tuple(names))
        labels = labels.astype(np.int64)
    values = np.unique(_as_values(labels, ""))
    _check_classes(values, len(labels), where)
    return LabelCoding("classification", reason, tuple(map(str, values.tolist())), values)


def _check_classes(values: Array, samples: int, where: str) -> None:
    if len(values) == 1:
        raise DataError(f"{where}: every label is {shorten(str(values[0]), 40)}; at least 2 classes are needed")
    if len(values) == samples and samples > FEW:
        raise DataError(
            f"{where}: each of the {samples:,} samples has a label of its own, such as {shorten(str(values[0]), 40)}; "
            "a class needs several samples: name another label, or predict numbers with task = 'regression'"
        )
    if len(values) > max(MOST_CLASSES, samples / 2):
        raise DataError(
            f"{where}: the {samples:,} samples have {len(values):,} different labels, such as "
            f"{shorten(str(values[0]), 40)}; a class needs several samples: name another label, or predict numbers "
            "with task = 'regression'"
        )


def _as_values(labels: Array, kind: str) -> Array:
    """Return labels in the type in which they are ordered: texts that are all whole numbers as numbers."""
    if labels.dtype.kind == "U" and kind != "U":
        try:
            numbers = labels.astype(np.int64)
        except (ValueError, OverflowError):
            return labels
        return numbers if (numbers.astype(str) == labels).all() else labels
    if labels.dtype.kind in "buif" and kind == "U":
        return labels.astype(str)
    return labels


def _are_whole(labels: Array) -> bool:
    return labels.dtype.kind in "iu" or (
        labels.dtype.kind == "f" and bool(np.isfinite(labels).all() and (labels % 1 == 0).all())
    )


def _are_numbered(labels: Array) -> bool:
    """Return whether whole numbers are those of classes from 0, of which at least every second one occurs."""
    return bool(labels.min() == 0) and len(np.unique(labels)) > float(labels.max()) / 2


def _are_named(labels: Array, names: Sequence[str]) -> bool:
    """Return whether labels are numbers of classes that have names."""
    flat = labels.ndim == 1 or labels.shape[1:] == (1,)
    known = flat and len(names) > 1 and len(labels) > 0 and _are_whole(labels)
    return known and bool(labels.min() >= 0 and labels.max() < len(names))


def _is_one_hot(labels: Array) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all())


def code_labels(dataset: Dataset, where: str, coding: LabelCoding | None = None) -> Dataset:
    """Return a data set whose labels are as training has them, with its task and the names of its outputs.

    What streams in batches stays as it is, and so do class numbers whose bound the data set gives (`classes`).

    Args:
        dataset: with any labels.
        where: the beginning of an error's line.
        coding: of the training labels; by default it is fitted to them.

    Raises:
        DataError: labels are of no type that can be predicted; a validation label is none of the training data's.
    """
    if not is_split(dataset.train):
        return dataset
    x, y = dataset.train
    if dataset.classes is not None and as_array(y).dtype.kind in "iu" and dataset.task in (None, "classification"):
        return dataset
    task = dataset.task or tell_declared_task(y)
    coding = coding or fit_coding(y, f"{where}, train", task, tuple(dataset.output_names))
    return replace(
        dataset,
        train=(x, coding.apply(y, f"{where}, train")),
        validation=_code_part(dataset.validation, coding, f"{where}, validation"),
        test=_code_test(dataset.test, coding, f"{where}, test"),
        task=coding.task,
        output_names=coding.output_names,
        classes=len(coding.output_names) or dataset.classes if coding.task == "classification" else None,
    )


def _code_part(part: Any, coding: LabelCoding, where: str) -> Any:
    """Return a part with coded labels: one `(x, y)`, or batches of them, which are held anyway; None stays None."""
    if is_split(part):
        x, y = part
        return x, coding.apply(y, where)
    if part is None or (coding.values is None and not coding.one_hot):
        return part
    return [(x, coding.apply(y, where)) for x, y in part]


def _code_test(test: Any, coding: LabelCoding, where: str) -> Any:
    """Return test data with coded labels, at once where they are in memory, so that faults in them are found early."""
    if test is None or is_split(test):
        return _code_part(test, coding, where)

    def read() -> Split | Any:
        return _code_part(test() if callable(test) else test, coding, where)

    return read
