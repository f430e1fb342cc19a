"""Training loops of the user's own: what `hpo.training_loop` gives them, and what it asks of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from torch import nn

import hpo
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, DefinitionError, RequestError, RunError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.restore import restore
from hpo.report.write import write_report
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.settings import TrainSettings
from tests import loops  # noqa: F401  (which registers them)
from tests.data import small_npz
from tests.helpers import ROOT
from tests.helpers import hpo as command
from tests.study.helpers import sqlite_url
from tests.training.own_loops import make, outcome_of, own, rows_of
from tests.training.resumable import bits, data, stop_after
from tests.workers import make_worker

pytestmark = pytest.mark.usefixtures("own_entries")


def plain(folder: Path, **keys: Any) -> Study:
    space = {"model": "plain", "hidden": [8, 16], "learning_rate": [0.01, 0.001], "epochs": 4, "batch_size": 32}
    return make(folder, dataset=str(small_npz(folder / "small.npz")), parameters=space, **keys)


# A study.


def test_a_study_of_a_loop_has_what_every_study_has(tmp_path: Path) -> None:
    study = plain(tmp_path, baseline={"hidden": 4})
    make_worker(study).run()
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    for trial in trials:
        rows = rows_of(study, trial.number)
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
        assert trial.value == max(row["val_accuracy"] for row in rows)
        assert trial.intermediate_values == {row["epoch"]: row["val_accuracy"] for row in rows}
    hidden = study.config_of(trials[0]).hidden
    assert hidden == 4
    assert trials[0].user_attrs["parameter_count"] == 36 * hidden + hidden + 3 * hidden + 3
    written = write_report(study, tmp_path / "report").html.read_text(encoding="utf-8")
    assert "hidden" in written
    assert "momentum" not in study.config_of(trials[1]).effective()  # used by the loop, but not under adam
    assert "schedule" not in study.config_of(trials[1]).effective()  # not used by the loop


@pytest.mark.integration
def test_two_workers_do_exactly_the_budget_and_one_without_the_module_says_what_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    npz = small_npz(tmp_path / "small.npz")
    file.write_text(f'dataset = "{npz}"\ntrials = 6\n[parameters]\nmodel = "plain"\nhidden = [4, 8]\nepochs = 2\n')
    url = sqlite_url(tmp_path)
    launched = command("launch", str(file), "--workers", "2", "--import", "tests.loops", "--storage", url, cwd=ROOT)
    assert launched.returncode == 0, launched.stderr
    study = Study(StudyStorage(url), "own")
    assert [(t.number, t.state) for t in study.trials()] == [(i, TrialState.COMPLETE) for i in range(6)]
    refused = command("worker", "own", "--storage", url, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "hpo: model 'plain' is not registered here; it comes from module 'tests.loops': add --import tests.loops"
    )


@pytest.mark.integration
def test_a_killed_trial_goes_on_under_its_number_to_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    undisturbed = plain(tmp_path / "a", trials=2)
    make_worker(undisturbed).run()

    (tmp_path / "b").mkdir()
    study = plain(tmp_path / "b", trials=2)
    arguments = ["worker", "own", "--storage", sqlite_url(tmp_path / "b"), "--import", "tests.loops", "--threads", "1"]
    options = ["--checkpoint-every", "0", "--lease", "1", "--device", "cpu"]
    died = command(*arguments, *options, cwd=ROOT, LOOP_DIES_ONCE=str(tmp_path / "died"))
    assert died.returncode == -9
    after = command(*arguments, *options, cwd=ROOT)
    assert after.returncode == 0, after.stderr
    assert "trial 0 goes on after epoch 2" in after.stderr
    for number in range(2):
        assert rows_of(study, number) == rows_of(undisturbed, number)
    assert [trial.value for trial in study.trials()] == [trial.value for trial in undisturbed.trials()]


def test_an_evaluation_tests_the_model_that_a_loop_named(tmp_path: Path) -> None:
    study = plain(tmp_path, trials=2)
    make_worker(study).run()
    (evaluation,) = plan_evaluations(study, top=1, seeds=2)
    make_worker(evaluation).run()
    tested = [trial.user_attrs["test_accuracy"] for trial in evaluation.trials()]
    assert len(tested) == 4  # the best and the defaults
    assert all(0 < accuracy <= 1 for accuracy in tested)
    with pytest.raises(RequestError, match="evaluate --refit: a training loop of your own chooses its data itself"):
        plan_evaluations(study, top=1, seeds=2, refit=True)
    with pytest.raises(
        RequestError, match=r"the training loop 'plain' can build the model of trial \d; its weights are in"
    ):
        restore(study)


def test_the_objective_may_be_a_value_of_the_loops_own_without_data_or_epochs(tmp_path: Path) -> None:
    space = {"model": "parabola", "hidden": {"low": 1, "high": 64}}
    study = make(tmp_path, objective="val_rmse", sampler="tpe", trials=15, parameters=space)
    assert study.definition.dataset.name == "none"
    assert not study.maximize
    make_worker(study).run()
    assert study.best().values[0] == min(abs(t.params["hidden"] - 40) / 8 for t in study.trials())
    assert study.config_of(study.best()).effective().keys() == {"model", "seed", "hidden", "penalty"}
    assert "parameter_count" not in study.trials()[0].user_attrs
    write_report(study, tmp_path / "report")
    with pytest.raises(RequestError, match="reads its own data, so no test set is known here"):
        plan_evaluations(study)


def test_a_pruner_ends_a_loop(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            trial.report(val_accuracy=trial.config.learning_rate * epoch)

    space = {"model": own(loop, uses=["epochs", "learning_rate"]), "epochs": 5, "learning_rate": [0.1, 0.01]}
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    study = make(tmp_path, sampler="grid", trials=2, pruner=pruner, parameters=space)
    make_worker(study).run()
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [row["epoch"] for row in rows_of(study, 1)] == [1]


# One trial.


def test_a_part_of_a_stopped_trial_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    def loop(trial: hpo.Trial) -> None:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for epoch in trial.epochs(model=model, optimizer=optimizer):
            noise = torch.rand(8, 2)
            seen.append((epoch, noise.sum().item()))
            optimizer.zero_grad()
            model(noise).square().mean().backward()
            optimizer.step()
            trial.report(val_accuracy=model.weight.sum())

    whole = outcome_of(loop)
    drawn, path = list(seen), tmp_path / "0.pt"
    stopped = outcome_of(loop, CheckpointSpec(path, every=3600), should_stop=stop_after(2))
    assert (stopped.status, len(stopped.history)) == ("interrupted", 2)
    resumed = outcome_of(loop, CheckpointSpec(path, resume=True))
    assert bits(resumed) == bits(whole)
    assert seen[len(drawn) :] == drawn  # each epoch once, with the same numbers


def test_the_weights_are_those_of_the_best_epoch() -> None:
    def loop(trial: hpo.Trial) -> None:
        model = nn.Linear(1, 1, bias=False)
        for epoch, value in zip(trial.epochs(model=model), [0.1, 0.9, 0.5, 0.2], strict=False):
            nn.init.constant_(model.weight, epoch)
            trial.report(val_accuracy=value)

    outcome = outcome_of(loop)
    assert (outcome.best_epoch, outcome.best["val_accuracy"]) == (2, 0.9)
    assert outcome.weights["weight"].item() == 2
    assert outcome.parameter_count == 1


def test_lazy_layers_are_counted_once_they_have_a_size(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> None:
        model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in trial.epochs(model=model, optimizer=optimizer):
            nn.functional.cross_entropy(model(trial.data.x_train), trial.data.y_train).backward()
            optimizer.step()
            trial.report(val_accuracy=epoch / 10)

    whole = outcome_of(loop)
    assert whole.parameter_count == 8 * 4 + 4 + 4 * 3 + 3
    spec = CheckpointSpec(tmp_path / "0.pt", every=0)
    assert outcome_of(loop, spec, should_stop=stop_after(2)).status == "interrupted"
    again = outcome_of(loop, CheckpointSpec(spec.path, resume=True))
    assert again.parameter_count == whole.parameter_count


def test_a_framework_that_has_the_loop_resumes_by_state_and_folder(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> None:
        (trial.folder / "mine.txt").touch()
        while trial.epoch < 4 and not trial.should_stop:
            assert (trial.state is None) == (trial.epoch < 2)
            trial.report(val_accuracy=trial.epoch)
            trial.save({"epoch": trial.epoch})
            if trial.epoch == 2 and trial.state is None:
                raise KeyboardInterrupt

    path = tmp_path / "0.pt"
    with pytest.raises(KeyboardInterrupt):
        outcome_of(loop, CheckpointSpec(path))
    assert (tmp_path / "0" / "mine.txt").exists()
    outcome = outcome_of(loop, CheckpointSpec(path, resume=True))
    assert [row["val_accuracy"] for row in outcome.history] == [0, 1, 2, 3]


def test_its_files_are_gone_once_the_trial_has_ended(tmp_path: Path) -> None:
    folders = []

    def loop(trial: hpo.Trial) -> float:
        folders.append(trial.folder)
        return 0.5

    study = make(tmp_path, trials=1, parameters={"model": own(loop)})
    make_worker(study).run()
    assert folders
    assert not folders[0].exists()


def test_a_loss_that_is_not_finite_ends_it_as_diverged() -> None:
    def loop(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            trial.report(train_loss=1.0 if epoch < 3 else float("nan"), val_accuracy=0.5)

    outcome = outcome_of(loop)
    assert (outcome.status, len(outcome.history)) == ("diverged", 3)


def test_patience_counts() -> None:
    def loop(trial: hpo.Trial) -> None:
        for _ in trial.epochs():
            trial.report(val_accuracy=0.5)

    hpo.training_loop("patient", uses=["epochs", "patience"])(loop)
    config = TrialConfig(model="patient", epochs=9, patience=2)
    (outcome,) = train([config], data(TrialConfig(validation=20)), TrainSettings(monitor="val_accuracy"))
    assert (outcome.status, len(outcome.history)) == ("early_stopped", 3)


def test_patience_counts_improvements_that_are_large_enough() -> None:
    def loop(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            trial.report(val_accuracy=0.5 + 0.01 * epoch)

    hpo.training_loop("strict", uses=["epochs", "patience", "min_delta"])(loop)
    config = TrialConfig(model="strict", epochs=9, patience=2, min_delta=0.015)
    (outcome,) = train([config], data(TrialConfig(validation=20)), TrainSettings(monitor="val_accuracy"))
    assert (outcome.status, len(outcome.history)) == ("completed", 9)  # each second epoch counts
    config = TrialConfig(model="strict", epochs=9, patience=2, min_delta=0.1)
    (outcome,) = train([config], data(TrialConfig(validation=20)), TrainSettings(monitor="val_accuracy"))
    assert (outcome.status, outcome.best_epoch) == ("early_stopped", 3)


def test_a_loop_may_end_by_itself() -> None:
    def loop(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            trial.report(val_accuracy=epoch)
            if epoch == 2:
                return

    assert (outcome_of(loop).status, outcome_of(loop).best_epoch) == ("completed", 2)


# What it asks.


class Odd:
    """A part whose state is no plain value."""

    def state_dict(self) -> Any:
        return {"odd": Odd()}

    def load_state_dict(self, state: Any, /) -> None:
        raise AssertionError


def _reports_other(trial: hpo.Trial) -> None:
    trial.report(val_loss=1.0)


def _reports_text(trial: hpo.Trial) -> None:
    trial.report(val_accuracy="good")


def _reports_nothing(trial: hpo.Trial) -> None:
    pass


def _reports_late(trial: hpo.Trial) -> None:
    for _ in trial.epochs():
        pass


def _odd(trial: hpo.Trial) -> None:
    for _ in trial.epochs(odd=Odd()):
        trial.report(val_accuracy=0.5)


@pytest.mark.parametrize(
    ("loop", "line"),
    [
        (_reports_other, r"objective 'loop': trial.report has no val_accuracy; it has \['val_loss'\]"),
        (_reports_text, r"objective 'loop': trial.report\(val_accuracy=…\): must be a number, not str"),
        (_reports_nothing, r"objective 'loop': it reported nothing; call trial.report\(…\) after each epoch"),
        (_reports_late, r"objective 'loop': epoch 1 ended without trial.report\(…\)"),
        (_odd, r"objective 'loop': the state \['odd'\]: checkpoint .* is damaged \(Weights only load failed"),
    ],
)
def test_what_a_loop_does_wrong_is_one_line(loop: Callable[[hpo.Trial], None], line: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=line):
        outcome_of(loop, CheckpointSpec(tmp_path / "0.pt", every=0))


def test_epochs_needs_the_parameter() -> None:
    for name, loop in (("epochs", lambda trial: list(trial.epochs())), ("stack", lambda trial: trial.stack(None))):
        own(loop, uses=[], stack=name == "stack")
        line = rf"objective 'loop': trial.{name} needs the parameter 'epochs'; add uses=\['epochs', …\]"
        with pytest.raises(RunError, match=line):
            train([TrialConfig(model="loop")], data(TrialConfig(validation=20)))


def test_what_a_study_file_says_wrong_is_one_line(tmp_path: Path) -> None:
    def refused(match: str, kind: type[Exception] = DefinitionError, **table: Any) -> None:
        with pytest.raises(kind, match=match):
            parse_definition(table, "own", tmp_path)

    refused("dataset = 'none': is for training loops of your own, and mlp is none; name a data set", dataset="none")
    refused(
        "objective = 'distance': only training loops of your own report it, and model 'mlp' is none",
        objective="distance",
        parameters={"model": ["mlp", "parabola"]},
        dataset="mnist",
    )
    with pytest.raises(ConfigError, match="hidden = 100: out of bounds, must be 1 <= x <= 64"):
        TrialConfig(model="parabola", hidden=100)


def test_the_data_are_those_of_the_study(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> float:
        return len(trial.data.y_val)

    study = make(tmp_path, trials=1, parameters={"model": own(loop)})
    make_worker(study).run()
    assert "trial.data: the study names no data set" in study.trials()[0].user_attrs["message"]


def test_loops_and_models_can_share_a_space(tmp_path: Path) -> None:
    space = {"model": ["mlp", "plain"], "depth": 1, "width": [8], "hidden": [4], "epochs": 1, "schedule": ["linear"]}
    study = make(tmp_path, dataset=str(small_npz(tmp_path / "small.npz")), sampler="grid", trials=2, parameters=space)
    assert [sorted(t.system_attrs["fixed_params"]) for t in study.trials()] == [
        ["model", "schedule", "width"],
        ["hidden", "model"],
    ]
    make_worker(study).run()
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 2
