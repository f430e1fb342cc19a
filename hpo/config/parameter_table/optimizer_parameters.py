"""Parameters of the optimizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import OPTIMIZERS, WEIGHT_AVERAGES
from hpo.config.effects import when_optimizer_takes, when_weights_are_averaged
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
        float,
        Field(
            gt=0,
            le=1000,
            description="learning rate that schedules start from; by default torch's for adagrad and later ones; of "
            "rprop, the first step of each weight, which no schedule changes",
        ),
        Group("optimizer"),
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
        Field(ge=0, lt=1, description="decay rate of the running mean of their squares; 0.99 by default for lion"),
        Group("optimizer"),
        when_optimizer_takes("beta2"),
    ] = 0.999
    rho: Annotated[
        float,
        Field(ge=0, lt=1, description="decay rate of the running means of squares of adadelta"),
        Group("optimizer"),
        when_optimizer_takes("rho"),
    ] = 0.9
    epsilon: Annotated[
        float,
        Field(gt=0, le=1, description="added to the denominator; 1e-10 by default for adagrad, 1e-6 for adadelta"),
        Group("optimizer"),
        when_optimizer_takes("epsilon"),
    ] = 1e-8
    weight_decay: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="L2 penalty: decoupled under adamw, lion and schedule_free_adamw, else added to the gradient; "
            "0 is off",
        ),
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
    asgd_decay: Annotated[
        float,
        Field(ge=0, le=100, description="decay of the weights and of the learning rate of asgd: torch's lambd"),
        Group("optimizer"),
        when_optimizer_takes("asgd_decay"),
    ] = 1e-4
    asgd_power: Annotated[
        float,
        Field(ge=0, le=10, description="power of that decay of the learning rate: torch's alpha"),
        Group("optimizer"),
        when_optimizer_takes("asgd_power"),
    ] = 0.75
    asgd_start: Annotated[
        int,
        Field(ge=0, le=10**12, description="step from which asgd averages the weights that are evaluated: torch's t0"),
        Group("optimizer"),
        when_optimizer_takes("asgd_start"),
    ] = 1_000_000
    weight_averaging: Annotated[
        str | None,
        AllowedNames(WEIGHT_AVERAGES),
        Field(
            description="ema: evaluate, and keep, an exponential moving average of the weights of all steps; swa: the "
            "mean of the weights of the last epochs"
        ),
        Group("optimizer"),
        when_optimizer_takes("weight_averaging"),
    ] = None
    ema_decay: Annotated[
        float,
        Field(ge=0, lt=1, description="share of the average that each step keeps"),
        Group("optimizer"),
        when_weights_are_averaged("ema"),
    ] = 0.999
    swa_start: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of the epochs that pass before the mean begins"),
        Group("optimizer"),
        when_weights_are_averaged("swa"),
    ] = 0.75
