"""Search spaces and experiments of NNI (Neural Network Intelligence).

Source: "HPO Search Space" and "Experiment Config Reference" of NNI 3.0, and its `nni.parameter_expressions`. The upper
bound of `randint` is exclusive, those of all others inclusive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError, describe_unknown
from hpo.study.foreign.domains import (
    Problems,
    clipped,
    continuous,
    count,
    list_choices,
    normal,
    number,
    read_each,
    whole_below,
)
from hpo.study.foreign.search import Choices, ForeignDomain, ForeignParameter, ForeignSearch, Method, name_values
from hpo.study.foreign.unread import describe_fixed_arguments, describe_settings, describe_unused_stopping
from hpo.utils.documents import read_document
from hpo.utils.text import shorten

__all__ = ["read", "recognizes"]

TOOL = "NNI"
OWN_KEY = "_name"  # of a nested choice, in the parameters that a trial gets
Spec = Mapping[str, Any]
Read = tuple[ForeignDomain, str]

SPACE_KEYS = ("searchSpace", "search_space", "searchSpaceFile", "search_space_file", "searchSpacePath")
READ_KEYS = (
    *SPACE_KEYS,
    *("experimentName", "experiment_name", "description", "tuner", "advisor", "assessor"),
    *("maxTrialNumber", "maxTrialNum", "max_trial_number", "maxTrialDuration", "max_trial_duration"),
    *("maxExperimentDuration", "maxExecDuration", "max_experiment_duration"),
)
METHODS: Mapping[str, Method] = {
    "tpe": "tpe",
    "random": "random",
    "gridsearch": "grid",
    "gp": "gp",
    "gptuner": "gp",
    "metis": "gp",
    "metistuner": "gp",
    "hyperband": "random",
    "bohb": "tpe",
    "batchtuner": "grid",
}
BUDGET_KEYS = ("R", "max_budget", "eta")  # of the tuners that stop trials as well
UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document is a search space of NNI, or an experiment with one."""
    if isinstance(document, str):
        return False
    if any(key in document for key in SPACE_KEYS):
        return True
    return bool(document) and all(isinstance(spec, Mapping) and "_type" in spec for spec in document.values())


def read(document: Mapping[str, Any] | str, path: Path) -> ForeignSearch:
    """Read a search space or an experiment.

    Raises:
        DefinitionError: names the key and the value that is wrong.
    """
    assert isinstance(document, Mapping)
    if not any(key in document for key in SPACE_KEYS):
        return ForeignSearch(TOOL, tuple(_read_space(document)), own_key=OWN_KEY)
    return _read_experiment(document, path)


# Experiments, in the form of version 1 (maxTrialNum, builtinTunerName) and of version 2.


def _read_experiment(experiment: Spec, path: Path) -> ForeignSearch:
    notes: list[str] = []
    problems = Problems()
    space = _find_space(experiment, path)
    tuner, assessor = _algorithm(experiment, "tuner", "advisor"), _algorithm(experiment, "assessor")
    method, pruner = problems.attempt(lambda: _read_tuner(tuner, notes), (None, None))
    name = _first(experiment, "experimentName", "experiment_name")
    trials = _first(experiment, "maxTrialNumber", "maxTrialNum", "max_trial_number")
    duration = _first(experiment, "maxExperimentDuration", "maxExecDuration", "max_experiment_duration")
    assessed = problems.attempt(lambda: _read_assessor(assessor, notes), None)
    if assessed and pruner:
        unused = {key: tuner["arguments"][key] for key in BUDGET_KEYS if _argument(tuner, key) is not None}
        notes.append(describe_unused_stopping(f"tuner {tuner['name']}", unused, "the assessor's"))
    notes += _describe_start(experiment)
    search = ForeignSearch(
        TOOL,
        tuple(problems.attempt(lambda: _read_space(space), ())),
        **name_values([problems.attempt(lambda: _read_direction(tuner), "maximize")]),
        method=method,
        trials=problems.attempt(lambda: None if trials is None else count(trials, "maxTrialNumber"), None),
        timeout=problems.attempt(lambda: None if duration is None else _read_duration(duration), None),
        pruner=assessed or pruner,
        name=None if name is None else str(name),
        about=str(experiment.get("description") or ""),
        notes=("a trial reports one number, which has no name there and is called value here", *notes),
        own_key=OWN_KEY,
    )
    return replace(search, problems=tuple(problems.lines))


def _describe_start(experiment: Spec) -> Iterator[str]:
    """Yield notes on the keys that start trials, on the arguments that their command fixes, and on their time."""
    if found := [key for key in experiment if key not in READ_KEYS]:
        yield f"{', '.join(found)}: they say how trials are started and shown; here hpo launch and hpo worker do that"
    trial = experiment.get("trial")
    inner = trial.get("command") if isinstance(trial, Mapping) else None
    command = _first(experiment, "trialCommand", "trial_command") or inner
    if isinstance(command, str):
        yield from describe_fixed_arguments([command])
    if limit := _first(experiment, "maxTrialDuration", "max_trial_duration"):
        yield f'maxTrialDuration: not read; in the study file, trial_timeout = "{limit}" fails trials that take longer'


def _first(table: Spec, *keys: str) -> Any:
    return next((table[key] for key in keys if table.get(key) is not None), None)


def _find_space(experiment: Spec, path: Path) -> Spec:
    """Return the search space of an experiment, which may be in a file beside it.

    Raises:
        DefinitionError: it has none that can be read.
    """
    space = _first(experiment, "searchSpace", "search_space")
    if space is None:
        file = _first(experiment, *SPACE_KEYS[2:])
        if not isinstance(file, str):
            raise DefinitionError(f"searchSpaceFile = {shorten(file)}: must be the path of a file")
        beside = path.parent / file
        space = read_document(beside, style="yaml" if beside.suffix in (".yaml", ".yml") else "json")
    if not isinstance(space, Mapping):
        raise DefinitionError(f"searchSpace = {shorten(space)}: must be a table of parameters")
    return space


def _algorithm(experiment: Spec, *kinds: str) -> Spec:
    """Return name and arguments of a tuner or an assessor, in the form of version 2."""
    for kind in kinds:
        found = experiment.get(kind)
        if isinstance(found, Mapping):
            name = _first(found, "name", f"builtin{kind.title()}Name", "className")
            return {"name": str(name or ""), "arguments": found.get("classArgs") or found.get("class_args") or {}}
    return {"name": "", "arguments": {}}


def _note_arguments(kind: str, algorithm: Spec, read: Sequence[str], method: Method | None, notes: list[str]) -> None:
    """Note the arguments of a tuner or an assessor that are not read."""
    if isinstance(algorithm["arguments"], Mapping):
        unread = {key: value for key, value in algorithm["arguments"].items() if key not in read}
        notes += describe_settings(f"{kind} {algorithm['name']}", unread, method)


def _argument(algorithm: Spec, name: str) -> Any:
    arguments = algorithm["arguments"]
    return arguments.get(name) if isinstance(arguments, Mapping) else None


def _read_direction(tuner: Spec) -> Any:
    """Return the direction, which is to maximize unless the tuner's arguments say otherwise."""
    mode = _argument(tuner, "optimize_mode")
    if mode not in (None, "maximize", "minimize"):
        raise DefinitionError(f"tuner: optimize_mode = {shorten(mode)}: must be maximize or minimize")
    return mode or "maximize"


def _read_tuner(tuner: Spec, notes: list[str]) -> tuple[Method | None, Any]:
    """Return the sampler and, of an algorithm that stops trials as well, the pruner."""
    name = tuner["name"]
    if not name:
        return None, None
    method = METHODS.get(name.lower())
    if method is None:
        notes.append(f"tuner {shorten(name)} has no equivalent among the samplers")
    stops = name.lower() in ("hyperband", "bohb")
    read = ("optimize_mode", *BUDGET_KEYS) if stops else ("optimize_mode",)
    _note_arguments("tuner", tuner, read, method, notes)
    if not stops:
        return method, None
    pruner: dict[str, Any] = {"name": "hyperband", "reduction_factor": count(_argument(tuner, "eta") or 3, "eta")}
    longest = _argument(tuner, "R") or _argument(tuner, "max_budget")
    return method, {**pruner, **({"max_resource": count(longest, "R")} if longest else {})}


def _read_assessor(assessor: Spec, notes: list[str]) -> Any:
    name = assessor["name"]
    if name.lower() == "medianstop":
        _note_arguments("assessor", assessor, ("optimize_mode", "start_step"), None, notes)
        start = _argument(assessor, "start_step")
        return {"name": "median", "n_warmup_steps": int(number(start, "start_step"))} if start else "median"
    if name:
        notes.append(f"assessor {shorten(name)} has no equivalent among the pruners")
    return None


def _read_duration(value: object) -> float:
    """Return seconds: a number of them, or a text such as 24h, 90m or 1d."""
    text = str(value).strip().lower()
    unit = UNITS.get(text[-1:], 1)
    return number(text[:-1] if text[-1:] in UNITS else text, "maxExperimentDuration") * unit


# Search spaces.


def _read_space(space: Spec) -> list[ForeignParameter]:
    if not space:
        raise DefinitionError("has no parameters")
    return read_each(space.items(), lambda name, spec: list(_read_parameter((name,), spec, {})))


def _read_parameter(path: tuple[str, ...], spec: object, when: Mapping[str, Any]) -> Iterator[ForeignParameter]:
    """Yield a parameter, and those that depend on its choice."""
    if not isinstance(spec, Mapping) or "_type" not in spec:
        raise DefinitionError(f"{shorten(spec)}: must be a table with _type and _value")
    kind, values = spec["_type"], spec.get("_value")
    if not isinstance(kind, str) or kind not in TYPES:
        raise DefinitionError(f"_type: {describe_unknown('type', str(kind), TYPES)}")
    if not isinstance(values, list) or not values:
        raise DefinitionError(f"_value = {shorten(values)}: must be a list")
    if kind == "choice" and all(isinstance(value, Mapping) and "_name" in value for value in values):
        yield from _read_branches(path, values, when)
        return
    domain, note = TYPES[kind](values)
    yield ForeignParameter(path, domain, when, note)


def _read_branches(
    path: tuple[str, ...], branches: Sequence[Spec], when: Mapping[str, Any]
) -> Iterator[ForeignParameter]:
    """Yield a choice among named tables, and the parameters in each, which exist where it is chosen."""
    names = list_choices([branch["_name"] for branch in branches])
    yield ForeignParameter(path, names, when)
    for branch in branches:
        condition = {**when, ".".join(path): (branch["_name"],)} if isinstance(names, Choices) else when
        for name, spec in branch.items():
            if name != "_name":
                yield from _read_parameter((*path, name), spec, condition)


def _numbers(values: Sequence[Any], wanted: int) -> list[float]:
    if len(values) != wanted:
        raise DefinitionError(f"_value = {shorten(list(values))}: must be a list of {wanted} numbers")
    return [number(value, "_value") for value in values]


def _read_randint(values: Sequence[Any]) -> Read:
    low, high = _numbers(values, 2)
    return whole_below(low, math.ceil(high)), ""


def _read_uniform(values: Sequence[Any], *, log: bool = False) -> Read:
    return continuous(*_numbers(values, 2), log=log), ""


def _read_quniform(values: Sequence[Any], *, log: bool = False) -> Read:
    return clipped(*_numbers(values, 3), log=log)


def _read_normal(values: Sequence[Any], name: str) -> Read:
    mu, sigma, *q = _numbers(values, 3 if name.startswith("q") else 2)
    written = f"{name}({', '.join(f'{number(value, name):g}' for value in values)})"
    return normal(mu, sigma, written, log="log" in name, q=q[0] if q else None)


TYPES: Mapping[str, Callable[[Sequence[Any]], Read]] = {
    "choice": lambda values: (list_choices(values), ""),
    "randint": _read_randint,
    "uniform": _read_uniform,
    "quniform": _read_quniform,
    "loguniform": lambda values: _read_uniform(values, log=True),
    "qloguniform": lambda values: _read_quniform(values, log=True),
    "normal": lambda values: _read_normal(values, "normal"),
    "qnormal": lambda values: _read_normal(values, "qnormal"),
    "lognormal": lambda values: _read_normal(values, "lognormal"),
    "qlognormal": lambda values: _read_normal(values, "qlognormal"),
}
