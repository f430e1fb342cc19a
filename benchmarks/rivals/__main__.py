"""Comparison of tools: `make rivals`, or `make rivals OPTIONS="--seconds 60 --seeds 5 --tasks mnist_mlp"`.

Each tool gets the same task, space, budget and machine, and runs in a process of its own, on both cores: two processes
of one thread where the tool trains trials side by side, else one of two threads. The tools take turns, seed by seed, so
that other load is shared. A score is the accuracy on the validation samples, which are the same for all tools; time
runs from the start of the process, so that imports count. A rival's score counts from the end of its epoch, ours once
it is in the database, about a second later. Each run is a line of the results, and an interrupted comparison goes on
after the last one. All tasks at 900 s and 5 seeds take about 32 hours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rivals.contenders import CONTENDERS
from benchmarks.rivals.data import write_arrays
from benchmarks.rivals.run import run
from benchmarks.rivals.session import Session
from benchmarks.rivals.table import EXPLANATION, show_budgets, show_task
from benchmarks.rivals.tasks import SCORES
from hpo.errors import HpoError

MANY, LONG = 100_000, 1800.0  # trials that no budget of seconds reaches, and seconds that no budget of trials takes
KINDS = ("seconds", "trials", "killed")
IDENTITY = ("kind", "task", "tool", "seed", "seconds", "trials")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=900, help="budget of a run (900)")
    parser.add_argument("--trials", type=int, default=8, help="budget of the runs that compare trials (8)")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (5)")
    parser.add_argument("--tasks", nargs="+", choices=SCORES, default=list(SCORES))
    installed = [name for name, tool in CONTENDERS.items() if tool.version]
    parser.add_argument("--tools", nargs="+", choices=installed, default=installed, help="by default all installed")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS, help="of budgets; killed: trials, with a worker killed once"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/rivals"), help="of the results (build/rivals)")
    parser.add_argument("--show", action="store_true", help="run nothing, and print the tables of the results")
    return parser.parse_args()


def plan(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what identifies each run, in the order in which they are run: the first tool changes with the seed."""
    tools = arguments.tools
    if "seconds" in arguments.kinds:
        for seed in range(arguments.seeds):
            for task in arguments.tasks:
                for tool in tools[seed % len(tools) :] + tools[: seed % len(tools)]:
                    budget = {"seconds": arguments.seconds, "trials": MANY}
                    yield {"kind": "seconds", "task": task, "tool": tool, "seed": seed, **budget}
    for kind in [kind for kind in arguments.kinds if kind != "seconds"]:
        for tool in tools:
            if kind == "trials" or CONTENDERS[tool].workers:
                budget = {"seconds": LONG, "trials": arguments.trials}
                yield {"kind": kind, "task": arguments.tasks[0], "tool": tool, "seed": 0, **budget}


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def identity(row: dict[str, Any]) -> tuple[object, ...]:
    return tuple(row[name] for name in IDENTITY)


def run_one(planned: dict[str, Any], folder: Path) -> dict[str, Any]:
    tool = CONTENDERS[planned["tool"]]
    place = folder / "-".join(str(planned[name]) for name in ("task", "tool", "seed", "kind"))
    shutil.rmtree(place, ignore_errors=True)  # of a run that was interrupted
    write_arrays(planned["task"], planned["seed"], folder)
    session = Session(planned["task"], planned["seed"], planned["seconds"], planned["trials"], str(place))
    result = run(tool, session, kill=planned["kind"] == "killed")
    return {**planned, **result, "version": tool.version, "at": time.strftime("%Y-%m-%dT%H:%M:%S")}


def describe_machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, torch {version('torch')}"


def show(rows: list[dict[str, Any]]) -> str:
    """Return all tables."""
    parts = [
        describe_machine(),
        ", ".join(f"{each.title} {each.version or 'not installed'}" for each in CONTENDERS.values()),
        EXPLANATION,
    ]
    timed = [row for row in rows if row["kind"] == "seconds"]
    for task, seconds in dict.fromkeys((row["task"], row["seconds"]) for row in timed):
        parts.append(show_task(task, [row for row in timed if (row["task"], row["seconds"]) == (task, seconds)]))
    counted = [row for row in rows if row["kind"] != "seconds"]
    budgets = dict.fromkeys(row["trials"] for row in counted)
    parts += [show_budgets([row for row in counted if row["trials"] == trials]) for trials in budgets]
    failed = [f"{row['tool']} {row['task']} {row['seed']}" for row in timed if row["exit"] and not row["stopped"]]
    if failed:
        parts.append(f"Ended with an error, see log.txt of the run: {', '.join(failed)}.")
    if rows:
        loads = [load for row in rows for load in row["load"]]
        parts.append(f"Load average before and after the runs: {min(loads)} to {max(loads)}.")
    return "\n\n".join(parts)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # the tool ends with us
    arguments = parse_arguments()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    done = {identity(row) for row in read_results(results)}
    for planned in () if arguments.show else plan(arguments):
        if identity(planned) in done:
            continue
        row = run_one(planned, folder)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        best = row["curve"][-1][1] if row["curve"] else float("nan")
        print(
            f"{row['task']} seed {row['seed']} {row['tool']}: best {best:.4f}, {row['ended']} trials, {row['wall']} s, "
            f"exit {row['exit']}",
            flush=True,
        )
    print(show(read_results(results)))


if __name__ == "__main__":
    try:
        main()
    except HpoError as error:  # Fashion-MNIST may be missing
        sys.exit(f"rivals: {error}")
