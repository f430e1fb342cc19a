"""One run of one tool: its process, its memory, a worker that is killed, and what it has trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import benchmarks
from benchmarks.rivals.contenders import Contender
from benchmarks.rivals.curves import Curve, best_so_far
from benchmarks.rivals.our_study import OurStudy
from benchmarks.rivals.session import Session

GRACE = 120.0  # seconds that a tool may take for its trials in progress and for its end, before it is killed
POLL = 0.5


@dataclass
class Trained:
    """Trainings of a tool.

    Attributes:
        points: seconds since the process began, and validation accuracy.
        begun: number of trials.
        ended: number of those that ended, at the last epoch or stopped before.
        complete: number of those that reached the last epoch.
        lost: number of those that were under way in a process that we killed.
    """

    points: Curve
    begun: int
    ended: int
    complete: int
    lost: int = 0


def run(tool: Contender, session: Session, *, kill: bool) -> dict[str, Any]:
    """Run a tool in a process of its own, and return the row of its results."""
    folder = Path(session.folder)
    folder.mkdir(parents=True)
    environment = {**os.environ, **session.environment(), **tool.variables(session)}
    environment["PYTHONPATH"] = str(Path(benchmarks.__file__).parents[1])
    load = os.getloadavg()[0]
    with (folder / "log.txt").open("w") as log:
        watch = Watch(session, GRACE if tool.timed else 0, kill=kill)
        process = subprocess.Popen(
            tool.command(session), cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        row = watch.wait(process)
    trained = watch.study_trained() if not tool.files else read_events(session, watch.began, watch.killed)
    if tool.kills:
        trained.ended = trained.begun - trained.lost
    return {
        **row,
        "curve": [(round(seconds, 2), score) for seconds, score in best_so_far(trained.points)],
        "begun": trained.begun,
        "ended": trained.ended,
        "complete": trained.complete,
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }


class Watch:
    """Observer of a tool's processes, from just before they begin until none is left."""

    def __init__(self, session: Session, grace: float, *, kill: bool) -> None:
        self.session, self.kill = session, kill
        self.limit = session.seconds + grace
        self.study = OurStudy(Path(session.folder))
        self.began, self.clock = time.time(), time.monotonic()
        self.processes: dict[psutil.Process, float] = {}  # with the processor's seconds
        self.peak = 0
        self.killed = 0  # number of the worker's process
        self.stopped = False

    def wait(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Wait for the end; return it, and what the run took."""
        root = psutil.Process(process.pid)
        try:
            while process.poll() is None:
                self._look(root)
                if time.monotonic() > self.clock + self.limit:
                    self.stopped = True
                    process.kill()
                time.sleep(POLL)
            wall = time.monotonic() - self.clock
            self.study.poll(self.began)
        finally:
            self._end_all(process)
        return {
            "wall": round(wall, 2),
            "exit": process.returncode,
            "stopped": self.stopped,
            "killed": bool(self.killed),
            "memory": round(self.peak / 2**20),
            "processor": round(sum(self.processes.values()), 1),
        }

    def study_trained(self) -> Trained:
        """Return what our study has trained."""
        states = self.study.states()
        ended = {name: states.get(name, 0) for name in ("COMPLETE", "PRUNED", "FAIL")}
        begun = sum(ended.values()) + states.get("RUNNING", 0)
        return Trained(self.study.points, begun, sum(ended.values()), ended["COMPLETE"])

    def _end_all(self, process: subprocess.Popen[bytes]) -> None:
        """Leave nothing running, also where the comparison is interrupted."""
        process.kill()
        for each in self.processes:
            with suppress(psutil.NoSuchProcess):
                each.kill()  # psutil compares the time of creation, so that no later process of that number dies
        process.wait()

    def _look(self, root: psutil.Process) -> None:
        with suppress(psutil.NoSuchProcess):
            family = [root, *root.children(recursive=True)]
            self.processes |= {each: processor_seconds(each) for each in family}
            self.peak = max(self.peak, sum(proportional_memory(each) for each in family))
            self.study.poll(self.began)
            if self.kill and not self.killed:
                self._kill_worker(family)

    def _kill_worker(self, family: list[psutil.Process]) -> None:
        """Kill a process that trains, once a trial has ended and another is under way."""
        events = read_lines(self.session)
        ended = {event["trial"] for event in events if event["event"] == "end"}
        training = [event["process"] for event in events if event["event"] == "begin" and event["trial"] not in ended]
        if self.study.states().get("COMPLETE"):
            training = [each.pid for each in family if "worker" in each.cmdline()]
        elif not ended:
            return
        if training:
            os.kill(training[-1], signal.SIGKILL)
            self.killed = training[-1]


def processor_seconds(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def proportional_memory(process: psutil.Process) -> int:
    """Return a process's memory, in bytes, where what it shares counts by its share."""
    with suppress(psutil.Error, OSError):
        return int(process.memory_full_info().pss)
    return 0


def read_lines(session: Session) -> list[dict[str, Any]]:
    path = Path(session.folder) / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_events(session: Session, began: float, killed: int) -> Trained:
    """Read what the trials recorded; `killed` is the number of the process that we killed, or 0."""
    events = read_lines(session)
    points = [(event["time"] - began, event["accuracy"]) for event in events if event["event"] == "epoch"]
    epochs: dict[str, int] = {}
    for event in events:
        epochs[event["trial"]] = epochs.get(event["trial"], 0) + (event["event"] == "epoch")
    ended = {event["trial"] for event in events if event["event"] == "end"}
    complete = sum(count >= session.epochs for count in epochs.values())
    lost = {event["trial"] for event in events if event["process"] == killed} - ended
    return Trained(points, len(epochs), len(ended), complete, len(lost))
