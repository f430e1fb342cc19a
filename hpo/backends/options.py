"""How workers are to run, wherever they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WorkerOptions"]


@dataclass(frozen=True)
class WorkerOptions:
    """The workers of a launch.

    Attributes:
        count: how many.
        device: as `--device`.
        imports: what they import to find the user's models, data sets and metrics.
        checkpoint_every: seconds between checkpoints of a trial.
        lease: seconds for which a worker holds a trial without a sign of life.
        debug: whether their errors show tracebacks.
        cohort: how many trials each trains at the same time, at most; None leaves that to them.
        tensorboard: the folder, with its whole path, that events of every trial are written to; None writes none.
    """

    count: int = 1
    device: str = "auto"
    imports: Sequence[str] = ()
    checkpoint_every: float = 30.0
    lease: float = 60.0
    debug: bool = False
    cohort: int | None = None
    tensorboard: Path | None = None

    def arguments(self, study: str, threads: int) -> list[str]:
        """Of `hpo` for one of them. The storage's URL comes by environment, for it may hold a password."""
        times = ["--checkpoint-every", str(self.checkpoint_every), "--lease", str(self.lease)]
        modules = [part for module in self.imports for part in ("--import", module)]
        debug = ["--debug"] if self.debug else []
        how = ["--threads", str(threads), "--device", self.device, "--cohort", str(self.cohort or "auto")]
        events = [] if self.tensorboard is None else ["--tensorboard", str(self.tensorboard)]
        return ["worker", study, *how, *times, *events, *modules, *debug]
