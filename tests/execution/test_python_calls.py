"""Public functions that do in Python what commands do: launch, evaluate, write_report, export_model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo.errors import RequestError
from hpo.report.stats.evaluation_stats import EvaluationStats
from hpo.study.operations.evaluation_study import evaluation_studies
from hpo.study.operations.open_study import open_study
from tests.data import small_npz
from tests.study.helpers import sqlite_url

SPACE = {"widths": "8", "epochs": 2, "learning_rate": [0.01, 0.1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def launched(folder: Path) -> optuna.Study:
    """A finished study, with its weights in the folder `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        return hpo.launch(
            storage=sqlite_url(folder), name="small", dataset=str(small_npz(folder / "small.npz")), parameters=SPACE,
            sampler="grid", trials=2, device="cpu", cpus=1, cohort=2, lease=30, checkpoint_every=0,
            tensorboard=folder / "board",
        )  # fmt: skip


@pytest.fixture(autouse=True)
def home(folder: Path, launched: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_HOME", str(folder / "home"))
    return folder / "home"


def test_launch_takes_the_options_of_the_command(launched: optuna.Study, folder: Path) -> None:
    assert [trial.state for trial in launched.trials] == [TrialState.COMPLETE] * 2
    assert [trial.user_attrs["cohort"] for trial in launched.trials] == [2, 2]
    assert sorted(each.name for each in (folder / "board" / "small").iterdir()) == ["trial_0", "trial_1"]


def test_launch_creates_a_study_without_workers(folder: Path) -> None:
    created = hpo.launch(
        storage=sqlite_url(folder), name="created", dataset=str(folder / "small.npz"), parameters=SPACE,
        sampler="grid", trials=2, workers=0,
    )  # fmt: skip
    assert [trial.state for trial in created.trials] == [TrialState.WAITING] * 2


@pytest.mark.parametrize("by_name", [True, False])
def test_evaluate_tests_the_best_and_runs_nothing_twice(launched: optuna.Study, folder: Path, by_name: bool) -> None:
    study = "small" if by_name else launched
    storage = sqlite_url(folder) if by_name else None
    (stats,) = hpo.evaluate(study, storage=storage, top=1, seeds=2, device="cpu", cpus=1)
    assert isinstance(stats, EvaluationStats)
    assert len(stats.scores) == 2  # the best configuration and the baseline
    assert [score.test and score.test.count for score in stats.scores] == [2, 2]
    (evaluation,) = evaluation_studies(open_study("small", sqlite_url(folder)))
    assert len(evaluation.trials()) == 4


def test_evaluate_creates_runs_without_workers(launched: optuna.Study) -> None:
    (stats,) = hpo.evaluate(launched, top=2, seeds=2, workers=0)
    assert [len(score.candidate.runs) for score in stats.scores] == [2, 2, 2]


@pytest.mark.parametrize("by_name", [True, False])
def test_write_report_writes_every_file(launched: optuna.Study, folder: Path, home: Path, by_name: bool) -> None:
    if by_name:
        paths = hpo.write_report("small", folder / "report", storage=sqlite_url(folder))
        assert paths.html.parent == folder / "report"
    else:
        paths = hpo.write_report(launched)
        assert paths.html.parent == home / "reports" / "small"
    assert "small" in paths.html.read_text(encoding="utf-8")
    assert json.loads(paths.json.read_text(encoding="utf-8"))


def test_export_model_returns_a_folder_that_predicts(launched: optuna.Study, folder: Path, home: Path) -> None:
    assert hpo.export_model(launched, 0) == home / "exports" / "small" / "trial_0"
    model = hpo.export_model("small", out=str(folder / "model"), storage=sqlite_url(folder))
    assert model == folder / "model"
    assert {"weights.safetensors", "config.toml", "preprocessing.json", "README.md"} <= {
        each.name for each in model.iterdir()
    }
    from hpo.export.predict import predict

    np.save(folder / "sample.npy", np.load(folder / "small.npz")["x_test"][:2])
    rows, _ = predict(model, [folder / "sample.npy"])
    assert len(rows) == 2
    with pytest.raises(RequestError, match="model"):
        hpo.export_model("small", out=folder / "model", storage=sqlite_url(folder))


def test_a_study_that_is_not_there_is_named(folder: Path) -> None:
    for call in (hpo.evaluate, hpo.write_report, hpo.export_model):
        with pytest.raises(RequestError, match="'nothing'"):
            call("nothing", storage=sqlite_url(folder))  # type: ignore[operator]


def test_a_study_of_another_storage_of_optunas_is_refused() -> None:
    with pytest.raises(RequestError, match=r"not in an hpo\.StudyStorage"):
        hpo.write_report(optuna.create_study(study_name="plain"))
