"""Parameters of the learning rate's schedule."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import SCHEDULES
from hpo.config.effects import (
    WHEN_RATIO_DECIDES,
    WHEN_SCHEDULE_HAS_FINAL_RATE,
    when_optimizer_takes,
    when_schedule_takes,
    when_warmed_up_by,
)
from hpo.config.parameter import AllowedNames, Group

__all__ = ["ScheduleParameters"]


class ScheduleParameters(BaseModel):
    """Parameters of the learning rate's schedule."""

    schedule: Annotated[
        str,
        AllowedNames(tuple(SCHEDULES)),
        Field(description="change of the learning rate from step to step"),
        Group("schedule"),
        when_optimizer_takes("schedule"),
    ] = "constant"
    gamma: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="factor of a decay: at each epoch under exponential, instead of the decay to "
            "final_learning_rate; at each fall under step and reduce_on_plateau, where it is 0.1 by default",
        ),
        Group("schedule"),
        when_schedule_takes("gamma"),
    ] = None
    step_epochs: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="epochs between two falls; by default a third of all, rounded up"),
        Group("schedule"),
        when_schedule_takes("step_epochs"),
    ] = None
    plateau_patience: Annotated[
        int | None,
        Field(
            ge=0,
            le=100_000,
            description="epochs without an improvement of the objective that are allowed before the rate falls, as in "
            "torch; by default a tenth of all, rounded up",
        ),
        Group("schedule"),
        when_schedule_takes("plateau_patience"),
    ] = None
    polynomial_power: Annotated[
        float,
        Field(gt=0, le=100, description="power of the share of steps that are left; 1 is linear"),
        Group("schedule"),
        when_schedule_takes("polynomial_power"),
    ] = 1.0
    restart_epochs: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="epochs of the first cycle; by default a third of all, rounded up"),
        Group("schedule"),
        when_schedule_takes("restart_epochs"),
    ] = None
    restart_factor: Annotated[
        int,
        Field(ge=1, le=100, description="ratio of a cycle's length to that of the one before"),
        Group("schedule"),
        when_schedule_takes("restart_factor"),
    ] = 1
    final_learning_rate: Annotated[
        float | None,
        Field(
            ge=0,
            le=1000,
            description="learning rate that the step after the last one, of a cycle too, would use; the lowest one "
            "under reduce_on_plateau, where it is 0 by default",
        ),
        Group("schedule"),
        WHEN_SCHEDULE_HAS_FINAL_RATE,
    ] = None
    final_learning_rate_ratio: Annotated[
        float,
        Field(ge=0, le=1000, description="instead of final_learning_rate: its ratio to learning_rate"),
        Group("schedule"),
        WHEN_RATIO_DECIDES,
    ] = 0.01
    warmup_steps: Annotated[
        int | None,
        Field(ge=0, le=10**9, description="instead of warmup: its steps of the optimizer; 0 is off"),
        Group("schedule"),
        when_warmed_up_by(),
    ] = None
    warmup_epochs: Annotated[
        float | None,
        Field(ge=0, le=100_000, description="instead of warmup: its epochs, also parts of them; 0 is off"),
        Group("schedule"),
        when_warmed_up_by("warmup_steps"),
    ] = None
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of all steps in which the learning rate rises linearly; 0 is off"),
        Group("schedule"),
        when_warmed_up_by("warmup_steps", "warmup_epochs"),
    ] = 0.0
