"""Classifier of images, tuned as older tutorials do: tune.run, ASHA, sample_from and defaults of a function."""

from functools import partial
from pathlib import Path

import numpy as np
from ray import tune
from ray.tune import CLIReporter
from ray.tune.schedulers import ASHAScheduler


def train_pictures(config, data_dir=None):
    tune.report({"loss": config["lr"], "accuracy": 0.0, "data_dir": data_dir})


def main(num_samples=12, max_num_epochs=9):
    config = {
        "model": "mlp",
        "l1": tune.sample_from(lambda _: 2 ** np.random.randint(3, 8)),
        "dropout": tune.sample_from(lambda _: np.random.uniform(0.0, 0.5)),
        "lr": tune.loguniform(1e-4, 1e-1),
        "batch_size": tune.choice([32, 64, 128]),
        "optimizer": tune.choice(["sgd", "adam"]),
        "epochs": 9,
    }
    scheduler = ASHAScheduler(
        metric="val_accuracy", mode="max", max_t=max_num_epochs, grace_period=2, reduction_factor=3
    )
    return tune.run(
        partial(train_pictures, data_dir=Path("pictures")),
        resources_per_trial={"cpu": 2},
        config=config,
        num_samples=num_samples,
        scheduler=scheduler,
        progress_reporter=CLIReporter(metric_columns=["loss"]),
        name="pictures",
    )


if __name__ == "__main__":
    main()
