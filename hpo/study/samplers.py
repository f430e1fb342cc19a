"""Samplers by name: fixed ones, whose slots are known at a study's creation, and adaptive ones of Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import optuna
from pydantic import Field, TypeAdapter, ValidationError

from hpo.errors import DefinitionError, describe_unknown
from hpo.utils.text import first_line, shorten

__all__ = [
    "SAMPLERS",
    "UNKNOWN",
    "Count",
    "Positive",
    "Sampler",
    "build_sampler",
    "check_options",
    "check_sampler",
    "count_startup_trials",
    "generation_size",
    "trial_seed",
]

UNKNOWN = "unknown"  # the sampler of a study that another tool has made, which does not record it


# Optuna would refuse a smaller number in the middle of a study, and take a larger one for an amount of work.
MOST = 1_000_000
Count = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Population = Annotated[int, Field(ge=2, le=10_000)]
StepSize = Annotated[float, Field(ge=1e-9, le=1e9)]
Weight = Annotated[float, Field(ge=0, le=1e9)]


@dataclass(frozen=True)
class Sampler:
    """Sampler of a study, as its name selects it.

    Attributes:
        target: a class of `optuna.samplers`; empty for fixed slots, which need none.
        options: the options that a study file may give, each with its type as pydantic reads it.
        defaults: arguments of ours that Optuna has other defaults for.
        startup: the option that says how many trials are drawn at random first, and Optuna's default for it.
        several_objectives: whether it serves studies of several objectives.
    """

    target: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    startup: tuple[str, int] = ("", 0)
    several_objectives: bool = True

    @property
    def fixed(self) -> bool:
        """True if every trial's parameters follow from the definition and the trial's number alone."""
        return not self.target


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "random": Sampler(),
        "grid": Sampler(),
        "qmc": Sampler(),
        "tpe": Sampler(
            "TPESampler",
            {
                "n_startup_trials": Count,
                "n_ei_candidates": Annotated[int, Field(ge=1, le=10_000)],
                "multivariate": bool,
                "group": bool,
                "constant_liar": bool,
                "prior_weight": Weight,
                "consider_endpoints": bool,
            },
            # Without `group`, conditional parameters are sampled independently of all others.
            MappingProxyType({"multivariate": True, "group": True, "constant_liar": True}),
            ("n_startup_trials", 10),
        ),
        "gp": Sampler(
            "GPSampler",
            {"n_startup_trials": Count, "deterministic_objective": bool},
            startup=("n_startup_trials", 10),
        ),
        "cmaes": Sampler(
            "CmaEsSampler",
            {
                "n_startup_trials": Count,
                "sigma0": StepSize,
                "with_margin": bool,
                "use_separable_cma": bool,
                "lr_adapt": bool,
                "popsize": Population,
            },
            MappingProxyType({"warn_independent_sampling": False}),
            ("n_startup_trials", 1),
            several_objectives=False,
        ),
        "nsga2": Sampler(
            "NSGAIISampler",
            {
                "population_size": Population,
                "mutation_prob": float,
                "crossover_prob": float,
                "swapping_prob": float,
            },
            startup=("population_size", 50),
        ),
    }
)


def trial_seed(study_seed: int, number: int, again: int = 0) -> int:
    """Return the seed of one trial, from the study's seed and the trial's number; another one to ask it again."""
    entropy = [study_seed, number, *([again] if again else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def build_sampler(
    name: str, options: Mapping[str, Any], study_seed: int, number: int, again: int = 0
) -> optuna.samplers.BaseSampler:
    """Build Optuna's sampler for trial `number` of an adaptive study, or for an extra trial of a fixed one.

    Args:
        name, options: of the sampler.
        study_seed: the study's seed.
        number: the trial's number.
        again: how many times it has been asked for this trial before.
    """
    sampler = SAMPLERS[name]
    target = getattr(optuna.samplers, sampler.target or "RandomSampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        built: optuna.samplers.BaseSampler = target(
            seed=trial_seed(study_seed, number, again), **{**sampler.defaults, **options}
        )
    return built


def count_startup_trials(name: str, options: Mapping[str, Any]) -> int:
    """Return how many trials an adaptive sampler draws at random before it learns from any; 0 for fixed slots."""
    option, default = SAMPLERS[name].startup
    return int(options.get(option, default))


def generation_size(name: str, options: Mapping[str, Any], dimensions: int) -> int:
    """Return how many trials a sampler draws from one distribution, whatever becomes of them in between; 1 of most.

    Args:
        name, options: of the sampler.
        dimensions: how many parameters vary.
    """
    if name == "nsga2":
        return count_startup_trials(name, options)
    if name == "cmaes":  # the population of Hansen's tutorial, which Optuna takes
        return int(options.get("popsize", 4 + math.floor(3 * math.log(max(dimensions, 1)))))
    return 1


def check_options(owner: str, options: Mapping[str, Any], valid: Mapping[str, Any]) -> None:
    """Refuse options that `owner` does not take, or values of another type: Optuna would notice much later.

    Args:
        owner: the sampler or pruner, as errors name it.
        options: value by option.
        valid: type by option, as pydantic reads it.

    Raises:
        DefinitionError: names the owner, the option and its value.
    """
    for option, value in options.items():
        if option not in valid:
            raise DefinitionError(describe_unknown(f"option of {owner}", option, valid))
        try:
            TypeAdapter(valid[option]).validate_python(value, strict=True)
        except ValidationError as error:
            raise DefinitionError(
                f"{owner}: {option} = {shorten(value)}: must be {_requirement(error, value)}"
            ) from error


def _requirement(error: ValidationError, value: object) -> str:
    """Say what an option's value must be: `at least 2`, `'a' or 'b'`, or `int, not str`."""
    detail = error.errors()[0]
    if detail["type"] == "greater_than_equal":
        return f"at least {detail['ctx']['ge']:g}"
    if detail["type"] == "less_than_equal":
        return f"at most {detail['ctx']['le']:,}"
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"])
    return f"{detail['type'].removesuffix('_type')}, not {type(value).__name__}"


def check_sampler(name: str, options: Mapping[str, Any], objectives: int) -> None:
    """Refuse a sampler that does not exist, does not take these options, or cannot serve that many objectives.

    Raises:
        DefinitionError: names the sampler, the option and the closest valid name.
    """
    if name not in SAMPLERS:
        raise DefinitionError(describe_unknown("sampler", name, SAMPLERS))
    check_options(f"sampler '{name}'", options, SAMPLERS[name].options)
    if objectives > 1 and not SAMPLERS[name].several_objectives:
        raise DefinitionError(f"sampler '{name}' takes one objective, but the study has {objectives}; use tpe or nsga2")
    try:
        build_sampler(name, options, 0, 0)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"sampler '{name}' with {shorten(dict(options))}: {first_line(error)}") from error
