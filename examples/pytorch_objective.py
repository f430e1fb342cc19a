"""Plain PyTorch in an objective function: `hpo launch pytorch_objective.py:objective --trials 8 --workers 2`.

The script that `study.optimize` would run; the lines with `checkpoint` let a trial go on after its worker was killed.
"""

from __future__ import annotations

import optuna
import torch
import torch.nn.functional as F
from torch import nn

import hpo
from hpo.datasets import mnist

EPOCHS = 3


def objective(trial: optuna.Trial) -> float:
    """Train a network on 4,000 of MNIST's digits, or go on with it; return its accuracy on 1,000 others."""
    torch.manual_seed(0)
    x, y = (torch.tensor(part[:5000]) for part in mnist().train)
    x, y = x.flatten(1) / 255, y.long()
    width = trial.suggest_int("width", 16, 128, log=True)
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=trial.suggest_float("momentum", 0.0, 0.95))

    checkpoint = hpo.checkpoint(trial)
    state = checkpoint.load() or {"epoch": 0, "accuracy": 0.0}
    if state["epoch"]:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"], EPOCHS):
        order = torch.randperm(4000, generator=torch.Generator().manual_seed(epoch))  # the same in a later attempt
        for index in order.split(128):
            loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (model(x[4000:]).argmax(1) == y[4000:]).float().mean().item()
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
        state = {"epoch": epoch + 1, "accuracy": accuracy}
        checkpoint.save({**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    return state["accuracy"]
