"""Samplers and pruners of Optuna as study files have them: a name and options."""

from __future__ import annotations

from collections.abc import Mapping
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
        DefinitionError: it has no name here.
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
    options = {option: getattr(component, f"_{option}", None) for option in kinds[name].options}
    return {"name": name, **{option: value for option, value in options.items() if value not in (None, "auto")}}


def read_seed(sampler: object) -> int | None:
    """Return the seed that a sampler of Optuna was made with; None if it had none, or has drawn numbers since."""
    lazy = getattr(sampler, "_cma_rng", None) or getattr(sampler, "_rng", None)
    generator = getattr(lazy, "_rng", None)
    if generator is None:
        return None
    state = generator.get_state(legacy=False)["state"]
    seed = int(state["key"][0])
    return None if state["pos"] != UNUSED or seed == UNSEEDED else seed
