"""Objective function that computes with what is suggested, at once or later, among two that the file has."""

import optuna
from project import make_loader, train


def older_objective(trial):
    return trial.suggest_float("lr", 1e-3, 1.0, log=True) + trial.suggest_int("depth", 1, 9)


def sample_optimizer(trial):
    kind = trial.suggest_categorical("optimizer", ["SGD", "Adam"])
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    keep = 1 - trial.suggest_float("dropout", 0.1, 0.5)
    return {"kind": kind, "lr": rate, "keep": keep}


def objective(trial):
    settings = sample_optimizer(trial)
    exponent = trial.suggest_int("batch_size", 4, 8)
    loader = make_loader(batch_size=2**exponent)
    layers = int(trial.suggest_categorical("n_layers", ["1", "2"]))
    epochs = trial.suggest_int("epochs", 2, 4)
    width = trial.suggest_int("hidden_size", 16, 64)
    total = epochs * len(loader)
    return train(settings, loader, layers, width, range(epochs), total)


optuna.create_study(direction="minimize").optimize(lambda trial: objective(trial), n_trials=10)
