"""Sweep whose table is made step by step."""

import math

import wandb

DEVICE = choose_device()  # noqa: F821

sweep_config = {"method": "random"}
metric = {"name": "val_loss", "goal": "minimize"}
sweep_config["metric"] = metric

parameters_dict = {
    "optimizer": {"values": ["adam", "sgd"]},
    "fc_layer_size": {"values": [2**power for power in range(5, 8)]},
    "dropout": {"values": [0.3, 0.4, 0.5]},
    "device": {"value": DEVICE},
    "debug": {"value": True},
}
sweep_config["parameters"] = parameters_dict
parameters_dict.update({"epochs": {"value": 1}})
parameters_dict["learning_rate"] = {"distribution": "uniform", "min": 0, "max": 0.1}
parameters_dict["learning_rate"]["min"] = 1e-4
parameters_dict.update(
    batch_size={"distribution": "log_uniform", "min": math.log(32), "max": math.log(256)},
)
del parameters_dict["debug"]
sweep_config["early_terminate"] = {"type": "hyperband", "min_iter": 1}


def train(config=None):
    with wandb.init(config=config):
        return wandb.config


if __name__ == "__main__":
    sweep_id = wandb.sweep(sweep_config, project="digits")
    wandb.agent(sweep_id, train, count=5)
