"""Workers as processes on this machine. Starts them and ends them; what they do is `hpo worker`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpo.home import folder
from hpo.study import Study

__all__ = ["LocalWorker", "start_workers"]


@dataclass
class LocalWorker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    asked: bool = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    @property
    def failure(self) -> str | None:
        """The last line of its log if it ended with an error, else None."""
        code = self.process.poll()
        # Asked before it could install its handlers, a worker dies of the signal itself.
        if code in (None, 0) or (self.asked and code in (128 + signal.SIGTERM, -signal.SIGTERM)):
            return None
        if code < 0:
            return f"worker {self.process.pid} was killed by signal {-code} (log: {self.log})"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        return f"worker {self.process.pid} ended with exit code {code}: {last} (log: {self.log})"

    def stop(self) -> None:
        """Ask for an orderly stop; asked again, the worker gives its trial back and ends at once."""
        self.asked = True
        if self.alive:
            self.process.send_signal(signal.SIGTERM)


def start_workers(
    study: Study, workers: int, *, threads: int, device: str, modules: Sequence[str], debug: bool = False
) -> list[LocalWorker]:
    """Start worker processes for a study.

    Args:
        study: what they work on.
        workers: how many.
        threads: torch's threads in each: more threads than cores in all would make every one several times slower.
        device: as `--device`.
        modules: what they import to find the user's models, data sets and metrics.
        debug: whether their errors show tracebacks.
    """
    logs = folder("logs", study.name)
    launch = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    return [_start(study, logs / f"{launch}-{i}.log", threads, device, modules, debug) for i in range(workers)]


def _start(study: Study, log: Path, threads: int, device: str, modules: Sequence[str], debug: bool) -> LocalWorker:
    # -P: a file of the user's called like a module of ours or of Python's must not be taken for it.
    command = [sys.executable, "-P", "-m", "hpo", "worker", study.name, "--threads", str(threads), "--device", device]
    command += [part for module in modules for part in ("--import", module)] + (["--debug"] if debug else [])
    environment = {
        **os.environ,
        # The URL may hold a password, and arguments are there for every user of the machine to read.
        "OPTUNA_STORAGE": study.storage.url.render_as_string(hide_password=False),
        "OMP_NUM_THREADS": str(threads),
    }
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches the launch alone, which then asks its workers once.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    return LocalWorker(process, log)
