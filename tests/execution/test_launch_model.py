"""Launches of a registered loop or model by its file or function, without a study file."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpo
from hpo.errors import RequestError
from hpo.study import Study, StudyStorage
from hpo.utils.home import default_storage
from tests.helpers import run_hpo

LOOP = """
import hpo
from pydantic import BaseModel

class Mine(BaseModel):
    learning_rate: float = hpo.Float(1e-4, 1e-1, log=True)
    hidden_sizes: list[int] = hpo.Categorical([[8, 4], [16]])
    clip_norm: float | None = hpo.Categorical([None, 1.0])

@hpo.training_loop("declared_loop", parameters=Mine, reports={"height": "minimize", "width": "maximize"})
def loop(trial):
    assert isinstance(trial.config.hidden_sizes, list)
    assert trial.config.clip_norm in (None, 1.0)
    return trial.config.learning_rate + len(trial.config.hidden_sizes)

def objective(trial):
    return trial.suggest_float("x", 0, 1)
"""
SECOND = """
@hpo.training_loop("second_loop", parameters=Mine)
def second(trial):
    return 1.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sub" / "my_declared_loop.py"
    path.parent.mkdir()
    path.write_text(LOOP)
    return path


def test_a_file_is_launched_attached_to_and_gone_on_with(file: Path, tmp_path: Path) -> None:
    place = "sub/my_declared_loop.py"
    launched = run_hpo("launch", place, "--trials", "3", "--workers", "0", "--set", "clip_norm=none", cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert "note: training loop declared_loop: minimize height, no data set" in launched.stderr
    assert f"--import {file}" in launched.stdout
    worked = run_hpo("worker", "my_declared_loop", "--import", str(file), cwd=tmp_path)
    assert worked.returncode == 0, worked.stderr
    again = run_hpo(
        "launch", f"{place}:loop", "--trials", "4", "--workers", "0", "--set", "clip_norm=none", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    exported = run_hpo("export", "my_declared_loop", "--import", place, cwd=tmp_path)
    assert 'clip_norm = "none"' in exported.stdout
    study = Study(StudyStorage(default_storage(), create=False), "my_declared_loop")
    assert (study.budget.trials, len(study.trials())) == (4, 3)


@pytest.mark.parametrize(
    ("argument", "options", "says"),
    [
        ("sub/my_declared_loop.py:declared_loop", ["--dry-run"], "hidden_sizes = one of [8, 4], [16]"),
        ("sub/my_declared_loop.py:loop", ["--dry-run", "--objective", "width"], "maximize width"),
        ("sub/my_declared_loop.py:objective", ["--dry-run"], "trials of my_declared_loop.py:objective"),
        ("sub/my_declared_loop.py:declared_lop", [], "has no declared_lop; its functions are: loop, objective"),
        ("sub/my_declared_loop.py", ["--direction", "minimize"], "--direction: is for objective functions"),
        ("sub/my_declared_loop.py", ["--set", "hidden_sizes=[4, 4]"], "must be [8, 4] or [16]"),
        ("sub/nowhere.py", [], "no such file; name a Python file"),
    ],
)
def test_what_a_file_may_name(file: Path, tmp_path: Path, argument: str, options: list[str], says: str) -> None:
    done = run_hpo("launch", argument, *options, cwd=tmp_path)
    assert says in done.stdout + done.stderr
    assert done.returncode == (0 if "--dry-run" in options else 2)
    if done.returncode:
        assert len(done.stderr.splitlines()) <= 2


def test_of_several_one_is_named(file: Path, tmp_path: Path) -> None:
    file.write_text(LOOP + SECOND)
    done = run_hpo("launch", str(file), cwd=tmp_path)
    assert f"registers several; name one: {file}:declared_loop or {file}:second_loop" in done.stderr
    done = run_hpo("launch", f"{file}:second", "--dry-run", cwd=tmp_path)
    assert "study second_loop:" in done.stdout


def test_a_file_without_any_says_what_to_name(tmp_path: Path) -> None:
    (tmp_path / "has_none.py").write_text("def objective(trial, data):\n    return 1.0\n")
    done = run_hpo("launch", "has_none.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "registers no training loop and no model; name an objective function as has_none.py:FUNCTION" in done.stderr
    assert "objective" in done.stderr


def test_python_launches_the_function_itself(tmp_path: Path) -> None:
    @hpo.training_loop("declared_here", reports={"depth_of_it": "maximize"})
    def loop(trial: hpo.Trial) -> float:
        return float(trial.config.seed)

    study = hpo.launch(loop, trials=2, storage=f"sqlite:///{tmp_path / 'here.db'}")
    assert [trial.value for trial in study.trials] == [0.0, 0.0]
    assert study.direction.name == "MAXIMIZE"
    with pytest.raises(RequestError, match="is no registered training loop or model; decorate it"):
        hpo.launch(lambda trial: 1.0)
