"""Parameters of the optimizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import OPTIMIZERS
from hpo.config.effects import when_optimizer_takes
from hpo.config.parameter import AllowedNames, Group

__all__ = ["OptimizerParameters"]


class OptimizerParameters(BaseModel):
    """Parameters of the optimizer."""

    optimizer: Annotated[
        str,
        AllowedNames(tuple(OPTIMIZERS)),
        Field(description="momentum and nesterov are SGD with that kind of momentum"),
        Group("optimizer"),
    ] = "adam"
    learning_rate: Annotated[
        float, Field(gt=0, le=1000, description="learning rate that schedules start from"), Group("optimizer")
    ] = 0.001
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="0.9 by default for momentum and nesterov"),
        Group("optimizer"),
        when_optimizer_takes("momentum"),
    ] = 0.0
    beta1: Annotated[
        float,
        Field(ge=0, lt=1, description="decay rate of the running mean of the gradients"),
        Group("optimizer"),
        when_optimizer_takes("beta1"),
    ] = 0.9
    beta2: Annotated[
        float,
        Field(ge=0, lt=1, description="decay rate of the running mean of their squares"),
        Group("optimizer"),
        when_optimizer_takes("beta2"),
    ] = 0.999
    epsilon: Annotated[
        float,
        Field(gt=0, le=1, description="added to the denominator"),
        Group("optimizer"),
        when_optimizer_takes("epsilon"),
    ] = 1e-8
    weight_decay: Annotated[
        float,
        Field(ge=0, le=100, description="L2 penalty: decoupled under adamw, else added to the gradient; 0 is off"),
        Group("optimizer"),
        when_optimizer_takes("weight_decay"),
    ] = 0.0
    gradient_clip: Annotated[
        float,
        Field(ge=0, description="largest norm of the gradient of a step; 0 is off"),
        Group("optimizer"),
        when_optimizer_takes("gradient_clip"),
    ] = 0.0
    layer_learning_rate_decay: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="ratio of a layer's learning rate to the next layer's; the output layer has learning_rate; "
            "1 is off",
        ),
        Group("optimizer"),
        when_optimizer_takes("layer_learning_rate_decay"),
    ] = 1.0
