"""Trials trained again, against what was recorded of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from hpo.errors import DataError, RequestError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.reproduce import COHORT_TOLERANCE, describe_reproduction, reproduce
from hpo.storage.tables import EPOCHS
from hpo.study import Study
from tests.execution.test_evaluate import make, trained
from tests.helpers import run_hpo
from tests.study.helpers import sqlite_url
from tests.workers import make_worker


def alone(folder: Path, **keys: object) -> Study:
    study = make(folder, **keys)
    make_worker(study, cohort=1).run()
    return study


def test_trials_trained_alone_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    study = alone(tmp_path)
    for number in range(3):
        found = reproduce(study, number, device="cpu")
        assert found.identical
        assert found.reproduced
        assert found.epochs == 3
        assert {each.metric for each in found.differences} >= {"train_loss", "val_loss", "val_accuracy"}
        assert not {each.metric for each in found.differences} & {"epoch", "seconds"}
        assert not found.changed
        assert describe_reproduction(found)[0].startswith("identical: every metric of 3 epochs")


def test_trials_of_a_cohort_differ_by_rounding_alone(tmp_path: Path) -> None:
    study = make(tmp_path)
    make_worker(study, cohort=4).run()
    found = reproduce(study, 1, device="cpu")
    assert found.cohort == 4
    assert found.reproduced
    assert max(each.largest for each in found.differences) < 1e-4


def test_a_pruned_trial_is_trained_as_far_as_it_was(tmp_path: Path) -> None:
    study = alone(tmp_path, pruner={"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}, trials=8)
    pruned = [trial for trial in study.trials() if trial.state.name == "PRUNED"]
    assert pruned
    found = reproduce(study, pruned[0].number, device="cpu")
    assert found.identical
    assert found.epochs < 3


def test_a_diverged_trial_diverges_again(tmp_path: Path) -> None:
    parameters = {"widths": "8", "epochs": 3, "optimizer": "sgd", "learning_rate": [1000.0]}
    study = alone(tmp_path, parameters=parameters, trials=2)
    assert study.trials()[0].user_attrs["failure"] == "diverged"
    assert reproduce(study, 0, device="cpu").identical


def test_a_trial_of_an_evaluation(tmp_path: Path) -> None:
    (companion,) = plan_evaluations(trained(tmp_path), top=1, seeds=2)
    make_worker(companion, cohort=1).run()
    assert reproduce(companion, 0, device="cpu").identical


def doctored(study: Study, number: int, change: float) -> None:
    """The record of the last epoch's loss, changed in the database."""
    trial = study.trials()[number]
    with study.storage.engine.begin() as connection:
        here = (EPOCHS.c.study_id == study.id) & (EPOCHS.c.trial_id == trial._trial_id) & (EPOCHS.c.epoch == 3)
        (text,) = connection.execute(sa.select(EPOCHS.c.metrics).where(here)).scalars()
        metrics = json.loads(text)
        metrics["val_loss"] += change
        connection.execute(sa.update(EPOCHS).where(here).values(metrics=json.dumps(metrics)))


def test_another_record_is_not_reproduced(tmp_path: Path) -> None:
    study = alone(tmp_path)
    doctored(study, 0, 1e-12)
    found = reproduce(study, 0, device="cpu")
    assert not found.reproduced
    (other,) = [each for each in found.differences if each.largest]
    assert (other.metric, other.epoch) == ("val_loss", 3)
    assert other.largest == pytest.approx(1e-12, rel=0.1)
    assert any("nothing that is recorded has changed" in line for line in describe_reproduction(found))


def test_in_a_cohort_more_than_rounding_is_not_reproduced(tmp_path: Path) -> None:
    study = make(tmp_path)
    make_worker(study, cohort=4).run()
    doctored(study, 1, 2 * COHORT_TOLERANCE)
    assert not reproduce(study, 1, device="cpu").reproduced


def test_what_has_changed_is_named(tmp_path: Path) -> None:
    study = alone(tmp_path)
    trial = study.trials()[0]
    then = {**trial.system_attrs["hpo:environment"], "torch": "1.0", "device": "another"}
    with study.storage.engine.begin() as connection:
        text = (
            "update trial_system_attributes set value_json = :text where trial_id = :id and \"key\" = 'hpo:environment'"
        )
        connection.execute(sa.text(text), {"text": json.dumps(then), "id": trial._trial_id})
    told = describe_reproduction(reproduce(Study(type(study.storage)(sqlite_url(tmp_path)), "small"), 0, device="cpu"))
    assert any(line.startswith("changed: torch: 1.0 then, 2.") for line in told)
    assert any(line.startswith("changed: device: another then, ") for line in told)
    assert not any("data:" in line for line in told)


def test_other_data_are_refused(tmp_path: Path) -> None:
    study = alone(tmp_path)
    with np.load(tmp_path / "small.npz") as held:
        arrays = dict(held)
    arrays["x_train"] = 255 - arrays["x_train"]
    np.savez(tmp_path / "small.npz", **arrays)
    with pytest.raises(DataError, match=r"small\.npz"):
        reproduce(study, 0, device="cpu")


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    study = make(tmp_path)
    with pytest.raises(RequestError, match="has no trial 9"):
        reproduce(study, 9)
    with pytest.raises(RequestError, match="no epoch of trial 0 was recorded"):
        reproduce(study, 0)


def test_the_command_says_it_with_its_exit_code(tmp_path: Path) -> None:
    study = alone(tmp_path)
    more = ("--storage", sqlite_url(tmp_path), "--device", "cpu")
    done = run_hpo("reproduce", "small", "0", "--out", "again", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stderr
    assert "val_accuracy" in done.stdout
    assert {"config.toml", "metrics.csv", "weights.safetensors"} <= {p.name for p in (tmp_path / "again").iterdir()}
    doctored(study, 1, 0.5)
    done = run_hpo("reproduce", "small", "1", *more, cwd=tmp_path)
    assert done.returncode == 1
    assert "different: trial 1 was not reproduced in 3 epochs" in done.stderr
