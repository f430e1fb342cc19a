"""A worker that pauses trials at rungs, and promotes them from their checkpoints."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from optuna.trial import TrialState
from torch import nn
from torch.nn import functional as F

import hpo
from hpo.report.data.results import read_results
from hpo.report.data.trial_table import trial_table
from hpo.report.render.json import report_document, report_schema
from hpo.report.report_data import read_report_data
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import StudyFiles
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.copy_study import copy_study
from hpo.study.operations.progress import read_progress
from hpo.study.paused import paused_epoch
from tests.data import small_npz
from tests.helpers import ROOT
from tests.helpers import hpo as command
from tests.study.helpers import holder, new_storage, sqlite_url
from tests.workers import make_worker

SMALL = {
    "widths": "8",
    "epochs": 4,
    "batch_size": 40,
    "dropout": 0.3,
    "learning_rate": {"low": 0.0003, "high": 0.02, "log": True},
}
COMPLETE, PRUNED, WAITING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING
ASHA = {"name": "asha", "reduction_factor": 2}


def make(folder: Path, storage: StudyStorage | None = None, **keys: Any) -> Study:
    table = {"dataset": str(small_npz(folder / "small.npz", 120)), "trials": 6, "sampler": "random", "pruner": ASHA}
    definition = parse_definition({**table, "objective": "val_loss", "parameters": SMALL, **keys}, "small", folder)
    return Study.create(storage or new_storage(folder), *definition)


def reports(study: Study) -> list[dict[int, float]]:
    return [trial.intermediate_values for trial in study.trials()]


def check_end(study: Study) -> None:
    """The budget is spent, every trial is one of a kind, and no checkpoint is left."""
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(study.budget.trials))
    rows = study.storage.read_epochs(study.id)
    for trial in trials:
        reached = len(trial.intermediate_values)
        assert trial.state == (COMPLETE if reached == 4 else PRUNED)
        assert reached in (1, 2, 4)
        assert trial.value == min(trial.intermediate_values.values())
        assert [row["epoch"] for row in rows[trial._trial_id]] == list(range(1, reached + 1))
        assert trial.user_attrs["best_epoch"] in trial.intermediate_values
    assert any(trial.state == COMPLETE for trial in trials)
    assert not list(StudyFiles(study).folder("checkpoints").glob("*.pt"))
    assert study.remaining() == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, float]]:
    """Return what each trial reports where nobody pauses it."""
    study = make(tmp_path_factory.mktemp("whole"), pruner="none")
    make_worker(study, cohort=1).run()
    return reports(study)


@pytest.mark.parametrize("cohort", [1, 2])
def test_promoted_trials_go_on_to_the_same_bits(tmp_path: Path, whole: list[dict[int, float]], cohort: int) -> None:
    study = make(tmp_path)
    worker = make_worker(study, cohort=cohort)
    worker.run()
    check_end(study)
    assert worker.finished.keys() == {"COMPLETE", "PRUNED"}
    assert sum(worker.finished.values()) == 6
    went_on = 0
    for expected, trial in zip(whole, study.trials(), strict=True):
        went_on += trial.user_attrs["attempt"] > 1
        for epoch, value in trial.intermediate_values.items():
            assert value == expected[epoch] if cohort == 1 else value == pytest.approx(expected[epoch], abs=0.2)
    assert went_on or cohort > 1  # which has winners among its own
    trained = {trial_id: rows[-1]["seconds"] for trial_id, rows in study.storage.read_epochs(study.id).items()}
    assert [row.seconds for row in read_results(study).trials] == [trained[t._trial_id] for t in study.trials()]


def test_a_stop_a_launch_and_a_death_in_between_change_nothing(tmp_path: Path, whole: list[dict[int, float]]) -> None:
    study = make(tmp_path)
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps % 11 == 0

    for _ in range(6):
        make_worker(study, stop, cohort=1).run()
        if any(paused_epoch(trial) is not None for trial in study.trials()):
            # A worker that dies as it has promoted a trial leaves it RUNNING under a lease that ends.
            study.claim(holder("dead", seconds=-1))
            study.storage._leases.clear()
    make_worker(study, cohort=1).run()
    check_end(study)
    for expected, trial in zip(whole, reports(study), strict=True):
        assert trial == {epoch: expected[epoch] for epoch in trial}


def test_paused_trials_are_shown_counted_and_copied(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={"name": "asha", "reduction_factor": 4}, trials=3)
    worker = make_worker(study, cohort=1)
    study.storage.register_worker(study.id, worker.info)
    for _ in range(2):
        claim = study.claim(worker.info)
        assert claim is not None
        worker.work_on(claim)
    assert [paused_epoch(trial) for trial in study.trials()] == [1, 1, None]
    results = read_results(study)
    assert [row.state for row in results.trials] == ["PAUSED", "PAUSED", "WAITING"]
    assert results.counts["PAUSED"] == 2
    assert trial_table(results)[0]["epochs_done"] == 1
    assert "2 PAUSED" in read_progress(study).text
    document = json.loads(json.dumps(report_document(read_report_data(study))))
    jsonschema.validate(document, report_schema())
    assert len(list(StudyFiles(study).folder("checkpoints").glob("*.pt"))) == 2
    copied = copy_study(study, study.storage, "copy")
    assert reports(copied) == reports(study)
    make_worker(copied, cohort=1).run()  # what it promotes begins anew, for a copy has no checkpoints
    check_copied = [trial.state for trial in copied.trials()]
    assert sorted(check_copied) == [COMPLETE, PRUNED, PRUNED]
    make_worker(study, cohort=1).run()
    check_end(study)
    assert reports(copied) == reports(study)


def test_a_loop_pauses_where_it_saves_and_stops_where_it_does_not(tmp_path: Path) -> None:
    class Counter:
        """A part that a checkpoint holds."""

        count = 0

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    @hpo.training_loop("saves", uses=["epochs", "learning_rate"])
    def saves(trial: hpo.Trial) -> None:
        counter = Counter()
        for _ in trial.epochs(counter=counter):
            counter.count += 1
            trial.report(val_loss=trial.config.learning_rate / counter.count)

    @hpo.training_loop("stops", uses=["epochs", "learning_rate"])
    def stops(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            trial.report(val_loss=trial.config.learning_rate / epoch)

    rates = {"learning_rate": SMALL["learning_rate"], "epochs": 4}
    for model, again in (("saves", True), ("stops", False)):
        (tmp_path / model).mkdir()
        study = make(tmp_path / model, parameters={**rates, "model": model})
        make_worker(study).run()
        check_end(study)
        assert any(trial.user_attrs["attempt"] > 1 for trial in study.trials()) is again
        for trial in study.trials():
            rate = trial.params["learning_rate"]
            assert trial.intermediate_values == {e: rate / e for e in trial.intermediate_values}


@pytest.mark.parametrize("cohort", [1, 3])
def test_a_loop_of_stacks_pauses_its_trials_and_goes_on_with_them(tmp_path: Path, cohort: int) -> None:
    @hpo.training_loop("stacks", uses=["epochs", "learning_rate", "batch_size"], stack=True)
    def stacks(trial: hpo.Trial) -> None:
        data = trial.data
        inputs = data.x_train[0].numel()
        stack = trial.stack(lambda _: nn.Sequential(nn.Flatten(), nn.Linear(inputs, data.classes)))
        for epoch in stack.epochs():
            for x, y in data.batches(trial.config.batch_size, epoch):
                stack.step(x, y, F.cross_entropy)
            outputs = stack.predict(data.x_val)
            stack.report(val_loss=[F.cross_entropy(each, data.y_val) for each in outputs])

    keys = {"learning_rate": SMALL["learning_rate"], "batch_size": 40, "epochs": 4, "model": "stacks"}
    studies = []
    for name, pruner in (("whole", "none"), ("paused", ASHA)):
        (tmp_path / name).mkdir()
        study = make(tmp_path / name, parameters=keys, pruner=pruner)
        make_worker(study, cohort=cohort).run()
        studies.append(study)
    check_end(studies[1])
    for expected, found in zip(*map(reports, studies), strict=True):
        assert found == pytest.approx({epoch: expected[epoch] for epoch in found}, rel=1e-5)
    if cohort == 1:  # a cohort has winners among its own
        assert any(trial.user_attrs["attempt"] > 1 for trial in studies[1].trials())


def test_a_trial_of_a_loop_of_stacks_is_pruned_for_all_while_others_train(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    @hpo.training_loop("stacks", uses=["epochs", "learning_rate", "batch_size"], stack=True)
    def stacks(trial: hpo.Trial) -> None:
        stack = trial.stack(lambda _: nn.Linear(2, 2))
        for _ in stack.epochs():
            seen.append(sorted(each.state.name for each in Study(new_storage(tmp_path), "small").trials()))
            stack.report(val_loss=[config.learning_rate for config in stack.configs])

    keys = {"learning_rate": SMALL["learning_rate"], "batch_size": 40, "epochs": 4, "model": "stacks"}
    study = make(tmp_path, parameters=keys, pruner={"name": "median", "n_startup_trials": 1})
    make_worker(study, cohort=6).run()
    assert seen[0] == ["RUNNING"] * 6
    assert seen[1] == ["PRUNED"] * 3 + ["RUNNING"] * 3
    assert seen[-1] == seen[1]  # not half of the rest at each epoch


@pytest.mark.integration
def test_a_worker_killed_with_a_promoted_trial_loses_nothing(tmp_path: Path) -> None:
    importlib.import_module("tests.loops")
    parameters = {"model": "plain", "epochs": 4, "learning_rate": SMALL["learning_rate"], "batch_size": 40}
    study = make(tmp_path, trials=4, parameters=parameters)
    arguments = ["worker", "small", "--storage", sqlite_url(tmp_path), "--import", "tests.loops", "--threads", "1"]
    marker = tmp_path / "died"  # in the third epoch of a trial, which a promoted one alone has
    died = command(*arguments, "--lease", "1", "--device", "cpu", cwd=ROOT, LOOP_DIES_ONCE=str(marker))
    assert died.returncode == -9, died.stderr
    assert [paused_epoch(trial) for trial in study.trials()].count(None) < 4
    make_worker(study, lease=1.0).run()
    check_end(study)
    (tmp_path / "whole").mkdir()
    whole = make(tmp_path / "whole", trials=4, parameters=parameters, pruner="none")
    make_worker(whole).run()
    for expected, trial in zip(reports(whole), reports(study), strict=True):
        assert trial == {epoch: expected[epoch] for epoch in trial}
