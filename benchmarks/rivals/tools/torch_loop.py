"""The model and the loop of PyTorch's own tutorials, which the tools for PyTorch all train."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.rivals.pictures import make_datasets
from benchmarks.rivals.session import session, trial

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def make_mlp(config: dict[str, Any], features: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(config["depth"]):
        layers += [nn.Linear(features, config["width"]), ACTIVATIONS[config["activation"]]()]
        features = config["width"]
    return nn.Sequential(*layers, nn.Linear(features, classes))


def make_cnn(config: dict[str, Any], size: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    inputs, outputs = 1, config["channels"]
    for _ in range(config["conv_layers"]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), ACTIVATIONS[config["activation"]](), nn.MaxPool2d(2)]
        inputs, outputs, size = outputs, 2 * outputs, size // 2
    dense = nn.Linear(inputs * size**2, config["dense_width"])
    activation = ACTIVATIONS[config["activation"]]()
    return nn.Sequential(*layers, nn.Flatten(), dense, activation, nn.Linear(config["dense_width"], classes))


def make_model(config: dict[str, Any], sample: torch.Tensor, classes: int) -> nn.Module:
    if session.space.model == "cnn":
        return make_cnn(config, sample.shape[-1], classes)
    return make_mlp(config, sample.numel(), classes)


@cache
def datasets() -> tuple[Dataset[Any], Dataset[Any]]:
    return make_datasets(session.data)


def train(config: dict[str, Any], epochs: int = session.epochs) -> Iterator[float]:
    """Train a model, and yield its validation accuracy after each epoch."""
    train_set, validation_set = datasets()
    train_loader = DataLoader(train_set, batch_size=int(config["batch_size"]), shuffle=True)
    validation_loader = DataLoader(validation_set, batch_size=1000)
    model = make_model(config, train_set[0][0], int(session.data["y_train"].max()) + 1)
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[config["optimizer"]](
        model.parameters(), lr=config["learning_rate"]
    )
    loss_function = nn.CrossEntropyLoss()
    with trial() as record:
        for _ in range(epochs):
            model.train()
            for x, y in train_loader:
                optimizer.zero_grad()
                loss = loss_function(model(x), y)
                loss.backward()
                optimizer.step()
            accuracy = evaluate(model, validation_loader)
            record(accuracy)
            yield accuracy


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[Any]) -> float:
    model.eval()
    correct = total = 0
    for x, y in loader:
        correct += int((model(x).argmax(1) == y).sum())
        total += len(y)
    return correct / total
