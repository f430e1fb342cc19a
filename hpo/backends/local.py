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

from hpo.backends.options import WorkerOptions
from hpo.home import cores, folder
from hpo.study import Study

__all__ = ["LocalWorker", "start_workers"]

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        # Whoever asked it to stop. Before it could install its handlers, a worker dies of the signal itself.
        if code is None or code == 0 or code - 128 in STOPS or (self.asked and -code in STOPS):
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


def start_workers(study: Study, options: WorkerOptions) -> list[LocalWorker]:
    """Start worker processes for a study, with threads for this machine's cores in all: more would be much slower."""
    logs = folder("logs", study.name)
    launch = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    threads = max(1, cores() // options.count)
    arguments = options.arguments(study.name, threads)
    return [_start(study, logs / f"{launch}-{i}.log", arguments, threads) for i in range(options.count)]


def _start(study: Study, log: Path, arguments: Sequence[str], threads: int) -> LocalWorker:
    # -P: a file of the user's called like a module of ours or of Python's must not be taken for it.
    command = [sys.executable, "-P", "-m", "hpo", *arguments]
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
