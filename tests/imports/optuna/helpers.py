"""Objective function with a helper for two networks, epochs of its own, two runs and a pruner that a switch chooses."""

import sys

import optuna

EPOCHS = 12
RATES = {"low": 1e-4, "high": 1e-1, "log": True}


def suggest(trial, prefix):
    return {
        "rate": trial.suggest_float(prefix + "rate", **RATES),
        "decay": trial.suggest_float(f"{prefix}decay", 0.0, 0.1),
    }


def train(*given):
    return float(len(given))


def objective(trial):
    networks = suggest(trial, "generator_"), suggest(trial, "critic_")
    batch_size = trial.suggest_categorical("batch_size", [32, 64, 128])
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    rate = trial.suggest_float("lr", **RATES)
    beta = trial.suggest_float("beta2", 0.9, 0.999)
    layers = trial.suggest_int("depth", 1, 3)
    loss = 0.0
    for epoch in range(1, EPOCHS + 1):
        loss = train(networks, batch_size, dropout, rate, beta, layers)
        trial.report(loss, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


if __name__ == "__main__":
    pruner = optuna.pruners.MedianPruner() if "--prune" in sys.argv else optuna.pruners.NopPruner()
    study = optuna.create_study(pruner=pruner)
    study.optimize(objective, n_trials=30)
    study.optimize(objective, n_trials=10)
