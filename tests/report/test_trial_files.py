"""The files of every trial: `hpo export NAME --trials DIR`."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.errors import RequestError
from hpo.report.data.evaluation_runs import is_validation_metric
from hpo.report.trial_files import export_trials
from hpo.storage.study_storage import EpochSteps
from hpo.study import Study
from tests.helpers import run_hpo
from tests.report.helpers import BASELINE, add_foreign, evaluated, filled, tell
from tests.study.helpers import holder, make_study, sqlite_url


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def strict(path: Path) -> Any:
    """JSON as the standard has it."""

    def refused(name: str) -> None:
        raise AssertionError(name)

    return json.loads(path.read_text(), parse_constant=refused)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    states = ("COMPLETE", "PRUNED", "FAIL", "diverged", "RUNNING")
    return filled(tmp_path, trials=7, states=states, baseline=BASELINE)


@pytest.fixture
def out(study: Study, tmp_path: Path) -> Path:
    assert export_trials(study, tmp_path / "out") == 7
    return tmp_path / "out"


def test_every_trial_has_its_files_and_nothing_else_is_left(out: Path, tmp_path: Path) -> None:
    assert {path.name for path in out.iterdir()} == {f"comb_{number}" for number in range(7)}
    for folder in out.iterdir():
        assert {path.name for path in folder.iterdir()} == {"train.csv", "validation.csv", "params.json"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"out"}


def test_the_epochs(study: Study, out: Path) -> None:
    for trial in study.trials():
        epochs = study.storage.read_epochs(study.id, trial._trial_id)[trial._trial_id]
        train, validation = (table(out / f"comb_{trial.number}" / f"{name}.csv") for name in ("train", "validation"))
        assert list(train[0]) == ["epoch", "train_loss", "train_accuracy", "learning_rate", "seconds"]
        assert list(validation[0]) == ["epoch", "val_loss", "val_accuracy", "seconds"]
        for rows in (train, validation):
            assert len(rows) == len(epochs)
            for row, metrics in zip(rows, epochs, strict=True):
                assert {name: float(value) for name, value in row.items()} == pytest.approx(
                    {name: metrics[name] for name in row}, nan_ok=True, rel=0, abs=0
                )


def test_metrics_of_training_are_no_metrics_of_validation(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=1)
    claim = study.claim(holder())
    assert claim is not None
    recorded = {"epoch": 1, "train_loss": 0.5, "train_r2": 0.7, "val_loss": 0.6, "val_r2": 0.4, "seconds": 1.0}
    study.storage.record_epoch(claim.id, 1, recorded)
    export_trials(study, tmp_path / "out")
    train, validation = (table(tmp_path / "out" / "comb_0" / f"{name}.csv") for name in ("train", "validation"))
    assert list(train[0]) == ["epoch", "train_loss", "train_r2", "seconds"]
    assert list(validation[0]) == ["epoch", "val_loss", "val_r2", "seconds"]
    assert is_validation_metric("train_f1", ["train_f1"])  # by which a loop's own study chooses


def test_what_is_not_finite_stands_as_it_is(out: Path) -> None:
    assert [row["train_loss"] for row in table(out / "comb_3" / "train.csv")] == ["nan"] * 4


def test_the_parameters(study: Study, out: Path) -> None:
    found = strict(out / "comb_0" / "params.json")
    trial = study.trials()[0]
    assert found["number"] == 0
    assert found["state"] == "COMPLETE"
    assert found["parameters"] == study.config_of(trial).effective()
    assert found["values"] == {"val_accuracy": trial.value}
    assert found["best_epoch"] == 4
    assert found["parameter_count"] == 3000
    assert found["attributes"] == {"worker": "host-0", "attempt": 1, "train_seconds": 2.0}
    failed = strict(out / "comb_2" / "params.json")
    assert (failed["state"], failed["values"]) == ("FAIL", {})
    assert failed["attributes"]["failure"] == "error"
    assert strict(out / "comb_4" / "params.json")["state"] == "RUNNING"


def test_attributes_that_are_plain_and_json_that_is_valid(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=1)
    other = make_study(tmp_path, "other", sampler="tpe", trials=3)
    claim = other.claim(holder())
    assert claim is not None
    for key, value in {"score": math.nan, "text": "é", "table": {"a": 1}, "list": [1]}.items():
        other.storage.set_trial_user_attr(claim.id, key, value)
    tell(other, claim, "COMPLETE")
    add_foreign(other, {"x": 0.5}, math.inf)
    export_trials(other, tmp_path / "out")
    attributes = strict(tmp_path / "out" / "comb_0" / "params.json")["attributes"]
    assert attributes.pop("score") is None
    assert attributes.pop("text") == "é"
    assert not attributes.keys() & {"table", "list"}
    foreign = strict(tmp_path / "out" / "comb_1" / "params.json")
    assert (foreign["parameters"], foreign["values"]) == ({"x": 0.5}, {"val_accuracy": None})
    assert table(tmp_path / "out" / "comb_1" / "validation.csv") == []
    assert study.trials()


def test_trials_that_have_not_begun_are_left_out(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=5)
    for state in ("COMPLETE", "RUNNING"):
        claim = study.claim(holder())
        assert claim is not None
        tell(study, claim, state)
    assert export_trials(study, tmp_path / "out") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comb_0", "comb_1"}


def test_a_row_for_every_step_where_they_are_recorded(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=2, record_steps=True)
    for state in ("COMPLETE", "FAIL"):
        claim = study.claim(holder())
        assert claim is not None
        if state == "COMPLETE":
            for epoch in (1, 2):
                losses = np.array([1.1, np.nan, 0.1], np.float32) / epoch
                seconds = np.array([0.1, 0.2, 0.3], np.float32) + epoch
                study.storage.record_steps(claim.id, EpochSteps(epoch, losses, seconds))
        tell(study, claim, state)
    export_trials(study, tmp_path / "out")
    rows = table(tmp_path / "out" / "comb_0" / "train.csv")
    assert [(row["step"], row["epoch"], row["loss"], row["seconds"]) for row in rows] == [
        ("1", "1", "1.1", "1.1"),
        ("2", "1", "nan", "1.2"),
        ("3", "1", "0.1", "1.3"),
        ("4", "2", "0.55", "2.1"),
        ("5", "2", "nan", "2.2"),
        ("6", "2", "0.05", "2.3"),
    ]
    assert (tmp_path / "out" / "comb_1" / "train.csv").read_text().split() == ["step,epoch,loss,seconds"]


def test_the_runs_of_a_trial_that_was_evaluated(study: Study, tmp_path: Path) -> None:
    scores = {"trial 5": 0.9, "baseline": 0.8}
    (made,) = evaluated(study, [5], scores, seeds=3, leave=1)
    evaluated(study, [5], scores, seeds=2, refit=True)
    export_trials(study, tmp_path / "out")
    tested = {path.parent.name for path in (tmp_path / "out").glob("comb_*/test.csv")}
    assert tested == {"comb_0", "comb_5"}
    rows = table(tmp_path / "out" / "comb_5" / "test.csv")
    assert list(rows[0]) == ["evaluation", "dataset", "seed", "val_accuracy", "val_loss", "test_accuracy", "test_loss"]
    own = [row for row in rows if row["evaluation"] == made.name]
    assert len(own) in (2, 3)
    trials = {
        str(trial.params["seed"]): trial for trial in made.trials() if trial.params.get("configuration") == "trial 5"
    }
    for row in own:
        trial = trials[row["seed"]]
        assert float(row["test_accuracy"]) == trial.user_attrs["test_accuracy"]
        assert float(row["val_accuracy"]) == trial.value
        assert row["dataset"] == "mnist"
    refit = [row for row in rows if row["evaluation"] != made.name]
    assert len(refit) == 2
    assert {row["val_accuracy"] for row in refit} == {""}


def test_the_folder_must_be_new_or_empty(study: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_trials(study, tmp_path / "empty")
    for name, why in (("empty", "is not empty"), ("file", "is not a folder")):
        (tmp_path / "file").write_text("kept")
        with pytest.raises(RequestError, match=f"{name}: {why}; choose another folder, or delete this one"):
            export_trials(study, tmp_path / name)
    with pytest.raises(RequestError, match=r"cannot be written \(File exists\); choose another folder"):
        export_trials(study, tmp_path / "file" / "out")


def test_after_an_error_nothing_is_left(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hpo.report.trial_files._write_tests", broken)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(RequestError, match="No space left on device"):
        export_trials(study, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_from_the_command_line(study: Study, tmp_path: Path) -> None:
    where = ("--storage", sqlite_url(tmp_path))
    done = run_hpo("export", "filled", "--trials", "out", *where, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 7
    for other in (("--weights", "model"), ("--trial", "3")):
        done = run_hpo("export", "filled", "--trials", "more", *other, *where, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == (
            f"hpo: --trials more: writes every trial, so it cannot be combined with {other[0]}; leave one of them out\n"
        )
    done = run_hpo("export", "filled", "--trials", "out", *where, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("out: is not empty; choose another folder, or delete this one\n")
    assert study.trials()
