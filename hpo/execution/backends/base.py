"""Protocols of a backend and of the workers that it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study

__all__ = ["Backend", "WorkerHandle"]


class WorkerHandle(Protocol):
    """Handle of a worker that has been started somewhere."""

    @property
    def alive(self) -> bool:
        """True while it runs or waits to run."""

    @property
    def failure(self) -> str | None:
        """Reason why it failed, in a line; None while it runs, and if its work was done or it was asked to stop."""

    def stop(self) -> None:
        """Ask for an orderly stop; when asked again, end the worker at once."""


class Backend(Protocol):
    """Place where workers run. It starts `hpo worker …` and does nothing else."""

    def start(self, study: Study, options: WorkerOptions) -> Sequence[WorkerHandle]:
        """Start the workers of a study.

        Raises:
            RequestError: they can never run there; the line says why.
        """
