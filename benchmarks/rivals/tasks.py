"""Tasks: their study files, which give every tool its space, and the scores that are asked for."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parent / "tools"
# Validation accuracies; of the table only the best is compared.
SCORES: dict[str, tuple[float, ...]] = {"mnist_mlp": (0.97, 0.98), "fashion_cnn": (0.90, 0.915), "table_mlp": ()}
TITLES = {"mnist_mlp": "MLP on MNIST", "fashion_cnn": "CNN on Fashion-MNIST", "table_mlp": "MLP on a table"}


@dataclass(frozen=True)
class Space:
    """Parameters of a task.

    Attributes:
        model: "mlp" or "cnn".
        epochs: of a trial that is not stopped.
        choices: names and what may be chosen.
        integers: names and bounds, both inclusive.
        rates: names and bounds of numbers on a logarithmic scale.
    """

    model: str
    epochs: int
    choices: dict[str, list[Any]]
    integers: dict[str, tuple[int, int]]
    rates: dict[str, tuple[float, float]]


def study_file(task: str) -> Path:
    return TOOLS / f"{task}.toml"


def read_space(task: str) -> Space:
    """Read the space of a study file."""
    parameters: dict[str, Any] = tomllib.loads(study_file(task).read_text())["parameters"]
    ranges = {name: domain for name, domain in parameters.items() if isinstance(domain, dict)}
    return Space(
        parameters["model"],
        parameters["epochs"],
        {name: domain for name, domain in parameters.items() if isinstance(domain, list)},
        {name: (each["low"], each["high"]) for name, each in ranges.items() if "log" not in each},
        {name: (each["low"], each["high"]) for name, each in ranges.items() if "log" in each},
    )
