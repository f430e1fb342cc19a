"""Population-based training, whose mutations are the space."""

import random

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining


def train(config):
    tune.report({"val_accuracy": config["lr"]})


scheduler = PopulationBasedTraining(
    time_attr="training_iteration",
    perturbation_interval=4,
    hyperparam_mutations={
        "lr": lambda: 10 ** random.uniform(-4, -1),
        "momentum": tune.uniform(0.5, 0.99),
        "batch_size": [32, 64, 128],
    },
)
if __name__ == "__main__":
    tune.run(
        train,
        config={
            "lr": 0.01,
            "momentum": 0.9,
            "batch_size": 64,
            "optimizer": "momentum",
            "depth": tune.choice([1, 2, 3]),
        },
        scheduler=scheduler,
        num_samples=8,
        metric="val_accuracy",
        mode="max",
    )
