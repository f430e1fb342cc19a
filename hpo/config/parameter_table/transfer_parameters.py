"""Parameters of transfer: pretrained weights, frozen parts, and the learning rate of the head."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from hpo.config.effects import WHEN_HEAD_RATIO_DECIDES, when_optimizer_takes
from hpo.config.forms import FileName
from hpo.config.parameter import AllowedNames, Group

__all__ = ["TransferParameters"]


class TransferParameters(BaseModel):
    """Parameters of transfer: pretrained weights, frozen parts, and the learning rate of the head."""

    pretrained: Annotated[
        str | None,
        Field(
            description="path of a file with the weights to start from, .safetensors or .pth; a head of another size "
            "is left out",
        ),
        FileName((".safetensors", ".pth", ".pt", ".bin", ".tar")),
        Group("transfer"),
    ] = None
    freeze: Annotated[
        str | None,
        AllowedNames(("backbone",)),
        Field(description="backbone: only the head, the last layer with weights, is trained; none is off"),
        Group("transfer"),
    ] = None
    head_learning_rate: Annotated[
        float | None,
        Field(gt=0, le=1000, description="learning rate of the head, instead of learning_rate; its schedule is alike"),
        Group("transfer"),
        when_optimizer_takes("head_learning_rate"),
    ] = None
    head_learning_rate_ratio: Annotated[
        float | None,
        Field(gt=0, le=1_000_000, description="instead of head_learning_rate: its ratio to learning_rate"),
        Group("transfer"),
        WHEN_HEAD_RATIO_DECIDES,
    ] = None
