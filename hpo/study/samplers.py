"""Samplers by name: fixed ones, whose slots are known when a study is created, and adaptive ones of Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna

from hpo.errors import DefinitionError, unknown

__all__ = ["SAMPLERS", "Sampler", "build_sampler", "check_sampler"]


@dataclass(frozen=True)
class AtLeast:
    """The type of an option of numbers, and its smallest value: Optuna would refuse a smaller one in mid-study."""

    kind: type
    low: float

    def allows(self, value: Any) -> bool:
        """Whether a value of that type is large enough; one that is not a number is not."""
        return bool(value >= self.low)


@dataclass(frozen=True)
class Sampler:
    """How a study chooses. `target` is a class of `optuna.samplers`; empty for fixed slots, which need none."""

    target: str = ""
    options: Mapping[str, type | AtLeast] = field(default_factory=lambda: MappingProxyType({}))
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    several_objectives: bool = True

    @property
    def fixed(self) -> bool:
        """Whether every trial's parameters follow from the definition and the trial's number alone."""
        return not self.target


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "random": Sampler(),
        "grid": Sampler(),
        "qmc": Sampler(),
        "tpe": Sampler(
            "TPESampler",
            {
                "n_startup_trials": AtLeast(int, 0),
                "n_ei_candidates": AtLeast(int, 1),
                "multivariate": bool,
                "group": bool,
                "constant_liar": bool,
                "prior_weight": float,
                "consider_endpoints": bool,
            },
            # Without `group`, conditional parameters are sampled independently of all others.
            MappingProxyType({"multivariate": True, "group": True, "constant_liar": True}),
        ),
        "gp": Sampler("GPSampler", {"n_startup_trials": AtLeast(int, 0), "deterministic_objective": bool}),
        "cmaes": Sampler(
            "CmaEsSampler",
            {
                "n_startup_trials": AtLeast(int, 0),
                "sigma0": AtLeast(float, 1e-9),
                "with_margin": bool,
                "use_separable_cma": bool,
                "lr_adapt": bool,
                "popsize": AtLeast(int, 2),
            },
            MappingProxyType({"warn_independent_sampling": False}),
            several_objectives=False,
        ),
        "nsga2": Sampler(
            "NSGAIISampler",
            {
                "population_size": AtLeast(int, 2),
                "mutation_prob": float,
                "crossover_prob": float,
                "swapping_prob": float,
            },
        ),
    }
)


def trial_seed(study_seed: int, number: int) -> int:
    """One seed per trial, from the study's seed and the trial's number."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


def build_sampler(name: str, options: Mapping[str, Any], study_seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for trial `number` of an adaptive study, or of an extra trial of a fixed one."""
    sampler = SAMPLERS[name]
    target = getattr(optuna.samplers, sampler.target or "RandomSampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        built: optuna.samplers.BaseSampler = target(
            seed=trial_seed(study_seed, number), **{**sampler.defaults, **options}
        )
    return built


def check_options(owner: str, options: Mapping[str, Any], valid: Mapping[str, type | AtLeast]) -> None:
    """Refuse options that `owner` does not take, or values of another type: Optuna would notice much later.

    Raises:
        DefinitionError: names the owner, the option and its value.
    """
    for option, value in options.items():
        if option not in valid:
            raise DefinitionError(unknown(f"option of {owner}", option, valid))
        rule = valid[option]
        kind = rule.kind if isinstance(rule, AtLeast) else rule
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise DefinitionError(f"{owner}: {option} = {value!r}: must be {kind.__name__}, not {type(value).__name__}")
        if isinstance(rule, AtLeast) and not rule.allows(value):
            raise DefinitionError(f"{owner}: {option} = {value!r}: must be at least {rule.low:g}")


def check_sampler(name: str, options: Mapping[str, Any], objectives: int) -> None:
    """Refuse a sampler that does not exist, takes no such option, or cannot serve that many objectives.

    Raises:
        DefinitionError: names the sampler, the option and the closest valid name.
    """
    if name not in SAMPLERS:
        raise DefinitionError(unknown("sampler", name, SAMPLERS))
    check_options(f"sampler '{name}'", options, SAMPLERS[name].options)
    if objectives > 1 and not SAMPLERS[name].several_objectives:
        raise DefinitionError(f"sampler '{name}' takes one objective, but the study has {objectives}; use tpe or nsga2")
    try:
        build_sampler(name, options, 0, 0)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"sampler '{name}' with {dict(options)}: {error}") from error
