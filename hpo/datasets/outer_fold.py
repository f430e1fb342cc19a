"""Outer folds of a nested evaluation: a data set without one of them, which is its test set instead.

What a study does on the training part of an outer fold, it does without any sample of the fold. The data set's own test
set is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpo.config.resampling import Division, DivisionRule
from hpo.datasets.dataset import Dataset, guess_task, is_split, read_labels
from hpo.datasets.fold_split import divide_rows
from hpo.errors import ConfigError, DataError

__all__ = ["MOST_FOLDS", "OuterFold", "list_outer_folds", "take_outer_fold"]

Array = np.ndarray[Any, Any]
MOST_FOLDS = 1_000
Count = Annotated[int, Field(ge=1, lt=2**53)]


class OuterFold(BaseModel):
    """Outer fold, which is left out of a data set and tested on.

    Attributes:
        count: the number of folds.
        index: which of them, from 0.
        seed: decides the division.
        by: what the folds go by; see `hpo.config.resampling.Division`.
        training, testing: number of samples in its training part, and in the fold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=2, le=MOST_FOLDS)]
    index: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    by: DivisionRule | None = None
    training: Count
    testing: Count

    @model_validator(mode="after")
    def _check(self) -> OuterFold:
        if self.index >= self.count:
            raise ValueError(f"outer fold {self.index} of {self.count}, counted from 0, is none")
        return self

    @property
    def name(self) -> str:
        """The fold in words: `outer fold 2 of 5`."""
        return f"outer fold {self.index + 1} of {self.count}"


def list_outer_folds(
    dataset: Dataset, count: int, seed: int, by: DivisionRule | None, where: str
) -> tuple[OuterFold, ...]:
    """List the outer folds of a data set.

    Args:
        dataset: as `hpo.datasets.load` returns it.
        count: the number of folds.
        seed: decides the division.
        by: what the folds go by; by default the data set's times, or else its groups, if it has any.
        where: the beginning of an error's line: the data set.

    Raises:
        DataError: it gives batches, or has too few samples, groups or times, or too few samples of a class.
    """
    rule = by or ("time" if dataset.times is not None else "group" if dataset.groups is not None else None)
    folds = []
    for index in range(count):
        training, testing = _divide(dataset, Division("fold", count, index, by=rule), seed, where)
        fold = OuterFold(count=count, index=index, seed=seed, by=rule, training=len(training), testing=len(testing))
        folds.append(fold)
    return tuple(folds)


def take_outer_fold(dataset: Dataset, fold: OuterFold, where: str) -> Dataset:
    """Return the data set without the samples of an outer fold, which are its test set.

    Args:
        dataset: as it was read. Validation samples of its own stay what they are.
        fold: the fold.
        where: the beginning of an error's line: the data set.

    Raises:
        DataError: the data set cannot be divided, or not as it was when the fold was made.
    """
    training, testing = _divide(dataset, Division("fold", fold.count, fold.index, by=fold.by), fold.seed, where)
    if (len(training), len(testing)) != (fold.training, fold.testing):
        raise DataError(
            f"{where}: {fold.name} has {len(training)} training samples and {len(testing)} to test on, not "
            f"{fold.training} and {fold.testing} as when it was made; the data have changed since"
        )
    x, y = dataset.train
    return replace(
        dataset,
        train=(x[training], y[training]),
        test=lambda: (x[testing], y[testing]),
        groups=_choose(dataset.groups, training),
        times=_choose(dataset.times, training),
        weights=_choose(dataset.weights, training),
        rows=_choose_rows(dataset.rows, training, testing),
    )


def _divide(dataset: Dataset, division: Division, seed: int, where: str) -> tuple[Array, Array]:
    """Return the indices of the samples to train on and of those in the fold."""
    if not is_split(dataset.train):
        raise DataError(
            f"{where}: its training data are batches, which cannot be divided into outer folds; give x and y as arrays"
        )
    _, y = dataset.train
    task = dataset.task or guess_task(y)
    try:
        return divide_rows(read_labels(y, where, task), division, seed, task, dataset.groups, dataset.times)
    except (ConfigError, DataError) as error:
        raise DataError(f"{where}: outer {error}") from error


def _choose(values: Array | None, index: Array) -> Array | None:
    return None if values is None else np.asarray(values)[index]


def _choose_rows(rows: Mapping[str, Array], training: Array, testing: Array) -> Mapping[str, Array]:
    """Return the rows of each part in the file; those of the data set's own test part are of none."""
    if "train" not in rows:
        return {part: numbers for part, numbers in rows.items() if part != "test"}
    return {**rows, "train": rows["train"][training], "test": rows["train"][testing]}
