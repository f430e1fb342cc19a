"""Parameters of the learning rate's schedule."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.choices import SCHEDULES
from hpo.config.effects import WHEN_RATIO_DECIDES, WHEN_SCHEDULE_DECAYS, WHEN_WARMUP_IS_POSSIBLE
from hpo.config.parameter import AllowedNames, Group

__all__ = ["ScheduleParameters"]


class ScheduleParameters(BaseModel):
    """Parameters of the learning rate's schedule."""

    schedule: Annotated[
        str,
        AllowedNames(tuple(SCHEDULES)),
        Field(description="change of the learning rate from step to step"),
        Group("schedule"),
    ] = "constant"
    final_learning_rate: Annotated[
        float | None,
        Field(ge=0, le=1000, description="learning rate that the step after the last one would use"),
        Group("schedule"),
        WHEN_SCHEDULE_DECAYS,
    ] = None
    final_learning_rate_ratio: Annotated[
        float,
        Field(ge=0, le=1000, description="instead of final_learning_rate: its ratio to learning_rate"),
        Group("schedule"),
        WHEN_RATIO_DECIDES,
    ] = 0.01
    warmup: Annotated[
        float,
        Field(
            ge=0, lt=1, description="fraction of all steps in which the learning rate rises linearly from 0; 0 is off"
        ),
        Group("schedule"),
        WHEN_WARMUP_IS_POSSIBLE,
    ] = 0.0
