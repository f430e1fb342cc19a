"""Process of a worker, the same on every backend: its command line, its environment and its failure."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import optuna
import sqlalchemy.exc

from hpo.errors import HpoError, RunError
from hpo.study import Study, StudyStorage
from hpo.utils.home import home, make_folder
from hpo.utils.paths import study_path
from hpo.utils.text import shorten_message

__all__ = ["STOPS", "RemoteWorker", "WorkerProcess", "find_refusal", "log_names", "start_process", "storage_url_of"]

POLL = 0.5  # seconds; Ray interrupts without a signal, which a process that waits in a system call does not notice
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")  # as a worker's logging begins them
REFUSAL = re.compile(r"worker \d+ ended with exit code 2[^:]*: hpo: (?P<line>.*) \(log: ")
TAIL = 65536  # bytes of a log that are read for its last line
CLOCKS = 2.0  # seconds by which a worker may have begun before its process, as two clocks see it


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
) -> WorkerProcess:
    """Start `hpo worker …` with its output in a log.

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
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
    return WorkerProcess(process, log, time.monotonic())


@dataclass(frozen=True)
class WorkerProcess:
    """Process of a worker on this machine.

    Attributes:
        process: the process.
        log: file with its output.
        began: when it was started, by the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def read_failure(self, study: Study | None, *, stopping: bool) -> str | None:
        """Return why it failed, in a line; None while it runs, and if it was stopped or had no work left.

        Args:
            study: its study; None where that cannot be read.
            stopping: whether whoever started it has asked it to stop.
        """
        code = self.process.poll()
        # Stopped by whomever. Before a worker has installed its handlers, it dies of the signal itself.
        if code is None or code - 128 in STOPS or (stopping and (code == 0 or -code in STOPS)):
            return None
        held = None if study is None else self._find_held_trials(study)
        if code == 0 and held is None:
            return None
        listed = ", ".join(map(str, held or ()))
        where = f" while it trained trial{'s' if len(held or ()) > 1 else ''} {listed}" if held else ""
        worker = f"worker {self.process.pid}"
        if code < 0:
            return f"{worker} was killed by signal {-code} ({_signal_name(-code)}){where} (log: {self.log})"
        reason = None if code == 0 else _read_reason(self.log)
        why = ", without saying why, as after os._exit()" if reason is None else f": {reason}"
        return f"{worker} ended with exit code {code}{where}{why} (log: {self.log})"

    def _find_held_trials(self, study: Study) -> list[int] | None:
        """Return the numbers of the trials that it left behind; None if it left the study's list, as at an orderly end.

        Whatever code it called may have ended the process with an exit code of its choice.
        """
        age, here = time.monotonic() - self.began + CLOCKS, socket.gethostname()
        try:
            workers = study.storage.read_workers(study.id)
            # A process id is used again; a worker of an earlier process was last seen before this one began.
            mine = [each for each in workers if (each.host, each.pid) == (here, self.process.pid) and each.seen < age]
            ids = [trial_id for each in mine for trial_id in each.trial_ids]
            return [study.storage.get_trial_number_from_id(trial_id) for trial_id in ids] if mine else None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, KeyError):
            return None  # no answer, or the study was deleted


def find_refusal(failure: str) -> str | None:
    """Return the line with which a worker has refused a wrong request; None if it failed for another reason."""
    found = REFUSAL.search(failure)
    return None if found is None else found["line"]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _read_reason(log: Path) -> str | None:
    """Return the last line of a log, which may be of any length; None if it only tells what the worker was doing."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return shorten_message(lines[-1]) if lines and not LOG_LINE.match(lines[-1]) else None


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
        worker = start_process(
            self.arguments, url, self.threads, log, self.cwd if self.cwd.is_dir() else None,
            {"HPO_HOME": str(self.home)},
        )  # fmt: skip
        process = worker.process
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR2)  # which only asks, in case the worker has received a signal already
                process.wait()
        if why := worker.read_failure(self._open_study(url), stopping=False):
            raise RunError(f"{why} on {os.uname().nodename}")

    def _open_study(self, url: str) -> Study | None:
        try:
            return Study(StudyStorage(url, create=False), self.study)
        except HpoError:  # the database does not answer, or the study was deleted
            return None
