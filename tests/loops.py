"""Training loops of a user's own: `--import tests.loops`."""

from __future__ import annotations

import os
import signal

import torch
from pydantic import BaseModel, Field
from torch import nn

import hpo


class Mine(BaseModel):
    """What the loops declare."""

    hidden: int = Field(8, ge=1, le=64)
    penalty: float = Field(0.0, ge=0)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    """One step of training."""
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@hpo.training_loop("plain", parameters=Mine, uses=["epochs", "learning_rate", "batch_size", "optimizer", "momentum"])
def plain(trial: hpo.Trial) -> None:
    """An MLP with dropout on the study's data; with LOOP_DIES_ONCE in the environment its worker dies in epoch 3."""
    config, data = trial.config, trial.data
    layers = [nn.Flatten(), nn.Linear(36, config.hidden), nn.Dropout(0.2), nn.ReLU(), nn.Linear(config.hidden, 3)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    for epoch in trial.epochs(model=model, optimizer=optimizer, schedule=schedule):
        model.train()
        for x, y in data.batches(config.batch_size, epoch):
            loss = step(model, optimizer, x, y)
        schedule.step()
        if (marker := os.environ.get("LOOP_DIES_ONCE")) and epoch == 3 and not os.path.exists(marker):  # noqa: PTH110
            os.close(os.open(marker, os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)
        model.eval()
        with torch.no_grad():
            outputs = model(data.x_val)
        accuracy = (outputs.argmax(1) == data.y_val).float().mean()
        trial.report(
            train_loss=loss, val_loss=nn.functional.cross_entropy(outputs, data.y_val), val_accuracy=accuracy.item()
        )


@hpo.training_loop("parabola", parameters=Mine, reports={"val_rmse": "minimize", "distance": "minimize"})
def parabola(trial: hpo.Trial) -> float:
    """No epochs, no data, no model: a value."""
    return abs(trial.config.hidden - 40.0) / 8
