"""Sweep whose parameters a loop adds, with a quick run under a condition and two agents."""

import os

import wandb

parameters = {"epochs": {"value": 12}}
for name, values in {"dropout": [0.1, 0.2], "batch_size": [32, 64]}.items():
    parameters[name] = {"values": values}
if os.environ.get("QUICK"):
    parameters["epochs"] = {"value": 1}
sweep = {"method": "random", "metric": {"name": "val_loss", "goal": "minimize"}, "parameters": parameters}

if __name__ == "__main__":
    sweep_id = wandb.sweep(sweep, project="quick")
    wandb.agent(sweep_id, print, count=5)
    wandb.agent(sweep_id, print, count=7)
