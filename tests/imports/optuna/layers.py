"""Objective function whose layers each have a width and a dropout of their own."""

import optuna


def make_layers(trial):
    count = trial.suggest_int("n_layers", 1, 3)
    return [
        (trial.suggest_int(f"units_{i}", 8, 64, log=True), trial.suggest_float(f"drop_{i}", 0.0, 0.5))
        for i in range(count)
    ]


def objective(trial):
    layers = make_layers(trial)
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    optimizer = trial.suggest_categorical("optimizer", ["Adam", "SGD"])
    for epoch in range(3):
        trial.report(rate * len(layers), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return rate if optimizer == "SGD" else 0.0


if __name__ == "__main__":
    study = optuna.create_study(direction="maximize", study_name="layers")
    study.optimize(objective, n_trials=50, timeout=600)
