"""Benchmark of reports: seconds and megabytes for studies of 1,000 and 10,000 trials.

    python -m benchmarks.report [--trials 1000 10000] [--epochs 10] [--keep FOLDER]

The studies are the template `mnist_mlp` with trials that were never trained: their rows are written into a SQLite file.
A fifth of the trials is pruned half-way and one in fifty diverges. First `hpo report` is timed as a whole process, from
its start to its end; then its steps are, once each, in this process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from hpo.config.trial_config import TrialConfig
from hpo.storage.tables import EPOCHS, INTERMEDIATE_VALUES, PARAMS, TRIAL_USER_ATTRS, TRIALS, VALUES
from hpo.study import Study, StudyStorage
from hpo.study.input import templates
from hpo.study.input.study_file import parse_definition
from hpo.utils.documents import read_document

FINITE = models.TrialValueModel.TrialValueType.FINITE
REPORTED = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE


def make(folder: Path, trials: int, epochs: int) -> Study:
    """Make a study whose trials have ended, without training any."""
    path = templates.find_template("studies", "mnist_mlp")
    table = read_document(path) | {"trials": trials, "name": f"mlp_{trials}"}
    table["parameters"] = {**table["parameters"], "epochs": epochs}
    name, definition, budget = parse_definition(table, path.stem, path.parent)
    study = Study.create(StudyStorage(f"sqlite:///{folder / 'hpo.db'}"), name, definition, budget)
    with study.storage.engine.begin() as connection:
        known = connection.scalar(sa.select(sa.func.count()).where(TRIALS.c.study_id == study.id)) or 0
        for start in range(known, trials, 1000):
            _insert(connection, study, range(start, min(start + 1000, trials)))
    return study


def _insert(connection: sa.Connection, study: Study, numbers: range) -> None:
    rows: dict[sa.Table, list[dict[str, Any]]] = {t: [] for t in (TRIALS, PARAMS, VALUES, TRIAL_USER_ATTRS, EPOCHS)}
    rows[INTERMEDIATE_VALUES] = []
    first = 1 + (connection.scalar(sa.select(sa.func.max(TRIALS.c.trial_id))) or 0)
    for number in numbers:
        for table, row in _rows(study, first + number - numbers.start, number):
            rows[table].append(row)
    for table, held in rows.items():
        if held:
            connection.execute(sa.insert(table), held)


def _rows(study: Study, trial_id: int, number: int) -> Iterator[tuple[sa.Table, dict[str, Any]]]:
    """Return all rows of one trial."""
    rng = np.random.default_rng([7, number])
    params = study.space.draw(rng.random(len(study.space.varied)).tolist())
    config = study.definition.config(study.space.values(params))
    state = TrialState.PRUNED if number % 5 == 4 or number % 50 == 3 else TrialState.COMPLETE
    diverged = number % 50 == 3
    began = datetime(2026, 1, 1) + timedelta(seconds=7 * number)
    times = {"datetime_start": began, "datetime_complete": began + timedelta(seconds=25)}
    yield TRIALS, {"trial_id": trial_id, "number": number, "study_id": study.id, "state": state, **times}
    for dimension in study.space.varied:
        if dimension.key in params:
            distribution = dimension.domain.distribution()
            value = distribution.to_internal_repr(params[dimension.key])
            text = distribution_to_json(distribution)
            yield (
                PARAMS,
                {
                    "trial_id": trial_id,
                    "param_name": dimension.key,
                    "param_value": value,
                    "distribution_json": text,
                },
            )
    metrics = _epochs(config, config.epochs // 2 if state == TrialState.PRUNED else config.epochs, rng)
    for epoch, row in enumerate(metrics, start=1):
        yield (
            EPOCHS,
            {
                "trial_id": trial_id,
                "attempt": 1,
                "epoch": epoch,
                "study_id": study.id,
                "metrics": json.dumps(row),
            },
        )
        report = {"step": epoch, "intermediate_value": row["val_accuracy"], "intermediate_value_type": REPORTED}
        yield INTERMEDIATE_VALUES, {"trial_id": trial_id, **report}
    if not diverged:
        best = max(row["val_accuracy"] for row in metrics)
        yield VALUES, {"trial_id": trial_id, "objective": 0, "value": best, "value_type": FINITE}
    attrs: dict[str, Any] = {
        "worker": f"host-{number % 8}:1",
        "best_epoch": len(metrics),
        "parameter_count": 1000 * (number % 90 + 10),
        "train_seconds": 2.5 * len(metrics),
        **({"failure": "diverged", "message": "the training loss was not finite"} if diverged else {}),
    }
    for key, value in attrs.items():
        yield TRIAL_USER_ATTRS, {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _epochs(config: TrialConfig, count: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Return metrics that look like training: best at a learning rate that its optimizer likes."""
    peak = -2.8 if "adam" in config.optimizer or config.optimizer == "rmsprop" else -0.9
    top = 0.982 - 0.02 * abs(math.log10(config.learning_rate) - peak) - 0.02 * config.dropout + rng.normal(0, 0.0015)
    return [
        {
            "epoch": epoch,
            "train_loss": 0.5 / epoch + rng.random() / 50,
            "train_accuracy": top - 0.08 / epoch**2 + 0.01,
            "val_loss": 0.6 / epoch + rng.random() / 50,
            "val_accuracy": top - 0.1 / epoch**2 + rng.normal(0, 0.0005),
            "learning_rate": config.learning_rate,
            "seconds": 2.5 * epoch,
        }
        for epoch in range(1, count + 1)
    ]


def whole(study: Study, out: Path) -> tuple[float, float]:
    """Return the seconds of `hpo report` as a process, and its peak memory in megabytes."""
    command = [
        sys.executable,
        "-m",
        "hpo",
        "report",
        study.name,
        "--out",
        str(out),
        "--storage",
        str(study.storage.url),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def steps(study: Study) -> Iterator[tuple[str, float]]:
    """Yield the report's steps, with the seconds of each."""
    from hpo.report.chapters import order
    from hpo.report.chapters.verdict import write_verdict
    from hpo.report.render.html import render_html
    from hpo.report.render.json import report_document
    from hpo.report.render.markdown import render_markdown
    from hpo.report.report_data import read_report_data

    with _timed() as seconds:
        data = read_report_data(study)
    yield "read", seconds()
    told = []
    for write in order.CHAPTERS:
        with _timed() as seconds:
            chapter = write(data)
        if chapter is not None:
            told.append(chapter)
            yield f"chapter {chapter.key}", seconds()
    words = (study.name, write_verdict(data), order.study_facts(data), told, "")
    for name, step in {"html": render_html, "markdown": render_markdown}.items():
        with _timed() as seconds:
            step(*words)
        yield name, seconds()
    with _timed() as seconds:
        json.dumps(report_document(data), allow_nan=False)
    yield "json", seconds()


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    began = time.perf_counter()
    taken: list[float] = []
    yield lambda: taken[0]
    taken.append(time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="a folder for the studies and reports, instead of a temporary one")
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["HPO_HOME"] = str(folder / "home")
        for trials in given.trials:
            study = make(folder, trials, given.epochs)
            out = folder / f"report_{trials}"
            seconds, memory = whole(study, out)
            sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(out.iterdir()) if path.is_file()}
            print(f"\n{trials:,} trials: hpo report {seconds:.1f} s, peak memory {memory:,.0f} MB")
            print("  " + ", ".join(f"{name} {size:.2f} MB" for name, size in sizes.items()))
            for name, taken in steps(Study(StudyStorage(str(study.storage.url)), study.name)):
                print(f"  {name:<24}{taken:>8.2f} s")


if __name__ == "__main__":
    main()
