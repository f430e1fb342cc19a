"""Warm starts: configurations that are the first trials of a study, after its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import DefinitionError, RequestError
from hpo.space import Space
from hpo.space.space import Params
from hpo.study.definition import constant_parameters
from hpo.study.samplers import SAMPLERS

__all__ = ["check_warm_start", "warm_params"]


def warm_params(space: Space, table: Mapping[str, Any]) -> Params:
    """Return the Optuna parameters of a warm start; its table may leave out the space's constants."""
    return space.params({**constant_parameters(space), **table})


def check_warm_start(tables: object, space: Space, sampler: str) -> tuple[dict[str, Value], ...]:
    """Check the tables of the key `warm_start`, and return them.

    An adaptive sampler chooses what a table leaves out; a fixed slot must have all its parameters.

    Raises:
        DefinitionError: names the index, the parameter and the value that is wrong.
    """
    if not isinstance(tables, Sequence) or isinstance(tables, str) or not all(isinstance(t, Mapping) for t in tables):
        raise DefinitionError(f"warm_start = {tables!r}: must be a list of tables, as [ {{ learning_rate = 0.01 }} ]")
    if tables and sampler == "grid":
        raise DefinitionError(
            "warm_start: a grid's trials are its points; leave warm_start out, or take another sampler"
        )
    for index, table in enumerate(tables):
        try:
            _check_table(table, space, complete=SAMPLERS[sampler].fixed)
        except RequestError as error:
            raise DefinitionError(f"warm_start[{index}] {error}") from error
    return tuple({name: space.table[name].check(value) for name, value in table.items()} for table in tables)


def _check_table(table: Mapping[str, Any], space: Space, *, complete: bool) -> None:
    TrialConfig.of({**constant_parameters(space), **table}, space.registered)
    values = {name: space.table[name].check(value) for name, value in table.items()}
    misfits = space.misfits({**constant_parameters(space), **values})
    for name, value in table.items():
        if name not in space.domains or name in misfits:
            raise DefinitionError(f"{name} = {value!r}: the space does not allow this value beside the others")
    params = warm_params(space, values)
    if complete:
        space.values(params)
    elif not params and space.varied:
        raise DefinitionError(f"= {dict(table)!r}: gives no value of {', '.join(d.key for d in space.varied)}")
