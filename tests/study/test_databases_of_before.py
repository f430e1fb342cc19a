"""Databases, files and exported models of version 0.1.0, made before the modules moved: see fixtures/before_0.2."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from optuna.trial import TrialState

from hpo.cli import app
from hpo.config import registry
from hpo.errors import RegistryError
from hpo.export.predict import predict
from hpo.report.write import write_report
from hpo.storage.tables import EPOCHS
from hpo.study import Study, StudyStorage
from hpo.study.files.cleanup import find_unneeded_files
from hpo.study.files.study_files import StudyFiles, list_local_weights
from hpo.study.operations.list_studies import list_studies
from tests.workers import make_worker

BEFORE = Path(__file__).parent / "fixtures" / "before_0.2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that version's `HPO_HOME`, in which the data set is found by its name; its module can be imported."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "before"))
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "before"))
    monkeypatch.syspath_prepend(tmp_path / "before")
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    monkeypatch.delitem(sys.modules, "before_models", raising=False)
    return tmp_path / "before"


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'hpo.db'}"


def train(study: Study) -> None:
    """Let one worker train, a trial at a time, what is left of a study."""
    make_worker(study, cohort=1).run()


def expected() -> dict[str, Any]:
    """Values of that version's report of `random`, and its predictions."""
    found: dict[str, Any] = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
    return found


def assert_same(new: Any, old: Any, where: str = "") -> None:
    """Everything that was there is there with its value; keys may have been added."""
    if isinstance(old, dict):
        for key, value in old.items():
            if key != "seconds":  # they were those from a trial's start to its end, and are those of its training
                assert_same(new[key], value, f"{where}.{key}")
    elif isinstance(old, list):
        assert len(new) == len(old), where
        for index, value in enumerate(old):
            assert_same(new[index], value, f"{where}[{index}]")
    else:
        assert new == (pytest.approx(old, rel=1e-12) if isinstance(old, float) else old), where


def test_all_studies_are_listed_and_shown(folder: Path) -> None:
    rows = {row["name"]: row for row in list_studies(url(folder))}
    finished = {name: (row["trials"], row["complete"], row["running"]) for name, row in rows.items()}
    assert finished == {"own": (2, 2, 0), "random": (4, 4, 0), "random-evaluation": (4, 4, 0), "tpe": (6, 4, 1)}
    assert rows["random"]["best"] == expected()["best"]["values"]["val_accuracy"]
    for name in rows:
        imports = ["--import", "before_models"] if name == "own" else []
        shown = CliRunner().invoke(app, ["show", name, "--format", "json", *imports])
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["name"] == name


def test_a_study_whose_worker_was_killed_goes_on_from_its_checkpoint_to_its_budget(folder: Path) -> None:
    study = Study(StudyStorage(url(folder)), "tpe")
    before = {trial.number: (trial.params, trial.values) for trial in study.trials()}
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 4 + [TrialState.RUNNING]
    assert StudyFiles(study).checkpoint(4).is_file()
    assert study.remaining() == 2
    reported = len(study.trials()[4].intermediate_values)
    assert 0 < reported < 50
    train(study)
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert {trial.number: (trial.params, trial.values) for trial in trials[:4]} == {n: before[n] for n in range(4)}
    assert trials[4].params == before[4][0]
    query = sa.select(EPOCHS.c.epoch, EPOCHS.c.attempt).where(EPOCHS.c.trial_id == trials[4]._trial_id)
    rows = study.storage.read(lambda connection: connection.execute(query.order_by(EPOCHS.c.epoch)).all())
    assert [row.epoch for row in rows] == list(range(1, 51))
    assert {row.attempt for row in rows} == {1, 2}  # it was resumed, not begun anew
    assert study.remaining() == 0
    assert not StudyFiles(study).checkpoint(4).exists()
    assert len(list_local_weights(study)) == 5


def test_a_report_says_what_it_said(folder: Path, tmp_path: Path) -> None:
    study = Study(StudyStorage(url(folder)), "random")
    write_report(study, tmp_path / "report")
    new = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    old = expected()
    for comparison in (each for evaluation in old["evaluations"] for each in evaluation["comparisons"]):
        for end in ("low", "high"):  # which were beyond what two accuracies can differ by
            comparison["difference"][end] = min(max(comparison["difference"][end], -1.0), 1.0)
    for key in ("counts", "best", "baseline", "trials", "evaluations", "looks"):
        assert_same(new[key], old[key], key)
    epochs = study.storage.read_epochs(study.id)
    spent = {trial.number: epochs[trial._trial_id][-1]["seconds"] for trial in study.trials()}
    assert {trial["number"]: trial["seconds"] for trial in new["trials"]} == pytest.approx(spent)
    numbers = [re.findall(r"\d+\.\d+", " ".join(report["verdict"])) for report in (new, old)]
    assert numbers[0] == numbers[1] != []


def test_a_study_with_a_model_of_the_users_names_its_module_and_goes_on_with_it(folder: Path) -> None:
    study = Study(StudyStorage(url(folder)), "own")
    with pytest.raises(RegistryError, match="before_models"):
        study.definition.check_registered()
    registry.import_modules(["before_models"])
    study.definition.check_registered()
    study.extend(study.budget.model_copy(update={"trials": 3}))
    train(study)
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 3


def test_files_belong_to_their_studies(folder: Path) -> None:
    storage = StudyStorage(url(folder))
    assert sorted(list_local_weights(Study(storage, "random"))) == [0, 1, 2, 3]
    own = [each for each in find_unneeded_files(storage) if not each.stays]
    assert own == []


def test_an_exported_model_predicts_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    rows, _ = predict(Path("exported"), [Path("samples.npy")])
    assert_same(rows, expected()["predictions"])
