"""A worker's process, the same wherever it runs: its command line, its environment, and why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hpo.errors import RunError
from hpo.study import Study
from hpo.utils.home import folder, home

__all__ = ["STOPS", "RemoteWorker", "log_names", "read_failure", "start_process", "storage_url_of"]

POLL = 0.5  # seconds; Ray's interruption is no signal, and reaches no process that waits in the system
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


def storage_url_of(study: Study) -> str:
    """The storage's URL with its password: for the environment of a worker, and for nothing else."""
    return study.storage.url.render_as_string(hide_password=False)


def log_names(count: int) -> list[str]:
    """Names for the logs of a launch's workers, unlike those of any other launch."""
    launch = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    return [f"{launch}-{i}.log" for i in range(count)]


def start_process(
    arguments: Sequence[str],
    url: str,
    threads: int | None,
    log: Path,
    cwd: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `hpo …`, its output going to a log.

    Args:
        arguments: of `hpo`.
        url: of the storage.
        threads: of its libraries, or None.
        log: a file; what it has stays.
        cwd: where it starts; by default here.
        more: of its environment.
    """
    # -P: a file of the user's called like a module of ours or of Python's must not be taken for it.
    command = [sys.executable, "-P", "-m", "hpo", *arguments]
    environment = {
        **os.environ,
        # The URL may hold a password, and arguments are there for every user of the machine to read.
        "OPTUNA_STORAGE": url,
        **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
        **(more or {}),
    }
    with log.open("ab") as output:
        # A session of its own: a signal to whoever started it is passed on once, and not met twice.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip


def read_failure(process: subprocess.Popen[bytes], log: Path, *, asked: bool) -> str | None:
    """Why a worker's process ended, in a line; None while it runs, and where it was asked to or had no work left."""
    code = process.poll()
    # Whoever asked it to stop. Before it could install its handlers, a worker dies of the signal itself.
    if code is None or code == 0 or code - 128 in STOPS or (asked and -code in STOPS):
        return None
    if code < 0:
        return f"worker {process.pid} was killed by signal {-code} (log: {log})"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    return f"worker {process.pid} ended with exit code {code}: {last} (log: {log})"


@dataclass(frozen=True)
class RemoteWorker:
    """A worker to run on another machine, or in another job: all but the storage's URL, which may hold a password.

    Attributes:
        study: the study's name.
        arguments: of `hpo`.
        threads: of its libraries, or None.
        log: the name of its log.
        home: `HPO_HOME`, which the machines may share.
        cwd: where the launch was typed, and where `--import` looks, where the folder is there.
    """

    study: str
    arguments: Sequence[str]
    threads: int | None
    log: str
    home: Path
    cwd: Path

    @classmethod
    def of(cls, study: Study, arguments: Sequence[str], threads: int | None, log: str) -> RemoteWorker:
        """The order for a worker as it would run here."""
        return cls(study.name, arguments, threads, log, home(), Path.cwd())

    def __call__(self, url: str | None = None) -> None:
        """Run the worker to its end; an interruption, whatever its kind, asks it to stop in order first.

        Args:
            url: of the storage; by default the environment's.

        Raises:
            RunError: it failed; the line has its last words and its log.
        """
        url = url or os.environ.get("OPTUNA_STORAGE")
        if not url:
            raise RunError("OPTUNA_STORAGE is not set in the job; submit it with the environment (no export=NONE)")
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # As in all that a shell starts in the background, a whole cluster too, which could then cancel nothing.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["HPO_HOME"] = str(self.home)
        log = folder("logs", self.study) / self.log
        process = start_process(
            self.arguments, url, self.threads, log, self.cwd if self.cwd.is_dir() else None,
            {"HPO_HOME": str(self.home)},
        )  # fmt: skip
        asked = True
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
            asked = False
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR2)  # which only asks, should the worker have been told before us
                process.wait()
        if why := read_failure(process, log, asked=asked):
            raise RunError(f"{why} on {os.uname().nodename}")
