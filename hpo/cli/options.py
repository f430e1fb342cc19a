"""Options that several commands have, and the group that all commands belong to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "app",
    "checkpoint_option",
    "cohort_option",
    "device_option",
    "engine_options",
    "format_option",
    "import_option",
    "lease_option",
    "set_option",
    "storage_option",
    "tensorboard_option",
    "tracker_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

storage_option = click.option(
    "--storage",
    envvar="OPTUNA_STORAGE",
    metavar="URL",
    help="Database URL; by default the SQLite file in HPO_HOME (./hpo_runs).",
)
import_option = click.option(
    "--import",
    "imports",
    envvar="HPO_IMPORT",
    multiple=True,
    metavar="MODULE",
    help="A module that registers your models, data sets or metrics; may be repeated.",
)


def _device(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Refuse what can be no device before a study is made for it; whether it is there, its worker finds out."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise click.BadParameter(f"{name!r} is none of auto, cpu, cuda, cuda:N")
    return name


device_option = click.option(
    "--device", default="auto", show_default=True, callback=_device, help="auto, cpu, cuda or cuda:N."
)
set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a parameter: a value, or a domain in TOML; may be repeated.",
)


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


checkpoint_option = click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    callback=_finite,
    help="Seconds between checkpoints of a trial; 0 writes one after each epoch.",
)
lease_option = click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    callback=_finite,
    help="Seconds for which a trial stays a worker's without a sign of life; then another takes it over.",
)


def _cohort(_context: click.Context, _option: click.Parameter, value: str) -> int | None:
    if value != "auto" and not (value.isascii() and value.isdigit() and int(value) >= 1):
        raise click.BadParameter(f"{value!r} is neither auto nor a number of trials from 1")
    return None if value == "auto" else int(value)


cohort_option = click.option(
    "--cohort",
    metavar="auto|K",
    default="auto",
    show_default=True,
    callback=_cohort,
    help="How many trials a worker trains at the same time, at most; 1 trains one by one. auto: as many as its device "
    "trains well, of an adaptive sampler's up to 8.",
)


tensorboard_option = click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    metavar="DIR",
    help="Write every epoch's metrics as TensorBoard events, to DIR/STUDY/trial_N; all workers should reach DIR.",
)


tracker_option = click.option(
    "--tracker",
    "trackers",
    type=click.Choice(["mlflow", "wandb"]),
    multiple=True,
    help="Tell MLflow or Weights & Biases of every trial, as their own environment variables say; may be repeated.",
)


def engine_options(command: Command) -> Command:
    """Where workers run, and what each has; `hpo.cli.lookup.make_backend` makes a backend of them."""
    options = (
        click.option("--backend", type=click.Choice(["local", "ray", "slurm"]), default="local", show_default=True,
                     help="Where the workers run: processes here, tasks of a Ray cluster, or jobs of a Slurm array."),
        click.option("--address", metavar="HOST:PORT", help="The Ray cluster; by default the one this machine is in."),
        click.option("--slurm", multiple=True, metavar="KEY=VALUE",
                     help="What to ask Slurm for, as partition=gpu, time=04:00:00, setup='module load cuda'; may be "
                     "repeated. cluster=local tries it here."),
        click.option("--cpus", type=click.IntRange(min=1), help="Cores of each worker, and threads."),
        click.option("--gpus", type=click.FloatRange(min=0), help="GPUs of each on Ray or Slurm; on Ray also a share."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def format_option(*formats: str) -> Callable[[Command], Command]:
    """`--format`, the first one being the default."""
    return click.option(
        "--format", "style", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print."
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere.")
def app(debug: bool) -> None:
    """Hyperparameter optimization for PyTorch: launch studies, attach workers, read reports."""
