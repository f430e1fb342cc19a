"""Tables within tables, and a choice among tables that have domains of their own."""

from ray import tune

optimizer_space = [
    {"name": "sgd", "learning_rate": tune.loguniform(1e-3, 1e-1), "momentum": tune.uniform(0.0, 0.9)},
    {"name": "adam", "learning_rate": tune.loguniform(1e-4, 1e-2)},
]
search_space = {
    "optimizer": tune.choice(optimizer_space),
    "model": {"depth": tune.randint(1, 4), "width": tune.qrandint(16, 64, 16), "dropout": 0.1},
    "training": {"batch_size": tune.choice([64, 128]), "epochs": 3},
}


def train(config):
    tune.report({"val_accuracy": config["model"]["dropout"]})


tuner = tune.Tuner(
    train, param_space=search_space, tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", num_samples=20)
)
if __name__ == "__main__":
    tuner.fit()
