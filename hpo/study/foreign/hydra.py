"""Sweeps of Hydra: the section `hydra.sweeper` of a configuration, for the sweepers basic, Optuna, Ax and Nevergrad.

Source: Hydra 1.3's documentation of its sweeper plugins, and their code where it says more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import count, list_choices, read_each
from hpo.study.foreign.hydra_domains import read_override, read_specification
from hpo.study.foreign.search import Computed, Constant, ForeignParameter, ForeignSearch, Method, name_values
from hpo.study.samplers import SAMPLERS as SAMPLER_TABLE
from hpo.utils.documents import read_document
from hpo.utils.text import shorten

__all__ = ["read", "recognizes"]

TOOL = "Hydra"
Spec = Mapping[str, Any]

SWEEPERS = ("basic", "optuna", "ax", "nevergrad")
SAMPLERS: Mapping[str, Method] = {
    "tpe": "tpe",
    "motpe": "tpe",
    "random": "random",
    "cmaes": "cmaes",
    "nsgaii": "nsga2",
    "grid": "grid",
    "gp": "gp",
    "qmc": "qmc",
}
OPTIMIZERS: Mapping[str, Method] = {"RandomSearch": "random", "CMA": "cmaes"}  # Nevergrad's
SEEDS: Mapping[str, tuple[str, ...]] = {  # where each sweeper has that of its random numbers
    "optuna": ("sampler", "seed"),
    "ax": ("ax_config", "client", "random_seed"),
    "nevergrad": ("optim", "seed"),
}
DEFAULT_TRIALS: Mapping[str, int] = {"optuna": 20, "ax": 10, "nevergrad": 80}
METRIC_KEYS = ("optimized_metric",)  # which the lightning-hydra template has
UNNAMED, UNNAMED_IN_AX = "value", "objective"  # the names of an objective that has none, ours and theirs
SPACES = ("params", "search_space", "parametrization")
# Settings that are read, and those that say how and where trials run, but not which.
READ = frozenset((
    "_target_", "defaults", "version", "storage", "study_name", "n_jobs", "max_batch_size", "direction", "n_trials",
    "sampler", "sampler._target_", "custom_search_space", "ax_config.max_trials", "ax_config.experiment.minimize",
    "ax_config.experiment.objective_name", "optim._target_", "optim.optimizer", "optim.budget", "optim.maximize",
    "optim.num_workers",
))  # fmt: skip
MISSING = "???"  # a value that Hydra asks for on the command line


def recognizes(document: Mapping[str, Any] | str, _path: Path) -> bool:
    """Return whether a document is a configuration of Hydra with a sweeper, or a sweeper's own file."""
    return not isinstance(document, str) and _find_section(document) is not None


def _find_section(document: Spec) -> Spec | None:
    """Return the sweeper's section of a configuration, or of a file in `hydra/` or `hydra/sweeper/`."""
    for outer in (document.get("hydra"), document):
        inner = outer.get("sweeper") if isinstance(outer, Mapping) else None
        if isinstance(inner, Mapping):
            return inner
    return document if "hydra_plugins." in str(document.get("_target_")) else None


def read(document: Mapping[str, Any] | str, path: Path) -> ForeignSearch:
    """Read a sweep, with the constants of the configuration that it is in.

    Raises:
        DefinitionError: names the parameter and the value that is wrong.
    """
    assert isinstance(document, Mapping)
    if path.suffix.lower() != ".json":
        document = read_document(path, "yaml", exponents=True)
    section = _find_section(document)
    assert section is not None
    choices = dict(_default_choices(document))
    notes: list[str] = []
    sweeper = _name_sweeper(section, choices, notes)
    settings = _read_settings(section, sweeper, choices, notes)
    grid = settings["method"] == "grid" and sweeper == "optuna"
    swept = _read_swept(section, sweeper, grid=grid)
    paths = {parameter.path for parameter in swept}
    is_section = document is section or "hydra" not in document
    constants = [] if is_section else [each for each in _read_constants(document, notes) if each.path not in paths]
    if not swept:
        raise DefinitionError("hydra.sweeper: has no parameters under params")
    metric = next((document[key] for key in METRIC_KEYS if isinstance(document.get(key), str)), None)
    if metric is not None and not settings.get("also"):
        settings["metric"] = metric
    elif settings.get("metric") == UNNAMED or settings.get("also"):
        notes.append("what its function returns has no name there, and is called value here")
    name = section.get("study_name")
    return ForeignSearch(
        TOOL,
        (*swept, *constants),
        name=name if isinstance(name, str) and "${" not in name else None,
        notes=(*notes, *_describe_files(choices, paths)),
        **settings,
    )


# Which sweeper, and its settings.


def _default_choices(document: Spec) -> Iterator[tuple[str, str]]:
    """Yield the choices of the defaults list: of each group, without `override` and a slash before it, a file."""
    defaults = document.get("defaults")
    for entry in defaults if isinstance(defaults, list) else []:
        for group, choice in entry.items() if isinstance(entry, Mapping) else ():
            yield str(group).removeprefix("override ").removeprefix("optional ").strip().lstrip("/"), str(choice)


def _name_sweeper(section: Spec, choices: Mapping[str, str], notes: list[str]) -> str:
    """Return the sweeper that a configuration names, or that its section must be for."""
    named = choices.get("hydra/sweeper") or str(section.get("_target_") or "")
    found = next((sweeper for sweeper in SWEEPERS if sweeper in named.lower()), None)
    if found is None and named and "hydra" in choices:
        raise DefinitionError(f"hydra/sweeper: {shorten(named)} is not known here; known are {', '.join(SWEEPERS)}")
    if found is not None:
        return found
    if "ax_config" in section:
        return "ax"
    if "optim" in section or "parametrization" in section:
        return "nevergrad"
    texts = " ".join(map(str, (section.get("params") or {}).values())) if _has_params(section) else ""
    if "interval(" in texts or any(key in section for key in ("n_trials", "sampler", "direction", "search_space")):
        notes.append("it names no sweeper; what it has is read as that of the Optuna sweeper")
        return "optuna"
    return "basic"


def _has_params(section: Spec) -> bool:
    return isinstance(section.get("params"), Mapping)


def _read_settings(section: Spec, sweeper: str, choices: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    """Return method, trials and objectives of a sweep."""
    table, key, default = section, "n_trials", DEFAULT_TRIALS.get(sweeper)
    directions: list[Any] = []
    objective: object = None
    options: dict[str, Any] = {}
    method: Method | None = "grid"
    if sweeper == "optuna":
        directions = _read_directions(section.get("direction", "minimize"))
        method = _read_sampler(section.get("sampler"), choices.get("hydra/sweeper/sampler"), notes)
        options = _read_options(section.get("sampler"), method)
    elif sweeper == "ax":
        table, key = _table(section, "ax_config"), "max_trials"
        experiment = _table(table, "experiment")
        directions = ["minimize" if experiment.get("minimize", True) else "maximize"]
        objective = experiment.get("objective_name")
        method = "gp"
    elif sweeper == "nevergrad":
        table, key = _table(section, "optim"), "budget"
        directions = ["maximize" if table.get("maximize") else "minimize"]
        method = OPTIMIZERS.get(str(table.get("optimizer", "NGOpt")))
        if method is None:
            notes.append(f"optimizer {shorten(table.get('optimizer', 'NGOpt'))} has no equivalent among the samplers")
    trials = table.get(key)
    if trials is None and default is not None and method != "grid":
        notes.append(f"it gives no {key}; trials = {default}, the default of its sweeper")
        trials = default
    goals = name_values(directions) if directions else {}
    if isinstance(objective, str) and objective != UNNAMED_IN_AX:
        goals["metric"] = objective
    seed = _read_seed(section, sweeper)
    known = {f"sampler.{name}" for name in options} | ({".".join(SEEDS[sweeper])} if seed is not None else set())
    notes += _describe_rest(section, known)
    found = {
        "method": method,
        "sampler_options": options,
        "seed": seed,
        "trials": None if trials is None else count(trials, key),
    }
    return {**found, **goals}


def _read_options(sampler: object, method: Method | None) -> dict[str, Any]:
    """Return the options of a sampler that ours has, too."""
    if method is None or not isinstance(sampler, Mapping):
        return {}
    known = SAMPLER_TABLE[method].options
    given = {name: value for name, value in sampler.items() if name in known}
    options = {name: value for name, value in given.items() if value is not None and "${" not in str(value)}
    if options.get("multivariate") is False:  # ours is True by default, and so is group, which needs it
        options.setdefault("group", False)
    return options


def _read_seed(section: Spec, sweeper: str) -> int | None:
    """Return the seed of a sweeper's random numbers, if it gives one."""
    value: Any = section if sweeper in SEEDS else None
    for key in SEEDS.get(sweeper, ()):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _describe_rest(section: Spec, known: Collection[str]) -> Iterator[str]:
    """Yield a note on the settings of a sweeper that a study does not have, which are none of those known."""
    if (function := section.get("custom_search_space")) is not None:
        yield f"custom_search_space: {shorten(function)} may add parameters there, and is not read"
    read = {*READ, *known}
    rest = {".".join(path): value for path, value in _leaves({k: v for k, v in section.items() if k not in SPACES})}
    left = [
        f"{name} = {shorten(value)}"
        for name, value in rest.items()
        if name not in read and not name.startswith("ax_config.params.") and value not in (None, [], {})
    ]
    if left:
        yield f"these settings of its sweeper have no equivalent: {', '.join(left)}"


def _table(document: Spec, key: str) -> Spec:
    found = document.get(key) or {}
    if not isinstance(found, Mapping):
        raise DefinitionError(f"{key} = {shorten(found)}: must be a table")
    return found


def _read_directions(direction: object) -> list[Any]:
    directions = direction if isinstance(direction, list) and direction else [direction]
    for each in directions:
        if each not in ("minimize", "maximize"):
            raise DefinitionError(f"direction = {shorten(each)}: must be minimize or maximize")
    return directions


def _read_sampler(sampler: object, choice: str | None, notes: list[str]) -> Method | None:
    """Return the sampler, which is TPE unless the section or the defaults list says otherwise."""
    target = sampler.get("_target_") if isinstance(sampler, Mapping) else sampler
    name = target.rpartition(".")[2].removesuffix("Sampler") if isinstance(target, str) else choice or "tpe"
    method = SAMPLERS.get(name.lower().replace("-", ""))
    if method is None:
        notes.append(f"sampler {shorten(name)} has no equivalent among the samplers")
    return method


# Parameters.


def _read_swept(section: Spec, sweeper: str, *, grid: bool) -> list[ForeignParameter]:
    """Read the parameters of a section, in each form that its sweeper takes."""
    tables = [section.get("params") or {}]
    if sweeper == "optuna":
        tables.insert(0, section.get("search_space") or {})
    if sweeper == "ax":
        tables.append(_table(section, "ax_config").get("params") or {})
    if sweeper == "nevergrad":
        tables.append(section.get("parametrization") or {})
    for table in tables:
        if not isinstance(table, Mapping):
            raise DefinitionError(f"params = {shorten(table)}: must be a table of parameters and values")
    # One that several tables have is that of the last: the sweeper for Optuna merges search_space and params so.
    named = {_path(name): (name, value) for table in tables for name, value in table.items() if not _is_own(name)}

    def read_one(name: str, value: object) -> list[ForeignParameter]:
        if isinstance(value, Mapping):
            domain, note = read_specification(value, sweeper)
        elif isinstance(value, list) and sweeper == "nevergrad":
            domain, note = list_choices(value), ""
        else:
            domain, note = read_override(value, sweeper, grid=grid)
        return [ForeignParameter(_path(name), domain, note=note)]

    return read_each(named.values(), read_one)


def _is_own(name: str) -> bool:
    """Return whether a parameter is a setting of Hydra's own, or one that the sweep removes."""
    return name.lstrip("+").startswith(("hydra/", "hydra.", "~"))


def _path(name: str) -> tuple[str, ...]:
    """Return the path of an override's key, such as `+model.optimizer.lr` or `db/engine@source`."""
    bare = name.lstrip("+").partition("@")[0]
    return tuple(part for part in re.split(r"[./]", bare) if part) or (name,)


def _read_constants(document: Spec, notes: list[str]) -> list[ForeignParameter]:
    """Return the values that a configuration gives beside its sweep."""
    found: list[ForeignParameter] = []
    for path, value in _leaves({key: value for key, value in document.items() if key not in ("hydra", "defaults")}):
        name = ".".join(path)
        if value == MISSING:
            notes.append(f"{name} has no value in the file, and is given on the command line there")
        elif name not in METRIC_KEYS:
            found.append(_read_constant(document, path, value))
    return found


def _leaves(table: Spec, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _read_constant(document: Spec, path: tuple[str, ...], value: Any) -> ForeignParameter:
    """Return a constant; one that only refers to another, `${batch_size}`, has the other's value."""
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if reference:
        target: Any = document
        for key in reference[1].split("."):
            target = target.get(key) if isinstance(target, Mapping) else None
        if isinstance(target, int | float | str) and "${" not in str(target):
            return ForeignParameter(path, Constant(target), note=f"the value of {reference[1]}")
    unknown = isinstance(value, str) and "${" in value
    return ForeignParameter(path, Computed(value) if unknown else Constant(value))


def _describe_files(choices: Mapping[str, str], swept: set[tuple[str, ...]]) -> Iterator[str]:
    """Yield a note on the parts of the configuration that are in files of their own."""
    apart = [
        f"{group}: {choice}"
        for group, choice in choices.items()
        if not group.startswith("hydra/") and tuple(re.split(r"[./]", group.partition("@")[0])) not in swept
    ]
    if apart:
        yield f"defaults: {', '.join(apart)} are files of their own, which are not read"
