"""Plans of studies of a registered training loop or model that is named by its file: no study file is needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hpo.config import registry
from hpo.config.registry import ModelEntry
from hpo.errors import RequestError
from hpo.execution.launch import LaunchPlan, plan_launch
from hpo.execution.launch_function import default_name
from hpo.execution.worker_options import WorkerOptions
from hpo.study.definition import FunctionReference

__all__ = ["NamedModel", "find_model", "plan_code_launch", "plan_model_launch"]


@dataclass(frozen=True)
class NamedModel:
    """Registered training loop or model.

    Attributes:
        entry: what is registered.
        source: the module or the file that registers it, as `--import` takes it; None of a script or a notebook.
        alone: whether its module registers nothing else of the kind.
    """

    entry: ModelEntry
    source: str | None
    alone: bool


def find_model(code: str | Callable[..., Any]) -> NamedModel | None:
    """Find the training loop or model that a launch names; None if that is an objective function, or nothing.

    Args:
        code: `FILE.py` of a file that registers one, `FILE.py:NAME` or `MODULE:NAME` with the name of the function or
            the registered one; or the function itself.

    Raises:
        RequestError: the file registers none, or several, and none is named.
        RegistryError: the file or module cannot be imported; the message has the reason.
    """
    if not isinstance(code, str):
        module = inspect.getmodule(code)
        source = None if module is None or module.__name__ == "__main__" else module.__name__
        entries = _list_entries(getattr(code, "__module__", ""))
        return next((NamedModel(each, source, len(entries) == 1) for each in entries if each.target is code), None)
    place, name = (code, None) if code.endswith(".py") else (code.rpartition(":")[0], code.rpartition(":")[2])
    module = registry.import_module(place)
    source = str(Path(place).expanduser().absolute()) if place.endswith(".py") else place
    entries = _list_entries(module.__name__)
    if name is None:
        return NamedModel(_choose_entry(code, entries, module), source, alone=True)
    function = getattr(module, name, None)
    found = next((each for each in entries if name == each.name or each.target is function), None)
    return None if found is None else NamedModel(found, source, len(entries) == 1)


def _list_entries(module: str) -> list[ModelEntry]:
    return [entry for name in registry.models.names() if (entry := registry.models.get(name)).module == module]


def _choose_entry(file: str, entries: list[ModelEntry], module: ModuleType) -> ModelEntry:
    """Return the only entry of a file."""
    if len(entries) == 1:
        return entries[0]
    if entries:
        names = " or ".join(f"{file}:{entry.name}" for entry in entries)
        raise RequestError(f"{file}: registers several; name one: {names}")
    functions = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
    raise RequestError(
        f"{file}: registers no training loop and no model; name an objective function as {file}:FUNCTION (its "
        f"functions are: {', '.join(functions) or 'none'}), or decorate one with @hpo.training_loop"
    )


def plan_code_launch(
    code: str | Callable[..., Any], storage: str | None, options: WorkerOptions, **keys: Any
) -> tuple[LaunchPlan, WorkerOptions]:
    """Return the plan of what a Python call names by its code, and the options of its workers.

    Raises:
        RequestError: it is no registered training loop or model, or a value is wrong.
    """
    registry.import_modules(options.imports)
    model = find_model(code)
    if model is None:
        name = code if isinstance(code, str) else getattr(code, "__name__", "the object")
        raise RequestError(
            f"{name}: is no registered training loop or model; decorate it, or call hpo.optimize with it if it is an "
            "objective function"
        )
    return plan_model_launch(model, storage, options, **keys)


def plan_model_launch(
    model: NamedModel,
    storage: str | None,
    options: WorkerOptions,
    *,
    parameters: Mapping[str, Any] | None = None,
    **keys: Any,
) -> tuple[LaunchPlan, WorkerOptions]:
    """Return the plan of a study of a registered training loop or model, whose declared domains are its space.

    Args:
        model: as `find_model` finds it.
        storage: a storage URL; None for the one that the commands use.
        options: of the workers; those that are returned name its file or module as well.
        parameters: domains that add to the declared ones, or replace them.
        keys: the other keys of a study file. The objective is by default the first that the loop reports.

    Raises:
        RequestError: a value is wrong; the line names the key and the value.
    """
    entry = model.entry
    if keys.get("objective") is None:
        keys["objective"] = next(iter(_reported_metrics(entry)), None)
    if keys.get("name") is None:
        keys["name"] = _default_name(model)
    literals = {"model": entry.name, **(parameters or {})}
    plan = plan_launch(None, storage, imports=options.imports, parameters=literals, **keys)
    imports = (*options.imports, *([] if model.source is None else [model.source]))
    plan = replace(plan, notices=(_describe(entry, plan), *plan.notices))
    return plan, options.model_copy(update={"imports": imports})


def _reported_metrics(entry: ModelEntry) -> list[str]:
    metrics = map(registry.metrics.get, registry.metrics.names())
    return [metric.name for metric in metrics if metric.reported and metric.target is entry.target]


def _default_name(model: NamedModel) -> str:
    """Name a study after the file or module, or after the model where that is one of several there."""
    source = model.source if model.alone else None
    file = source if source is not None and source.endswith(".py") else None
    return default_name(FunctionReference(name=model.entry.name, file=file, module=None if file else source))


def _describe(entry: ModelEntry, plan: LaunchPlan) -> str:
    definition = plan.definition
    kind = "training loop" if entry.loop else "model"
    objectives = ", ".join(f"{each.direction} {each.metric}" for each in definition.objectives)
    data = "no data set" if definition.dataset.name == registry.NO_DATA else f"data set {definition.dataset.name}"
    return f"{kind} {entry.name}: {objectives}, {data}; another objective or dataset may be given"
