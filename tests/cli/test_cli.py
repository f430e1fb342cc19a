"""The commands as a user types them, in processes of their own where signals, imports or several workers matter."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.cli import app
from hpo.study import Study, StudyStorage
from tests.data import small_npz
from tests.helpers import ROOT, hpo, run_hpo, start_hpo, train_here
from tests.workers import make_worker

STUDY = """
dataset = "{data}"
trials = {trials}
sampler = "{sampler}"
[parameters]
widths = "8"
epochs = {epochs}
optimizer = ["adam", "sgd"]
learning_rate = {{ low = 0.001, high = 0.1, log = true }}
"""


def write_study(folder: Path, name: str = "small", sampler: str = "random", trials: int = 40, epochs: int = 1) -> str:
    small_npz(folder / "small.npz")
    path = folder / f"{name}.toml"
    path.write_text(STUDY.format(data=folder / "small.npz", sampler=sampler, trials=trials, epochs=epochs))
    return str(path)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def trials_of(folder: Path, name: str = "small") -> list[tuple[int, TrialState, dict[str, object]]]:
    return [(t.number, t.state, t.params) for t in Study(StudyStorage(url(folder)), name).trials()]


@pytest.mark.parametrize(("sampler", "database"), [("random", "mariadb_url"), ("tpe", "postgres_url")])
def test_four_workers_share_a_server(
    tmp_path: Path, sampler: str, database: str, request: pytest.FixtureRequest
) -> None:
    storage: str = request.getfixturevalue(database)
    study, name = write_study(tmp_path, sampler=sampler), f"shared by {sampler}"
    keys = ("--name", name, "--storage", storage)
    done = hpo("launch", study, "--workers", "4", *keys, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trials = Study(StudyStorage(storage), name).trials()
    assert [trial.number for trial in trials] == list(range(40))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_four_workers_make_exactly_the_budget(tmp_path: Path, sampler: str) -> None:
    study = write_study(tmp_path, sampler=sampler)
    done = hpo("launch", study, "--workers", "4", "--storage", url(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trials = trials_of(tmp_path)
    assert [number for number, _, _ in trials] == list(range(40))
    assert {state for _, state, _ in trials} == {TrialState.COMPLETE}
    assert "study small is complete: 40 trials" in done.stderr
    again = run_hpo("launch", study, "--workers", "4", "--storage", url(tmp_path), cwd=tmp_path)
    assert "study small is complete: 40 trials" in again.stderr
    assert again.stdout == done.stdout
    more = hpo("launch", study, "--workers", "2", "--trials", "44", "--storage", url(tmp_path), cwd=tmp_path)
    assert more.returncode == 0
    assert [number for number, _, _ in trials_of(tmp_path)] == list(range(44))


def test_one_worker_and_four_make_the_same_fixed_study(tmp_path: Path) -> None:
    found = []
    for workers in ("1", "4"):
        folder = tmp_path / workers
        folder.mkdir()
        study = write_study(folder, trials=8)
        done = hpo("launch", study, "--workers", workers, "--storage", url(folder), cwd=folder)
        assert done.returncode == 0, done.stderr
        found.append(trials_of(folder))
    assert found[0] == found[1]
    assert len(found[0]) == 8


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid"])
def test_one_thread_and_four_make_the_same_fixed_study(tmp_path: Path, sampler: str) -> None:
    """Workers as threads, each with a storage of its own: how trials are fixed is no matter of processes."""
    found = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        study = write_study(folder, sampler=sampler, trials=8)
        grid = ["--set", "learning_rate=[0.001, 0.01, 0.02, 0.1]"] if sampler == "grid" else []
        done = run_hpo("launch", study, "--workers", "0", "--storage", url(folder), *grid, cwd=folder)
        assert done.returncode == 0, done.stderr
        planned = trials_of(folder)
        with ThreadPoolExecutor(workers) as pool:
            for _ in range(workers):
                pool.submit(make_worker(Study(StudyStorage(url(folder)), "small")).run)
        found.append(trials_of(folder))
        assert [state for _, state, _ in found[-1]] == [TrialState.COMPLETE] * len(planned)
    assert found[0] == found[1]
    assert len(found[0]) == 8


def test_a_worker_attaches_from_any_folder_with_url_and_name(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=6)
    created = run_hpo("launch", study, "--workers", "0", "--storage", url(tmp_path), cwd=tmp_path)
    assert created.returncode == 0
    assert {state for _, state, _ in trials_of(tmp_path)} == {TrialState.WAITING}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = hpo("worker", "small", "--storage", url(tmp_path), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert {state for _, state, _ in trials_of(tmp_path)} == {TrialState.COMPLETE}
    assert list(elsewhere.iterdir()) == []


def wait_until_running(folder: Path, name: str = "small") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if any(state == TrialState.RUNNING for _, state, _ in trials_of(folder, name)):
                return
        except Exception:
            pass
        time.sleep(0.1)
    raise TimeoutError(name)


@pytest.mark.parametrize(
    ("number", "code", "command"),
    [(signal.SIGINT, 130, "launch"), (signal.SIGTERM, 143, "worker"), (signal.SIGHUP, 129, "worker")],
)
def test_a_signal_stops_in_order_and_gives_the_trials_back(
    tmp_path: Path, number: signal.Signals, code: int, command: str
) -> None:
    study = write_study(tmp_path, trials=3, epochs=100_000)
    storage = ("--storage", url(tmp_path))
    if command == "worker":
        run_hpo("launch", study, "--workers", "0", *storage, cwd=tmp_path)
        process = start_hpo("worker", "small", *storage, cwd=tmp_path)
    else:
        process = start_hpo("launch", study, "--workers", "2", *storage, cwd=tmp_path)
    wait_until_running(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert {state for _, state, _ in trials_of(tmp_path)} == {TrialState.WAITING}


def test_an_interrupted_training_says_so(tmp_path: Path) -> None:
    data = str(small_npz(tmp_path / "small.npz"))
    process = start_hpo("train", "--dataset", data, "--set", "epochs=100000", "--out", "run", cwd=tmp_path)
    metrics, deadline = tmp_path / "run" / "metrics.csv", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 1) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "of 100000 epochs" in errors.splitlines()[-1]
    assert "best epoch" in output
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_json_goes_to_standard_output_alone(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=3)
    storage = ("--storage", url(tmp_path))
    train_here(study, cwd=tmp_path, storage=url(tmp_path))
    for command in (
        ["list"],
        ["show", "small"],
        ["trials", "small"],
        ["export", "small"],
        ["parameters"],
        ["datasets"],
    ):
        arguments = storage if command[0] not in ("parameters", "datasets") else ()
        done = hpo(*command, "--format", "json", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout), command
        table = run_hpo(*command, *arguments, cwd=tmp_path)
        assert table.returncode == 0, table.stderr
        assert table.stdout.strip()
    rows = list(
        csv.DictReader(io.StringIO(run_hpo("trials", "small", "--format", "csv", *storage, cwd=tmp_path).stdout))
    )
    assert [row["number"] for row in rows] == ["0", "1", "2"]


def test_what_is_exported_trains_again_to_the_same_value(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=3, epochs=2)
    storage = ("--storage", url(tmp_path))
    train_here(study, cwd=tmp_path, storage=url(tmp_path))
    best = Study(StudyStorage(url(tmp_path)), "small").best()
    assert best is not None
    for form in ("json", "yaml"):
        (tmp_path / f"best.{form}").write_text(
            run_hpo("export", "small", "--format", form, *storage, cwd=tmp_path).stdout
        )
        done = run_hpo("train", "--config", f"best.{form}", "--set", "epochs=1", "--out", form, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (tmp_path / "best.toml").write_text(run_hpo("export", "small", *storage, cwd=tmp_path).stdout)
    done = run_hpo("train", "--config", "best.toml", "--out", "run", "--threads", "1", "--test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
    assert list(rows[0]) == names
    assert max(float(row["val_accuracy"]) for row in rows) == best.value
    assert "test_accuracy 0." in done.stdout or "test_accuracy 1." in done.stdout
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["parameters"] == tomllib.loads((tmp_path / "best.toml").read_text())["parameters"]


OWN = """
import hpo
import torch
from pydantic import BaseModel, Field


class Extras(BaseModel):
    blocks: int = Field(1, ge=1, le=4)


@hpo.model("own", parameters=Extras, uses=["activation"])
def own(config, shape, classes):
    layers = [torch.nn.Linear(4, 4) for _ in range(config.blocks)]
    return torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Linear(4, classes))


@hpo.dataset("plants")
def plants():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 4, generator=generator)
    y = x.argmax(1)
    return hpo.Dataset(train=(x, y), test=(x[:50], y[:50]))
"""


def test_an_own_model_and_data_set_through_import(tmp_path: Path) -> None:
    (tmp_path / "own_things.py").write_text(OWN)
    (tmp_path / "own.toml").write_text(
        'dataset = "plants"\ntrials = 4\nsampler = "random"\n[parameters]\nmodel = "own"\nblocks = [1, 2]\nepochs = 1\n'
    )
    storage = ("--storage", url(tmp_path))
    done = hpo("launch", "./own.toml", "--workers", "2", "--import", "own_things", *storage, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {params["blocks"] for _, _, params in trials_of_own(tmp_path)} <= {1, 2}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = hpo("worker", "own", *storage, cwd=elsewhere)
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "hpo: model 'own' is not registered here; it comes from module 'own_things': add --import own_things"
    )
    attached = hpo("worker", "own", *storage, cwd=tmp_path, HPO_IMPORT="own_things")
    assert attached.returncode == 0, attached.stderr
    trained = hpo(
        "train",
        "--import",
        "own_things",
        "--set",
        "model=own",
        "--set",
        "blocks=2",
        "--dataset",
        "plants",
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr


def trials_of_own(folder: Path) -> list[tuple[int, TrialState, dict[str, object]]]:
    from hpo.config import registry

    sys.path.insert(0, str(folder))
    try:
        registry.import_modules(["own_things"])
        return trials_of(folder, "own")
    finally:
        sys.path.remove(str(folder))
        for kind in (registry.models, registry.datasets):
            kind._entries.pop("own", None)  # type: ignore[attr-defined]
            kind._entries.pop("plants", None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["launch", "nowhere"], "unknown study template 'nowhere'"),
        (["launch", "quickstart", "--set", "lr=1"], "`learning_rate`"),
        (["launch", "quickstart", "--set", "epochs"], "write name=value"),
        (["launch", "quickstart", "--trials", "0"], "trials = 0"),
        (["launch", "quickstart", "--storage", "nonsense"], "not a URL"),
        (["launch", "quickstart", "--import", "no_such_module"], "no_such_module"),
        (["launch", "quickstart", "--workers", "many"], "--workers"),
        (["launch", "./missing.toml"], "missing.toml"),
        (["show", "nothing"], "does not exist"),
        (["train", "--set", "optimizer=adan"], "did you mean 'adam'"),
        (["train", "--dataset", "missing.npz"], "missing.npz"),
        (["train", "--config", "missing.toml"], "missing.toml"),
        (["train", "--device", "cuda:7"], "cuda:7"),
        (["train", "--device", "gpu"], "'gpu' is none of auto"),
        (["launch", "quickstart", "--device", "gpu"], "'gpu' is none of auto"),
        (["launch", "quickstart", "--name", "../x"], "name = '../x'"),
        (["templates", "mnist"], "unknown template 'mnist'"),
        (["parameters", "--model", "resnet"], "unknown model 'resnet'"),
        (["lanch"], "launch"),
        (["list", "--fromat", "json"], "--format"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run_hpo(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = hpo("launch", "nowhere", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_dry_run_shows_and_creates_nothing(tmp_path: Path) -> None:
    done = run_hpo("launch", "mnist_mlp", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    for word in (
        "learning_rate = 0.0001 to 0.01 on a log scale",
        "when optimizer=rmsprop|adam|adamw",
        "grid: none",
        "for example",
    ):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_was_launched_with_changes_goes_on_by_its_name(tmp_path: Path) -> None:
    storage = ("--storage", url(tmp_path))
    first = run_hpo(
        "launch", "quickstart", "--workers", "0", "--trials", "3", "--set", "epochs=1", *storage, cwd=tmp_path
    )
    assert first.returncode == 0, first.stderr
    again = run_hpo("launch", "quickstart", "--workers", "0", "--trials", "5", *storage, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "5 of 5 trials are left" in again.stderr
    study = Study(StudyStorage(storage[1]), "quickstart")
    assert study.definition.baseline_config(study.space).epochs == 1
    other = run_hpo("launch", "quickstart", "--workers", "0", "--set", "epochs=7", *storage, cwd=tmp_path)
    assert other.returncode == 2
    assert "exists with another definition" in other.stderr


def test_a_stored_study_is_extended_only_as_its_definition_allows(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=3)
    storage = ("--storage", url(tmp_path))
    run_hpo("launch", study, "--workers", "0", *storage, cwd=tmp_path)
    for wrong in (["--trials", "0"], ["--target", "nan"], ["--seed", "3"], ["--set", "epochs=3"]):
        done = run_hpo("launch", "small", "--workers", "0", *wrong, *storage, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    run_hpo("launch", "small", "--trials", "50", "--dry-run", *storage, cwd=tmp_path)
    assert len(trials_of(tmp_path)) == 3
    run_hpo("launch", "small", "--trials", "5", "--workers", "0", *storage, cwd=tmp_path)
    assert len(trials_of(tmp_path)) == 5


def test_a_storage_that_does_not_answer_is_said(tmp_path: Path) -> None:
    done = hpo("launch", "small", "--storage", "postgresql://me:secret@127.0.0.1:1/x", cwd=tmp_path)
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr


def test_two_signals_leave_no_worker_behind(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=3, epochs=100_000)
    process = start_hpo("launch", study, "--workers", "2", "--storage", url(tmp_path), cwd=tmp_path)
    wait_until_running(tmp_path)
    workers = children_of(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/stat").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}/stat").exists()]
    assert {state for _, state, _ in trials_of(tmp_path)} == {TrialState.WAITING}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_file_of_the_users_called_like_a_module_is_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("hpo", "random", "optuna"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    study = write_study(tmp_path, trials=2)
    command = [Path(sys.executable).parent / "hpo", "launch", study, "--workers", "1", "--storage", url(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_deleting_needs_a_yes(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=3)
    storage = ("--storage", url(tmp_path))
    run_hpo("launch", study, "--workers", "0", *storage, cwd=tmp_path)
    assert run_hpo("delete", "small", *storage, cwd=tmp_path).returncode == 2
    assert run_hpo("delete", "small", "--yes", *storage, cwd=tmp_path).returncode == 0
    assert json.loads(run_hpo("list", "--format", "json", *storage, cwd=tmp_path).stdout) == []


def test_every_command_and_option_has_help_and_stands_in_the_documentation() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in app.commands.items():
        assert command.help, name
        assert f"## hpo {name}\n" in page, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.opts}"  # type: ignore[attr-defined]


def test_templates_are_printed_to_copy(tmp_path: Path) -> None:
    printed = run_hpo("templates", "mnist_mlp").stdout
    (tmp_path / "mine.toml").write_text(printed)
    assert run_hpo("launch", "./mine.toml", "--dry-run", cwd=tmp_path).returncode == 0


def test_show_says_what_limits(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=6)
    storage = ("--storage", url(tmp_path))
    train_here(study, "--cohort", "3", cwd=tmp_path, storage=url(tmp_path))
    shown = json.loads(run_hpo("show", "small", *storage, "--format", "json", cwd=tmp_path).stdout)["work"]
    assert (shown["workers"], shown["told"], shown["cohort_size"]) == (1, 6, 3)
    text = run_hpo("show", "small", *storage, cwd=tmp_path).stdout
    assert re.search(r"work: [\d,]+ trials per hour, cohorts of 3 on average; of the workers' time \S+% training", text)


@pytest.mark.parametrize("command", ["launch", "worker"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5", ""])
def test_a_cohort_that_cannot_be_is_one_clear_line(tmp_path: Path, command: str, value: str) -> None:
    done = run_hpo(command, "quickstart", "--cohort", value, cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr == f"hpo: Invalid value for '--cohort': {value!r} is neither auto nor a number of trials from 1\n"
    )


def test_a_data_file_that_is_named_on_the_command_line_is_of_the_folder_one_is_in(tmp_path: Path) -> None:
    small_npz(tmp_path / "mine.npz")
    done = run_hpo("launch", "quickstart", "--name", "mine", "--dataset", "mine.npz", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"on {tmp_path / 'mine.npz'}" in done.stdout
