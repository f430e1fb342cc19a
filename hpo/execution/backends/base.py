"""How workers are to run, wherever they do, and what starts them there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpo.study import Study

__all__ = ["Backend", "WorkerHandle", "WorkerOptions"]


@dataclass(frozen=True)
class WorkerOptions:
    """The workers of a launch.

    Attributes:
        count: how many; None leaves that to the backend.
        device: as `--device`.
        imports: what they import to find the user's models, data sets and metrics.
        checkpoint_every: seconds between checkpoints of a trial.
        lease: seconds for which a worker holds a trial without a sign of life.
        debug: whether their errors show tracebacks.
        cohort: how many trials each trains at the same time, at most; None leaves that to them.
        tensorboard: the folder, with its whole path, that events of every trial are written to; None writes none.
        trackers: what else is told of every trial: `mlflow`, `wandb`.
        cpus: cores of each worker, and threads; None leaves that to the backend.
        gpus: GPUs of each worker, or a share of one, where the backend can give them.
    """

    count: int | None = 1
    device: str = "auto"
    imports: Sequence[str] = ()
    checkpoint_every: float = 30.0
    lease: float = 60.0
    debug: bool = False
    cohort: int | None = None
    tensorboard: Path | None = None
    trackers: Sequence[str] = ()
    cpus: int | None = None
    gpus: float | None = None

    def arguments(self, study: str, threads: int | None) -> list[str]:
        """Of `hpo` for one of them. The storage's URL comes by environment, for it may hold a password."""
        times = ["--checkpoint-every", str(self.checkpoint_every), "--lease", str(self.lease)]
        modules = [part for module in self.imports for part in ("--import", module)]
        debug = ["--debug"] if self.debug else []
        share = [] if threads is None else ["--threads", str(threads)]
        how = ["--device", self.device, "--cohort", str(self.cohort or "auto")]
        events = [] if self.tensorboard is None else ["--tensorboard", str(self.tensorboard)]
        events += [part for name in self.trackers for part in ("--tracker", name)]
        return ["worker", study, *share, *how, *times, *events, *modules, *debug]


class WorkerHandle(Protocol):
    """A worker that has been started somewhere."""

    @property
    def alive(self) -> bool:
        """Whether it runs, or is about to."""

    @property
    def failure(self) -> str | None:
        """Why it ended, in a line, where that was neither the end of the work nor a stop that was asked for."""

    def stop(self) -> None:
        """Ask for an orderly stop; asked again, the worker ends at once."""


class Backend(Protocol):
    """Starts workers, `hpo worker …`, and does nothing else."""

    def start(self, study: Study, options: WorkerOptions) -> Sequence[WorkerHandle]:
        """Start the workers of a study.

        Raises:
            RequestError: they can never run there; the line says why.
        """
