"""Plain PyTorch with Accelerate: `hpo launch accelerate_objective.py:objective --trials 4 --workers 1`.

Needs `pip install 'torch-hpo[accelerate]'`. Without Accelerate the loop is the same, but for its three lines.
"""

from __future__ import annotations

import optuna
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True))
    training = DataLoader(TensorDataset(x[:4000], y[:4000]), batch_size=128, shuffle=True)

    accelerator = Accelerator()
    model, optimizer, training = accelerator.prepare(model, optimizer, training)
    checkpoint = hpo.checkpoint(trial)
    state = checkpoint.load() or {"epoch": 0, "accuracy": 0.0}
    if state["epoch"]:
        accelerator.load_state(str(checkpoint.folder / f"epoch-{state['epoch']}"))
    for epoch in range(state["epoch"] + 1, EPOCHS + 1):
        model.train()
        for inputs, labels in training:
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            outputs = model(x[4000:].to(accelerator.device))
        accuracy = (outputs.argmax(1).cpu() == y[4000:]).float().mean().item()
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
        accelerator.save_state(str(checkpoint.folder / f"epoch-{epoch}"))
        state = {"epoch": epoch, "accuracy": accuracy}
        checkpoint.save(state)
    return state["accuracy"]
