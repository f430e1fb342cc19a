"""Studies with constraints, trained for real: what is not trained, what is told, and who is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.errors import DefinitionError
from hpo.execution.evaluate import plan_evaluations
from hpo.report.chapters.search import find_cheapest_within_noise
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.report.write import write_report
from hpo.study import Study
from hpo.study.constraints import Constraint, read_constraints
from hpo.study.files.study_files import weights_path
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.study.helpers import new_storage, sqlite_url
from tests.workers import make_worker

WIDTHS = [2, 4, 8, 64]  # 36 features, 3 classes: 83, 163, 323 and 2,563 parameters


def run(folder: Path, cohort: int | None = None, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    parameters = {"depth": 1, "width": WIDTHS, "epochs": 3, "batch_size": 32, "learning_rate": 0.01}
    table = {"dataset": str(data), "sampler": "grid", "parameters": parameters, **keys}
    name, definition, budget = parse_definition(table, "small", folder)
    study = Study.create(new_storage(folder), name, definition, budget)
    make_worker(study, cohort=cohort).run()
    return study


@pytest.mark.parametrize(
    ("text", "expected", "inside", "outside"),
    [
        ("parameter_count <= 100000", Constraint(metric="parameter_count", at_most=True, bound=1e5), 1e5, 100_001),
        ("val_accuracy>=.9", Constraint(metric="val_accuracy", at_most=False, bound=0.9), 0.9, 0.89),
    ],
)
def test_a_constraint_is_a_bound(text: str, expected: Constraint, inside: float, outside: float) -> None:
    (found,) = read_constraints([text], "tpe")
    assert found == expected
    assert found.violation(inside) <= 0 < found.violation(outside)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("parameter_count <= 1", "must be a list of texts"),
        (["parameter_count < 1"], "METRIC <= NUMBER or METRIC >= NUMBER"),
        (["parameter_count <= many"], "METRIC <= NUMBER"),
        (["parameters <= 1"], "did you mean 'parameter_count'"),
    ],
)
def test_mistakes_are_named(given: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="constraints") as error:
        parse_definition({"constraints": given}, "s", tmp_path)
    assert words in str(error.value)


@pytest.mark.parametrize("sampler", ["cmaes", "gp"])
def test_samplers_that_do_not_learn_from_them_are_refused(sampler: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=f"sampler '{sampler}' does not learn from them; use tpe or nsga2"):
        parse_definition({"constraints": ["val_loss <= 1"], "sampler": sampler}, "s", tmp_path)


def test_what_has_too_many_parameters_is_not_trained(tmp_path: Path) -> None:
    study = run(tmp_path, constraints=["parameter_count <= 200"])
    counts = {trial.number: trial.user_attrs["parameter_count"] for trial in study.trials()}
    assert counts == {0: 83, 1: 163, 2: 323, 3: 2563}
    epochs = study.storage.read_epochs(study.id)
    for trial in study.trials():
        fits = counts[trial.number] <= 200
        assert trial.state.name == ("COMPLETE" if fits else "PRUNED")
        assert bool(epochs.get(trial._trial_id)) == fits
        assert (weights_path(study, trial.number) is not None) == fits
    assert study.trials()[3].user_attrs["failure"] == "infeasible"
    assert study.trials()[3].user_attrs["message"] == "parameter_count <= 200, but it is 2563"


def test_violations_are_where_optuna_looks_for_them(tmp_path: Path) -> None:
    run(tmp_path, constraints=["parameter_count <= 200", "val_loss >= 0"])
    plain = optuna.load_study(study_name="small", storage=sqlite_url(tmp_path))
    found = [trial.constraints for trial in plain.trials]
    assert [each["parameter_count <= 200"] for each in found] == [83 - 200, 163 - 200, 323 - 200, 2563 - 200]
    assert [("val_loss >= 0" in each) for each in found] == [True, True, False, False]  # the others were not trained


def test_what_training_shows_is_held_against_them_at_the_end(tmp_path: Path) -> None:
    free = run(tmp_path)
    losses = {
        t.number: min(r["val_loss"] for r in free.storage.read_epochs(free.id)[t._trial_id]) for t in free.trials()
    }
    second, third = sorted(losses.values())[1:3]
    bound = (second + third) / 2
    (tmp_path / "bound").mkdir()
    study = run(tmp_path / "bound", objective="val_loss", constraints=[f"val_loss <= {bound}"])
    held = {trial.number for trial in study.trials() if trial.state.name == "COMPLETE"}
    assert held == {number for number, loss in losses.items() if loss < bound}
    assert len(held) == 2
    assert study.budget.trials == len(study.trials()) == 4


def test_the_best_is_a_feasible_one_everywhere(tmp_path: Path) -> None:
    study = run(tmp_path, constraints=["parameter_count <= 200"])
    results = read_results(study)
    assert {row.number for row in results.ranked} == {0, 1}
    assert study.best().number in (0, 1)  # type: ignore[union-attr]
    assert study_summary(results)["failed"] == []
    assert study_summary(results)["failures"] == {"infeasible": 2}
    (made,) = plan_evaluations(study, top=3, seeds=1)
    assert {each.trial for each in made.definition.evaluation.candidates} <= {0, 1, None}  # type: ignore[union-attr]
    text = write_report(study, tmp_path / "out").markdown.read_text()
    assert r"parameter_count \<= 200 (violated by 2 of 4 trials)" in text


def test_a_study_in_which_nothing_is_feasible(tmp_path: Path) -> None:
    study = run(tmp_path, constraints=["parameter_count <= 10"])
    assert study.best() is None
    assert "violates" in write_report(study, tmp_path / "out").markdown.read_text().split("##")[0]


def test_tpe_goes_on_among_infeasible_trials_of_two_objectives(tmp_path: Path) -> None:
    study = run(
        tmp_path,
        sampler={"name": "tpe", "n_startup_trials": 8},
        trials=32,
        objective=["val_accuracy", "parameter_count"],
        constraints=["parameter_count <= 400"],
        parameters={
            "depth": 1,
            "width": {"low": 1, "high": 512, "log": True},
            "epochs": 1,
            "learning_rate": {"low": 0.009, "high": 0.011},
        },  # or each width would be trained only once
    )
    widths = [trial.params["width"] for trial in study.trials()]
    fitting = [width <= 9 for width in widths]  # 37 % by chance
    assert sum(fitting[:8]) < 4
    assert sum(fitting[8:]) > 0.6 * 24  # it has learned where they do
    results = read_results(study)
    assert all(row.values is not None and row.values[1] <= 400 for row in results.front)
    cheapest = find_cheapest_within_noise(results, 1)
    assert cheapest is not None
    assert cheapest.values is not None
    assert cheapest.values[1] == min(
        row.values[1] for row in results.front if row.values and row.values[0] >= cheapest.values[0]
    )


def test_what_a_pruner_stops_early_is_not_held_against_a_bound_of_its_last_epoch(tmp_path: Path) -> None:
    parameters = {"depth": 1, "width": [64, 1], "epochs": 8, "batch_size": 32, "learning_rate": 0.01}
    keys = {"parameters": parameters, "pruner": {"name": "median", "n_startup_trials": 1}, "objective": "val_accuracy"}
    study = run(tmp_path, 1, constraints=["val_accuracy >= 0.8", "parameter_count <= 10000"], **keys)
    epochs = study.storage.read_epochs(study.id)
    stopped = [trial for trial in study.trials() if len(epochs[trial._trial_id]) < 8]
    assert stopped
    for trial in stopped:
        assert "failure" not in trial.user_attrs
        assert set(trial.constraints) == {"parameter_count <= 10000"}


def test_a_bound_of_what_the_model_has_not_is_named_as_one(tmp_path: Path) -> None:
    keys = {"parameters": {"model": "autoencoder"}, "objective": "val_loss", "constraints": ["val_accuracy >= 0.5"]}
    with pytest.raises(DefinitionError, match=r"^constraints: 'val_accuracy >= 0.5': model 'autoencoder' has none"):
        parse_definition(keys, "s", tmp_path)
