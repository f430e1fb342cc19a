"""Samplers and pruners of Optuna as study files have them: a name and options."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import optuna

from hpo.errors import DefinitionError
from hpo.study.pruners import PRUNERS, Pruner
from hpo.study.samplers import SAMPLERS, Sampler

__all__ = ["Component", "read_component", "read_seed"]

Component = optuna.samplers.BaseSampler | optuna.pruners.BasePruner
UNUSED = 624  # the position in its state of a generator that has drawn nothing yet
UNSEEDED = 0x80000000  # the first word of its state where the operating system gave the seed


def read_component(component: Component) -> dict[str, Any]:
    """Return name and options of a sampler or pruner of Optuna.

    Raises:
        DefinitionError: it, or an option that it was given, has no name here.
    """
    sampler = isinstance(component, optuna.samplers.BaseSampler)
    kind, known = ("sampler", SAMPLERS) if sampler else ("pruner", PRUNERS)
    kinds: Mapping[str, Sampler | Pruner] = known
    # Fixed samplers have no class of Optuna's, but one of the same name.
    names = {"RandomSampler": "random", **{each.target: name for name, each in kinds.items() if each.target}}
    cls = type(component)
    name = names.get(cls.__name__) if cls.__module__.startswith("optuna.") else None
    if name is None:
        raise DefinitionError(f"{kind} {cls.__name__} has no name here; those that have one are: {', '.join(kinds)}")
    _check_options(component, kind, kinds[name].options)
    options = {option: _read_option(component, option) for option in kinds[name].options}
    return {"name": name, **{option: value for option, value in options.items() if value not in (None, "auto")}}


def _read_option(component: Component, option: str) -> Any:
    """Return an option of a component, or of what an evolutionary sampler makes children with."""
    owners = (component, getattr(component, "_child_generation_strategy", None))
    return next((getattr(owner, f"_{option}") for owner in owners if hasattr(owner, f"_{option}")), None)


def _check_options(component: Component, kind: str, known: Collection[str]) -> None:
    """Refuse a component with an option of its own that could not be kept.

    Raises:
        DefinitionError: names the option.
    """
    cls = type(component)
    parameters = inspect.signature(cls).parameters
    if any(each.default is inspect.Parameter.empty for each in parameters.values()):
        return  # there is none without options to compare with
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental
        usual = cls()
    for name in set(parameters) - {*known, "seed"}:
        value, default = getattr(component, f"_{name}", None), getattr(usual, f"_{name}", None)
        plain = isinstance(value, bool | int | float | str) or inspect.isfunction(value)
        if plain and value != default and not name.startswith("warn_"):
            spelled = getattr(value, "__name__", repr(value))
            raise DefinitionError(
                f"{kind} {cls.__name__}: its option {name} = {spelled} has no name here; those that have one are: "
                f"{', '.join(known) or 'none'}"
            )


def read_seed(sampler: object) -> int | None:
    """Return the seed that a sampler of Optuna was made with; None if it had none, or has drawn numbers since."""
    lazy = getattr(sampler, "_cma_rng", None) or getattr(sampler, "_rng", None)
    generator = getattr(lazy, "_rng", None)
    if generator is None:
        return None
    state = generator.get_state(legacy=False)["state"]
    seed = int(state["key"][0])
    return None if state["pos"] != UNUSED or seed == UNSEEDED else seed
