"""Warm starts: configurations that are the first trials of a study, after its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.config.trial_config import TrialConfig, Value
from hpo.errors import DefinitionError, RequestError
from hpo.space import Space
from hpo.study.definition import constant_parameters
from hpo.study.samplers import SAMPLERS

__all__ = ["check_warm_start", "warm_params"]


def warm_params(space: Space, table: Mapping[str, Value]) -> dict[str, Value]:
    """The Optuna parameters of a warm start; the space's constants need not stand in it."""
    return space.params({**constant_parameters(space), **table})


def check_warm_start(given: object, space: Space, sampler: str) -> tuple[dict[str, Value], ...]:
    """The tables of the key `warm_start`.

    An adaptive sampler chooses what a table leaves out; a fixed slot must have all its parameters.

    Raises:
        DefinitionError: with the index, the parameter and the value that is wrong.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(t, Mapping) for t in given):
        raise DefinitionError(f"warm_start = {given!r}: must be a list of tables, as [ {{ learning_rate = 0.01 }} ]")
    if given and sampler == "grid":
        raise DefinitionError(
            "warm_start: a grid's trials are its points; leave warm_start out, or take another sampler"
        )
    for index, table in enumerate(given):
        try:
            _check(table, space, whole=SAMPLERS[sampler].fixed)
        except RequestError as error:
            raise DefinitionError(f"warm_start[{index}] {error}") from error
    return tuple(dict(table) for table in given)


def _check(table: Mapping[str, Any], space: Space, *, whole: bool) -> None:
    TrialConfig(**table)
    misfits = space.misfits({**constant_parameters(space), **table})
    for name, value in table.items():
        if name not in space.domains or name in misfits:
            raise DefinitionError(f"{name} = {value!r}: the space does not hold this value beside the others")
    params = warm_params(space, table)
    if whole:
        space.values(params)
    elif not params and space.varied:
        raise DefinitionError(f"= {dict(table)!r}: has no value of {', '.join(d.key for d in space.varied)}")
