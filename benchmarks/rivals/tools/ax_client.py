"""Ax, as its tutorial on ask and tell, with two trials at a time: it leaves it to its users to run them."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from benchmarks.rivals.session import session
from benchmarks.rivals.tools.torch_loop import train


def parameters() -> list[Any]:
    space = session.space
    found: list[Any] = [
        ChoiceParameterConfig(name=name, values=choices, parameter_type="int" if type(choices[0]) is int else "str")
        for name, choices in space.choices.items()
    ]
    found += [
        RangeParameterConfig(name=name, bounds=bounds, parameter_type="int") for name, bounds in space.integers.items()
    ]
    return found + [
        RangeParameterConfig(name=name, bounds=bounds, parameter_type="float", scaling="log")
        for name, bounds in space.rates.items()
    ]


def evaluate(config: dict[str, Any]) -> float:
    return list(train(config))[-1]


if __name__ == "__main__":
    client = Client(random_seed=session.seed)
    client.configure_experiment(parameters=parameters())
    client.configure_optimization(objective="accuracy")
    end, asked = time.monotonic() + session.seconds, 0
    with ProcessPoolExecutor(2) as pool:
        while time.monotonic() < end and asked < session.trials:
            trials = client.get_next_trials(max_trials=min(2, session.trials - asked))
            for index, accuracy in zip(trials, pool.map(evaluate, map(dict, trials.values())), strict=True):
                client.complete_trial(trial_index=index, raw_data={"accuracy": accuracy})
            asked += len(trials)
