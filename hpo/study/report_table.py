"""The `[report]` table of a study file: what its report compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.errors import DefinitionError, unknown
from hpo.space import Space
from hpo.study.definition import Objective, ReportTable

__all__ = ["MEASURES", "report_table"]

KEYS = ("x", "compare", "y", "log")
# What every trial has, whatever its objective.
MEASURES = (
    *("val_accuracy", "val_loss", "train_accuracy", "train_loss"),
    *("parameter_count", "epoch_seconds", "train_seconds", "best_epoch"),
)
COSTS = ("parameter_count", "epoch_seconds", "train_seconds")


def report_table(table: Mapping[str, Any], space: Space, objectives: Sequence[Objective]) -> ReportTable:
    """What `[report]` asks for.

    Args:
        table: `x`, a parameter or a cost; `compare`, parameters; `y`, what is measured, by default the first objective;
            `log`, true for a logarithmic x, or the axes that are.
        space: whose parameters may be named.
        objectives: whose metrics may be named.

    Raises:
        DefinitionError: with the key and the value that is wrong.
    """
    for key in table:
        if key not in KEYS:
            raise DefinitionError(unknown("key", key, KEYS))
    names = [*dict.fromkeys(dimension.parameter.name for dimension in space.dimensions)]
    parameters = [*names, *(name for name in space.table if name not in names)]
    measures = [*dict.fromkeys([*(objective.metric for objective in objectives), *MEASURES])]
    x = _names(table, "x", [*parameters, *COSTS])
    if len(x) > 1:
        raise DefinitionError(f"x = {table['x']!r}: name one parameter or cost; others can be in compare")
    compare = _names(table, "compare", parameters)
    if not x and not compare:
        raise DefinitionError('name a parameter to compare by: compare = ["optimizer"], or x = "depth"')
    if set(x) & set(compare):
        raise DefinitionError(f"compare = {table['compare']!r}: {x[0]} is x already")
    y = _names(table, "y", measures) or (objectives[0].metric,)
    return ReportTable(x=x[0] if x else None, compare=compare, y=y, log=_log(table.get("log", False)))


def _names(table: Mapping[str, Any], key: str, known: Sequence[str]) -> tuple[str, ...]:
    given = table.get(key, [])
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise DefinitionError(f"{key} = {given!r}: give a name or a list of names")
    for name in names:
        if name not in known:
            raise DefinitionError(unknown(key, name, known))
    if len(set(names)) < len(names):
        raise DefinitionError(f"{key} = {given!r}: a name stands twice")
    return tuple(names)


def _log(given: object) -> tuple[str, ...]:
    """The axes that are logarithmic."""
    if isinstance(given, bool):
        return ("x",) if given else ()
    return _names({"log": given}, "log", ("x", "y"))
