"""Training loops that do as Optuna's objective functions do: suggestions, steps, TrialPruned, returned values."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

import hpo
from hpo.config.trial_attributes import OWN_ATTRIBUTES, warn_of_own_name
from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.reproduce import reproduce
from hpo.report.chapters.definition import definition_chapter
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.report.data.trial_table import trial_table
from hpo.study import Study
from hpo.study.operations.fork import fork_study
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.settings import TrainSettings
from hpo.training.standalone import write_weights
from tests.data import small_npz
from tests.training.own_loops import make, outcome_of, own, rows_of
from tests.training.resumable import data
from tests.workers import make_worker

pytestmark = pytest.mark.usefixtures("own_entries")
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def run(folder: Path, loop: Callable[[hpo.Trial], Any], parameters: dict[str, Any] | None = None, **keys: Any) -> Study:
    """A study of a loop that was written for Optuna: without uses and parameters, but for those given."""
    uses = {"uses": list(parameters)} if parameters else {"uses": []}
    space = {"model": own(loop, **uses), **(parameters or {})}
    study = make(folder, **{"trials": 1, "pruner": "none", "dataset": "none", "parameters": space, **keys})
    make_worker(study).run()
    return study


# Suggestions.


def objective(trial: hpo.Trial) -> float:
    """Optuna's `pytorch_simple` in small: a model whose size is asked for, and a number of epochs of its own."""
    widths = [trial.suggest_int(f"width_{i}", 1, 4) for i in range(trial.suggest_int("layers", 1, 2))]
    layers = [layer for a, b in zip([36, *widths], [*widths, 3], strict=True) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *layers[:-1])
    trial.keep(model)
    kind = trial.suggest_categorical("optimizer", ["Adam", "SGD"])
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=trial.suggest_float("lr", 1e-3, 1e-1, log=True))
    for epoch in range(3):
        for x, y in trial.data.batches(32, epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        accuracy = (model(trial.data.x_val).argmax(1) == trial.data.y_val).float().mean().item()
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def test_an_attribute_called_as_one_of_ours_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def loop(trial: hpo.Trial) -> float:
        trial.set_user_attr("best_epoch", "mine")
        trial.set_user_attr("mine", "best_epoch")
        return objective(trial)

    warn_of_own_name.cache_clear()
    study = run(tmp_path, loop, dataset=str(small_npz(tmp_path / "small.npz")), trials=2)
    (line,) = [record.getMessage() for record in caplog.records if "attribute" in record.getMessage()]
    assert line.startswith("attribute 'best_epoch': torch-hpo stores its own value under this name")
    for trial in study.trials():
        assert trial.user_attrs["mine"] == "best_epoch"
        assert trial.user_attrs.keys() - {"mine"} <= OWN_ATTRIBUTES


def test_a_loop_written_for_optuna_runs_as_it_stands(tmp_path: Path) -> None:
    study = run(tmp_path, objective, dataset=str(small_npz(tmp_path / "small.npz")), trials=3, sampler="tpe")
    results = read_results(study)
    assert [row.state for row in results.trials] == ["COMPLETE"] * 3
    for row, trial in zip(results.trials, study.trials(), strict=True):
        assert {"layers", "width_0", "optimizer", "lr"} <= trial.params.keys()
        assert trial.params.keys() == results.settings(row).keys()
        steps = trial.intermediate_values
        assert list(steps) == [0, 1, 2]
        assert [each["epoch"] for each in row.epochs] == [0, 1, 2]
        assert (row.value, row.value_from) == (steps[2], "returned")
        assert row.best_epoch == max(steps, key=steps.__getitem__) if row.value == max(steps.values()) else 2
    assert study_summary(results)["value_from"] == {"returned": 3}
    assert trial_table(results)[0]["value_from"] == "returned"
    written = str(definition_chapter(results))
    assert "returned by the training loop (3 trials)" in written
    assert "width_0" in written

    fork = fork_study(study, "fork", trials=4).create()
    assert [trial.params for trial in fork.trials()[:3]] == [trial.params for trial in study.trials()]
    (evaluation,) = plan_evaluations(study, top=1, seeds=1)
    make_worker(evaluation).run()
    (again,) = evaluation.trials()  # what is asked for has no defaults to compare with
    assert again.state == COMPLETE
    best = study.best()
    assert best is not None
    assert reproduce(study, best.number).identical
    reports = [row["val_accuracy"] for row in rows_of(study, best.number)]
    assert list(best.intermediate_values.values()) == reports


def test_a_trial_that_is_taken_over_has_what_it_was_given(tmp_path: Path) -> None:
    given: list[float] = []

    def loop(trial: hpo.Trial) -> float:
        given.append(trial.suggest_float("x", 0, 1))
        if len(given) == 1:
            raise KeyboardInterrupt
        assert trial.params["x"] == given[0]
        return given[-1]

    study = make(tmp_path, dataset="none", trials=1, sampler="random", parameters={"model": own(loop, uses=[])})
    with pytest.raises(KeyboardInterrupt):
        make_worker(study).run()
    make_worker(study).run()
    (trial,) = study.trials()
    assert given == [trial.params["x"]] * 2
    assert trial.value == given[0]


def test_a_parameter_of_the_study_is_answered_from_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def loop(trial: hpo.Trial) -> float:
        assert trial.suggest_float("learning_rate", 0.1, 1.0, log=True) == trial.config.learning_rate
        assert trial.suggest_int("width", 1, 64) == 8
        assert trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "adam"
        return trial.config.learning_rate

    space = {"learning_rate": [0.01, 0.5], "width": 8, "optimizer": "adam"}
    with caplog.at_level(logging.WARNING):
        study = run(tmp_path, loop, space, sampler="grid", trials=2)
    assert [trial.params for trial in study.trials()] == [{"learning_rate": 0.01}, {"learning_rate": 0.5}]
    assert [trial.state for trial in study.trials()] == [COMPLETE] * 2
    (warning,) = [record.getMessage() for record in caplog.records if "suggest" in record.getMessage()]
    assert warning == (
        "trial.suggest_float('learning_rate', 0.1, 1.0): the study gives it 0.01, and the study's own domain counts"
    )


def test_what_does_not_fit_the_study_is_one_line(tmp_path: Path) -> None:
    asked: list[tuple[Callable[[hpo.Trial], Any], str]] = [
        (lambda t: t.suggest_categorical("optimizer", ["Adam", "SGD"]), "'adam', which is none of ['Adam', 'SGD']"),
        (lambda t: t.suggest_int("learning_rate", 1, 9), "the study gives it 0.001, which is no int"),
        (lambda t: t.suggest_float("optimizer", 1, 9), "the study gives it 'adam', which is no float"),
        (lambda t: t.suggest_float("x", 1, 0), "low"),
    ]
    space = {"optimizer": "adam", "learning_rate": 0.001}
    for trial in run(tmp_path, lambda trial: asked[trial.number][0](trial), space, trials=4).trials():
        assert trial.state == FAIL
        assert asked[trial.number][1] in trial.user_attrs["message"]


def test_without_a_study_there_is_nobody_to_ask() -> None:
    def loop(trial: hpo.Trial) -> float:
        assert trial.suggest_int("epochs", 1, 9) == 4
        return trial.suggest_float("x", 0, 1)

    with pytest.raises(RunError, match=r"trial.suggest_float\('x', …\): there is no study here .* declare it"):
        outcome_of(loop)


def test_the_deprecated_spellings_are_taken(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> float:
        with pytest.warns(FutureWarning, match="use suggest_float"):
            return (
                trial.suggest_uniform("a", 1, 2)
                + trial.suggest_loguniform("b", 1, 2)
                + (trial.suggest_discrete_uniform("c", 0, 1, 0.5))
            )

    (trial,) = run(tmp_path, loop).trials()
    assert trial.params["c"] in (0, 0.5, 1)
    assert trial.distributions["b"].log  # type: ignore[attr-defined]
    assert trial.value == sum(trial.params.values())


# What else a trial has.


def test_a_trial_has_what_optunas_has(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> float:
        trial.set_user_attr("note", [trial.number, 2])
        assert trial.user_attrs["note"] == [trial.number, 2]
        assert trial.datetime_start is not None
        assert trial.params == {"model": "loop", "seed": 0}
        with pytest.raises(AttributeError) as raised:
            trial.repot(0.5, 1)  # type: ignore[attr-defined]
        assert str(raised.value) == "hpo.Trial has no 'repot'; did you mean 'report'?"
        with pytest.raises(AttributeError, match=r"hpo.Trial has no 'xyzzy'; it has .*suggest_float"):
            _ = trial.xyzzy
        return 0.5

    study = run(tmp_path, loop, trials=2)
    assert [trial.user_attrs["note"] for trial in study.trials()] == [[0, 2], [1, 2]]


def test_without_a_study_too() -> None:
    seen: list[Any] = []

    def loop(trial: hpo.Trial) -> float:
        trial.set_user_attr("note", 1)
        seen.extend([trial.number, trial.user_attrs, trial.params["epochs"], trial.should_prune()])
        return 0.5

    assert outcome_of(loop).status == "completed"
    assert seen == [0, {"note": 1}, 4, False]


# Steps.


def test_steps_begin_at_zero_have_gaps_and_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def loop(trial: hpo.Trial) -> None:
        for step in (0, 5, 5, 0, 7):
            trial.report(step / 10, step, note=step)
        trial.report(value=0.6, step=torch.tensor(9.0))
        trial.report(val_accuracy=0.1)  # the next one

    with caplog.at_level(logging.WARNING):
        study = run(tmp_path, loop, objective="val_accuracy")
    (trial,) = study.trials()
    assert trial.intermediate_values == {0: 0, 5: 0.5, 7: 0.7, 9: 0.6, 10: 0.1}
    assert [row["epoch"] for row in rows_of(study, 0)] == [0, 5, 7, 9, 10]
    assert rows_of(study, 0)[1]["note"] == 5
    assert (trial.value, trial.user_attrs["best_epoch"], trial.user_attrs["value_from"]) == (0.7, 7, "best epoch")
    assert sum("step=5): ignored" in record.getMessage() for record in caplog.records) == 1


def _backwards(trial: hpo.Trial) -> None:
    trial.report(0.5, 3)
    trial.report(0.5, 2)


@pytest.mark.parametrize(
    ("loop", "line"),
    [
        (lambda t: t.report(0.5, -1), r"trial.report\(…, step\): step = -1: must be a whole number from 0"),
        (lambda t: t.report(0.5, 1.5), r"step = 1.5: must be a whole number"),
        (lambda t: t.report(0.5, "a"), r"trial.report\(…, step\): must be a number, not str 'a'"),
        (_backwards, r"trial.report\(…, step=2\): comes after step 3; report steps in their order"),
        (lambda t: t.report(0.5, 1, val_accuracy=0.5), r"val_accuracy is the value; give it once"),
        (lambda t: t.report(0.5, 1, epoch=2), r"trial.report\(…, step, epoch=…\): the step is the epoch; give one"),
        (lambda t: t.report("good", 1), r"trial.report\(val_accuracy=…\): must be a number, not str 'good'"),
        (lambda _: (0.5, 0.5), r"it returned 2 values, and the study has 1 objective: val_accuracy"),
        (lambda _: "good", r"the returned value: must be a number, not str 'good'"),
        (lambda t: t.report(0.5, 0) or object(), r"the returned value: must be a number, not object"),
        (lambda _: {"val_loss": 0.5}, r"it returned no val_accuracy; it has \['val_loss'\]"),
    ],
)
def test_what_a_loop_reports_or_returns_wrong_is_one_line(loop: Callable[[hpo.Trial], Any], line: str) -> None:
    with pytest.raises(RunError, match=line):
        outcome_of(loop)


# Pruned.


def _raises(trial: hpo.Trial) -> None:
    trial.report(0.9, 0)
    trial.report(0.4, 1)
    raise optuna.TrialPruned("enough")


def _raises_at_once(_: hpo.Trial) -> None:
    raise optuna.TrialPruned


@pytest.mark.parametrize(("loop", "values"), [(_raises, [0.4]), (_raises_at_once, None)])
def test_trial_pruned_prunes_with_what_was_reported_last(
    tmp_path: Path, loop: Callable[[hpo.Trial], None], values: list[float] | None
) -> None:
    (trial,) = run(tmp_path, loop, objective="val_accuracy").trials()
    assert (trial.state, trial.values) == (PRUNED, values)
    assert "failure" not in trial.user_attrs
    assert trial.user_attrs["value_from"] == "last report"


@pytest.mark.parametrize("how", ["raise", "return", "ignore"])
def test_a_pruner_that_says_so_ends_a_loop_that_asks_and_one_that_does_not(tmp_path: Path, how: str) -> None:
    steps: list[int] = []

    def loop(trial: hpo.Trial) -> float | None:
        steps.clear()
        good = trial.number == 0
        for step in range(9):  # more than the parameter `epochs` has by default
            steps.append(step)
            trial.report(step if good else -step, step)
            if how != "ignore" and trial.should_prune():
                if how == "raise":
                    raise optuna.TrialPruned
                return 0.5
        return 100.0

    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 7}
    first, second = run(tmp_path, loop, objective="val_accuracy", trials=2, pruner=pruner).trials()
    assert (first.state, first.value) == (COMPLETE, 100.0)
    assert second.state == PRUNED
    assert second.value == (0 if how == "ignore" else -7)  # of the best epoch, where nobody asked
    assert steps == list(range(8))  # one that does not ask is ended as it reports


def test_a_loop_that_does_not_ask_is_interrupted_as_it_reports() -> None:
    def loop(trial: hpo.Trial) -> None:
        for step in range(3):
            with suppress(Exception):  # which an interruption passes
                trial.report(0.5, step)

    outcome = outcome_of(loop, should_stop=lambda: True)
    assert (outcome.status, len(outcome.history)) == ("interrupted", 2)


def test_a_loop_that_never_asks_is_asked_about_at_every_report() -> None:
    steps: list[int] = []

    def loop(trial: hpo.Trial) -> None:
        for step in range(30):
            steps.append(step)
            trial.report(0.5, step)

    made = TrialConfig(model=own(loop, uses=[]))
    (outcome,) = train([made], data(made), TrainSettings(should_stop=lambda: len(steps) >= 5))
    assert (outcome.status, len(outcome.history)) == ("interrupted", 5)


def iterate(trial: hpo.Trial) -> None:
    for step in range(30):  # of ten iterations an epoch
        trial.report(1 / (step + 1), step)


def test_steps_beyond_the_epochs_are_refused_and_not_passed_over() -> None:
    made = TrialConfig(model=own(iterate, uses=["epochs"]), epochs=3)
    with pytest.raises(RunError, match=r"step=4\): is beyond epochs = 3, for the step is the epoch; report epochs, or"):
        train([made], data(made), TrainSettings())


def test_a_loop_is_seeded_by_the_seed_of_its_fit() -> None:
    seeds: list[int] = []

    def loop(trial: hpo.Trial) -> float:
        seeds.append(hpo.seed(trial))
        return torch.rand(()).item()

    name = own(loop, uses=[])
    made = [TrialConfig(model=name, seed=seed) for seed in (1, 2, 1)]
    found = [train([each], data(each), TrainSettings())[0].history[0]["value"] for each in made]
    assert seeds == [each.seed_of_init for each in made]
    assert found[0] == found[2] != found[1]


def test_a_checkpoint_of_objective_functions_is_refused_in_a_loop() -> None:
    with pytest.raises(RunError, match=r"hpo\.checkpoint\(trial\): is for objective functions; in a training loop"):
        outcome_of(lambda trial: hpo.checkpoint(trial))


def test_the_weights_of_a_model_in_another_layout_are_kept(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> None:
        model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        trial.keep(model)
        trial.report(0.5, 0)

    weights = outcome_of(loop).weights
    assert weights is not None
    write_weights(tmp_path / "kept.safetensors", weights)
    assert all(value.is_contiguous() for value in weights.values())


def test_an_epoch_that_has_ended_is_saved_although_the_loop_returns_at_once(tmp_path: Path) -> None:
    epochs: list[int] = []

    def loop(trial: hpo.Trial) -> None:
        model = nn.Linear(1, 1)
        for epoch in trial.epochs(model=model):
            epochs.append(epoch)
            trial.report(val_accuracy=0.5)
            if trial.should_prune():
                raise optuna.TrialPruned

    made = TrialConfig(model=own(loop, uses=["epochs"]), epochs=4)
    spec = CheckpointSpec(tmp_path / "trial.pt", every=3600)
    train([made], data(made), TrainSettings(should_stop=lambda: len(epochs) == 2), [spec])
    train([made], data(made), TrainSettings(), [replace(spec, resume=True)])
    assert epochs == [1, 2, 3, 4]


def test_a_stop_is_no_pruning_although_the_loop_raises_it() -> None:
    def loop(trial: hpo.Trial) -> None:
        trial.report(0.5, 0)
        if trial.should_prune():
            raise optuna.TrialPruned

    assert outcome_of(loop, should_stop=lambda: True).status == "interrupted"


# Returned values.


def returned(reports: list[float], value: object, **settings: Any) -> Any:
    def loop(trial: hpo.Trial) -> object:
        model = nn.Linear(1, 1, bias=False)
        trial.keep(model)
        for step, each in enumerate(reports):
            nn.init.constant_(model.weight, step)
            trial.report(each, step)
        nn.init.constant_(model.weight, 9)
        return value

    return outcome_of(loop, **settings)


@pytest.mark.parametrize(
    ("value", "epoch", "weight"),
    [
        (torch.tensor(0.75), 1, 1),  # that of the best epoch, whose weights are kept
        ([0.5], 2, 9),  # another one: of the model as the loop leaves it
        ({"val_accuracy": 0.25, "note": math.nan}, 2, 9),
    ],
)
def test_a_returned_value_counts_and_the_weights_are_those_that_it_speaks_of(
    value: object, epoch: int, weight: int
) -> None:
    outcome = returned([0.5, 0.75, 0.5], value)
    assert (outcome.status, outcome.origin) == ("completed", "returned")
    assert outcome.returned["val_accuracy"] in (0.75, 0.5, 0.25)
    assert (outcome.best_epoch, outcome.weights["weight"].item()) == (epoch, weight)


def test_without_the_objective_a_returned_table_is_merely_recorded() -> None:
    outcome = returned([0.5, 0.75, 0.5], {"note": 3})
    assert (outcome.origin, outcome.best_epoch, outcome.returned) == ("best epoch", 1, {"note": 3})


def test_so_it_is_of_several_fits(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> object:
        for value in (0.5, 0.9, 0.5):
            trial.report(val_accuracy=value)
        return {"note": 3}

    path = str(small_npz(tmp_path / "small.npz"))
    (trial,) = run(tmp_path, loop, objective="val_accuracy", seeds=3, dataset=path).trials()
    assert (trial.value, trial.user_attrs["value_from"]) == (pytest.approx(0.9), "best epoch")


def test_several_objectives_are_returned_in_their_order_or_by_name(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> object:
        trial.report(val_loss=0.5, val_accuracy=0.5)
        return (0.1, 0.9) if trial.number == 0 else {"val_accuracy": 0.8, "val_loss": 0.2} if trial.number == 1 else 0.3

    study = run(tmp_path, loop, objective=["val_loss", "val_accuracy"], trials=3, sampler="random")
    assert [trial.values for trial in study.trials()] == [[0.1, 0.9], [0.2, 0.8], [0.3, 0.5]]
    assert study.trials()[0].user_attrs["returned"] == "val_loss 0.1, val_accuracy 0.9"


# Not finite.


@pytest.mark.parametrize(("name", "value"), [("height", math.nan), ("height", -math.inf), ("my_loss", math.inf)])
def test_an_objective_or_a_loss_that_is_not_finite_ends_it_as_diverged(tmp_path: Path, name: str, value: float) -> None:
    def loop(trial: hpo.Trial) -> float:
        trial.report(1.0, 0, other=math.nan, my_loss=1.0)
        trial.report(1.0, 1, my_loss=0.5) if name == "height" else None
        trial.report(2.0 if name != "height" else value, 2, my_loss=value if name != "height" else 0.5)
        return 3.0

    hpo.training_loop("loop", reports={"height": "minimize"})(loop)
    study = make(tmp_path, objective="height", dataset="none", trials=1, pruner="none", parameters={"model": "loop"})
    make_worker(study).run()
    (trial,) = study.trials()
    assert (trial.state, trial.values) == (PRUNED, [1.0])
    assert trial.user_attrs["failure"] == "diverged"
    assert trial.user_attrs["message"] == f"{name} is {value} in epoch 2"


def test_so_does_a_returned_one(tmp_path: Path) -> None:
    def loop(trial: hpo.Trial) -> float:
        trial.report(1.0, 0) if trial.number else None
        return math.nan

    study = run(tmp_path, loop, objective="val_accuracy", trials=2)
    assert [trial.state for trial in study.trials()] == [PRUNED] * 2
    messages = [trial.user_attrs["message"] for trial in study.trials()]
    assert messages == ["val_accuracy is nan in epoch 1", "val_accuracy is nan, as it was returned"]
    assert read_results(study).failures == {"diverged": 2}


def test_and_an_objective_of_a_built_in_model(tmp_path: Path) -> None:
    hpo.metric("own", direction="maximize")(lambda outputs, targets: math.nan)
    space = {"depth": 1, "width": [4, 8], "epochs": 2}
    study = make(tmp_path, objective="own", dataset=str(small_npz(tmp_path / "small.npz")), trials=2, parameters=space)
    make_worker(study).run()
    assert [(trial.state, trial.user_attrs["message"]) for trial in study.trials()] == [
        (PRUNED, "own is nan in epoch 1")
    ] * 2


def test_in_a_study_without_epochs_a_default_of_them_does_not_count() -> None:
    own(lambda trial: [trial.report(step, step) for step in range(9)] and None, uses=[])
    settings = TrainSettings(monitor="val_accuracy")
    (outcome,) = train([TrialConfig(model="loop")], data(TrialConfig(validation=20)), settings)
    assert (outcome.status, len(outcome.history), outcome.best_epoch) == ("completed", 9, 8)
