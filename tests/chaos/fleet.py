"""Worker processes of one study, which can be killed and suspended, and what their logs tell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

__all__ = ["LOST", "Attempt", "Fleet", "WorkerProcess"]

LINE = re.compile(
    r"^(\S+ \S+,\d{3}) trial (\d+) (begins:|goes on after epoch|COMPLETE|PRUNED|is not this|released)(.*)$"
)
IMPATIENT = """
import hpo.storage.write_behind, hpo.storage.transient_errors
hpo.storage.write_behind.RETRY_SECONDS = hpo.storage.transient_errors.RETRY_SECONDS = {}
from hpo.cli import main
main()
"""
BEGINS, RESUMED, LOST = "begins:", "goes on after epoch", "is not this"


@dataclass
class Attempt:
    """One worker's work on one trial: the number of the trial, seconds of work, the epoch it went on after, the end.

    `end` is COMPLETE, PRUNED, `is not this` (lost), `released`, or nothing where the worker was killed.
    """

    number: int
    seconds: float = 0.0
    resumed: int = 0
    end: str = ""


@dataclass
class WorkerProcess:
    """A worker, its log, when it was killed, and when it was suspended and woken; seconds since 1970."""

    process: subprocess.Popen[bytes]
    log: Path
    killed_at: float | None = None
    suspended: list[tuple[float, float]] = field(default_factory=list)
    since: float | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End it without a word."""
        self.killed_at = time.time()
        self.process.kill()
        self.process.wait()

    def suspend(self) -> None:
        self.since = time.time()
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self.since is not None
        self.suspended.append((self.since, time.time()))
        self.since = None
        self.process.send_signal(signal.SIGCONT)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def name(self) -> str:
        """What the database knows it as; empty until it has said so."""
        found = re.search(r" worker (\S+): study ", self.text)
        return found[1] if found else ""

    @property
    def went_on(self) -> bool:
        """Whether it began another trial after it had lost one."""
        lost = False
        for line in self.text.splitlines():
            if match := LINE.match(line):
                if lost and match[3] == BEGINS:
                    return True
                lost = lost or match[3] == LOST
        return False

    def attempts(self) -> list[Attempt]:
        """What it worked on, as its log has it; of a cohort's trials each by itself."""
        found: list[Attempt] = []
        open_: dict[int, tuple[Attempt, float]] = {}  # by number, with the time of its beginning
        for line in self.text.splitlines():
            if not (match := LINE.match(line)):
                continue
            at, number, what, rest = _seconds(match[1]), int(match[2]), match[3], match[4]
            if what == BEGINS:
                found.append(Attempt(number))
                open_[number] = found[-1], at
            elif what == RESUMED:
                open_[number][0].resumed = int(rest)
            elif number in open_:
                attempt, begun = open_.pop(number)
                attempt.end, attempt.seconds = what, self._awake(begun, at)
            else:
                found.append(Attempt(number, end=what))  # it was lost before it had been sampled
        for attempt, begun in open_.values():
            if self.killed_at is not None:
                attempt.seconds = self._awake(begun, self.killed_at)
        return found

    def _awake(self, begun: float, ended: float) -> float:
        asleep = sum(max(0.0, min(ended, woken) - max(begun, since)) for since, woken in self.suspended)
        return max(0.0, ended - begun - asleep)


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").timestamp()


class Fleet:
    """Workers of one study, started as a launch starts them.

    Args:
        name: of the study.
        url: of the storage.
        home: `HPO_HOME` of the workers; their logs go there too.
        lease: seconds.
        patience: seconds for which the database may be away, instead of five minutes.
        cohorts: how many trials a worker trains at the same time, worker by worker, from the first again after the
            last.
        imports: modules that the workers import.
    """

    def __init__(
        self,
        name: str,
        url: str,
        home: Path,
        lease: float = 2.0,
        patience: float | None = None,
        cohorts: Sequence[int] = (1,),
        imports: Sequence[str] = (),
    ) -> None:
        self._name, self._url, self.home, self._lease, self._patience = name, url, home, lease, patience
        self._cohorts, self._imports = cohorts, imports
        self.workers: list[WorkerProcess] = []
        home.mkdir(parents=True, exist_ok=True)

    def start(self, count: int = 1) -> None:
        """Start workers; a checkpoint is written after each epoch."""
        options = ["--checkpoint-every", "0", "--lease", str(self._lease), "--threads", "1", "--device", "cpu"]
        options += [each for module in self._imports for each in ("--import", module)]
        program = ["-m", "hpo"] if self._patience is None else ["-c", IMPATIENT.format(self._patience)]
        command = [sys.executable, "-P", *program, "worker", self._name, *options]
        environment = {
            **os.environ,
            "OPTUNA_STORAGE": self._url,
            "HPO_HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
        }
        for _ in range(count):
            log = self.home / f"worker-{len(self.workers)}.log"
            cohort = ["--cohort", str(self._cohorts[len(self.workers) % len(self._cohorts)])]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*command, *cohort], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
                )
            self.workers.append(WorkerProcess(process, log))

    @property
    def live(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.alive]

    def join(self, seconds: float) -> None:
        """Wait until all have ended by themselves.

        Raises:
            subprocess.TimeoutExpired: one has not.
        """
        until = time.monotonic() + seconds
        for worker in self.workers:
            worker.process.wait(max(0.1, until - time.monotonic()))

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.live:
            worker.process.kill()
            worker.process.wait()

    def attempts(self) -> Iterator[Attempt]:
        """What all workers worked on."""
        for worker in self.workers:
            yield from worker.attempts()
