"""Reference models: the split they are trained on, who trains them, and what a report says; against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from hpo.execution import reference_models
from hpo.execution.evaluate import plan_evaluations
from hpo.report.data.reference_models import FILE, ReferenceModels, read_reference_models
from hpo.report.render.json import report_schema
from hpo.report.write import write_report
from hpo.study import Study
from hpo.study.files.artifacts import find_artifact
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.evaluation_study import list_test_set_reads
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device
from hpo.training.reference_models import fit_reference_models
from tests.study.helpers import new_storage
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 2, "batch_size": 32, "learning_rate": [0.001, 0.01], "validation": 0.25}


def table(path: Path, rows: int = 400) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1)
    np.savez(path, x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    return path


def make(folder: Path, **more: Any) -> Study:
    keys = {"dataset": str(table(folder / "table.npz")), "trials": 2, "sampler": "grid", "parameters": SMALL, **more}
    name, definition, budget = parse_definition(keys, "table", folder)
    return Study.create(new_storage(folder), name, definition, budget)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = make(tmp_path)
    make_worker(study).run()
    return study


def by_name(models: ReferenceModels | None) -> dict[str, dict[str, float]]:
    assert models is not None
    return {model.name: dict(model.scores) for model in models.models}


def test_they_are_scikit_learns_on_the_split_of_the_trials(study: Study) -> None:
    best = study.best()
    assert best is not None
    data = DataCache(study.definition.dataset, select_device("cpu")).get(study.config_of(best))
    x, y, x_val, y_val = (each.numpy() for each in (data.x_train, data.y_train, data.x_val, data.y_val))
    found = by_name(read_reference_models(study))
    boosting = HistGradientBoostingClassifier(random_state=0).fit(x, y)
    assert found["gradient boosting"]["val_accuracy"] == pytest.approx(boosting.score(x_val, y_val))
    linear = LogisticRegression().fit(x, y)
    assert found["logistic regression"]["val_accuracy"] == pytest.approx(linear.score(x_val, y_val))
    assert not [name for scores in found.values() for name in scores if name.startswith("test_")]


def test_an_evaluation_scores_them_on_the_test_set_too_and_the_report_says_so(study: Study, tmp_path: Path) -> None:
    (evaluation,) = plan_evaluations(study, top=1, seeds=2)
    make_worker(evaluation).run()
    found = by_name(read_reference_models(evaluation))["gradient boosting"]
    assert found["test_accuracy"] > 0.7
    reads = list_test_set_reads(study)
    assert [read.configuration for read in reads if read.by.endswith(" reference")] == ["gradient boosting"]
    paths = write_report(study, tmp_path / "report")
    document = json.loads(paths.json.read_text())
    jsonschema.validate(document, report_schema())
    assert "Gradient boosting with default settings has" in document["verdict"][1]
    assert "on the same test rows" in document["verdict"][1]
    assert document["evaluations"][0]["reference_models"][0]["scores"]["test_accuracy"] == found["test_accuracy"]
    assert "(significant: paired by row" in document["verdict"][1] or "; paired by row" in document["verdict"][1]
    assert "4 times by runs of 2 configurations and once by reference models." in paths.markdown.read_text()


def test_of_folds_their_scores_are_means(tmp_path: Path) -> None:
    parameters = {name: value for name, value in SMALL.items() if name != "validation"}
    study = make(tmp_path, folds=3, repeats=2, parameters=parameters)
    make_worker(study).run()
    best = study.best()
    assert best is not None
    config, cache = study.config_of(best), DataCache(study.definition.dataset, select_device("cpu"))
    scores = []
    for fit in study.definition.fits[:3]:
        data = cache.get(config, fit.division)
        boosting = fit_reference_models(data, config)[0]
        scores.append(boosting.predict(config, data, (data.x_val, data.y_val), []).scores["accuracy"])
    models = read_reference_models(study)
    assert by_name(models)["gradient boosting"]["val_accuracy"] == pytest.approx(np.mean(scores))
    assert models is not None
    assert models.split == "folds = 3, seed 0"
    assert len(set(scores)) > 1


def test_they_are_trained_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(reference_models, "fit_reference_models", refuse)
    reference_models.train_reference_models(study, DataCache(study.definition.dataset, select_device("cpu")))


def test_a_failure_costs_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no trees here")

    monkeypatch.setattr(reference_models, "fit_reference_models", fail)
    study = make(tmp_path)
    make_worker(study).run()
    assert study.remaining() == 0
    assert "reference models: not trained (ValueError: no trees here)" in caplog.text
    assert read_reference_models(study) is None


def test_a_damaged_file_is_no_reference(study: Study) -> None:
    path = find_artifact(study, FILE)
    assert path is not None
    for content in (b"", b"[]", b'{"models": [{"name": 1}]}', b"\xff\x00"):
        path.write_bytes(content)
        assert read_reference_models(study) is None
