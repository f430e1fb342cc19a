"""Options of a study's report: the `[report]` table of a study file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.config.parameter import Value
from hpo.errors import ConfigError, DefinitionError, describe_unknown
from hpo.space import Space
from hpo.study.definition import Expectation, Objective, ReportTable

__all__ = ["MEASURES", "parse_report_table"]

KEYS = ("x", "compare", "y", "log", "knee", "expect")
# Metrics and costs that trials have, whatever their objective.
MEASURES = (
    *("val_accuracy", "val_loss", "val_r2", "val_reconstruction_error", "train_accuracy", "train_loss", "train_r2"),
    *("parameter_count", "epoch_seconds", "train_seconds", "best_epoch", "learning_rate"),
)
COSTS = ("parameter_count", "epoch_seconds", "train_seconds")


def parse_report_table(
    table: Mapping[str, Any], space: Space, objectives: Sequence[Objective], recorded: Sequence[str] = ()
) -> ReportTable:
    """Parse the `[report]` table.

    Args:
        table: `x`, a parameter or a cost; `compare`, parameters; `y`, metrics or costs, by default the first objective;
            `log`, true for a logarithmic x, or the logarithmic axes; `knee`, what x estimates at the knee of the first
            `y`; `expect`, tables of `better` and `than`, each with values of parameters, and `text`.
        space: the study's space, whose parameters may be named.
        objectives: the study's objectives, whose metrics may be named.
        recorded: the metrics that are recorded beside them, which may be named too.

    Raises:
        DefinitionError: names the key and the value that is wrong.
    """
    for key in table:
        if key not in KEYS:
            raise DefinitionError(describe_unknown("key", key, KEYS))
    names = [*dict.fromkeys(dimension.parameter.name for dimension in space.dimensions)]
    parameters = [*names, *(name for name in space.table if name not in names)]
    measures = [*dict.fromkeys([*(objective.metric for objective in objectives), *recorded, *MEASURES])]
    x = _read_names(table, "x", [*parameters, *COSTS])
    if len(x) > 1:
        raise DefinitionError(f"x = {table['x']!r}: name one parameter or cost; put others in compare")
    compare = _read_names(table, "compare", parameters)
    if not x and not compare:
        raise DefinitionError('name a parameter to compare by: compare = ["optimizer"], or x = "depth"')
    if set(x) & set(compare):
        raise DefinitionError(f"compare = {table['compare']!r}: {x[0]} is already x")
    y = _read_names(table, "y", measures) or (objectives[0].metric,)
    return ReportTable(
        x=x[0] if x else None,
        compare=compare,
        y=y,
        log=_read_log(table.get("log", False)),
        knee=_read_knee(table.get("knee", ""), x, y, objectives),
        expect=_read_expectations(table.get("expect", []), space),
    )


def _read_knee(value: object, x: Sequence[str], y: Sequence[str], objectives: Sequence[Objective]) -> str:
    """Return what x estimates at the knee; empty if no knee is looked for."""
    if not isinstance(value, str) or (value and not x):
        raise DefinitionError(f"knee = {value!r}: name what x estimates where the curve has its knee, and give x")
    directions = {objective.metric: objective.direction for objective in objectives}
    if value and directions.get(y[0], "maximize" if y[0].endswith("accuracy") else "minimize") == "maximize":
        raise DefinitionError(f"knee = {value!r}: y begins with {y[0]}, of which more is better; begin it with a loss")
    return value


def _read_expectations(tables: object, space: Space) -> tuple[Expectation, ...]:
    if not isinstance(tables, list | tuple):
        raise DefinitionError(f"expect = {tables!r}: must be a list of tables with better and than")
    return tuple(_read_expectation(index, table, space) for index, table in enumerate(tables))


def _read_expectation(index: int, table: object, space: Space) -> Expectation:
    where = f"expect[{index}]"
    if not isinstance(table, Mapping) or not {"better", "than"} <= table.keys():
        raise DefinitionError(f"{where} = {table!r}: give better and than, as {{ better = {{ depth = 2 }}, than = … }}")
    for key in table:
        if key not in ("better", "than", "text"):
            raise DefinitionError(f"{where} {describe_unknown('key', key, ('better', 'than', 'text'))}")
    better, than = (_read_case(f"{where} {key}", table[key], space) for key in ("better", "than"))
    if not any(name in than and than[name] != value for name, value in better.items()):
        raise DefinitionError(f"{where}: a trial can be in both better and than; give a parameter two values")
    text = table.get("text", "")
    if not isinstance(text, str):
        raise DefinitionError(f"{where} text = {text!r}: must be a text")
    return Expectation(better=better, than=than, text=text)


def _read_case(where: str, values: object, space: Space) -> dict[str, Value]:
    """Return values of parameters, each in its parameter's type."""
    if not isinstance(values, Mapping) or not values:
        raise DefinitionError(f"{where} = {values!r}: give values of parameters, as {{ depth = 2 }}")
    case: dict[str, Value] = {}
    for name, value in values.items():
        if name not in space.table:
            raise DefinitionError(f"{where}: {describe_unknown('parameter', name, space.table)}")
        try:
            case[name] = space.table[name].check(value)
        except ConfigError as error:
            raise DefinitionError(f"{where} {error}") from error
    return case


def _read_names(table: Mapping[str, Any], key: str, known: Sequence[str]) -> tuple[str, ...]:
    value = table.get(key, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise DefinitionError(f"{key} = {value!r}: give a name or a list of names")
    for name in names:
        if name not in known:
            raise DefinitionError(describe_unknown(key, name, known))
    if len(set(names)) < len(names):
        raise DefinitionError(f"{key} = {value!r}: a name occurs twice")
    return tuple(names)


def _read_log(value: object) -> tuple[str, ...]:
    """Return the logarithmic axes."""
    if isinstance(value, bool):
        return ("x",) if value else ()
    return _read_names({"log": value}, "log", ("x", "y"))
