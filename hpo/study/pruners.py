"""Pruners by name. Steps are epochs, counted from 1.

Those of objective functions are Optuna's, as they are. Those of models and training loops compare a trial with all that
have come as far, among them the rest of its cohort.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field

from hpo.errors import DefinitionError, describe_unknown
from hpo.study.fit_pruner import FitPruner
from hpo.study.halving import AshaPruner, HyperbandPruner
from hpo.study.peer_pruner import PeerPercentilePruner
from hpo.study.samplers import Count, Positive, check_options
from hpo.utils.text import first_line, shorten

__all__ = ["PRUNERS", "Pruner", "build_pruner", "check_pruner"]


@dataclass(frozen=True)
class Pruner:
    """Pruner of a study, as its name selects it: a class of `optuna.pruners`, and its options with their types."""

    target: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


COMMON: dict[str, Any] = {
    "n_startup_trials": Count,
    "n_warmup_steps": Count,
    "interval_steps": Positive,
    "n_min_trials": Positive,
    "compare_with": Literal["reported", "finished"],
}
WARMUP = 4  # part of the epochs after which fits are compared: early ones say little of the last
Factor = Annotated[int, Field(ge=2, le=1_000_000)]
HALVING: dict[str, Any] = {"min_resource": Positive, "reduction_factor": Factor, "bootstrap_count": Count}
Share = Annotated[float, Field(ge=0, le=1)]
# The first rung is at min_resource * reduction_factor ** rate epochs, a number that is computed.
Rate = Annotated[int, Field(ge=0, le=64)]

PRUNERS: Mapping[str, Pruner] = MappingProxyType(
    {
        "none": Pruner("NopPruner"),
        "median": Pruner("MedianPruner", COMMON),
        "percentile": Pruner("PercentilePruner", {"percentile": float, **COMMON}),
        "asha": Pruner("SuccessiveHalvingPruner", {**HALVING, "min_early_stopping_rate": Rate, "promote": bool}),
        "wilcoxon": Pruner("WilcoxonPruner", {"p_threshold": Share, "n_startup_steps": Count, "n_warmup_steps": Count}),
        "hyperband": Pruner("HyperbandPruner", {**HALVING, "max_resource": Positive}),
    }
)


def build_pruner(
    name: str, options: Mapping[str, Any], epochs: int, *, function: bool = False
) -> optuna.pruners.BasePruner:
    """Build the pruner of a study whose longest trial has that many epochs.

    Args:
        name, options: of the pruner.
        epochs: of the longest trial.
        function: whether the trials are calls of an objective function, which asks Optuna's own pruner.
    """
    arguments = {key: value for key, value in options.items() if key not in ("compare_with", "promote")}
    reported = options.get("compare_with", "finished" if function else "reported") == "reported"
    if name == "percentile":
        arguments.setdefault("percentile", 25.0)
    if name == "hyperband":
        # If they guess it from the first finished trial, parallel workers build different brackets.
        arguments.setdefault("max_resource", epochs)
        return HyperbandPruner(**arguments) if reported else optuna.pruners.HyperbandPruner(**arguments)
    if name == "wilcoxon" and not function:
        return FitPruner(**{"n_warmup_steps": epochs // WARMUP, **arguments})
    if name == "wilcoxon":
        arguments.pop("n_warmup_steps", None)  # its steps are not epochs
        with warnings.catch_warnings():  # it is experimental in Optuna, and everybody has been told
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.pruners.WilcoxonPruner(**arguments)
    if name in ("median", "percentile") and reported:
        return PeerPercentilePruner(arguments.pop("percentile", 50.0), **arguments)
    built: optuna.pruners.BasePruner = getattr(optuna.pruners, PRUNERS[name].target)(**arguments)
    if name == "asha" and not function:
        return AshaPruner(epochs, promote=options.get("promote", True), **arguments)
    return built


def check_pruner(name: str, options: Mapping[str, Any], epochs: int, objectives: int) -> None:
    """Refuse a pruner that does not exist, does not take these options, or stands beside several objectives.

    Raises:
        DefinitionError: names the pruner, the option and the closest valid name.
    """
    if name not in PRUNERS:
        raise DefinitionError(describe_unknown("pruner", name, PRUNERS))
    check_options(f"pruner '{name}'", options, PRUNERS[name].options)
    if objectives > 1 and name != "none":
        raise DefinitionError(
            f"pruner '{name}' needs a single objective, but the study has {objectives}; use pruner = \"none\""
        )
    try:
        build_pruner(name, options, epochs)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"pruner '{name}' with {shorten(dict(options))}: {first_line(error)}") from error
