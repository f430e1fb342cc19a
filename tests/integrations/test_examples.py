"""The examples with objective functions: to their budget, and taken over in the midst of a trial."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

import hpo
from hpo.execution.objective_function import load_function
from hpo.study import Study
from tests.helpers import ROOT, run_hpo
from tests.integrations.frameworks import launch, work

EXAMPLES = ROOT / "examples"
OBJECTIVES = {
    "accelerate_objective": 0.5,
    "ignite_objective": 0.5,
    "lightning_objective": 0.5,
    "pytorch_objective": 0.5,
    "transformers_text": 0.25,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.chdir(copied)
    return copied


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_an_objective_runs_and_goes_on_where_it_was_interrupted(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = load_function(f"{folder / name}.py:objective").call
    whole, halted = (launch(folder, each, direction="maximize", seed=0) for each in ("whole", "halted"))
    (expected,) = work(whole, folder, objective)
    assert expected.state.name == "COMPLETE"
    assert expected.value > OBJECTIVES[name]
    assert expected.value == list(expected.intermediate_values.values())[-1]
    (waiting,) = work(halted, folder, objective, stop_after=2)
    assert waiting.state.name == "WAITING"
    (trial,) = work(halted, folder, objective)
    assert trial.params == expected.params
    assert trial.intermediate_values == expected.intermediate_values
    assert trial.value == expected.value


def test_the_search_of_hugging_face_is_a_study_here(folder: Path) -> None:
    runpy.run_path("transformers_text.py", run_name="__main__")
    study = Study(hpo.StudyStorage(f"sqlite:///{folder / 'texts.db'}"), "texts")
    assert {trial.state.name for trial in study.trials()} <= {"COMPLETE", "PRUNED"}
    assert [trial.number for trial in study.trials()] == [0, 1]
    done = run_hpo("report", "texts", "--storage", f"sqlite:///{folder / 'texts.db'}", "--out", "report", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "per_device_train_batch_size" in (folder / "report" / "report.md").read_text(encoding="utf-8")
