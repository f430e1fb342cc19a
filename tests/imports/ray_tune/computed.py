"""Values that only the file itself computes, distributions without an equivalent, and classes as choices."""

import os

import torch.nn as nn
from ray import tune


def train(config):
    tune.report({"loss": config["lr"]})


tuner = tune.Tuner(
    train,
    param_space={
        "root": os.environ.get("PICTURES"),
        "lr": tune.qloguniform(1e-4, 1e-1, 5e-5),
        "warm": tune.sample_from(lambda spec: spec.config.lr / 10),
        "noise": tune.randn(0.0, 0.05),
        "act": tune.choice([nn.ReLU, nn.Tanh]),
        "rounds": tune.qlograndint(8, 64, 8),
        "seed": 7,
    },
    tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=-1),
)
