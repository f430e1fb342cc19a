"""Grid of one parameter, with draws of the others for each of its points."""

from ray import tune

BASE = {"batch_size": 128, "epochs": 4}


def train(config):
    tune.report({"val_loss": config["lr"]})


if __name__ == "__main__":
    tune.run(
        train,
        config={**BASE, "optimizer": tune.grid_search(["sgd", "adam", "rmsprop"]), "lr": tune.loguniform(1e-4, 1e-1)},
        num_samples=5,
        metric="val_loss",
        mode="min",
        stop={"training_iteration": 4},
    )
