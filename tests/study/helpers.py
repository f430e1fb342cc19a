"""Small studies that train nothing."""

from __future__ import annotations

import functools
import tempfile
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
    """Return the URL of the folder's database, whether or not it is there."""
    return f"sqlite:///{folder / 'studies.db'}"


def new_storage(folder: Path) -> StudyStorage:
    """Open the folder's database; where there is none, a copy of an empty one, which costs less than new tables."""
    file = folder / "studies.db"
    if not file.exists():
        file.write_bytes(_empty_database())
    return StudyStorage(sqlite_url(folder))


@functools.cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        StudyStorage(sqlite_url(Path(folder))).engine.dispose()
        return (Path(folder) / "studies.db").read_bytes()


def make_study(folder: Path, name: str = "small", **keys: Any) -> Study:
    table = {"dataset": "mnist", "trials": 12, "sampler": "random", "parameters": SPACE, **keys}
    found, definition, budget = parse_definition(table, name, folder)
    return Study.create(new_storage(folder), found, definition, budget)
