"""Process of a worker, the same on every backend: its command line, its environment and its failure."""

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
from hpo.utils.home import home, make_folder
from hpo.utils.paths import study_path

__all__ = ["STOPS", "RemoteWorker", "log_names", "read_failure", "start_process", "storage_url_of"]

POLL = 0.5  # seconds; Ray interrupts without a signal, which a process that waits in a system call does not notice
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


def storage_url_of(study: Study) -> str:
    """Return the storage's URL with its password, for the environment of a worker and for nothing else."""
    return study.storage.url.render_as_string(hide_password=False)


def log_names(count: int) -> list[str]:
    """Return names for the logs of a launch's workers that no other launch uses."""
    launch = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    return [f"{launch}-{i}.log" for i in range(count)]


def start_process(
    arguments: Sequence[str],
    url: str,
    threads: int | None,
    log: Path,
    cwd: Path | None = None,
    extra_env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `hpo …` with its output in a log.

    Args:
        arguments: arguments of `hpo`.
        url: URL of the storage.
        threads: number of threads of its libraries; None leaves that to them.
        log: file that the output is appended to.
        cwd: folder to start in; by default the current one.
        extra_env: environment variables to add.
    """
    # -P: a user's file with the name of one of our or Python's modules must not be imported in its place.
    command = [sys.executable, "-P", "-m", "hpo", *arguments]
    environment = {
        **os.environ,
        # The URL may hold a password, and every user of the machine can read arguments.
        "OPTUNA_STORAGE": url,
        **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
        **(extra_env or {}),
    }
    with log.open("ab") as output:
        # A session of its own, so that a signal to whoever started it reaches it once, when it is passed on.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip


def read_failure(process: subprocess.Popen[bytes], log: Path, *, stopping: bool) -> str | None:
    """Return why a worker failed, in a line; None while it runs, and if it was stopped or had no work left."""
    code = process.poll()
    # Stopped by whomever. Before a worker has installed its handlers, it dies of the signal itself.
    if code is None or code == 0 or code - 128 in STOPS or (stopping and -code in STOPS):
        return None
    if code < 0:
        return f"worker {process.pid} was killed by signal {-code} (log: {log})"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    return f"worker {process.pid} ended with exit code {code}: {last} (log: {log})"


@dataclass(frozen=True)
class RemoteWorker:
    """Worker to be run on another machine, or in another job; it lacks the storage's URL, which may hold a password.

    Attributes:
        study: the study's name.
        arguments: arguments of `hpo`.
        threads: number of threads of its libraries; None leaves that to them.
        log: name of its log.
        home: `HPO_HOME`, which the machines may share.
        cwd: folder of the launch, where the worker starts and `--import` looks if that machine has it.
    """

    study: str
    arguments: Sequence[str]
    threads: int | None
    log: str
    home: Path
    cwd: Path

    @classmethod
    def for_study(cls, study: Study, arguments: Sequence[str], threads: int | None, log: str) -> RemoteWorker:
        """Describe a worker as it would run here."""
        return cls(study.name, arguments, threads, log, home(), Path.cwd())

    def __call__(self, url: str | None = None) -> None:
        """Run the worker to its end; an interruption of any kind first asks it for an orderly stop.

        Args:
            url: URL of the storage; by default the environment's.

        Raises:
            RunError: it failed; the line has the last line of its log, and the log's path.
        """
        url = url or os.environ.get("OPTUNA_STORAGE")
        if not url:
            raise RunError("OPTUNA_STORAGE is not set in the job; submit it with the environment (no export=NONE)")
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell starts background jobs like that, even a whole cluster, which could then cancel nothing.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["HPO_HOME"] = str(self.home)
        log = make_folder(study_path("logs", self.study)) / self.log
        process = start_process(
            self.arguments, url, self.threads, log, self.cwd if self.cwd.is_dir() else None,
            {"HPO_HOME": str(self.home)},
        )  # fmt: skip
        stopping = True
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
            stopping = False
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR2)  # which only asks, in case the worker has received a signal already
                process.wait()
        if why := read_failure(process, log, stopping=stopping):
            raise RunError(f"{why} on {os.uname().nodename}")
