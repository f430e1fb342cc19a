"""Hyperparameters of KerasTuner: what `HyperParameters.get_config()` returns, alone or in an oracle.json or trial.json.

Source: the documentation of `HyperParameters`, and KerasTuner 1.4. `min_value` and `max_value` are inclusive; on a
logarithmic scale, `step` is a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hpo.errors import DefinitionError, describe_unknown
from hpo.study.foreign.domains import continuous, count, list_choices, number, read_each, stepped, whole
from hpo.study.foreign.search import Constant, ForeignDomain, ForeignParameter, ForeignSearch
from hpo.study.foreign.unread import describe_settings
from hpo.utils.text import shorten

__all__ = ["read", "recognizes"]

TOOL = "KerasTuner"
Spec = Mapping[str, Any]
Read = tuple[ForeignDomain, str]

SAMPLINGS = ("linear", "log", "reverse_log")
DIRECTIONS: Mapping[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}
UNREAD = ("alpha", "beta", "hyperband_iterations")  # settings in the state of an oracle
LISTED = 1000  # values of a range whose steps are factors


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document holds hyperparameters of KerasTuner."""
    return not isinstance(document, str) and isinstance(_find_hyperparameters(document).get("space"), list)


def _find_hyperparameters(document: Spec) -> Spec:
    inner = document.get("hyperparameters")
    return inner if isinstance(inner, Mapping) else document


def read(document: Mapping[str, Any] | str, _path: Path) -> ForeignSearch:
    """Read hyperparameters, or the state of an oracle or of a trial.

    Raises:
        DefinitionError: names the hyperparameter and the value that is wrong.
    """
    assert isinstance(document, Mapping)
    space = _find_hyperparameters(document)["space"]
    if not space:
        raise DefinitionError("space: has no hyperparameters")
    found = read_each([(_name(each, index), each) for index, each in enumerate(space)], _read_hyperparameter)
    parameters, notes = _merge(found)
    metric, direction = _read_metric(document)
    search = ForeignSearch(TOOL, tuple(parameters), metric=metric, direction=direction, notes=tuple(notes))
    return _add_oracle(search, document)


def _name(entry: object, index: int) -> str:
    name = (
        entry["config"].get("name") if isinstance(entry, Mapping) and isinstance(entry.get("config"), Mapping) else None
    )
    if not isinstance(name, str) or not name:
        raise DefinitionError(f"space[{index}] = {shorten(entry)}: must be a table with class_name and config")
    return name


def _path(name: str) -> tuple[str, ...]:
    """Return the path of a name, which has the name scopes before it: block/units."""
    return tuple(part for part in name.split("/") if part) or (name,)


def _read_hyperparameter(name: str, entry: Spec) -> list[ForeignParameter]:
    kind, config = str(entry.get("class_name")), entry["config"]
    if kind not in TYPES:
        raise DefinitionError(f"class_name: {describe_unknown('class', kind, TYPES)}")
    domain, note = TYPES[kind](config)
    return [ForeignParameter(_path(name), domain, _read_conditions(config.get("conditions") or []), note)]


def _read_conditions(conditions: object) -> dict[str, tuple[Any, ...]]:
    """Return the values of its parents under which a hyperparameter is active."""
    when: dict[str, tuple[Any, ...]] = {}
    for condition in conditions if isinstance(conditions, list) else [conditions]:
        config = condition.get("config", condition) if isinstance(condition, Mapping) else None
        parent, values = (config.get("name"), config.get("values")) if isinstance(config, Mapping) else (None, None)
        if not isinstance(parent, str) or not isinstance(values, list) or not values:
            raise DefinitionError(f"conditions: {shorten(condition)}: must be a table with a name and values")
        key = ".".join(_path(parent))
        both = when.get(key)
        when[key] = tuple(values) if both is None else tuple(value for value in both if value in values)
    return when


def _merge(found: list[ForeignParameter]) -> tuple[list[ForeignParameter], list[str]]:
    """Return each hyperparameter once, which KerasTuner keeps a second time under other conditions.

    Those of the same domain become one; of others, the conditions must exclude each other.
    """
    merged: list[ForeignParameter] = []
    notes: list[str] = []
    for parameter in found:
        if any(parameter == each for each in merged):
            continue
        if any(each.path == parameter.path and not each.excludes(parameter) for each in merged):
            notes.append(f"{parameter.name} occurs again where it exists already, and is left out there")
            continue
        merged.append(parameter)
    return merged, notes


def _read_metric(document: Spec) -> tuple[str | None, Literal["minimize", "maximize"] | None]:
    """Return the metric of a trial that has recorded a single one; hyperparameters alone name none."""
    metrics = document.get("metrics")
    inner = metrics.get("metrics") if isinstance(metrics, Mapping) else None
    if not isinstance(inner, Mapping) or len(inner) != 1:
        return None, None
    [(name, table)] = inner.items()
    direction = table.get("direction") if isinstance(table, Mapping) else None
    return name, DIRECTIONS.get(str(direction))


def _add_oracle(search: ForeignSearch, document: Spec) -> ForeignSearch:
    """Return the search with what the state of an oracle says of its kind."""
    seed = document.get("seed")
    unread = {key: document[key] for key in UNREAD if document.get(key) is not None}
    notes = (*search.notes, *describe_settings("oracle", unread, None))
    search = replace(search, seed=seed if type(seed) is int else None, notes=notes)
    if "num_initial_points" in document:
        first = document["num_initial_points"]  # without one, it depends on the space
        options = {"n_startup_trials": count(first, "num_initial_points")} if first else {}
        return replace(search, method="gp", sampler_options=options)
    if "max_epochs" not in document or "factor" not in document:
        return search
    longest, factor = count(document["max_epochs"], "max_epochs"), count(document["factor"], "factor")
    parameters = search.parameters
    if not any(parameter.path[-1] == "epochs" for parameter in parameters):
        epochs = ForeignParameter(("epochs",), Constant(longest), note="max_epochs of its Hyperband")
        parameters = (*parameters, epochs)
    pruner = {"name": "hyperband", "max_resource": longest, "reduction_factor": factor}
    if document.get("min_epochs") is not None:
        pruner["min_resource"] = count(document["min_epochs"], "min_epochs")
    return replace(search, parameters=parameters, method="random", pruner=pruner)


# Classes of hyperparameters.


def _read_ends(config: Spec) -> tuple[float, float, float | None, str]:
    """Return both ends, the step if there is one, and the sampling."""
    low, high = number(config.get("min_value"), "min_value"), number(config.get("max_value"), "max_value")
    step, sampling = config.get("step"), config.get("sampling") or "linear"
    if sampling not in SAMPLINGS:
        raise DefinitionError(f"sampling: {describe_unknown('sampling', str(sampling), SAMPLINGS)}")
    return low, high, None if step is None else number(step, "step"), sampling


def _read_numbers(config: Spec, *, integer: bool) -> Read:
    low, high, step, sampling = _read_ends(config)
    if sampling == "linear" and step is not None:
        return stepped(low, high, step, integer=integer), ""
    if step is not None:
        return list_choices(_multiply(low, high, step, sampling, integer=integer)), ""
    note = ""
    if sampling == "reverse_log":
        note = f"reverse_log has no equivalent: {low:g} to {high:g}, evenly, replaces it"
    return (whole if integer else continuous)(low, high, log=sampling == "log"), note


def _multiply(low: float, high: float, factor: float, sampling: str, *, integer: bool) -> list[float]:
    """Return low, low * factor, low * factor ** 2, … up to high; or, of reverse_log, these mirrored in the range."""
    if factor <= 1 or not 0 < low <= high or not math.isfinite(high / low):
        raise DefinitionError(f"step = {factor:g}: a factor must be above 1, and the range above 0")
    last = int(math.log(high / low, factor) + 1e-8)
    if last >= LISTED:
        raise DefinitionError(f"step = {factor:g}: gives more than {LISTED:,} values from {low:g} to {high:g}")
    values = [low * factor**power for power in range(last + 1)]
    values = values if sampling == "log" else [high + low - value for value in reversed(values)]
    return [round(value) if integer else float(f"{value:.12g}") for value in values]


def _read_fixed(config: Spec) -> Read:
    if "value" not in config:
        raise DefinitionError("Fixed: has no value")
    return Constant(config["value"]), ""


TYPES: Mapping[str, Callable[[Spec], Read]] = {
    "Int": lambda config: _read_numbers(config, integer=True),
    "Float": lambda config: _read_numbers(config, integer=False),
    "Choice": lambda config: (list_choices(config.get("values")), ""),
    "Boolean": lambda _config: (list_choices([False, True]), ""),
    "Fixed": _read_fixed,
}
