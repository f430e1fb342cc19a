"""Options of workers: the same, with the same bounds, in commands, in Python calls and for the workers themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpo
from hpo.cli import app
from hpo.errors import RequestError
from hpo.execution.worker_options import WorkerOptions, flag_of

FLAGS = {name: flag for name, field in WorkerOptions.model_fields.items() if (flag := flag_of(field)) is not None}
OPTIONS = st.builds(
    WorkerOptions,
    cpus=st.none() | st.integers(1, 512),
    tensorboard=st.none() | st.from_regex(r"[^\x00-\x1f/ ]{1,20}", fullmatch=True).map(Path),
    trackers=st.lists(st.sampled_from(["mlflow", "wandb"]), max_size=2),
    cohort=st.none() | st.integers(1, 10_000),
    checkpoint_every=st.floats(0, 1e9),
    lease=st.floats(1, 1e9),
    device=st.sampled_from(["auto", "cpu", "cuda"]) | st.integers(0, 99).map("cuda:{}".format),
    imports=st.lists(st.from_regex(r"[a-z_]\w{0,9}(\.[a-z_]\w{0,9})?", fullmatch=True), max_size=3),
    debug=st.booleans(),
)
WRONG = [
    ("workers", -1, "must be at least 0"),
    ("cpus", 0, "must be at least 1"),
    ("gpus", -0.5, "must be at least 0"),
    ("cohort", 0, "must be at least 1"),
    ("checkpoint_every", -1, "must be at least 0"),
    ("lease", 0.5, "must be at least 1"),
    ("lease", float("nan"), "must be a finite number"),
    ("workers", 10**9, "must be at most 10000"),
    ("cpus", 10**9, "must be at most 4096"),
    ("gpus", 1e300, "must be at most 1024"),
    ("cohort", 10**9, "must be at most 10000"),
    ("checkpoint_every", 1e300, "must be at most 1000000000"),
    ("lease", 1e300, "must be at most 1000000000"),
    ("trackers", ["tensorboard"], "must be 'mlflow' or 'wandb'"),
    ("device", "gpu", "is none of auto, cpu, cuda, cuda:N"),
]


def flags_of(command: str) -> dict[str, set[str]]:
    """The names of a command's options, by the names of its parameters."""
    options = [each for each in app.commands[command].params if isinstance(each, click.Option)]
    return {str(option.name): {*option.opts} for option in options if option.name in WorkerOptions.model_fields}


@pytest.mark.parametrize("command", ["launch", "evaluate"])
def test_a_command_that_starts_workers_has_every_option(command: str) -> None:
    assert flags_of(command) == {name: {flag.launch} for name, flag in FLAGS.items() if flag.launch}


def test_a_worker_has_every_option_that_is_not_its_backends() -> None:
    assert flags_of("worker") == {name: {flag.worker} for name, flag in FLAGS.items() if flag.worker}
    assert {name for name, flag in FLAGS.items() if not flag.worker} == {"workers", "gpus"}


@pytest.mark.parametrize("function", [hpo.launch, hpo.evaluate, hpo.optimize])
def test_a_python_call_has_every_option(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    names = [name for name in WorkerOptions.model_fields if name != "function"]  # of a worker elsewhere
    shown = {name: parameters[name].default for name in names if name != "workers"}
    assert shown == {name: WorkerOptions.model_fields[name].default for name in names if name != "workers"}
    assert parameters["workers"].default == 1  # in this process
    assert "function" not in parameters
    assert all(f"    {name}: " in str(function.__doc__) for name in names)


def test_commands_have_the_defaults_of_python() -> None:
    for command in ("launch", "evaluate", "worker"):
        context = app.commands[command].make_context(command, ["name"])
        values = {name: value for name, value in context.params.items() if name in WorkerOptions.model_fields}
        assert WorkerOptions(**values) == WorkerOptions()


@settings(deadline=None)
@given(OPTIONS)
def test_a_worker_reads_the_options_that_it_was_started_with(options: WorkerOptions) -> None:
    command, *arguments = options.arguments("study")
    assert command == "worker"
    debug = "--debug" in arguments  # which `hpo.cli.main` takes wherever it stands
    context = app.commands[command].make_context(command, [each for each in arguments if each != "--debug"])
    assert context.params["name"] == "study"
    values = {name: value for name, value in context.params.items() if name in WorkerOptions.model_fields}
    assert WorkerOptions(**values, debug=debug) == options


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
@pytest.mark.parametrize("function", ["launch", "evaluate"])
def test_a_python_call_checks_the_bounds(function: str, name: str, value: object, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        getattr(hpo, function)("quickstart", **{name: value})
    assert str(caught.value) == f"{name} = {value!r}: {message}"


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
@pytest.mark.parametrize("command", ["launch", "evaluate", "worker"])
def test_a_command_checks_the_bounds(command: str, name: str, value: Any, message: str) -> None:
    flag = FLAGS[name].launch if command != "worker" else FLAGS[name].worker
    if flag is None:
        return
    text = str(value[0] if isinstance(value, list) else value)
    with pytest.raises(click.BadParameter) as caught:
        app.commands[command].make_context(command, ["name", flag, text])
    assert flag in caught.value.format_message()


def test_an_unknown_option_is_named_with_the_closest_one() -> None:
    with pytest.raises(RequestError, match="unknown option 'leases'; did you mean 'lease'"):
        hpo.evaluate("quickstart", leases=3)


def test_a_gpu_is_asked_of_a_backend_alone() -> None:
    with pytest.raises(RequestError, match="--gpus: workers on this machine have one GPU each"):
        hpo.launch("quickstart", gpus=1)
