"""Forks and warm starts of studies whose space only an objective function knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpo.errors import RequestError, StudyConflictError, StudyForeignError
from hpo.execution.launch_function import plan_function_launch
from hpo.execution.objective_function import load_function
from hpo.study import Study, StudyStorage, study_names
from hpo.study.operations.fork import fork_study
from tests.helpers import run_hpo
from tests.workers import make_worker

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
SOURCE = """
import optuna

def objective(trial):
    sizes = trial.suggest_categorical("sizes", [[8], [16, 8], None])
    x = trial.suggest_float("x", -1, 1 + trial.number % 2)
    if sizes is None:
        trial.suggest_int("depth", 1, 3)
    trial.report(x, 0)
    if trial.number == 3:
        raise ValueError("three")
    if trial.number % 4 == 1:
        raise optuna.TrialPruned()
    return x * x
"""


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "forked_of_test", raising=False)
    path = tmp_path / "forked_of_test.py"
    path.write_text(SOURCE)
    return f"{path}:objective"


def launch(function: str, name: str = "old", **keys: Any) -> Study:
    study = plan_function_launch(load_function(function), None, **{"trials": 10, "name": name, **keys}).create()
    make_worker(study, function=function).run()
    return study


def test_a_fork_keeps_every_finished_trial_as_it_is(function: str) -> None:
    old = launch(function)
    plan = fork_study(old, "new", trials=12, sampler="random", pruner="none", timeout="1h")
    assert plan.skipped == {"FAIL": [3]}
    new = plan.create()
    finished = [trial for trial in old.trials() if trial.state != TrialState.FAIL]
    for was, now in zip(finished, new.trials(), strict=True):
        same = ("state", "values", "params", "distributions", "intermediate_values", "user_attrs", "datetime_complete")
        assert [getattr(was, name) for name in same] == [getattr(now, name) for name in same]
        assert "fixed_params" not in now.system_attrs
    assert new.definition.function == old.definition.function
    assert (new.definition.sampler.name, new.budget.trials, new.budget.timeout) == ("random", 12, 3600)
    make_worker(new, function=function).run()
    assert len(new.trials()) == 12
    assert new.remaining() == 0


def test_what_a_fork_of_a_function_cannot_change(function: str) -> None:
    old = launch(function)
    with pytest.raises(
        RequestError, match=r"x cannot be set: the objective function forked_of_test\.py:objective chooses"
    ):
        fork_study(old, "new", {"x": 0.5})
    with pytest.raises(RequestError, match="needs the whole space before the first trial"):
        fork_study(old, "new", sampler="grid")
    with pytest.raises(RequestError, match="begins with 9 trials"):
        fork_study(old, "new", trials=5)
    assert study_names(old.storage) == ["old"]


def test_a_fork_of_a_study_of_plain_optuna_needs_its_function(function: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="theirs", storage=url)
    study.optimize(load_function(function).call, n_trials=6, catch=ValueError)
    with pytest.raises(StudyForeignError, match=r"with --objective FILE\.py:FUNCTION"):
        fork_study(Study(StudyStorage(url), "theirs"), "mine")
    refused = run_hpo("fork", "theirs", "mine", "--storage", url)
    assert refused.returncode == 2
    forked = run_hpo("fork", "theirs", "mine", "--objective", function, "--trials", "8", "--storage", url)
    assert forked.returncode == 0, forked.stderr
    assert "keeps 5 trials of theirs; 3 of 8 are left" in forked.stderr
    assert f"launch {function} --name mine" in forked.stderr
    mine = Study(StudyStorage(url), "mine")
    assert not mine.definition.foreign
    assert mine.best() is not None
    assert mine.best().params == study.best_trial.params  # type: ignore[union-attr]


def test_a_warm_start_calls_the_best_parameters_first(function: str) -> None:
    old = launch(function)
    new = launch(function, "new", warm_start="old", top=2, trials=4)
    best = sorted((t for t in old.trials() if t.state == TrialState.COMPLETE), key=lambda trial: trial.value or 0)
    assert [trial.params for trial in new.trials()[:2]] == [trial.params for trial in best[:2]]
    assert new.definition.warm_from is not None
    again = launch(function, "new", warm_start="old", top=2, trials=5)  # which has better trials by now, or not
    assert len(again.trials()) == 5
    with pytest.raises(StudyConflictError, match="exists with another definition"):
        plan_function_launch(load_function(function), None, name="new", warm_start="old", top=3).create()
    with pytest.raises(RequestError, match="top = 3: of which study"):
        plan_function_launch(load_function(function), None, name="other", top=3)


def test_an_enqueued_trial_may_have_none_and_lists(function: str) -> None:
    made = optuna.create_study()
    made.enqueue_trial({"sizes": [16, 8], "x": 0.25})
    made.enqueue_trial({"sizes": None, "x": 0.5})
    plan_function_launch(load_function(function), None, made, name="queued", trials=2).create()
    study = Study(StudyStorage(f"sqlite:///{Path(function).parent / 'hpo.db'}", create=False), "queued")
    make_worker(study, function=function).run()
    assert [trial.params["sizes"] for trial in study.trials()] == [[16, 8], None]
