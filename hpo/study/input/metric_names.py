"""Names of metrics in study files: those that are recorded beside the objectives, and which fit a task."""

from __future__ import annotations

from hpo.config import registry
from hpo.config.builtin_metrics import BUILTIN_METRICS, RECONSTRUCTION, default_metric, list_fitting
from hpo.errors import DefinitionError, describe_unknown, find_closest
from hpo.utils.text import shorten

__all__ = ["describe_misfit", "describe_unknown_metric", "fits", "parse_recorded"]


def parse_recorded(value: object) -> tuple[str, ...]:
    """Parse the key `metrics`: names of metrics that are recorded beside the objectives.

    Raises:
        DefinitionError: it is no list of known metrics.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise DefinitionError(f'metrics = {shorten(value)}: give a list of names, such as ["val_f1_macro", "val_mcc"]')
    known = registry.metrics.names()
    for name in value:
        if name not in known:
            raise DefinitionError(describe_unknown("metric", name, known))
    return tuple(dict.fromkeys(value))


def fits(metric: str, task: str, *, reconstructs: bool) -> bool:
    """Return whether a metric is one of models on data of a task; the user's own are of any."""
    kind = RECONSTRUCTION if reconstructs else task
    return metric not in BUILTIN_METRICS or kind in BUILTIN_METRICS[metric].tasks


def describe_unknown_metric(kind: str, name: str, task: str | None) -> str:
    """Return the message for an unknown metric, which says of what task the closest one is, if it is another."""
    known = registry.metrics.names()
    line, closest = describe_unknown(kind, name, known), find_closest(name, known)
    if closest is None or task is None or fits(closest, task, reconstructs=False):
        return line
    return f"{line} it is of {' and '.join(BUILTIN_METRICS[closest].tasks)}, and the task is {task}"


def describe_misfit(metric: str, model: str, task: str, *, reconstructs: bool) -> str:
    """Say why a built-in metric does not fit a model on data of a task, and which metrics do."""
    if reconstructs:
        return f"model '{model}' has none; use val_loss or val_reconstruction_error"
    measured = [name for name in list_fitting(task) if BUILTIN_METRICS[name].measured and name.startswith("val_")]
    main = " or ".join(dict.fromkeys([default_metric(task), *measured]))
    tasks = BUILTIN_METRICS[metric].tasks
    if RECONSTRUCTION in tasks:
        return f"model '{model}' has none; use {main}"
    return f"is a metric of {' and '.join(tasks)}, but the task is {task}; use {main}, or another of its metrics"
