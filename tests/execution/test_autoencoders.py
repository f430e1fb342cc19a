"""Studies of models that reconstruct their input, from the file to the report, trained for real."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.errors import RequestError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.inspect_model import inspect_model
from hpo.export.format import read_preprocessing
from hpo.export.predict import predict
from hpo.export.writer import write_model
from hpo.report.data.evaluations import read_evaluations
from hpo.report.report_data import read_report_data
from hpo.report.trial_files import export_trials
from hpo.report.write import write_report
from hpo.study import Study, study_names
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.helpers import run_hpo
from tests.study.helpers import new_storage, sqlite_url
from tests.workers import make_worker

SMALL = {
    "model": "autoencoder",
    "widths": "24",
    "latent_size": [1, 2, 3, 6],
    "input_scaling": "unit",
    "epochs": 4,
    "batch_size": 32,
    "learning_rate": 0.01,
}
REPORT = {"x": "latent_size", "log": True, "knee": "intrinsic dimension of the data"}


def trained(folder: Path, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    table = {"dataset": str(data), "sampler": "grid", "parameters": SMALL, "report": REPORT, **keys}
    name, definition, budget = parse_definition(table, "small", folder)
    study = Study.create(new_storage(folder), name, definition, budget)
    make_worker(study).run()
    return study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return trained(tmp_path)


def test_its_usual_objective_is_the_loss(study: Study) -> None:
    assert [(each.metric, each.direction) for each in study.definition.objectives] == [("val_loss", "minimize")]
    for trial in study.trials():
        rows = study.storage.read_epochs(study.id)[trial._trial_id]
        assert trial.value == min(row["val_loss"] for row in rows)
        assert not {"train_accuracy", "val_accuracy"} & rows[0].keys()
        assert rows[0]["val_reconstruction_error"] == pytest.approx(rows[0]["val_loss"])  # which is the same for mse


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"objective": "val_accuracy", "parameters": SMALL}, "model 'autoencoder' has none; use val_loss or val_rec"),
        ({"objective": "val_reconstruction_error"}, "model 'mlp' has none; use val_accuracy or val_loss"),
        ({"parameters": {**SMALL, "loss": "cross_entropy"}}, "must be mse or binary_cross_entropy"),
        ({"parameters": {"loss": "binary_cross_entropy"}}, "must be cross_entropy or mse"),
        (
            {"parameters": {**SMALL, "loss": "binary_cross_entropy", "input_scaling": "standard"}},
            "set input_scaling = 'unit'",
        ),
    ],
)
def test_what_such_models_have_not_is_refused(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as error:
        parse_definition({"dataset": str(small_npz(tmp_path / "small.npz")), **keys}, "s", tmp_path)
    assert words in str(error.value)


def test_an_evaluation_tests_and_shows_what_they_reconstruct(study: Study, tmp_path: Path) -> None:
    for each in plan_evaluations(study, top=2, seeds=2):
        make_worker(each).run()
    (evaluation,) = read_evaluations(study)
    assert evaluation.test_metric == "test_loss"
    for run in (run for candidate in evaluation.candidates for run in candidate.runs):
        assert 0 < run.test["test_reconstruction_error"] < 0.1
        told = run.reconstructions("test")
        assert told is not None
        assert told.originals is not None
        assert told.reconstructions is not None
        assert told.codes is not None
        assert told.originals.shape == told.reconstructions.shape
        assert told.originals.shape[1:] == (6, 6)
        assert (len(told.codes), len(told.labels)) == (150, 150)
        assert told.codes.shape[1] <= 2
    text = write_report(study, tmp_path / "out").markdown.read_text()
    assert "--show-data" in text
    assert not (tmp_path / "out" / "report_figures" / "reconstructions-0.svg").exists()
    shown = replace(read_report_data(study), show_data=True)
    text = write_report(shown, tmp_path / "out").markdown.read_text()
    assert "## Reconstructions" in text
    assert "intrinsic dimension of the data" in text
    assert "Confusion matrix" not in text
    assert {"latent-0.svg", "reconstructions-0.svg"} <= {path.name for path in (tmp_path / "out").rglob("*.svg")}


def test_the_inside_of_them_is_not_looked_at(study: Study) -> None:
    with pytest.raises(RequestError, match="has no classes to look for; leave --inside out"):
        inspect_model(study, "cpu")


def test_the_inside_of_them_is_refused_before_anything_is_evaluated(study: Study, tmp_path: Path) -> None:
    done = run_hpo("evaluate", study.name, "--inside", "--storage", sqlite_url(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "leave --inside out" in done.stderr
    assert study_names(study.storage) == [study.name]


def test_its_trials_as_files(study: Study, tmp_path: Path) -> None:
    assert export_trials(study, tmp_path / "trials") == 4
    with (tmp_path / "trials" / "comb_0" / "validation.csv").open() as file:
        assert next(csv.reader(file)) == ["epoch", "val_loss", "val_reconstruction_error", "seconds"]
    with (tmp_path / "trials" / "comb_0" / "train.csv").open() as file:
        assert next(csv.reader(file)) == ["epoch", "train_loss", "learning_rate", "seconds"]


def test_its_model_reconstructs_when_exported_and_predicts_nothing(study: Study, tmp_path: Path) -> None:
    import onnxruntime

    folder = tmp_path / "model"
    write_model(study, folder)
    card = (folder / "README.md").read_text()
    assert "that reconstructs the samples of small.npz" in card
    assert "hpo predict" not in card
    with pytest.raises(RequestError, match="reconstructs samples and predicts no class"):
        predict(folder, [])
    with np.load(tmp_path / "small.npz") as data:
        x = read_preprocessing(folder).apply(read_preprocessing(folder).samples(data["x_test"]))
    (outputs,) = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"x": x})
    assert np.square(outputs - x.reshape(len(x), -1)).mean() < np.square(x - x.mean(0)).mean()
