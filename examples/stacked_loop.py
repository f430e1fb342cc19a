"""A loop of one's own that trains its trials as stacks: `hpo launch ./stacked_loop.toml --import stacked_loop`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

import hpo


@hpo.training_loop("stacked_loop", uses=["epochs", "batch_size", "learning_rate", "width"], stack=True)
def stacked_loop(trial: hpo.Trial) -> None:
    """Train the trials of a call, those of equal widths as one batched computation."""
    data = trial.data

    def build(config: hpo.TrialConfig) -> nn.Module:
        inputs = nn.Linear(data.shape[0], config.width)
        return nn.Sequential(inputs, nn.LayerNorm(config.width), nn.GELU(), nn.Linear(config.width, data.classes))

    stack = trial.stack(build)
    for epoch in stack.epochs():
        for x, y in data.batches(trial.config.batch_size, epoch):
            losses = stack.step(x, y, F.cross_entropy)
        outputs = stack.predict(data.x_val)  # (trials, samples, classes)
        stack.report(
            train_loss=losses,
            val_loss=[F.cross_entropy(each, data.y_val) for each in outputs],
            val_accuracy=(outputs.argmax(2) == data.y_val).float().mean(1),
        )
