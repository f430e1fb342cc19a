"""Objective function that returns two numbers."""

import optuna


def evaluate(trial):
    depth = trial.suggest_int("depth", 1, 4)
    width = trial.suggest_int("width", 16, 100, step=16)
    return width * depth, trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)


study = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.NSGAIISampler())
study.optimize(evaluate, n_trials=24)
