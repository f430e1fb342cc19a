"""Tables of learning curves that `benchmarks/search.py` replays studies on, and what their epochs cost.

    OMP_NUM_THREADS=1 nice python -m benchmarks.learning_curves [mlp cnn] [--configurations 2000] [--minutes 30]

`mlp` holds configurations of a mixed space on 5,000 samples of MNIST (9 epochs), `cnn` on 2,500 of Fashion-MNIST (6
epochs), each with 4,000 or 2,000 others for validation. Configuration n is drawn from the seed n, so a table that ends
early is the beginning of the whole one. Each is trained by the training loop of the product on one thread, those of a
batch size in stacks where the model allows. A row of `benchmarks/tables/NAME.parquet` has the configuration's
parameters (null where one has no effect) and val_accuracy and val_loss after each epoch, null from where it diverged.

`NAME_costs.parquet` holds processor seconds of an epoch (validation included) of random stacks: `members` by their row,
`together` as a stack and `alone` one after the other, in turns. Both files are written as they grow, and the same
command goes on where it ended.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from hpo import datasets
from hpo.config.cohort_key import stack_key
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.space import Space
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.stack_run import make_learner
from hpo.utils.files import write_atomically

__all__ = ["SPACES", "MissingTableError", "read_costs", "read_curves"]

TABLES = Path(__file__).parent / "tables"
CHUNK = 100  # configurations between two writings
STACK = 25  # the most models of a stack; neighbours in size, for narrower ones are padded
SIZES = (2, 4, 8, 16)  # of the stacks whose cost is measured
RATES = [
    {"low": 1e-4, "high": 3e-2, "log": True, "when": {"optimizer": ["adam", "adamw"]}},
    {"low": 3e-3, "high": 1.0, "log": True, "when": {"optimizer": ["sgd", "momentum"]}},
]
SPACES: Mapping[str, Mapping[str, Any]] = {
    "mlp": {
        "model": "mlp",
        "depth": {"low": 1, "high": 3},
        "width": {"low": 32, "high": 256, "log": True},
        "activation": ["relu", "tanh", "gelu"],
        "dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
        "batch_size": [32, 64, 128, 256],
        "optimizer": ["sgd", "momentum", "adam", "adamw"],
        "learning_rate": RATES,
        "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True, "when": {"optimizer": "adamw"}},
        "schedule": ["constant", "cosine", "one_cycle"],
    },
    "cnn": {
        "model": "cnn",
        "conv_layers": {"low": 1, "high": 2},
        "channels": [4, 8, 16],
        "kernel_size": [3, 5],
        "dense_width": [32, 64, 128],
        "activation": ["relu", "gelu"],
        "dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
        "batch_size": [32, 64, 128],
        "optimizer": ["sgd", "momentum", "adam", "adamw"],
        "learning_rate": RATES,
        "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True, "when": {"optimizer": "adamw"}},
        "schedule": ["constant", "cosine", "one_cycle"],
    },
}


@dataclass(frozen=True)
class Recipe:
    """Recipe of a table.

    Attributes:
        dataset: the data set, of whose training samples some are drawn.
        samples, validation: how many are trained on, and how many validate.
        epochs: of each configuration.
        configurations: of the whole table.
        stacks: how many stacks of each size are timed.
    """

    dataset: str
    samples: int
    validation: int
    epochs: int
    configurations: int
    stacks: int


RECIPES = {"mlp": Recipe("mnist", 5000, 4000, 9, 2000, 10), "cnn": Recipe("fashion_mnist", 2500, 2000, 6, 300, 0)}


class MissingTableError(Exception):
    """A table is not here; the message says where it comes from."""


def read_curves(name: str) -> pl.DataFrame:
    """Return a table of learning curves, a row per configuration."""
    return _read(name, f"{name}.parquet")


def read_costs(name: str) -> pl.DataFrame:
    """Return the costs of epochs, a row per stack."""
    return _read(name, f"{name}_costs.parquet")


def _read(name: str, file: str) -> pl.DataFrame:
    path = TABLES / file
    if not path.exists():
        raise MissingTableError(f"no {path.name} yet; make it with python -m benchmarks.learning_curves {name}")
    return pl.read_parquet(path)


def draw(space: Space, seed: int) -> dict[str, Any]:
    """Return the values of the configuration that a seed draws."""
    return space.values(space.draw(np.random.default_rng(seed).random(len(space.varied)).tolist()))


def load(recipe: Recipe, config: TrialConfig) -> Data:
    """Return a part of the data set, drawn once."""
    train_part = datasets.load(datasets.make_reference(recipe.dataset)).train
    assert isinstance(train_part, tuple)
    chosen = np.random.default_rng(0).permutation(len(train_part[1]))[: recipe.samples + recipe.validation]
    x, y = (np.asarray(array)[chosen] for array in train_part)
    parts = [(x[where], y[where]) for where in (slice(recipe.samples), slice(recipe.samples, None))]
    return prepare_data(Dataset(parts[0], validation=parts[1], classes=10), config, torch.device("cpu"))


def group(configs: Sequence[TrialConfig]) -> Iterator[list[int]]:
    """Yield the positions of configurations that train together: of one batch size, and neighbours in size."""
    found: dict[object, list[int]] = {}
    for position, config in enumerate(configs):
        found.setdefault(stack_key(config) or position, []).append(position)
    for positions in found.values():
        positions.sort(key=lambda position: (configs[position].depth, configs[position].width))
        pieces = math.ceil(len(positions) / STACK)
        yield from ([int(each) for each in piece] for piece in np.array_split(positions, pieces))


def train_rows(recipe: Recipe, values: Sequence[Mapping[str, Any]], data: Data) -> list[dict[str, Any]]:
    """Train configurations, and return their rows."""
    configs = [TrialConfig(**each, epochs=recipe.epochs) for each in values]
    rows: dict[int, dict[str, Any]] = {}
    for positions in group(configs):
        for position, result in zip(positions, train([configs[each] for each in positions], data), strict=True):
            curves = {metric: curve(result.history, metric, recipe.epochs) for metric in ("val_accuracy", "val_loss")}
            rows[position] = {**values[position], "parameter_count": result.parameter_count, **curves}
    return [rows[position] for position in range(len(configs))]


def curve(history: Sequence[Mapping[str, float]], metric: str, epochs: int) -> list[float | None]:
    """Return the values of a metric by epoch; None from where they are not finite, or the trial has ended."""
    found: list[float | None] = [row[metric] if math.isfinite(row[metric]) else None for row in history]
    return found + [None] * (epochs - len(found))


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write a table at once, so that it is always whole."""
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=19, statistics=False)
    write_atomically(path, buffer.getvalue())


def make_frame(space: Space, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows as a table, with a column for each parameter that varies."""
    names = list(dict.fromkeys(dimension.parameter.name for dimension in space.varied))
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in (*names, "parameter_count")}
    curves = {
        name: pl.Series([row[name] for row in rows], dtype=pl.List(pl.Float32)) for name in ("val_accuracy", "val_loss")
    }
    return pl.DataFrame({**columns, **curves}, infer_schema_length=None)


def make_curves(name: str, recipe: Recipe, configurations: int, until: float) -> None:
    """Train what a table lacks, as long as there is time."""
    space, path = Space(SPACES[name]), TABLES / f"{name}.parquet"
    rows: list[dict[str, Any]] = read_curves(name).to_dicts() if path.exists() else []
    data = load(recipe, TrialConfig(**draw(space, 0)))
    step = CHUNK if name == "mlp" else 10
    while len(rows) < configurations and time.monotonic() < until:
        started = time.process_time()
        seeds = range(len(rows), min(len(rows) + step, configurations))
        rows += train_rows(recipe, [draw(space, seed) for seed in seeds], data)
        write_table(path, make_frame(space, rows))
        spent = (time.process_time() - started) / len(seeds)
        print(f"{name}: {len(rows)} of {configurations} configurations, {spent:.2f} s each", flush=True)


def seconds_of_epoch(configs: Sequence[TrialConfig], data: Data) -> float:
    """Return the processor seconds of an epoch of models as one stack, with its validation."""
    learner = make_learner([Member(config, number) for number, config in enumerate(configs)], data)
    rates = [[config.learning_rate] * data.steps(config.batch_size) for config in configs]
    started = time.process_time()
    learner.begin_epoch(len(data.y_train), rates)
    for batch in data.batches(configs[0].batch_size, 1):
        learner.step(*batch)
    learner.end_epoch()
    learner.evaluate(data.x_val, data.y_val)
    return time.process_time() - started


def make_costs(name: str, recipe: Recipe, until: float) -> None:
    """Time random stacks of the table's configurations, together and one after the other, in turns."""
    space = Space(SPACES[name])
    values = [draw(space, seed) for seed in range(len(read_curves(name)))]
    configs = [TrialConfig(**each, epochs=recipe.epochs) for each in values]
    data, rng, rows = load(recipe, configs[0]), np.random.default_rng(1), list[dict[str, Any]]()
    for round_ in range(recipe.stacks or 20):
        for size in SIZES if recipe.stacks else (1,):
            if time.monotonic() > until:
                return
            batch_size = configs[int(rng.integers(len(configs)))].batch_size
            fitting = [row for row, config in enumerate(configs) if config.batch_size == batch_size]
            members = rng.choice(fitting, min(size, len(fitting)), replace=False).tolist()
            alone = [seconds_of_epoch([configs[member]], data) for member in members]
            together = seconds_of_epoch([configs[member] for member in members], data) if size > 1 else alone[0]
            rows.append({"members": members, "alone": alone, "together": together})
        write_table(TABLES / f"{name}_costs.parquet", pl.DataFrame(rows))
        print(f"{name}: costs, round {round_ + 1}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(RECIPES)}; by default all")
    parser.add_argument("--configurations", type=int, help="of each table; by default 2000 of mlp and 300 of cnn")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new afterwards")
    parser.add_argument("--costs", action="store_true", help="time stacks anew, even if they have been")
    arguments = parser.parse_args()
    if wrong := set(arguments.tables) - set(RECIPES):
        parser.error(f"{', '.join(sorted(wrong))}: must be of {', '.join(RECIPES)}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    TABLES.mkdir(exist_ok=True)
    until = time.monotonic() + 60 * arguments.minutes
    for name in arguments.tables or RECIPES:
        recipe = RECIPES[name]
        make_curves(name, recipe, arguments.configurations or recipe.configurations, until)
        if arguments.costs or not (TABLES / f"{name}_costs.parquet").exists():
            make_costs(name, recipe, until)


if __name__ == "__main__":
    main()
