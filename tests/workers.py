"""Workers in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpo.execution.worker import Worker
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study


def make_worker(study: Study, should_stop: Callable[[], bool] = lambda: False, **options: Any) -> Worker:
    """A worker on the CPU with one thread."""
    return Worker(study, WorkerOptions(**{"device": "cpu", "cpus": 1, **options}), should_stop)
