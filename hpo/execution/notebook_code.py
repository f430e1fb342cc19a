"""Models, data sets and metrics that a notebook or a script has registered, on their way to its workers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hpo.config import registry
from hpo.config.sent_entries import write_entries
from hpo.config.trial_config import model_parameters, shared_parameters
from hpo.errors import RequestError
from hpo.execution.backends.base import Backend
from hpo.execution.backends.local import Local
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Definition

__all__ = ["send_notebook_code"]

log = logging.getLogger("hpo.study")
KINDS = {registry.ModelEntry: "model", registry.DatasetEntry: "data set", registry.MetricEntry: "metric"}


@contextmanager
def send_notebook_code(
    definition: Definition, options: WorkerOptions, backend: Backend | None
) -> Iterator[WorkerOptions]:
    """Yield options with which the workers of a launch find what this notebook or script has registered.

    A worker in this process finds it as it is. To processes of this machine it is sent, with all that it refers to.

    Raises:
        RequestError: it cannot be sent, or the workers may run on other machines.
    """
    entries = _find_entries(definition)
    if not entries or (options.workers == 1 and backend is None):
        yield options
        return
    what = ", ".join(f"{KINDS[type(entry)]} '{entry.name}'" for entry in entries)
    advice = (
        f"{what}: registered in this notebook or script, where no other process finds it; move it to a file, for "
        f'example mine.py, and give imports=["mine"]'
    )
    if options.workers == 0:
        log.warning("%s to its workers", advice)
        yield options
    elif backend is not None and not isinstance(backend, Local):
        raise RequestError(advice)
    else:
        with tempfile.TemporaryDirectory(prefix="hpo-") as folder:
            path = write_entries(entries, Path(folder))
            yield options.model_copy(update={"imports": (*options.imports, str(path))})


def _find_entries(definition: Definition) -> list[registry.Entry]:
    """Return the entries of a study that live in this process alone."""
    entries: list[registry.Entry | None] = []
    for key in definition.modules:
        kind, _, name = key.partition(":")
        entries.append(registry.models.find(name) if kind == "model" else registry.metrics.find(name))
    if definition.dataset.module is not None:
        entries.append(registry.datasets.find(definition.dataset.name))
    return [_without_class(entry) for entry in entries if entry is not None and entry.module == registry.MAIN]


def _without_class(entry: registry.Entry) -> registry.Entry:
    """Return an entry with its parameters in rows: a class of pydantic's would be sent with its validators."""
    if not isinstance(entry, registry.ModelEntry):
        return entry
    return replace(entry, parameters={**model_parameters(entry), **shared_parameters(entry)})
