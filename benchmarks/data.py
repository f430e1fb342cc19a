"""Benchmark of tables: seconds and memory from a CSV file to samples that are ready for training.

    python -m benchmarks.data [--rows 1000000] [--repeats 3] [--file FILE.csv --label NAME]

The file has 50 columns: 30 real numbers, of which 6 have missing values, 10 whole numbers, 8 categories of 2 to 3,000
values, a date and a time; and the label, a real number. The rival is polars alone, `pl.read_csv(file)`, which only
reads. Ours reads, finds the features, holds a fifth of the rows out as test, and makes the raw matrix (`read_source`);
then it splits, encodes and scales for a trial (`prepare_data`). Each runs in a process of its own, in turns, so that
another load of the machine falls on all; the least of the repeats counts. Memory is the peak of what a process has for
itself (not of pages of the file), above what it had before, in units of the float32 matrix of all rows and columns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hpo.config.trial_config import TrialConfig
from hpo.datasets.source import DatasetSource
from hpo.datasets.table import read_source

CATEGORIES = (2, 5, 10, 50, 100, 300, 1000, 3000)
LABEL = "price"


def write_table(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"real_{i}": rng.normal(size=rows).round(4) for i in range(30)}
    for i in range(0, 30, 5):
        columns[f"real_{i}"] = pl.Series(columns[f"real_{i}"]).set(pl.Series(rng.random(rows) < 0.05), None)
    columns |= {f"whole_{i}": rng.integers(0, 10 ** (1 + i % 5), rows) for i in range(10)}
    for i, size in enumerate(CATEGORIES):
        columns[f"category_{i}"] = np.array([f"value {j}" for j in range(size)])[rng.integers(0, size, rows)]
    columns["day"] = pl.Series(rng.integers(0, 9000, rows)).cast(pl.Int32).cast(pl.Date)
    columns["time"] = pl.Series(rng.integers(0, 700_000_000, rows) * 1_000_000).cast(pl.Datetime("us"))
    columns[LABEL] = rng.normal(size=rows).round(3)
    pl.DataFrame(columns).write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")


def own_memory() -> int:
    """Bytes of memory that this process has for itself."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measure(name: str, file: Path, label: str) -> dict[str, float]:
    """Run one of `RUNS` in this process; seconds, and bytes at the peak above those before."""
    run, before, peaks = RUNS[name](file, label), own_memory(), [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peaks.append(own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun, used = time.perf_counter(), time.process_time()
    result = run()
    seconds, processor = time.perf_counter() - begun, time.process_time() - used
    done.set()
    watcher.join()
    del result
    return {"seconds": seconds, "processor": processor, "memory": max(peaks) - before}


def run_polars(file: Path, _: str) -> Callable[[], object]:
    return lambda: pl.read_csv(file)


def run_read(file: Path, label: str) -> Callable[[], object]:
    return lambda: read_source(file, DatasetSource(label=(label,)))


def run_ready(file: Path, label: str) -> Callable[[], object]:
    import torch  # before the measurement begins

    from hpo.training.data import prepare_data

    config = TrialConfig(task="regression", validation=0.1)
    return lambda: prepare_data(run_read(file, label)(), config, torch.device("cpu"), file.name)  # type: ignore[arg-type]


RUNS = {"polars reads": run_polars, "ours reads": run_read, "ours is ready": run_ready}


def measure_apart(name: str, file: Path, label: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data", "--run", name, "--file", str(file), "--label", label]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def print_table(file: Path, label: str, repeats: int) -> None:
    shape = pl.scan_csv(file).select(pl.len()).collect().item(), len(pl.scan_csv(file).collect_schema()) - 1
    runs = [{name: measure_apart(name, file, label) for name in RUNS} for _ in range(repeats)]
    best = {name: {key: min(run[name][key] for run in runs) for key in runs[0][name]} for name in RUNS}
    rival = best["polars reads"]
    print(f"{shape[0]:,} rows, {shape[1]} columns, {file.stat().st_size / 1e6:.0f} MB of CSV\n")
    print(f"{'':16}{'seconds':>10}{'ratio':>8}{'processor s':>14}{'ratio':>8}{'peak MB':>10}{'matrices':>10}")
    for name, found in best.items():
        print(
            f"{name:16}{found['seconds']:10.2f}{found['seconds'] / rival['seconds']:8.2f}"
            f"{found['processor']:14.2f}{found['processor'] / rival['processor']:8.2f}"
            f"{found['memory'] / 1e6:10.0f}{found['memory'] / (4 * shape[0] * shape[1]):10.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--file", type=Path, help="a CSV file instead of the one that is made")
    parser.add_argument("--label", default=LABEL)
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(measure(arguments.run, arguments.file, arguments.label)))
        return
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, polars {pl.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file or Path(folder) / "table.csv"
        if arguments.file is None:
            write_table(file, arguments.rows)
        print_table(file, arguments.label, arguments.repeats)


if __name__ == "__main__":
    main()
