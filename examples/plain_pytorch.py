"""A training loop of one's own in plain PyTorch: `hpo launch ./plain_pytorch.toml --import plain_pytorch`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import nn

import hpo


class Mine(BaseModel):
    """Parameters that this loop adds to those of the toolkit."""

    noise: float = Field(0.0, ge=0, le=1, description="deviation of the noise that is added to the training images")


@hpo.training_loop("plain_pytorch", parameters=Mine, uses=["epochs", "batch_size", "learning_rate", "width"])
def plain_pytorch(trial: hpo.Trial) -> None:
    """Train one trial."""
    config, data = trial.config, trial.data
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, config.width), nn.ReLU(), nn.Linear(config.width, data.classes))
    model.to(trial.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    for epoch in trial.epochs(model=model, optimizer=optimizer, schedule=schedule):
        model.train()
        losses = []
        for x, y in data.batches(config.batch_size, epoch):
            loss = F.cross_entropy(model(x + config.noise * torch.randn_like(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        schedule.step()
        trial.report(train_loss=torch.stack(losses).mean(), **validated(model, data.x_val, data.y_val))


@torch.no_grad()
def validated(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """The metrics of the validation split."""
    model.eval()
    outputs = model(x)
    accuracy = (outputs.argmax(1) == y).float().mean()
    return {"val_loss": F.cross_entropy(outputs, y).item(), "val_accuracy": accuracy.item()}
