"""Sample scores of a study's trials: written as a trial is told, copied, forked and deleted with it, and read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.config import registry
from hpo.datasets.sample_scores import measure
from hpo.report.data import sample_scores
from hpo.report.data.results import read_results
from hpo.report.data.sample_scores import SampleTable, read_sample_scores
from hpo.storage.leased_storage import TellRequest
from hpo.storage.stored_values import DamageLog
from hpo.storage.tables import SAMPLES, SPLITS
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.copy_study import copy_study
from hpo.study.operations.fork import fork_study
from tests.data import small_npz
from tests.study.helpers import holder, new_storage
from tests.workers import make_worker

SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "epochs": 3,
    "batch_size": 64,
    "width": 8,
    "validation": 150,
}


def make_study(storage: StudyStorage, folder: Path, **keys: Any) -> Study:
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": 4, "sampler": "random", **keys}
    return Study.create(storage, *parse_definition({"parameters": SPACE, **table}, "small", folder))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of a study that has been trained once for all tests."""
    folder = tmp_path_factory.mktemp("template")
    made = make_study(new_storage(folder), folder)
    make_worker(made, cohort=4).run()
    made.storage.engine.dispose()
    return folder


@pytest.fixture
def study(template: Path, tmp_path: Path) -> Study:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Study(new_storage(tmp_path), "small")


def count(study: Study, table: sa.Table) -> int:
    with study.storage.engine.connect() as connection:
        query = sa.select(sa.func.count()).select_from(table).where(table.c.study_id == study.id)
        return int(connection.execute(query).scalar_one())


def check(table: SampleTable, study: Study) -> None:
    """Check that every epoch's metric, and the trial's value, follow from the sample scores."""
    for row in read_results(study).trials:
        (scores,) = table.trials[row.number]
        found = measure("val_accuracy", scores.scores, table.splits[scores.split])
        np.testing.assert_allclose(found, [epoch["val_accuracy"] for epoch in row.epochs])
        assert found is not None
        assert found[scores.best] == pytest.approx(row.value)


def test_every_complete_trial_has_them_and_its_value_follows(storage: StudyStorage, tmp_path: Path) -> None:
    study = make_study(storage, tmp_path)
    make_worker(study, cohort=3).run()
    table = read_sample_scores(Study(storage, study.name))
    assert (len(table.trials), len(table.splits)) == (4, 1)
    check(table, study)


def test_large_ones_fit_any_database(storage: StudyStorage, tmp_path: Path) -> None:
    study = make_study(storage, tmp_path)
    claim = study.claim(holder())
    assert claim is not None
    large = np.random.default_rng(0).bytes(2**20)
    assert storage.tell([TellRequest(claim.id, TrialState.COMPLETE, [0.5], [large, b"b"], {"x": large})]) == {}
    assert storage.read_samples(study.id) == {claim.id: {0: large, 1: b"b"}}
    assert storage.read_splits(study.id) == {"x": large}


def test_trials_that_are_not_complete_keep_none(tmp_path: Path) -> None:
    parameters = {**SPACE, "learning_rate": 0.001, "width": [8, 64]}
    study = make_study(
        new_storage(tmp_path),
        tmp_path,
        parameters=parameters,
        sampler="grid",
        trials=2,
        constraints=["parameter_count <= 400"],
    )
    make_worker(study).run()
    states = {trial.number: trial.state for trial in study.trials()}
    assert TrialState.PRUNED in states.values()
    kept = read_sample_scores(study).trials.keys()
    assert kept == {number for number, state in states.items() if state == TrialState.COMPLETE}
    assert count(study, SAMPLES) == len(kept)


def test_the_error_of_an_accuracy_is_kept_where_samples_are_in_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.2f},{rng.normal():.2f},{patient},{'ab'[patient % 2]}" for patient in range(30)]
    (tmp_path / "alike.csv").write_text("\n".join(["x,z,patient,label", *(row for row in rows for _ in range(8))]))
    data = {"path": str(tmp_path / "alike.csv"), "label": "label", "group": "patient"}
    parameters = {"widths": "4", "epochs": 1, "batch_size": 32}
    table = {"dataset": data, "trials": 1, "sampler": "random", "parameters": parameters}
    made = Study.create(new_storage(tmp_path), *parse_definition(table, "alike", tmp_path))
    make_worker(made).run()
    (trial,) = made.trials()
    split = next(iter(read_sample_scores(made).splits.values()))
    by_row = (trial.values[0] * (1 - trial.values[0]) / len(split.labels)) ** 0.5
    assert trial.user_attrs["standard_error"] > 1.5 * by_row  # eight rows of a patient are as one


def test_an_objective_without_them_keeps_none(tmp_path: Path) -> None:
    study = make_study(new_storage(tmp_path), tmp_path, objective="val_calibration_error", trials=1)
    make_worker(study).run()
    assert read_sample_scores(study) == SampleTable({}, {})


def test_a_copy_and_a_fork_have_them_and_a_deleted_study_has_none(study: Study, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    copy = copy_study(study, new_storage(tmp_path / "other"), "copy")
    fork = fork_study(study, "fork").create()
    for other in (copy, fork):
        table = read_sample_scores(other)
        assert len(table.trials) == 4
        check(table, other)
    storage = study.storage
    storage.delete_study(study.id)
    assert [count(study, table) for table in (SAMPLES, SPLITS)] == [0, 0]
    assert len(read_sample_scores(fork).trials) == 4


def test_a_study_made_anew_in_the_place_of_a_deleted_one_has_its_splits(study: Study, tmp_path: Path) -> None:
    study.storage.delete_study(study.id)
    again = make_study(study.storage, tmp_path, trials=2)
    assert again.id == study.id
    make_worker(again).run()
    assert len(read_sample_scores(again).trials) == 2


def test_an_earlier_attempt_counts_no_more(study: Study) -> None:
    first = study.trials()[0]._trial_id
    with study.storage.engine.begin() as connection:
        row = {"trial_id": first, "attempt": 0, "study_id": study.id, "content": b"old"}
        connection.execute(sa.insert(SAMPLES), [{**row, "fit": fit} for fit in (0, 1)])
    check(read_sample_scores(study), study)


def harm(study: Study, table: sa.Table, content: object) -> None:
    text = sa.text(f"UPDATE {table.name} SET content = :content WHERE rowid = (SELECT MIN(rowid) FROM {table.name})")
    with study.storage.engine.begin() as connection:
        connection.execute(text, {"content": content})


def test_damaged_ones_are_left_out_with_one_line(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    for content in (b"x", "text", 7, 1.5, b""):
        caplog.clear()
        study.storage.damage = DamageLog()
        harm(study, SAMPLES, content)
        assert sorted(read_sample_scores(study).trials) == [1, 2, 3]
        (line,) = caplog.messages
        assert line.startswith("study 'small', trial 0: a row of sample scores cannot be read, and is left out: ")


def test_a_damaged_split_leaves_out_its_trials(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    harm(study, SPLITS, b"x")
    assert read_sample_scores(study) == SampleTable({}, {})
    assert caplog.messages[0].startswith("study 'small': a validation split of its sample scores cannot be read")
    assert len(caplog.messages) == 2


def test_fits_that_are_not_numbered_from_zero_are_left_out(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    with study.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE hpo_samples SET fit = 'one' WHERE trial_id = 1"))
    assert sorted(read_sample_scores(study).trials) == [1, 2, 3]
    assert "their fits are not numbered from 0" in caplog.messages[0]


def test_of_more_than_memory_has_room_for_fewer_epochs_are_read(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_sample_scores(study)
    monkeypatch.setattr(sample_scores, "ROOM", 4 * 150 * 2)  # two epochs of each trial
    for number, (scores,) in read_sample_scores(study).trials.items():
        (other,) = whole.trials[number]
        assert 0 in scores.epochs - 1
        assert len(scores.epochs) <= 2
        assert scores.epochs[scores.best] == other.epochs[other.best]
        np.testing.assert_array_equal(scores.scores[scores.best], other.scores[other.best])


def test_a_loop_of_the_users_own_keeps_none(tmp_path: Path) -> None:
    name = "loop_without_samples"

    def loop(trial: Any) -> None:
        for _ in trial.epochs():
            trial.report(val_accuracy=0.5)

    registry.training_loop(name, uses=["epochs"])(loop)
    study = make_study(new_storage(tmp_path), tmp_path, parameters={"model": name, "epochs": 1}, trials=1)
    make_worker(study).run()
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE]
    assert read_sample_scores(study) == SampleTable({}, {})


def test_each_fit_has_scores_and_of_folds_every_sample_once(tmp_path: Path) -> None:
    parameters = {name: value for name, value in SPACE.items() if name != "validation"}
    study = make_study(new_storage(tmp_path), tmp_path, folds=3, parameters=parameters, trials=2)
    make_worker(study).run()
    table = read_sample_scores(study)
    for row in read_results(study).trials:
        fits = table.trials[row.number]
        assert [scores.fit for scores in fits] == [0, 1, 2]
        splits = [table.splits[scores.split] for scores in fits]
        assert sorted(np.concatenate([split.index for split in splits])) == list(range(600))
        values = [measure("val_accuracy", scores.scores, split) for scores, split in zip(fits, splits, strict=True)]
        assert {scores.epochs[scores.best] for scores in fits} == {row.best_epoch}
        assert np.mean(values, 0)[fits[0].best] == pytest.approx(row.value)
