"""Pruners by name. Steps are epochs, counted from 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import optuna

from hpo.errors import DefinitionError, unknown

__all__ = ["PRUNERS", "Pruner", "build_pruner", "check_pruner"]


@dataclass(frozen=True)
class Pruner:
    """A class of `optuna.pruners` and its options."""

    target: str
    options: tuple[str, ...] = ()


COMMON = ("n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials")

PRUNERS: Mapping[str, Pruner] = MappingProxyType(
    {
        "none": Pruner("NopPruner"),
        "median": Pruner("MedianPruner", COMMON),
        "percentile": Pruner("PercentilePruner", ("percentile", *COMMON)),
        "asha": Pruner(
            "SuccessiveHalvingPruner",
            ("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count"),
        ),
        "hyperband": Pruner("HyperbandPruner", ("min_resource", "max_resource", "reduction_factor", "bootstrap_count")),
    }
)


def build_pruner(name: str, options: Mapping[str, Any], epochs: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner for a study whose longest trial has that many epochs."""
    given = dict(options)
    if name == "percentile":
        given.setdefault("percentile", 25.0)
    if name == "hyperband":
        # Left to guess it from the first finished trial, parallel workers build different brackets.
        given.setdefault("max_resource", epochs)
    built: optuna.pruners.BasePruner = getattr(optuna.pruners, PRUNERS[name].target)(**given)
    return built


def check_pruner(name: str, options: Mapping[str, Any], epochs: int, objectives: int) -> None:
    """Refuse a pruner that does not exist, takes no such option, or stands beside several objectives.

    Raises:
        DefinitionError: names the pruner, the option and the closest valid name.
    """
    if name not in PRUNERS:
        raise DefinitionError(unknown("pruner", name, PRUNERS))
    for option in options:
        if option not in PRUNERS[name].options:
            raise DefinitionError(unknown(f"option of pruner '{name}'", option, PRUNERS[name].options))
    if objectives > 1 and name != "none":
        raise DefinitionError(
            f"pruner '{name}' needs a single objective, but the study has {objectives}; use pruner = \"none\""
        )
    try:
        build_pruner(name, options, epochs)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"pruner '{name}' with {dict(options)}: {error}") from error
