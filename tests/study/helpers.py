"""Small studies that train nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpo.storage.leases import WorkerInfo
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition

SPACE = {
    "optimizer": ["adam", "sgd"],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "depth": {"low": 0, "high": 3},
    "width": [32, 64],
    "momentum": {"low": 0.0, "high": 0.9},
}


def holder(name: str = "w", *, host: str = "here", seconds: float = 60) -> WorkerInfo:
    """A worker that claims trials."""
    return WorkerInfo(name, host, 1, "cpu", seconds)


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def make_study(folder: Path, name: str = "small", **keys: Any) -> Study:
    table = {"dataset": "mnist", "trials": 12, "sampler": "random", "parameters": SPACE, **keys}
    found, definition, budget = parse_definition(table, name, folder)
    return Study.create(StudyStorage(sqlite_url(folder)), found, definition, budget)
