"""SMAC3, as its example of an MLP with epochs as the fidelity: Hyperband and random forests, on two workers."""

from __future__ import annotations

from typing import Any

from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float, Integer
from smac import MultiFidelityFacade, Scenario
from smac.intensifier.hyperband import Hyperband

from benchmarks.rivals.session import session
from benchmarks.rivals.tools.torch_loop import train


def configuration_space() -> ConfigurationSpace:
    space, result = session.space, ConfigurationSpace(seed=session.seed)
    parameters: list[Any] = [Categorical(name, choices) for name, choices in space.choices.items()]
    parameters += [Integer(name, bounds) for name, bounds in space.integers.items()]
    parameters += [Float(name, bounds, log=True) for name, bounds in space.rates.items()]
    result.add(parameters)
    return result


def target(config: Configuration, seed: int, budget: float) -> float:  # noqa: ARG001  SMAC passes a seed by name
    accuracy = 0.0
    for accuracy in train(dict(config), round(budget)):  # noqa: B007  the last one counts
        pass
    return 1 - accuracy


if __name__ == "__main__":
    scenario = Scenario(
        configuration_space(),
        output_directory=session.folder,  # type: ignore[arg-type, unused-ignore]
        walltime_limit=session.seconds,
        n_trials=session.trials,
        min_budget=1,
        max_budget=session.epochs,
        n_workers=2,
        seed=session.seed,
    )
    initial = MultiFidelityFacade.get_initial_design(scenario, n_configs=5)
    MultiFidelityFacade(scenario, target, initial_design=initial, intensifier=Hyperband(scenario)).optimize()
