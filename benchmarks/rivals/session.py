"""Requests to a tool's process, and its record of the trials it trains. Imports nothing slow: rivals pay for it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.tasks import Space, read_space

VARIABLE = "HPO_RIVALS_SESSION"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Session:
    """Request to a tool.

    Attributes:
        task: the name of its study file.
        seed: of the search and of the split.
        seconds, trials: the budget; whichever ends first.
        folder: for whatever the tool writes.
    """

    task: str
    seed: int
    seconds: float
    trials: int
    folder: str

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    @cached_property
    def space(self) -> Space:
        return read_space(self.task)

    @property
    def epochs(self) -> int:
        return self.space.epochs

    @cached_property
    def data(self) -> dict[str, Array]:
        """The arrays x_train, y_train, x_val, y_val, mean and deviation: see `benchmarks.rivals.data`."""
        with np.load(Path(self.folder).parent / f"{self.task}-{self.seed}.npz") as arrays:
            return dict(arrays)


session = Session(**json.loads(os.environ[VARIABLE])) if VARIABLE in os.environ else Session("mnist_mlp", 0, 60, 8, ".")


@contextmanager
def trial() -> Iterator[Callable[[float], None]]:
    """Record a trial; what it yields records the validation accuracy of an epoch."""
    name = secrets.token_hex(4)
    _write(trial=name, event="begin")
    try:
        yield lambda accuracy: _write(trial=name, event="epoch", accuracy=float(accuracy))
    finally:
        _write(trial=name, event="end")


def _write(**event: object) -> None:
    """Append a line in one call, so that those of several processes never mix."""
    line = json.dumps({"time": time.time(), "process": os.getpid(), **event}) + "\n"
    file = os.open(Path(session.folder) / "events.jsonl", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
