"""Source of a data set: the options by which a file or folder becomes training, validation and test data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from hpo.config.choices import Task

__all__ = ["DatasetSource"]


class DatasetSource(BaseModel):
    """Options of the key `dataset` in a study file, beside the path.

    Attributes:
        label: the columns that are to be predicted.
        drop: columns that are no features.
        test: the file or folder of the test data, or the fraction of the samples held out for them.
        validation: the file or folder of the validation data; without one they are split off the training data.
        group: the column whose values stay together on one side of a split.
        time: the column by which validation and test data are the latest.
        weight: the column of the samples' weights in training.
        task: instead of the one that the labels suggest; `binary` and `multiclass` are classification, checked.
        resize: height and width that images are brought to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    test: str | float | None = None
    validation: str | None = None
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    task: Task | Literal["binary", "multiclass"] | None = None
    resize: tuple[int, int] | None = None
