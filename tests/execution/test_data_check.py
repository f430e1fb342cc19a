"""Data of a study: looked at once, kept with it, and said where it matters."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import hpo
from hpo.config import registry
from hpo.datasets import DataFacts
from hpo.errors import DataError, RequestError
from hpo.execution import data_check
from hpo.execution.backends import live_progress
from hpo.execution.data_check import check_data
from hpo.execution.launch import plan_launch
from hpo.execution.sanity_check import check_study
from hpo.report.checks.run import run_checks
from hpo.report.data.results import read_results
from hpo.study import Study
from hpo.study.attributes import DATA_FACTS
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.evaluation_study import create_evaluations
from tests.data import small_npz
from tests.study.helpers import new_storage
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 1, "validation": 0.25, "split_seed": 3}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype(np.float32)
Y = np.arange(200) % 2


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.datasets, "_entries", dict(registry.datasets._entries))


def make(folder: Path, dataset: str, **keys: Any) -> Study:
    table = {"dataset": dataset, "trials": 1, "sampler": "random", "parameters": SMALL, **keys}
    name, definition, budget = parse_definition(table, "small", folder)
    return Study.create(new_storage(folder), name, definition, budget)


def write_leaky(path: Path) -> str:
    """Features of which the last is the label, with test samples that are training samples."""
    x = np.column_stack([X, Y]).astype(np.float32)
    np.savez(path, x_train=x, y_train=Y, x_test=x[:20], y_test=Y[:20])
    return str(path)


def test_the_first_worker_looks_and_the_second_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path, str(small_npz(tmp_path / "small.npz")))
    assert study.data_facts is None
    make_worker(study)
    facts = study.data_facts
    assert facts is not None
    assert (facts.train, facts.validation, facts.test, facts.distinct) == (450, 150, 150, 600)
    monkeypatch.setattr(data_check, "collect_facts", None)
    make_worker(study)
    assert study.data_facts == facts


def test_what_is_serious_is_logged_shown_and_a_warning_of_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = make(tmp_path, write_leaky(tmp_path / "leaky.npz"))
    console = Console(file=io.StringIO(), width=500)
    assert not live_progress._warn_of_data(study, console)  # before a worker has looked
    with caplog.at_level(logging.WARNING, logger="hpo.execution.worker"):
        make_worker(study)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("data: 20 of 20 test samples (all) are copies of training or validation samples")
    assert lines[1].startswith("data: feature 4 (from 0) alone tells the label nearly without error")
    assert live_progress._warn_of_data(study, console)
    assert console.file.getvalue().splitlines() == lines  # type: ignore[attr-defined]
    findings = {finding.check: finding for finding in run_checks(read_results(study))}
    assert (findings["leaks"].level, findings["duplicates"].level) == ("warning", "warning")
    assert (findings["balance"].level, findings["validation_set"].level) == ("ok", "note")


def test_a_function_s_test_data_are_left_alone_until_they_are_evaluated(tmp_path: Path) -> None:
    reads = []

    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        def test() -> tuple[Any, Any]:
            reads.append(1)
            return X[:5], Y[:5]

        return hpo.Dataset((X, Y), test=test)

    study = make(tmp_path, "own")
    make_worker(study)
    known = study.data_facts
    assert known is not None
    assert (known.test, reads) == (None, [])
    config = study.definition.baseline_config(study.space)
    (evaluation,) = create_evaluations(study, [(0, config, 1)], seeds=2)
    make_worker(evaluation)
    facts = study.data_facts
    assert facts is not None
    assert (facts.test, facts.overlaps[-1].part, len(reads)) == (5, "test", 1)
    assert evaluation.data_facts is None
    make_worker(evaluation)
    assert len(reads) == 1


def test_test_data_that_cannot_be_read_do_no_harm(tmp_path: Path) -> None:
    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        def test() -> tuple[Any, Any]:
            raise ZeroDivisionError

        return hpo.Dataset((X, Y), test=test)

    study = make(tmp_path, "own")
    (evaluation,) = create_evaluations(study, [(0, study.definition.baseline_config(study.space), 1)], seeds=2)
    make_worker(evaluation)
    facts = study.data_facts
    assert facts is not None
    assert facts.test is None


def test_data_that_cannot_be_split_end_the_worker_before_a_trial(tmp_path: Path) -> None:
    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        return hpo.Dataset((X, Y), groups=np.zeros(200))

    study = make(tmp_path, "own")
    with pytest.raises(DataError, match=r"^own: validation: all 200 samples are of one group"):
        make_worker(study)


def test_damaged_facts_are_one_line_and_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = make(tmp_path, str(small_npz(tmp_path / "small.npz")))
    for damage in ("text", 3, [], {"task": "x"}, {"train": -1}, {"task": "regression", "train": 1e300}):
        study.storage.set_study_user_attr(study.id, DATA_FACTS, damage)
        caplog.clear()
        assert study.data_facts is None
        assert read_results(study).data_facts is None
        (record,) = caplog.records
        assert "its attribute hpo:data_facts is damaged: " in record.getMessage()
        assert "\n" not in record.getMessage()
    make_worker(study)
    assert isinstance(study.data_facts, DataFacts)


def test_training_and_the_check_split_alike(tmp_path: Path) -> None:
    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        return hpo.Dataset((X, Y), groups=np.arange(200) // 7, times=np.arange(200) // 5)

    study = make(tmp_path, "own")
    worker = make_worker(study)
    facts = study.data_facts
    assert facts is not None
    data = worker.trials.data.get(study.definition.baseline_config(study.space))  # type: ignore[union-attr]
    assert (facts.train, facts.validation) == (len(data.y_train), len(data.y_val))
    other = data.dataset
    check_data(study, other)  # known already
    assert study.data_facts == facts


# ---- folds and splits of each trial's own


def own_data(**more: Any) -> None:
    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        return hpo.Dataset((X, Y), **more)


@pytest.mark.parametrize(
    ("more", "keys", "line"),
    [
        ({}, {"folds": 101}, "own: folds = 101: class 0 has only 100 samples"),
        ({}, {"folds": {"by": "group"}}, "own: folds = 5 by group: the samples have no groups"),
        ({}, {"folds": {"by": "time"}}, "own: folds = 5 by time: the samples have no times"),
        ({"groups": Y}, {"folds": 3}, "own: folds = 3: there are only 2 groups; take fewer folds"),
        ({"times": np.arange(200)}, {"folds": 3, "repeats": 2}, "repeats = 2: folds by time are the same each time"),
        ({"times": np.arange(200)}, {"holdout": 3}, "own: holdout = 3: the samples have times, of which a split"),
        (
            {"task": "regression"},
            {"folds": 101, "task": "regression"},
            "folds = 101: of 200 samples of own one validates, for which val_r2, a comparison with their mean, is not",
        ),
        (
            {"times": np.arange(200)},
            {"resplit": "per_trial"},
            "resplit = 'per_trial': own has times, of which the",
        ),
        (
            {"validation": (X[:5], Y[:5])},
            {"resplit": "per_trial"},
            "resplit = 'per_trial': own has validation samples",
        ),
    ],
)
def test_data_that_cannot_be_divided_end_the_worker_before_a_trial(
    tmp_path: Path, more: dict[str, Any], keys: dict[str, Any], line: str
) -> None:
    own_data(**more)
    study = make(tmp_path, "own", parameters={"widths": "8", "epochs": 1}, **keys)
    with pytest.raises(RequestError) as caught:
        make_worker(study)
    assert str(caught.value).startswith(line)
    with pytest.raises(RequestError) as caught:
        check_study(study.definition)
    assert str(caught.value).startswith(line)


def warnings_of(caplog: pytest.LogCaptureFixture, study: Study) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="hpo.execution.worker"):
        make_worker(study)
    return [line for record in caplog.records if not (line := record.getMessage()).startswith("data: ")]


def test_what_the_data_leave_without_effect_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own_data(validation=(X[:50], Y[:50]))
    fixed = {"widths": "8", "epochs": 1, "validation": 0.5}
    study = make(tmp_path, "own", name="fixed", parameters=fixed)
    line = "validation = 0.5 has no effect, for own brings validation samples of its own"
    assert warnings_of(caplog, study) == [line]
    assert check_study(study.definition)
    searched = make(tmp_path, "own", name="searched", parameters={**fixed, "validation": [0.1, 0.6]})
    line = "validation is searched, but has no effect, for own brings validation samples of its own"
    assert warnings_of(caplog, searched) == [line]
    assert warnings_of(caplog, make(tmp_path, "own", name="plain", parameters={"widths": "8", "epochs": 1})) == []
    divided = {"widths": "8", "epochs": 1, "validation": [0.2, 0.5]}  # of the training samples
    assert line not in warnings_of(caplog, make(tmp_path, "own", name="divided", parameters=divided, holdout=2))


def test_the_size_of_batches_has_no_effect_where_the_data_are_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        return hpo.Dataset([(X, Y)], classes=2, validation=(X, Y))

    parameters = {"widths": "8", "epochs": 1, "batch_size": [8, 16]}
    study = make(tmp_path, "own", name="searched", parameters=parameters)
    assert warnings_of(caplog, study) == [
        "batch_size is searched, but has no effect, for own brings batches of its own"
    ]
    study = make(tmp_path, "own", name="fixed", parameters={**parameters, "batch_size": 8})
    assert warnings_of(caplog, study) == ["batch_size = 8 has no effect, for own brings batches of its own"]


def test_a_launch_knows_whether_a_file_brings_validation_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "own.npz", x_train=X, y_train=Y, x_val=X[:50], y_val=Y[:50], x_test=X[:9], y_test=Y[:9])
    keys = {"name": "own", "dataset": str(tmp_path / "own.npz"), "sampler": "random", "trials": 1}
    fixed = {"widths": "8", "epochs": 1, "validation": 0.5}
    plan = plan_launch(None, **keys, parameters=fixed)
    assert [line for line in plan.notices if line.startswith("validation = 0.5 has no effect, for ")]
    assert warnings_of(caplog, plan.create(f"sqlite:///{tmp_path}/one.db")) == []  # it has been said
    plan = plan_launch(None, **keys, parameters={**fixed, "validation": [0.1, 0.6]})
    assert [line for line in plan.notices if line.startswith("validation is searched, but has no effect, for ")]


def test_batches_are_not_divided(tmp_path: Path) -> None:
    @hpo.dataset("own")
    def own() -> hpo.Dataset:
        return hpo.Dataset([(X, Y)], classes=2, validation=(X, Y))

    study = make(tmp_path, "own", parameters={"widths": "8", "epochs": 1}, folds=3)
    with pytest.raises(DataError, match=r"^folds = 3: own gives batches, which cannot be divided; use seeds$"):
        make_worker(study)


def test_folds_leave_own_validation_samples_out_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own_data(validation=(X[:50], Y[:50]))
    study = make(tmp_path, "own", parameters={"widths": "8", "epochs": 1}, folds=4)
    with caplog.at_level(logging.WARNING, logger="hpo.execution.worker"):
        make_worker(study)
    assert caplog.records[0].getMessage() == (
        "folds = 4: divides the training samples of own; its own validation samples are left out"
    )
    facts = study.data_facts
    assert facts is not None
    assert (facts.train, facts.validation, facts.validated, facts.scored) == (150, 50, 200, 200)


def test_folds_by_time_do_not_validate_the_first_samples(tmp_path: Path) -> None:
    own_data(times=np.arange(200))
    study = make(tmp_path, "own", parameters={"widths": "8", "epochs": 1}, folds=4)
    make_worker(study)
    facts = study.data_facts
    assert facts is not None
    assert (facts.train, facts.validation, facts.scored) == (40, 40, 160)
