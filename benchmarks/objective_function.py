"""Benchmark of one objective function in four processes: how many trials there are in the end, and SQL statements.

    python -m benchmarks.objective_function [--trials 100] [--processes 4]

A quadratic function of two parameters, with five reports, runs three times on a SQLite file: under `hpo launch` with a
budget, and under plain `study.optimize` with a quarter of the trials in each of four processes, on Optuna's RDBStorage
and on StudyStorage. Then the same again, and the process that trains a trial in the middle is killed as it does. After
a lease has had the time to run out, one process more runs one trial of each plain study, as a user would who goes on.
Statements are those of all processes of a tool, BEGIN among them, per trial that has ended.
"""

from __future__ import annotations

import argparse
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import TrialState

import benchmarks
from hpo.storage.optimize_leases import LEASE
from hpo.study import StudyStorage
from tests.statements import Statements

COUNTS = "HPO_BENCHMARK_COUNTS"  # the folder in which each process leaves its number of statements
OBJECTIVE = """
import os, pathlib, signal

def objective(trial):
    x, y = trial.suggest_float("x", -10, 10), trial.suggest_float("y", -10, 10)
    value = (x - 2) ** 2 + y ** 2
    for step in range(5):
        trial.report(value + 5 - step, step)
        victim = pathlib.Path(__file__).with_name(f"kill-{trial.number}")
        if step == 2 and victim.exists():
            victim.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return value
"""
PLAIN = """
import sys, optuna
from hpo.study import StudyStorage
from optuna.storages import RDBStorage
from objective import objective

storage, url, trials = sys.argv[1:]
patient = {"connect_args": {"timeout": 60}}
opened = StudyStorage(url) if storage == "StudyStorage" else RDBStorage(url, engine_kwargs=patient)
optuna.load_study(study_name="objective", storage=opened).optimize(objective, n_trials=int(trials))
"""
SITE = "import benchmarks.objective_function as counted; counted.count_statements()"


class StoredCount(Statements):
    """Number of statements that a file holds, also once its process has been killed."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 8)
        super().__init__(sa.Engine)  # type: ignore[arg-type]  # every engine's

    @property
    def count(self) -> int:
        return int(struct.unpack("q", self._bytes[:])[0])

    @count.setter
    def count(self, count: int) -> None:
        self._bytes[:] = struct.pack("q", count)


def count_statements() -> None:
    """Count those of this process, into a file of its own."""
    StoredCount(Path(os.environ[COUNTS]) / str(os.getpid()))


@dataclass
class Run:
    """One tool's run.

    Attributes:
        tool: its name.
        folder: of its database.
        states: of the trials, once all processes have ended.
        statements: in all.
        seconds: that it took.
    """

    tool: str
    folder: Path
    states: Counter[TrialState]
    statements: int
    seconds: float

    def row(self) -> str:
        states = ", ".join(f"{count} {state.name}" for state, count in sorted(self.states.items(), key=str))
        ended = sum(count for state, count in self.states.items() if state.is_finished())
        return f"{self.tool:32}{states:32}{self.statements / ended:10.1f}{self.seconds:8.1f} s"


def run_tool(tool: str, folder: Path, trials: int, processes: int, kill: int | None) -> Run:
    """Run the objective under one tool, on a new database."""
    folder.mkdir()
    (folder / "objective.py").write_text(OBJECTIVE)
    (folder / "plain.py").write_text(PLAIN)
    (folder / "sitecustomize.py").write_text(SITE)
    (folder / "counts").mkdir()
    if kill is not None:
        (folder / f"kill-{kill}").touch()
    url = f"sqlite:///{folder}/studies.db"
    if tool == "hpo launch":
        StudyStorage(url).engine.dispose()
        command = [sys.executable, "-m", "hpo", "launch", "objective.py:objective", "--trials", str(trials)]
        commands = [[*command, "--workers", str(processes), "--storage", url, "--lease", "10"]]
    else:
        optuna.create_study(study_name="objective", storage=_open(tool, url))
        commands = [[sys.executable, "plain.py", tool, url, str(trials // processes)] for _ in range(processes)]
    began = time.perf_counter()
    _run(folder, commands)
    return Run(tool, folder, count_states(tool, folder), read_statements(folder), time.perf_counter() - began)


def go_on(run: Run) -> None:
    """Run one trial more, as whoever finds the study would."""
    _run(run.folder, [[sys.executable, "plain.py", run.tool, f"sqlite:///{run.folder}/studies.db", "1"]])
    run.states, run.statements = count_states(run.tool, run.folder), read_statements(run.folder)


def _run(folder: Path, commands: list[list[str]]) -> None:
    root = Path(benchmarks.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{root}", COUNTS: str(folder / "counts")}
    environment |= {"HPO_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        started = [subprocess.Popen(each, cwd=folder, env=environment, stdout=log, stderr=log) for each in commands]
        for process in started:
            process.wait()


def _open(tool: str, url: str) -> Any:
    return StudyStorage(url) if tool == "StudyStorage" else RDBStorage(url)


def count_states(tool: str, folder: Path) -> Counter[TrialState]:
    study = optuna.load_study(study_name="objective", storage=_open(tool, f"sqlite:///{folder}/studies.db"))
    return Counter(trial.state for trial in study.trials)


def read_statements(folder: Path) -> int:
    return sum(struct.unpack("q", path.read_bytes())[0] for path in (folder / "counts").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objective_function")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tools = "hpo launch", "RDBStorage", "StudyStorage"
    with tempfile.TemporaryDirectory() as scratch:
        print(f"{'':32}{'trials':32}{'statements':>10}{'time':>10}")
        runs: list[Run] = []
        for kill in (None, given.trials * 2 // 5):
            for tool in tools:
                label = f"{tool.replace(' ', '-')}-{'killed' if kill is not None else 'whole'}"
                run = run_tool(tool, Path(scratch) / label, given.trials, given.processes, kill)
                print(run.row() + ("" if kill is None else f"   one killed in trial {kill}"), flush=True)
                runs += [run] if kill is not None and tool != "hpo launch" else []
        time.sleep(LEASE)  # as long as the dead process's trial is held
        for run in runs:
            go_on(run)
            print(run.row() + "   and one trial more, a minute later")


if __name__ == "__main__":
    main()
