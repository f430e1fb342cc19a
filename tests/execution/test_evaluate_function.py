"""Evaluations of objective functions: seeds that trials ask for, and calls with the parameters of the best trials."""

from __future__ import annotations

import copy
import logging
import random
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

import hpo
from hpo.errors import RequestError, RunError, StudyForeignError
from hpo.execution.evaluate import EvaluationRequest
from hpo.execution.evaluation_preview import preview_evaluation
from hpo.execution.launch_function import plan_function_launch
from hpo.execution.objective_function import load_function
from hpo.execution.reproduce import describe_reproduction
from hpo.execution.reproduce_function import reproduce_call
from hpo.execution.trial_seed import SEEDLESS, derive_seed
from hpo.report.data.evaluations import read_evaluations
from hpo.study import Study, StudyStorage
from hpo.study.operations.evaluation_study import evaluation_studies
from tests.helpers import run_hpo
from tests.workers import make_worker

pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
optuna.logging.set_verbosity(optuna.logging.WARNING)
SOURCE = """
import random
import optuna
import hpo

def seeded(trial):
    hpo.seed(trial)
    sizes = trial.suggest_categorical("sizes", [[8], [16, 8], None])
    seed = trial.suggest_float("seed", -1, 1)  # called like the evaluation's own
    if sizes is None:
        trial.suggest_int("depth", 1, 2 + trial.number % 3)
    trial.set_user_attr("asked", dict(trial.params))
    return seed * seed + random.random() / 100

def reads(trial):
    return trial.suggest_float("x", -1, 1) ** 2 + trial.user_attrs["hpo_seed"] / 2**40

def seedless(trial):
    return trial.suggest_float("x", -1, 1) ** 2

def seedless_of_seeded(trial):
    trial.suggest_categorical("sizes", [[8], [16, 8], None])
    trial.report(0.0, 0)
    return trial.suggest_float("seed", -1, 1)

def pruned(trial):
    x = trial.suggest_float("x", 0, 1)
    for step in range(5):
        trial.report(x + step, step)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return x

def two(trial):
    hpo.seed(trial)
    x = trial.suggest_float("x", 0, 1)
    return x + random.random() / 100, 1 - x
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "functions_of_test", raising=False)
    path = tmp_path / "functions_of_test.py"
    path.write_text(SOURCE)
    return path


def launch(functions: Path, name: str, **keys: Any) -> Study:
    """A finished study of a function, which has its name."""
    text = f"{functions}:{name}"
    keys = {"trials": 12, "sampler": "random", "name": name, **keys}
    study = plan_function_launch(load_function(text), None, **keys).create()
    make_worker(study, function=text).run()
    return study


def test_a_seed_follows_from_the_study_and_the_number_and_seeds_every_generator() -> None:
    torch = pytest.importorskip("torch")
    trial = FixedTrial({}, number=3)
    assert hpo.seed(trial) == derive_seed(0, 3) == trial.user_attrs["hpo_seed"]
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    assert hpo.seed(trial) == derive_seed(0, 3)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
    assert len({derive_seed(study, number) for study in range(3) for number in range(200)}) == 600


def test_a_trial_has_a_seed_in_the_database_only_if_its_function_asked_for_it(functions: Path) -> None:
    for name in ("seeded", "reads"):
        trials = launch(functions, name, seed=7).trials()
        assert [trial.user_attrs["hpo_seed"] for trial in trials] == [derive_seed(7, n) for n in range(12)]
    assert not any("hpo_seed" in trial.user_attrs for trial in launch(functions, "seedless").trials())


def test_attributes_of_a_running_trial_can_be_copied(functions: Path) -> None:
    study = launch(functions, "seedless", trials=1)
    study.extend(study.budget.model_copy(update={"trials": 2}))
    worker = make_worker(study, function=f"{functions}:seedless")
    seen: list[dict[str, Any]] = []

    def objective(trial: optuna.trial.Trial) -> float:
        seen.append(copy.deepcopy(trial.user_attrs))
        return 0.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    assert seen[0]["hpo_seed"] == derive_seed(0, 1)
    assert "hpo_seed" not in study.trials()[1].user_attrs


def test_the_best_trials_are_called_again_with_their_own_parameters(functions: Path) -> None:
    study = launch(functions, "seeded")
    (stats,) = hpo.evaluate(study, objective=f"{functions}:seeded", seeds=3, top=2)
    (evaluation,) = evaluation_studies(study)
    ranked = sorted(study.trials(), key=lambda trial: trial.value or 0)[:2]
    assert [score.candidate.label for score in sorted(stats.scores, key=lambda s: s.study_score or 0)] == [
        f"trial {trial.number}" for trial in ranked
    ]
    by_label = {f"trial {trial.number}": trial.params for trial in ranked}
    runs = evaluation.trials()
    assert len(runs) == 6
    assert all(run.state == TrialState.COMPLETE for run in runs)
    assert all(run.user_attrs["asked"] == by_label[run.params["configuration"]] for run in runs)
    assert {run.user_attrs["hpo_seed"] for run in runs} == {run.params["seed"] for run in runs}
    assert not {run.params["seed"] for run in runs} & {trial.user_attrs["hpo_seed"] for trial in study.trials()}
    for score in stats.scores:
        assert score.validation is not None
        assert score.validation.count == 3
        assert 0 < score.validation.deviation < 0.01
        assert score.test is None


def test_more_seeds_run_the_new_ones_alone_and_other_trials_are_an_evaluation_more(functions: Path) -> None:
    study = launch(functions, "reads")
    text = f"{functions}:reads"
    hpo.evaluate(study, objective=text, seeds=2, top=1)
    hpo.evaluate(study, objective=text, seeds=3, top=2)
    (results,) = read_evaluations(study)
    assert [len(each.runs) for each in results.candidates] == [3, 3]
    assert len(results.studies) == 2


def test_several_objectives_evaluate_the_front_by_the_first(functions: Path) -> None:
    study = launch(functions, "two", direction="minimize,maximize", metric_names="test_error,speed")
    (stats,) = hpo.evaluate(study, objective=f"{functions}:two", seeds=2, top=2)
    assert all(score.validation is not None and score.validation.count == 2 for score in stats.scores)


def test_a_function_without_a_seed_is_refused_and_nothing_is_created(functions: Path) -> None:
    study = launch(functions, "seedless")
    with pytest.raises(RequestError, match=r"takes no seed.* let it begin with hpo.seed\(trial\)"):
        hpo.evaluate(study, objective=f"{functions}:seedless")
    assert evaluation_studies(study) == []


def test_a_function_that_takes_a_seed_since_is_evaluated_and_one_that_does_not_leaves_no_evaluation(
    functions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = launch(functions, "seedless")
    text = f"{functions}:seedless"
    functions.write_text(SOURCE + "\nmore = 1\n")
    monkeypatch.delitem(sys.modules, "functions_of_test")
    refusal = r"^evaluate: study 'seedless': its objective function takes no seed, .*\"hpo_seed\"\]$"
    with pytest.raises(RequestError, match=refusal):
        hpo.evaluate(study, objective=text, seeds=2, top=1)
    assert evaluation_studies(study) == []
    functions.write_text(SOURCE.replace("def seedless(trial):", "def seedless(trial):\n    hpo.seed(trial)"))
    monkeypatch.delitem(sys.modules, "functions_of_test")
    (stats,) = hpo.evaluate(study, objective=text, seeds=2, top=1)
    assert stats.scores[0].validation is not None
    assert evaluation_studies(study)[0].remaining() == 0


def test_several_workers_that_find_no_seed_are_one_line_and_leave_no_evaluation(
    functions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    objective = load_function(f"{functions}:seedless").call
    optuna.create_study(study_name="theirs", storage=url).optimize(objective, n_trials=3)
    line = f"worker 7 ended with exit code 2: hpo: study 'theirs' cannot be evaluated yet: {SEEDLESS}; then …"

    def fail(*_: object) -> None:
        raise RunError(f"{line}; {line}; 6 of 6 trials are left")

    monkeypatch.setattr("hpo.execution.evaluate.run_workers", fail)
    named = "--objective", f"{functions}:seedless", "--storage", url
    refused = run_hpo("evaluate", "theirs", *named, "--workers", "2")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == f"hpo: evaluate: study 'theirs': {SEEDLESS}"
    assert evaluation_studies(Study(StudyStorage(url), "theirs")) == []
    assert run_hpo("evaluate", "theirs", *named, "--workers", "0").returncode == 0
    assert run_hpo("evaluate", "theirs", *named, "--workers", "2").returncode == 2
    assert len(evaluation_studies(Study(StudyStorage(url), "theirs"))) == 1  # which was there before


def test_a_function_that_asks_for_something_else_fails_the_run_and_says_so(
    functions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = launch(functions, "reads")
    functions.write_text(SOURCE.replace('suggest_float("x", -1, 1) ** 2 +', 'suggest_float("y", -1, 1) ** 2 +'))
    monkeypatch.delitem(sys.modules, "functions_of_test")
    message = r"asks for the parameter 'y', which the trial that is called again did not have \(x\)"
    with pytest.raises(RunError, match=message):
        hpo.evaluate(study, objective=f"{functions}:reads", seeds=1, top=1)
    (evaluation,) = evaluation_studies(study)
    (run,) = evaluation.trials()
    assert re.search(message, run.user_attrs["message"])


def test_what_the_command_refuses_and_prints(functions: Path) -> None:
    study = launch(functions, "seeded")
    named = "--objective", f"{functions}:seeded"
    for option in ("--refit", "--inside", "--dataset=mnist"):
        refused = run_hpo("evaluate", "seeded", *named, option)
        assert refused.returncode == 2
        assert "is for studies of models; study 'seeded' calls an objective function" in refused.stderr
    refused = run_hpo("evaluate", "seeded")
    assert refused.returncode == 2
    assert f"add --objective {functions}:seeded" in refused.stderr
    preview = run_hpo("evaluate", "seeded", "--dry-run", "--seeds", "2", "--top", "2")  # which needs no function
    assert "would call the objective function 4 times; nothing is created" in preview.stderr
    assert len(preview.stdout.splitlines()) == 3
    assert evaluation_studies(study) == []
    rows = preview_evaluation(study, EvaluationRequest(top=12)).rows
    assert {row["sizes"] for row in rows} == {"none", "[8]", "[16, 8]"}  # a value of None is said, too
    planned = run_hpo("evaluate", "seeded", *named, "--workers", "0", "--seeds", "2")
    assert planned.returncode == 0, planned.stderr
    shown = run_hpo("show", "seeded-evaluation").stdout
    assert shown.startswith("study seeded-evaluation: 6 trials of functions_of_test.py:seeded, minimize value\n")
    assert "dataset" not in run_hpo("list").stdout
    make_worker(evaluation_studies(study)[0], function=f"{functions}:seeded").run()
    printed = run_hpo("evaluate", "seeded", *named, "--workers", "0", "--seeds", "2")
    assert "called again with the same parameters and fresh seeds" in printed.stderr
    assert "fresh_seeds" in printed.stdout
    assert "test" not in printed.stdout


def test_a_study_of_plain_optuna_is_evaluated_given_its_function(functions: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    objective = load_function(f"{functions}:seeded").call
    optuna.create_study(study_name="theirs", storage=url).optimize(objective, n_trials=8)
    with pytest.raises(StudyForeignError, match=r"name it with --objective FILE\.py:FUNCTION"):
        hpo.evaluate("theirs", storage=url)
    (stats,) = hpo.evaluate("theirs", storage=url, objective=objective, seeds=2)
    assert [score.validation.count for score in stats.scores if score.validation] == [2, 2, 2]
    assert Study(StudyStorage(url), "theirs").definition.foreign


def test_a_call_is_reproduced_with_its_parameters_and_its_seed(functions: Path) -> None:
    study = launch(functions, "seeded", trials=4)
    named = "--objective", f"{functions}:seeded"
    done = run_hpo("reproduce", "seeded", "2", *named)
    assert done.returncode == 0, done.stderr
    assert "identical: what trial 2 returned is the same to the last bit" in done.stderr
    result = reproduce_call(study, 3, load_function(f"{functions}:seedless_of_seeded"))
    assert not result.reproduced
    assert describe_reproduction(result)[0] == "different: what trial 3 returned was not reproduced"
    refused = run_hpo("reproduce", "seeded", "2", *named, "--out", "somewhere")
    assert refused.returncode == 2
    assert "--out: study 'seeded' calls an objective function" in refused.stderr


def test_a_reproduction_neither_announces_a_study_nor_warns_of_lists(
    functions: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = launch(functions, "seeded", trials=2)
    announcer = logging.getLogger("optuna.storages._in_memory")
    monkeypatch.setattr(logging.getLogger("optuna"), "propagate", True)  # to where pytest listens
    caplog.set_level(logging.INFO, "optuna")
    function = load_function(f"{functions}:seeded")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert reproduce_call(study, 1, function).identical
        assert (seen, caplog.messages) == ([], [])
    optuna.create_study(study_name="theirs")
    assert "A new study created in memory with name: theirs" in caplog.messages
    assert announcer.level == logging.NOTSET


def test_a_pruned_call_is_pruned_again_after_as_many_reports(functions: Path) -> None:
    study = launch(functions, "pruned", trials=20, pruner={"name": "median", "n_startup_trials": 2})
    trial = next(trial for trial in study.trials() if trial.state == TrialState.PRUNED)
    result = reproduce_call(study, trial.number, load_function(f"{functions}:pruned"))
    assert result.identical
    assert result.epochs == len(trial.intermediate_values) < 5
