"""Ray Tune, as its guides to PyTorch, ASHA and Optuna: a trainable per core, stopped by ASHA, chosen by Optuna."""

from __future__ import annotations

from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.rivals.session import session
from benchmarks.rivals.tools.torch_loop import train


def trainable(config: dict[str, Any]) -> None:
    for accuracy in train(config):
        tune.report({"accuracy": accuracy})


def param_space() -> dict[str, Any]:
    space = session.space
    choices = {name: tune.choice(choices) for name, choices in space.choices.items()}
    integers = {name: tune.randint(low, high + 1) for name, (low, high) in space.integers.items()}
    return {**choices, **integers, **{name: tune.loguniform(*bounds) for name, bounds in space.rates.items()}}


if __name__ == "__main__":
    ray.init(address="local", num_cpus=2, include_dashboard=False)
    tuner = tune.Tuner(
        trainable,
        param_space=param_space(),
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=session.trials,
            time_budget_s=session.seconds,
            search_alg=OptunaSearch(seed=session.seed),
            scheduler=ASHAScheduler(max_t=session.epochs),
        ),
        run_config=tune.RunConfig(storage_path=session.folder),
    )
    tuner.fit()
