"""Options that several commands have, and the group that all commands belong to."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import override

from hpo.errors import RequestError
from hpo.execution.worker_options import Flag, WorkerOptions, explain, flag_of

__all__ = [
    "OutputClosedError",
    "app",
    "backend_options",
    "dataset_options",
    "device_option",
    "format_option",
    "import_option",
    "join_dataset",
    "launch_options",
    "resampling_options",
    "set_option",
    "storage_option",
    "worker_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

storage_option = click.option(
    "--storage",
    envvar="OPTUNA_STORAGE",
    metavar="URL",
    help="Database URL; by default the SQLite file in HPO_HOME (./hpo_runs).",
)
set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a parameter: a value, or a domain in TOML; may be repeated.",
)


def resampling_options(command: Command) -> Command:
    """Add the options of what a trial is trained on and how often; the command takes each under its key's name."""
    options = [
        click.option(
            "--folds",
            metavar="N",
            help="Folds of each trial, whose value is their mean: a number, or a table, as '{count=5, by=\"group\"}'.",
        ),
        click.option("--repeats", type=int, help="Divisions into folds of each trial, each another one."),
        click.option("--holdout", type=int, metavar="N", help="Random validation splits of each trial, not folds."),
        click.option("--seeds", type=int, help="Training seeds of each trial, on each of its splits."),
        click.option(
            "--intensify",
            is_flag=True,
            default=None,
            help="Begin each trial on few of its folds, splits or seeds, and go on while it may be the best.",
        ),
        click.option("--resplit", metavar="never|per_trial", help="Whether each trial has a split of its own."),
    ]
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def _field_option(name: str, *, of_worker: bool = False) -> Decorator[Any]:
    """Return the click option of a field of `WorkerOptions`, under its name in `hpo launch` or in `hpo worker`."""
    field = WorkerOptions.model_fields[name]
    flag = flag_of(field)
    assert flag is not None
    option_type, multiple = _option_type(field, flag)
    default = flag.none if flag.none is not None else field.default
    return click.option(
        str(flag.worker if of_worker and flag.worker else flag.launch),
        name,
        type=option_type,
        multiple=multiple,
        default=default,
        show_default=default not in (None, ()),
        metavar=flag.metavar,
        envvar=flag.envvar,
        callback=_check_field,
        help=f"{str(field.description).rstrip('.')}; may be repeated." if multiple else field.description,
    )


def _option_type(field: FieldInfo, flag: Flag) -> tuple[Any, bool]:
    """Return the click type of a field, and true if the option may be repeated."""
    annotation = field.annotation
    if get_origin(annotation) in (types.UnionType, Union):
        annotation = next(each for each in get_args(annotation) if each is not types.NoneType)
    multiple = get_origin(annotation) is tuple
    if multiple:
        annotation = get_args(annotation)[0]
    if flag.none is not None:
        return str, multiple  # a number or a word
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation)), multiple
    low: Any = next((each.ge for each in field.metadata if hasattr(each, "ge")), None)
    simple: dict[Any, Any] = {
        int: click.IntRange(min=low),
        float: click.FloatRange(min=low),
        Path: click.Path(path_type=Path, file_okay=False),
        str: str,
    }
    return simple[annotation], multiple


def _check_field(_context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Check a value as a Python call would, for click's types do not know every bound."""
    name = str(option.name)
    flag = flag_of(WorkerOptions.model_fields[name])
    word = None if flag is None else flag.none
    if word is not None and value == word:
        return None
    try:
        return getattr(WorkerOptions(**{name: value}), name)
    except ValidationError as error:
        why = explain(error) if word is None else f"is neither {word} nor a number of trials from 1"
        raise click.BadParameter(f"{value!r} {why}") from error


import_option = _field_option("imports")
device_option = _field_option("device")


def worker_options(command: Command) -> Command:
    """Add the options of `hpo worker`; the command takes them together, as `options`."""
    return _add_options(command, of_worker=True)


def launch_options(command: Command) -> Command:
    """Add the options of the workers that a command starts; the command takes them together, as `options`."""
    return _add_options(command, of_worker=False)


def _add_options(command: Command, *, of_worker: bool) -> Command:
    flags = {name: flag_of(field) for name, field in WorkerOptions.model_fields.items()}
    names = [name for name, flag in flags.items() if flag is not None and (flag.worker if of_worker else flag.launch)]

    @functools.wraps(command)
    def call(*arguments: Any, **keywords: Any) -> Any:
        values = {name: keywords.pop(name) for name in names}
        debug = bool(click.get_current_context().obj)
        return command(*arguments, options=WorkerOptions(**values, debug=debug), **keywords)

    decorated: Any = call
    for name in reversed(names):
        decorated = _field_option(name, of_worker=of_worker)(decorated)
    return decorated  # type: ignore[no-any-return]


def backend_options(command: Command) -> Command:
    """Add the options of a backend, of which `hpo.cli.lookup.make_backend` makes one."""
    options = (
        click.option("--backend", type=click.Choice(["local", "ray", "slurm"]), default="local", show_default=True,
                     help="Where the workers run: processes here, tasks of a Ray cluster, or jobs of a Slurm array."),
        click.option("--address", metavar="HOST:PORT",
                     help="Address of the Ray cluster; by default the one that this machine belongs to."),
        click.option("--slurm", multiple=True, metavar="KEY=VALUE",
                     help="Option of the Slurm job, such as partition=gpu, time=04:00:00, setup='module load cuda'; "
                     "may be repeated. cluster=local runs the jobs here, to try them."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def dataset_options(command: Command) -> Command:
    """Add the options that name a data set; the command takes them together, as `dataset`: a name, a table, or None."""

    @functools.wraps(command)
    def call(*arguments: Any, **keywords: Any) -> Any:
        options = {key: keywords.pop(key) for key in ("label", "drop", "task")}
        return command(*arguments, dataset=join_dataset(keywords.pop("dataset"), options), **keywords)

    decorated: Any = call
    options = (
        click.option("--dataset", metavar="DATASET",
                     help="Data set instead of the file's: a name, sklearn:NAME, a file (.csv, .parquet, .npz, …), a"
                     " folder of images; or a table with more options, as"
                     " '{path=\"houses.csv\", label=\"price\", test=0.1}'."),
        click.option("--label", metavar="COLUMN", help="Column of that file to predict; several with commas."),
        click.option("--drop", metavar="COLUMN", help="Columns of that file that are no features, with commas."),
        click.option("--task", metavar="TASK",
                     help="Instead of the one that its labels suggest: classification, multilabel or regression."),
    )  # fmt: skip
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def join_dataset(dataset: str | None, given: Mapping[str, str | None]) -> object:
    """Return a data set with its options, as a study file has it.

    Raises:
        RequestError: there are options of no data set.
    """
    options = {key: value for key, value in given.items() if value}
    if not options:
        return dataset
    if dataset is None:
        raise RequestError(f"--{next(iter(options))}: of which data? name them with --dataset")
    from hpo.datasets.source import parse_source, spell_source

    lists = {key: [part.strip() for part in options[key].split(",")] for key in ("label", "drop") if key in options}
    name, source = parse_source(dataset)
    table = spell_source(name, source)
    merged: dict[str, object] = {"path": name} if isinstance(table, str) else dict(table)
    return merged | options | lists


def format_option(*formats: str) -> Callable[[Command], Command]:
    """Return the option `--format`; the first format is the default."""
    return click.option(
        "--format", "style", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def _print_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    """Print the versions that a bug report needs, and exit. None of the packages is imported."""
    if not value or context.resilient_parsing:
        return
    import platform
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "optuna"))
    click.echo(f"torch-hpo {version('torch-hpo')} (Python {platform.python_version()}, {packages})")
    context.exit()


class OutputClosedError(Exception):
    """Nobody reads the output any more, as after `hpo trials NAME | head`."""


class Commands(click.Group):
    """Group of all commands."""

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a closed output is told by an exception, where click would end the process."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise OutputClosedError from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of torch-hpo, Python, torch and Optuna, and exit.",
)
def app(debug: bool) -> None:
    """Hyperparameter optimization for PyTorch: launch studies, attach workers, read reports."""
