"""A model of a user's own for the studies of chaos, which workers are given by `--import`."""

from __future__ import annotations

from torch import Tensor, nn

import hpo

__all__ = ["NAME"]

NAME = "chaos_transformer"


class Transformer(nn.Module):
    """A layer of attention among the rows of a picture."""

    def __init__(self, row: int, width: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(row, width)
        self.encoder = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True)
        self.outputs = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.outputs(self.encoder(self.embedding(x.flatten(1, -2))).mean(1))
        return outputs


@hpo.model(NAME, uses=["width", "dropout"])
def build(config: hpo.TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    return Transformer(shape[-1], config.width, config.dropout, classes)
