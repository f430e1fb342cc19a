"""Grid of two parameters, in both ways to write one, and constants."""

from ray import tune


def train(config):
    tune.report({"val_accuracy": config["lr"]})


param_space = {
    "lr": tune.grid_search([0.001, 0.01, 0.1]),
    "hidden_layers": {"grid_search": [1, 2]},
    "batch_size": 64,
    "epochs": 3,
}
tuner = tune.Tuner(train, param_space=param_space, tune_config=tune.TuneConfig(metric="val_accuracy", mode="max"))
