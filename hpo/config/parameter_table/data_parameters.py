"""Parameters of the data: the validation split, the scaling and the augmentation."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import AUGMENTATIONS, TASKS
from hpo.config.effects import WHEN_INPUTS_ARE_SCALED, WHEN_TASK_IS_OTHER, when_augmented_by
from hpo.config.forms import JoinedNames
from hpo.config.parameter import AllowedNames, Group

__all__ = ["DataParameters"]


class DataParameters(BaseModel):
    """Parameters of the data: the validation split, the scaling and the augmentation."""

    validation: Annotated[
        float,
        Field(
            ge=0,
            description="validation samples split off the training data: a count, or a fraction if below 1; 0 trains "
            "on all data without validation, and keeps the last epoch",
        ),
        Group("data"),
    ] = 1 / 6  # 10,000 of MNIST's 60,000
    split_seed: Annotated[
        int | None,
        Field(ge=0, lt=2**32, description="seed of the validation split alone; by default, seed decides the split too"),
        Group("data"),
    ] = None
    input_scaling: Annotated[
        str,
        AllowedNames(("standard", "unit", "symmetric")),
        Field(description="standard: mean 0, standard deviation 1; unit: 0 to 1; symmetric: -1 to 1"),
        Group("data"),
        WHEN_INPUTS_ARE_SCALED,
    ] = "standard"
    numeric_scaling: Annotated[
        str | None,
        AllowedNames(("standard", "robust", "quantile")),
        Field(
            description="instead of input_scaling, of the numbers of a table: standard; robust: median 0, quartiles "
            "1 apart; quantile: normally distributed by rank"
        ),
        Group("data"),
        WHEN_INPUTS_ARE_SCALED,
    ] = None
    task: Annotated[
        str,
        AllowedNames(TASKS),
        Field(description="what is predicted: a class, several labels, or real numbers; the data set decides it"),
        Group("data"),
        WHEN_TASK_IS_OTHER,
    ] = "classification"
    augment: Annotated[
        str | None,
        Field(
            description="random changes of each training image: flip, crop, cutout and randaugment, joined by + in the "
            "order in which they are done, as in flip+crop; among the choices of a study also as a list",
        ),
        JoinedNames("+", AUGMENTATIONS),
        Group("augmentation"),
    ] = None
    crop_padding: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="border that is added on each side before an image is cropped to its size again, as a fraction "
            "of the side; 0.125 is 4 of 32 pixels",
        ),
        Group("augmentation"),
        when_augmented_by("crop"),
    ] = 0.125
    cutout_size: Annotated[
        float,
        Field(gt=0, le=1, description="side of the square that is cut out, as a fraction of the image's side"),
        Group("augmentation"),
        when_augmented_by("cutout"),
    ] = 0.5
    randaugment_operations: Annotated[
        int,
        Field(ge=1, le=14, description="operations that RandAugment draws for each image"),
        Group("augmentation"),
        when_augmented_by("randaugment"),
    ] = 2
    randaugment_magnitude: Annotated[
        int,
        Field(ge=1, le=29, description="strength of RandAugment's operations, of 30"),
        Group("augmentation"),
        when_augmented_by("randaugment"),
    ] = 9
