"""Domains that Hydra's sweepers make of a parameter's value.

What a value means differs between them: `range(1, 5)` is 1 to 4 in all of them but Optuna's, where 5 belongs to it,
except when it walks a grid; `interval` is of real numbers unless its ends are cast, `int(interval(1, 5))`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpo.errors import DefinitionError, describe_unknown
from hpo.study.foreign.domains import ComputedError, continuous, list_choices, number, stepped, whole
from hpo.study.foreign.hydra_values import ChoiceSweep, IntervalSweep, RangeSweep, parse_value
from hpo.study.foreign.search import Constant, ForeignDomain, Range
from hpo.utils.text import shorten

__all__ = ["read_override", "read_specification"]

Read = tuple[ForeignDomain, str]
Spec = Mapping[str, Any]
TYPES = ("int", "float", "categorical", "range", "choice", "fixed")


def read_override(value: object, sweeper: str, *, grid: bool) -> Read:
    """Return the domain of a parameter whose value is written as on Hydra's command line, and a note.

    Args:
        value: a text such as `choice(1, 2)`, or a plain value.
        sweeper: basic, optuna, ax or nevergrad.
        grid: whether the sweeper is Optuna's and walks a grid.

    Raises:
        DefinitionError: the value cannot be read, or is none that the sweeper takes.
    """
    parsed = parse_value(value) if isinstance(value, str) else value
    match parsed:
        case ChoiceSweep(values):
            return list_choices(values), ""
        case RangeSweep() as sweep:
            return _read_range(sweep, sweeper, grid=grid)
        case IntervalSweep() as sweep if sweeper == "basic":
            raise DefinitionError(f"{shorten(value)}: the basic sweeper takes no interval; give a choice or a range")
        case IntervalSweep() as sweep:
            return _read_interval(sweep, grid=grid), ""
    return Constant(parsed), ""


def _read_range(sweep: RangeSweep, sweeper: str, *, grid: bool) -> Read:
    if sweeper != "optuna" or sweep.shuffled or grid or sweep.step < 0:
        return list_choices(_even(sweep)), ""
    integer = all(isinstance(each, int) for each in (sweep.start, sweep.stop, sweep.step))
    domain = stepped(sweep.start, sweep.stop, sweep.step, integer=integer)
    reached = isinstance(domain, Range) and domain.high == sweep.stop
    return domain, f"the end of a range, {sweep.stop:g}, belongs to it in the Optuna sweeper" if reached else ""


def _even(sweep: RangeSweep) -> tuple[Any, ...]:
    values = sweep.values()
    if not values:
        raise DefinitionError(f"range({sweep.start:g}, {sweep.stop:g}, {sweep.step:g}): holds no number")
    return values


def _read_interval(sweep: IntervalSweep, *, grid: bool) -> ForeignDomain:
    integer = isinstance(sweep.start, int) and isinstance(sweep.end, int)
    if grid and not integer:
        raise DefinitionError(f"interval({sweep.start:g}, {sweep.end:g}): a grid takes no interval of real numbers")
    return (whole if integer else continuous)(sweep.start, sweep.end, log="log" in sweep.tags)


def read_specification(spec: Spec, sweeper: str) -> Read:
    """Return the domain of a parameter that is given as a table, as Ax, Nevergrad and older versions for Optuna do.

    Raises:
        DefinitionError: a key of the table is wrong or missing.
    """
    if sweeper == "nevergrad":
        return _read_scalar(spec)
    kind = spec.get("type")
    if kind not in TYPES:
        raise DefinitionError(f"type: {describe_unknown('type', str(kind), TYPES)}")
    if kind == "fixed":
        return Constant(spec.get("value")), ""
    if kind in ("categorical", "choice"):
        return list_choices(spec.get("choices" if kind == "categorical" else "values")), ""
    if kind == "range":
        return _read_bounds(spec), ""
    low, high = number(spec.get("low"), "low"), number(spec.get("high"), "high")
    step, integer = spec.get("step"), kind == "int"
    if step is None or spec.get("log"):
        return (whole if integer else continuous)(low, high, log=bool(spec.get("log"))), ""
    return stepped(low, high, number(step, "step"), integer=integer), ""


def _read_bounds(spec: Spec) -> ForeignDomain:
    """Return a range of Ax, of whole numbers if both bounds are."""
    bounds = spec.get("bounds")
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise DefinitionError(f"bounds = {shorten(bounds)}: must be a list of two numbers")
    low, high = (number(bound, "bounds") for bound in bounds)
    integer = spec.get("value_type", "int") == "int" and all(isinstance(bound, int) for bound in bounds)
    return (whole if integer else continuous)(low, high, log=bool(spec.get("log_scale")))


def _write(spec: Spec) -> str:
    """Return a table as YAML has it, on one line."""
    values = {key: json.dumps(value) if isinstance(value, bool) else str(value) for key, value in spec.items()}
    return f"{{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def _read_scalar(spec: Spec) -> Read:
    """Return a scalar of Nevergrad, which may have no ends; its `init` and `step` say where and how far it begins."""
    low, high = spec.get("lower"), spec.get("upper")
    if low is None or high is None:
        written = _write(spec)
        absent = " and ".join(key for key in ("lower", "upper") if spec.get(key) is None)
        raise ComputedError(f"{written}: has no {absent} end, so that its values have no bounds; give it both", written)
    integer, ends = bool(spec.get("integer")), (number(low, "lower"), number(high, "upper"))
    ignored = [key for key in ("init", "step") if spec.get(key) is not None]
    note = f"its {' and '.join(ignored)} of the search there have no equivalent" if ignored else ""
    return (whole if integer else continuous)(*ends, log=bool(spec.get("log"))), note
