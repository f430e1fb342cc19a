"""Objective function with parameters in branches, in a table, and of the older kinds."""

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler

TRIALS = 2 * 15


def objective(trial: optuna.Trial) -> float:
    params = {
        "optimizer": trial.suggest_categorical("optimizer", ["sgd", "momentum", "adam"]),
        "learning_rate": trial.suggest_loguniform("learning_rate", 1e-4, 1e-1),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128]),
        "dropout": trial.suggest_discrete_uniform("dropout", 0.0, 0.5, 0.1),
    }
    if params["optimizer"] == "momentum":
        params["momentum"] = trial.suggest_float("momentum", 0.5, 0.99)
    elif params["optimizer"] != "sgd":
        params["beta1"] = trial.suggest_uniform("beta1", 0.8, 0.95)
    params["weight_decay"] = (
        trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True) if params["batch_size"] == 64 else 0
    )
    if params["learning_rate"] > 0.01:
        params["warmup"] = trial.suggest_float("warmup", 0.0, 0.2)
    return sum(value for value in params.values() if isinstance(value, float))


study = optuna.create_study(
    directions=["minimize"],
    sampler=TPESampler(seed=1),
    pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
)
study.optimize(objective, TRIALS)
