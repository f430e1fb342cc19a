"""Ignite's engines in an objective function: `hpo launch ignite_objective.py:objective --trials 4 --workers 1`.

Needs `pip install 'torch-hpo[ignite]'`.
"""

from __future__ import annotations

import optuna
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from hpo.datasets import mnist
from hpo.integrations.ignite import TrialHandler

EPOCHS = 3


def objective(trial: optuna.Trial) -> float:
    """Train a network on 4,000 of MNIST's digits, or go on with it; return its accuracy on 1,000 others."""
    torch.manual_seed(0)
    x, y = (torch.tensor(part[:5000]) for part in mnist().train)
    digits = TensorDataset(x.flatten(1) / 255, y.long())
    training, validation = random_split(digits, [4000, 1000], torch.Generator().manual_seed(0))
    width = trial.suggest_int("width", 16, 128, log=True)
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True))

    trainer = create_supervised_trainer(model, optimizer, nn.functional.cross_entropy)
    metrics = {"accuracy": Accuracy(), "loss": Loss(nn.functional.cross_entropy)}
    evaluator = create_supervised_evaluator(model, metrics)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(_trainer: Engine) -> None:
        evaluator.run(DataLoader(validation, batch_size=1000))

    handler = TrialHandler(trial, monitor="accuracy")
    handler.attach(trainer, evaluator, {"model": model, "optimizer": optimizer})
    trainer.run(DataLoader(training, batch_size=128, shuffle=True), max_epochs=EPOCHS)
    return handler.metrics["accuracy"]
