"""Studies of models, loops, data sets and metrics of the user's own, read without their code."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hpo.config import registry
from hpo.config.declaration import NONE_DECLARED
from hpo.errors import RegistryError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.launch import plan_launch
from hpo.study import Study, StudyStorage
from tests.helpers import run_hpo
from tests.study.helpers import new_storage, sqlite_url
from tests.workers import make_worker

OWN = """
import hpo
import torch
from pydantic import BaseModel, Field


class Blocks(BaseModel):
    blocks: int = Field(1, ge=1, le=4, description="blocks of it")


@hpo.model("own", parameters=Blocks, uses=["width"])
def own(config, shape, classes):
    layers = [torch.nn.Linear(4, 4) for _ in range(config.blocks)]
    return torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Linear(4, classes))


@hpo.dataset("plants")
def plants():
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    return hpo.Dataset(train=(x, x.argmax(1)), test=(x[:20], x[:20].argmax(1)))


@hpo.metric("error", direction="minimize")
def error(outputs, targets):
    return (outputs.argmax(1) != targets).float().mean().item()


@hpo.training_loop("loop", parameters=Blocks, uses=["epochs"], reports={"rmse": "minimize"})
def loop(trial):
    for epoch in trial.epochs():
        trial.report(rmse=1 / epoch)
"""
FILE = """
dataset = "plants"
objective = "error"
trials = 3
sampler = "random"
constraints = ["error <= 2"]

[parameters]
model = "own"
blocks = [1, 2, 3]
width = [4, 8]
epochs = 1
validation = 0.3

[baseline]
blocks = 4
"""
READING = {
    "show": ("show", "own"),
    "show an evaluation": ("show", "own-evaluation"),
    "trials": ("trials", "own"),
    "export": ("export", "own"),
    "export --trials": ("export", "own", "--trials", "records"),
    "report": ("report", "own"),
    "report of an evaluation": ("report", "own-evaluation"),
    "report --suggest": ("report", "own", "--suggest", "next.toml"),
    "evaluate --dry-run": ("evaluate", "own", "--dry-run", "--seeds", "3"),
    "list": ("list",),
    "copy": ("copy", "own", "--to", "sqlite:///other.db"),
}


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def load(folder: Path, source: str = OWN) -> None:
    """Register what a module of the user's registers, under the module's name."""
    (folder / "own_code.py").write_text(source)
    exec(compile(source, str(folder / "own_code.py"), "exec"), {"__name__": "own_code"})


def forget() -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        own = [name for name, entry in kind._entries.items() if entry.module == "own_code"]  # type: ignore[attr-defined]
        for name in own:
            del kind._entries[name]  # type: ignore[attr-defined]


def create(folder: Path, text: str = FILE, name: str = "own", **keys: Any) -> Study:
    """Create a study of the module's things, of which nothing is trained yet."""
    load(folder)
    (folder / f"{name}.toml").write_text(text)
    new_storage(folder)
    return plan_launch(str(folder / f"{name}.toml"), sqlite_url(folder), **keys).create(sqlite_url(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, `own`, its evaluation, and no code."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        for kind in (registry.models, registry.datasets, registry.metrics):
            patch.setattr(kind, "_entries", dict(kind._entries))
        study = create(folder)
        make_worker(study).run()
        for evaluation in plan_evaluations(study, 1, 1):
            make_worker(evaluation).run()
        (folder / "own_code.py").unlink()
    return folder


def run(folder: Path, *arguments: str) -> Any:
    return run_hpo(*arguments, cwd=folder, HPO_HOME=str(folder / "home"), OPTUNA_STORAGE=sqlite_url(folder))


@pytest.mark.parametrize("name", READING)
def test_a_study_is_read_without_the_code(trained: Path, name: str) -> None:
    done = run(trained, *READING[name])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if name == "show":
        assert "3 trials on plants, minimize error" in done.stdout
        assert "blocks = one of 1, 2, 3   (where model is own)" in done.stdout
    if name == "report":
        report = (trained / "home" / "reports" / "own" / "report.md").read_text()
        assert all(word in report for word in ("blocks", "minimize", "evaluation", "--import own_code"))
        assert "hpo report own --import" not in report
    if name == "evaluate --dry-run":
        header, *rows = done.stdout.splitlines()
        assert header.split() == ["configuration", "runs", "exist", "blocks", "width"]
        assert [row.split()[-4:-2] for row in rows] == [["2", "1"], ["2", "1"], ["3", "0"]]
        assert done.stderr.strip() == (
            "would train 7 runs on plants and read its test set once for each; nothing is created"
        )


def test_a_fork_is_made_read_and_deleted_without_the_code(trained: Path) -> None:
    done = run(trained, "fork", "own", "forked", "--set", "blocks=[2, 3, 4]", "--trials", "6")
    assert done.returncode == 0, done.stderr
    assert "study forked in" in done.stderr
    assert done.stderr.strip().endswith("--import own_code")
    for command in (("show", "forked"), ("delete", "forked", "--yes")):
        done = run(trained, *command)
        assert done.returncode == 0, done.stderr


def test_configurations_are_those_that_were_trained(trained: Path) -> None:
    study = Study(StudyStorage(sqlite_url(trained)), "own")
    for trial in study.trials():
        effective = study.config_of(trial).effective()
        assert effective["model"] == "own"
        assert effective["blocks"] == (4 if trial.number == 0 else trial.params["blocks"])
        assert "depth" not in effective
        assert "dropout" not in effective


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "own"),
        ("launch", "own", "--trials", "9"),
        ("evaluate", "own"),
        ("reproduce", "own", "1"),
        ("export", "own", "--weights", "model"),
    ],
)
def test_training_names_the_module(trained: Path, arguments: tuple[str, ...]) -> None:
    done = run(trained, *arguments)
    assert done.returncode == 2
    assert "comes from module 'own_code': add --import own_code" in done.stderr.splitlines()[-1]


def test_a_study_of_an_earlier_version_names_the_module_until_it_is_launched_again(tmp_path: Path) -> None:
    study = create(tmp_path)
    stored = study.definition.model_dump(mode="json")
    del stored["declarations"]
    study.storage.set_study_user_attr(study.id, "hpo:definition", stored)
    forget()
    refused = run(tmp_path, "show", "own")
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "hpo: model 'own' is not registered here; it comes from module 'own_code': add --import own_code"
    )
    assert run(tmp_path, "list").returncode == 0
    load(tmp_path)
    plan = plan_launch("own", sqlite_url(tmp_path))
    assert plan.create(sqlite_url(tmp_path)).definition.declarations != NONE_DECLARED
    forget()
    assert run(tmp_path, "show", "own").returncode == 0


def test_a_launch_and_a_worker_say_that_the_code_has_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create(tmp_path)
    load(tmp_path, OWN.replace("Field(1, ge=1, le=4", "Field(2, ge=1, le=9"))
    plan = plan_launch(str(tmp_path / "own.toml"), sqlite_url(tmp_path))
    line = (
        "model 'own' is not what it was when the study was launched (blocks: default 1 then, 2 now; "
        "blocks: 1 <= x <= 4 then, 1 <= x <= 9 now); the study keeps what it was"
    )
    assert plan.notices == (line,)
    study = plan.create(sqlite_url(tmp_path))
    with caplog.at_level(logging.WARNING, "hpo.study"):
        make_worker(study, lambda: True)
    assert line in caplog.messages
    assert study.definition.config({"model": "own"}).effective()["blocks"] == 1


def test_a_loop_that_was_a_model_trains_nothing(tmp_path: Path) -> None:
    study = create(tmp_path)
    load(tmp_path, OWN.replace('training_loop("loop"', 'training_loop("own"').replace('model("own"', 'model("loop"'))
    with pytest.raises(RegistryError, match="model 'own' of module own_code is not what it was"):
        make_worker(study)
    with pytest.raises(RegistryError, match="was not a training loop"):
        plan_launch("own", sqlite_url(tmp_path))
    assert {trial.state for trial in study.trials()} == {TrialState.WAITING}


def test_a_loop_of_ones_own_is_read_without_the_code(tmp_path: Path) -> None:
    text = 'objective = "rmse"\ntrials = 2\nsampler = "random"\n[parameters]\nmodel = "loop"\nblocks = [1, 2]\n'
    make_worker(create(tmp_path, text)).run()
    forget()
    for arguments in (("show", "own"), ("export", "own"), ("report", "own"), ("fork", "own", "f", "--trials", "3")):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    exported = json.loads(run(tmp_path, "export", "own", "--format", "json").stdout)
    assert exported["objective"] == "rmse"
    assert set(exported["parameters"]) == {"model", "epochs", "seed", "blocks"}


def test_damaged_declarations_are_one_line(tmp_path: Path) -> None:
    study = create(tmp_path)
    stored = study.definition.model_dump(mode="json")
    stored["declarations"]["models"][0]["rows"][0]["kind"] = "object"
    study.storage.set_study_user_attr(study.id, "hpo:definition", stored)
    for arguments in (("show", "own"), ("report", "own"), ("fork", "own", "f"), ("worker", "own")):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert "its attribute hpo:definition is damaged: declarations.models.0.rows.0" in line
        assert "its kind must be one of bool, int, float, str" in line


@pytest.mark.integration
def test_what_a_script_registers_travels_to_its_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        f"{OWN}\n"
        "space = {'model': 'loop', 'blocks': [1, 2], 'epochs': 2}\n"
        "keys = dict(objective='rmse', parameters=space, sampler='random', trials=4)\n"
        "study = hpo.launch(name='sent', workers=2, **keys)\n"  # without `if __name__ == '__main__'`
        "print([trial.value for trial in study.trials])\n"
        "try:\n    hpo.launch(name='elsewhere', backend=hpo.Slurm({'cluster': 'local'}), **keys)\n"
        "except hpo.HpoError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    values, refused = done.stdout.splitlines()
    assert values == "[0.5, 0.5, 0.5, 0.5]"
    assert refused.startswith("model 'loop', metric 'rmse': registered in this notebook or script")
    names = [row["name"] for row in json.loads(run_hpo("list", "--format", "json", cwd=tmp_path).stdout)]
    assert names == ["sent"]
    shown = run_hpo("show", "sent", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    worker = run_hpo("worker", "sent", cwd=tmp_path)
    assert worker.returncode == 2
    assert worker.stderr.strip() == (
        "hpo: model 'loop' was registered in a notebook or in a script that was run, where no other process finds it: "
        "move it to a file, for example loop.py, and name that with --import loop"
    )
