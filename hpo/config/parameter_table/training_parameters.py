"""Parameters of the loss and of training: batches, epochs, precision and seeds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import LOSSES
from hpo.config.effects import (
    WHEN_CLASSES_ARE_WEIGHTED,
    WHEN_CROSS_ENTROPY,
    WHEN_HUBER,
    WHEN_IMPROVEMENTS_COUNT,
    when_model_uses,
    when_optimizer_takes,
)
from hpo.config.parameter import AllowedNames, Group

__all__ = ["TrainingParameters"]


class TrainingParameters(BaseModel):
    """Parameters of the loss and of training: batches, epochs, precision and seeds."""

    loss: Annotated[
        str,
        AllowedNames(LOSSES),
        Field(
            description="cross_entropy by default of classes, binary_cross_entropy of several labels, mse of real "
            "numbers; mse: mean squared difference between the softmax outputs and the one-hot label, between outputs "
            "and target, or outputs and sample for models that reconstruct; mae, huber, gaussian_nll: of real numbers"
        ),
        Group("loss"),
    ] = "cross_entropy"
    label_smoothing: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of a label's weight that is spread over all classes"),
        Group("loss"),
        WHEN_CROSS_ENTROPY,
    ] = 0.0
    huber_delta: Annotated[
        float,
        Field(gt=0, le=1000, description="error from which huber is linear, in standard deviations of the target"),
        Group("loss"),
        WHEN_HUBER,
    ] = 1.0
    class_weight: Annotated[
        str | None,
        AllowedNames(("balanced",)),
        Field(description="balanced: samples of rare classes, or rare labels, weigh more, so that each counts alike"),
        Group("loss"),
        WHEN_CLASSES_ARE_WEIGHTED,
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="samples per batch"), Group("training")] = 128
    gradient_accumulation: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="batches per step of the optimizer, along their mean gradient; 1 is off"),
        Group("training"),
        when_optimizer_takes("gradient_accumulation"),
    ] = None
    epochs: Annotated[int, Field(ge=1, le=100_000, description="passes over the training data"), Group("training")] = 5
    precision: Annotated[
        str,
        AllowedNames(("float32", "bfloat16", "float16")),
        Field(description="number type of the products in a model of your own; sums and weights stay float32"),
        Group("training"),
        when_model_uses("precision"),
    ] = "float32"
    patience: Annotated[
        int,
        Field(ge=0, description="stop after this many epochs without an improvement of the objective; 0 is off"),
        Group("training"),
    ] = 0
    min_delta: Annotated[
        float | None,
        Field(
            ge=0,
            description="an improvement of the objective counts only if it is larger; any does by default, "
            "and the best epoch is the best one in any case",
        ),
        Group("training"),
        WHEN_IMPROVEMENTS_COUNT,
    ] = None
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=2**32,
            description="seed of the split, the order of the data and the initial weights; in a study, its seed",
        ),
        Group("training"),
    ] = 0
    init_seed: Annotated[
        int | None,
        Field(ge=0, lt=2**32, description="seed of the initial weights alone; by default, seed decides them too"),
        Group("training"),
    ] = None
    order_seed: Annotated[
        int | None,
        Field(
            ge=0,
            lt=2**32,
            description="seed of the order of the data, and of noise such as dropout, alone; by default, seed decides "
            "them too",
        ),
        Group("training"),
    ] = None
