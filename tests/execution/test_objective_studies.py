"""Studies of objective functions as plain Optuna takes them: launched, attached to, killed, resumed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

import hpo
from hpo.config.trial_attributes import OWN_ATTRIBUTES, warn_of_own_name
from hpo.errors import RegistryError, RequestError, StorageMissingError, StudyConflictError
from hpo.execution.launch_function import plan_function_launch
from hpo.execution.objective_call import ObjectiveTrial, call_objective
from hpo.execution.objective_function import describe_function, is_function, load_function, read_study
from hpo.execution.script_study import find_directions, read_components
from hpo.execution.trial_checkpoint import TrialCheckpoint
from hpo.execution.worker import Worker
from hpo.execution.worker_options import WorkerOptions
from hpo.report.data.results import read_results
from hpo.study import Study, StudyStorage, study_names
from hpo.study.input.optuna_components import read_component
from tests.helpers import hpo as hpo_process
from tests.helpers import run_hpo, start_hpo
from tests.workers import make_worker

optuna.logging.set_verbosity(optuna.logging.WARNING)
SIMPLE = """
import time
import optuna

def objective(trial):
    x = trial.suggest_float("x", -1, 1)
    trial.set_user_attr("mine", trial.number)
    for step in range(3):
        trial.report(x * x + 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return x * x

def two(trial):
    return trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 3)

def takes_more(trial, data):
    return 0.0

def takes_none():
    return 0.0

def meeting(trial):  # the first trial ends when the other worker has come
    while trial.number == 0 and len(trial.study.trials) < 2:
        time.sleep(0.02)
    return objective(trial)

class Callable:
    def __call__(self, trial):
        return trial.suggest_float("x", 0, 1)

instance = Callable()
number = 3
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=4),
                            pruner=optuna.pruners.MedianPruner(n_warmup_steps=2))
study.enqueue_trial({"x": 0.5})
"""


@pytest.fixture
def simple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delitem(sys.modules, "simple_objective", raising=False)  # of the test before
    path = tmp_path / "simple_objective.py"
    path.write_text(SIMPLE)
    return str(path)


def launch(function: str, folder: Path, **keys: object) -> Study:
    """A study of a function, without workers."""
    url = f"sqlite:///{folder / 'hpo.db'}"
    return plan_function_launch(load_function(function), url, **keys).create(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.py:objective", True),
        ("/a b/train.py:objective", True),
        ("package.module:objective", True),
        ("mnist_mlp", False),
        ("study.toml", False),
        ("./a:b.toml", False),
        ("train.py:", False),
    ],
)
def test_what_names_a_function(text: str, expected: bool) -> None:
    assert is_function(text) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("objectve", "has no objectve; did you mean 'objective'?"),
        ("zzz", "its functions are: objective, two, takes_more, takes_none"),
        ("takes_more", r"takes \(trial, data\), but an objective function is called with the trial alone"),
        ("takes_none", "takes no arguments, but an objective function is called with the trial"),
        ("a-b", "name a function as FILE.py:FUNCTION or MODULE:FUNCTION"),
        (
            "",
            "simple_objective.py: name its objective function, as .*simple_objective.py:FUNCTION; its functions are: o",
        ),
        ("number", "is int, not a function"),
        ("Callable", "is a class"),
    ],
)
def test_a_function_that_cannot_be_one(simple: str, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_function(f"{simple}:{name}")


SCRIPT = """
import optuna

def objective(trial):
    return trial.suggest_float("x", 0, 1)

study = optuna.create_study(direction="maximize")
study.optimize(objective, n_trials=100)
raise SystemExit(study.best_value)
"""


def test_a_script_is_read_up_to_its_own_optimize(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    optimize = optuna.Study.optimize
    (tmp_path / "readme.py").write_text(SCRIPT)
    text = f"{tmp_path / 'readme.py'}:objective"
    assert load_function(text).call is load_function(text).call
    assert read_study(text, "study").trials == []
    line = (
        "readme.py, line 8 (study.optimize(objective, n_trials=100)): left to the launch, and nothing after it is run"
    )
    assert [record.message for record in caplog.records] == [line]
    assert optuna.Study.optimize is optimize


def test_a_module_of_a_package_that_optimizes_is_told_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package_of_readme"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "search.py").write_text(SCRIPT)
    with pytest.raises(RegistryError, match=r"line 8 \(.*\): would run in every worker; put it under `if __name__"):
        load_function(f"{package / 'search.py'}:objective")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match=r"its study.optimize would run in every worker; put it under"):
        load_function("package_of_readme.search:objective")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_that_name", r"line 1 \(import nothing_of_that_name\): ModuleNotFoundError"),
        ("x = 1\ny = x / 0", r"line 2 \(y = x / 0\): ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", r"line 1 \(raise SystemExit\(0\)\): SystemExit"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_with_its_line(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(RegistryError, match=message):
        load_function(f"{tmp_path / 'broken.py'}:objective")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None; let it return a number"),
        ("0.5", "the objective function returned the text '0.5'; let it return a number"),
        (True, "the returned value: must be a number, not bool True"),
        (
            (1.0, 2.0),
            "returned 2 values, and the study has 1 direction; give a direction for each value, as --direction "
            "minimize,maximize, and another --name",
        ),
        ([1.0, 2.0, 3.0, 4.0], "as --direction minimize,maximize,minimize,…, and another --name"),
        ([], "returned 0 values, and the study has 1 direction; let it return a number"),
        ({"loss": 1.0}, "the returned value: must be a number, not dict"),
    ],
)
def test_what_is_no_number_fails_the_trial_and_says_why(
    simple: str, tmp_path: Path, returned: object, message: str
) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=1)
    worker = make_worker(study, function=f"{simple}:objective")
    worker.trials.function = lambda _: returned  # type: ignore[union-attr]
    worker.run()
    (trial,) = study.trials()
    assert trial.state == optuna.trial.TrialState.FAIL
    assert message in trial.user_attrs["message"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_divergence(simple: str, tmp_path: Path, value: float) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=1)
    worker = make_worker(study, function=f"{simple}:objective")
    worker.trials.function = lambda _: value  # type: ignore[union-attr]
    worker.run()
    (trial,) = study.trials()
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.user_attrs["failure"] == "diverged"


def test_an_attribute_called_as_one_of_ours_is_said_once(
    simple: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=2)
    worker = make_worker(study, function=f"{simple}:objective")

    def objective(trial: optuna.Trial) -> float:
        hpo.seed(trial)
        trial.set_user_attr("train_seconds", 1e9)
        trial.set_user_attr("standard_error", 0.5)
        return 1.0

    warn_of_own_name.cache_clear()
    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    (line,) = [record.getMessage() for record in caplog.records if "set_user_attr" in record.getMessage()]
    assert line.startswith("attribute 'train_seconds': torch-hpo stores its own value")
    assert all(trial.user_attrs.keys() - {"standard_error"} <= OWN_ATTRIBUTES for trial in study.trials())


def test_so_is_a_report_that_is_not_finite_and_the_function_ends_there(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=1)
    worker = make_worker(study, function=f"{simple}:objective")

    def objective(trial: optuna.Trial) -> float:
        with contextlib.suppress(Exception):
            trial.report(0.5, 0)
            trial.report(float("inf"), 3)
        return 1.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    (trial,) = study.trials()
    assert (trial.state, trial.values) == (optuna.trial.TrialState.PRUNED, None)
    assert trial.intermediate_values == {0: 0.5, 3: float("inf")}
    assert trial.user_attrs["failure"] == "diverged"
    assert trial.user_attrs["message"] == "the objective function reported: value is inf at step 3"


@pytest.mark.parametrize(
    "value", [1, 0.5, __import__("numpy").float32(0.5), __import__("torch").tensor([0.5], requires_grad=True)]
)
def test_one_number_of_any_type_is_a_value(value: object) -> None:
    study = optuna.create_study()
    trial = ObjectiveTrial(study, study.ask()._trial_id)
    result = call_objective(lambda _: value, trial, 1)
    assert result is not None
    assert result.values == [float(value)]  # type: ignore[arg-type]


@pytest.mark.integration
def test_an_unchanged_script_runs_under_two_workers_to_its_exact_budget(simple: str, tmp_path: Path) -> None:
    home = {"HPO_HOME": str(tmp_path / "home")}
    done = hpo_process("launch", f"{simple}:meeting", "--trials", "21", "--workers", "2", **home)
    assert done.returncode == 0, done.stderr
    assert "study simple_objective is complete: 21 trials" in done.stderr
    trials = Study(StudyStorage(f"sqlite:///{tmp_path / 'home' / 'hpo.db'}"), "simple_objective").trials()
    assert [trial.number for trial in trials] == list(range(21))
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert [trial.user_attrs["mine"] for trial in trials] == list(range(21))
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert all(trial.value == trial.params["x"] ** 2 for trial in complete)
    pruned = [trial for trial in trials if trial.state == optuna.trial.TrialState.PRUNED]
    assert all(trial.value == list(trial.intermediate_values.values())[-1] for trial in pruned)
    report = run_hpo("report", "simple_objective", "--out", str(tmp_path / "report"), **home)
    assert report.returncode == 0, report.stderr
    assert "| objective function | simple_objective.py:meeting |" in (tmp_path / "report" / "report.md").read_text()


def test_the_study_of_the_file_says_what_the_command_does_not(simple: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    text = f"{simple}:objective"
    plan = plan_function_launch(load_function(text), url, read_study(text, "study"), trials=5)
    definition = plan.definition
    assert definition.objectives[0].direction == "maximize"
    assert (definition.sampler.name, definition.sampler.options["n_startup_trials"]) == ("tpe", 4)
    assert (definition.pruner.name, definition.pruner.options["n_warmup_steps"]) == ("median", 2)
    study = plan.create(url)
    make_worker(study, function=text).run()
    assert study.trials()[0].params == {"x": 0.5}  # it was enqueued
    assert len(study.trials()) == 5
    for variable, message in (("number", "is int, not an optuna.Study"), ("missing", "has no such variable")):
        with pytest.raises(RequestError, match=message):
            read_study(text, variable)


def test_several_objectives(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:two", tmp_path, trials=6, direction="minimize,maximize", metric_names="error,speed")
    make_worker(study, function=f"{simple}:two").run()
    assert all(trial.values == [trial.params["x"], trial.params["n"]] for trial in study.trials())
    for keys, message in (
        ({"direction": "minimize,up"}, "unknown direction 'up'"),
        ({"direction": "minimize,maximize", "metric_names": "one"}, "one: 1 of them, and the study has 2 directions"),
        ({"direction": "minimize,maximize", "sampler": "cmaes"}, "takes one objective"),
        ({"sampler": "grid"}, "needs the whole space"),
        ({"pruner": "hyperband"}, "needs max_resource"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ):
        with pytest.raises(RequestError, match=message):
            launch(f"{simple}:objective", tmp_path, name="other", **keys)


def test_a_worker_elsewhere_names_the_function_or_its_module(
    simple: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(f"{simple}:objective", tmp_path, trials=2)
    where = "--storage", f"sqlite:///{tmp_path / 'hpo.db'}"
    refused = run_hpo("worker", "simple_objective", *where)
    assert refused.returncode == 2
    assert f"add --objective {simple}:objective, or --import simple_objective" in refused.stderr
    Worker(Study(StudyStorage(where[1]), "simple_objective"), WorkerOptions(function=f"{simple}:"))  # knows the name
    other = run_hpo("worker", "simple_objective", "--objective", f"{simple}:two", *where)
    assert "calls simple_objective.py:objective" in other.stderr
    done = run_hpo("worker", "simple_objective", "--import", "simple_objective", *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    by_name = run_hpo("launch", "simple_objective", *where)
    assert by_name.returncode == 2
    assert f"hpo launch {simple}:objective --name simple_objective" in by_name.stderr


def test_an_edited_file_is_noticed_and_another_function_refused(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=2)
    edited = tmp_path / "edited" / "simple_objective.py"
    edited.parent.mkdir()
    edited.write_text(SIMPLE + "\n# a change\n")
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    plan = plan_function_launch(load_function(f"{edited}:objective"), url, trials=4)
    assert "its source is not the one that study 'simple_objective' was launched with" in plan.notices[0]
    assert plan.create(url).budget.trials == 4
    with pytest.raises(StudyConflictError, match=r"function\.name: stored 'objective', requested 'instance'"):
        launch(f"{simple}:instance", tmp_path)
    assert study.budget.trials == 4


def test_the_preview_of_a_stored_study_shows_what_its_trials_have_shown(simple: str, tmp_path: Path) -> None:
    make_worker(launch(f"{simple}:objective", tmp_path, trials=1), function=f"{simple}:objective").run()
    asked = "launch", f"{simple}:objective", "--storage", f"sqlite:///{tmp_path / 'hpo.db'}", "--dry-run"
    stored, new = run_hpo(*asked), run_hpo(*asked, "--name", "new")
    assert "x = -1 to 1" in stored.stdout
    assert "which have recorded nothing yet" not in stored.stdout
    assert "which have recorded nothing yet" in new.stdout


def test_optimize_takes_a_sampler_of_optuna(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1)

    samplers, url = optuna.samplers, f"sqlite:///{tmp_path / 'hpo.db'}"
    study = hpo.optimize(objective, trials=1, name="s", storage=url, sampler=samplers.RandomSampler(seed=4))
    definition = Study(StudyStorage(url), study.study_name).definition
    assert (definition.sampler.name, definition.seed) == ("random", 4)
    with pytest.raises(RequestError, match="GridSampler has no name here"):
        hpo.optimize(objective, trials=1, storage=url, sampler=samplers.GridSampler({"x": [0.0]}))


def test_another_sampler_or_pruner_is_a_fork(simple: str, tmp_path: Path) -> None:
    launch(f"{simple}:objective", tmp_path)
    with pytest.raises(
        StudyConflictError, match="keep its trials with: hpo fork simple_objective NEW --sampler cmaes;"
    ):
        launch(f"{simple}:objective", tmp_path, sampler="cmaes")
    table = '{name = "hyperband", max_resource = 9}'
    with pytest.raises(StudyConflictError, match=re.escape(f"NEW --pruner '{table}'")):
        launch(f"{simple}:objective", tmp_path, pruner=table)


RESUMED = """
import os, pathlib, signal
import hpo

HERE = pathlib.Path(__file__).parent

def objective(trial):
    x = trial.suggest_float("x", -1, 1)
    checkpoint = hpo.checkpoint(trial) if CHECKPOINT else None
    state = checkpoint.load() if checkpoint else None
    steps = list(state["steps"]) if state else []
    with (HERE / "calls.txt").open("a") as file:
        file.write(f"{trial.number} {x!r} {len(steps)}\\n")
    for step in range(len(steps), 6):
        trial.report(step + x, step)
        steps.append(step)
        if checkpoint:
            checkpoint.save({"steps": steps})
        if trial.number == 1 and step == 3 and not (HERE / "killed").exists():
            trial.report(99.0, 4)  # after the checkpoint
            trial.study._storage.flush()
            (HERE / "killed").write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
    return x * x
"""


@pytest.mark.integration
@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_a_killed_trial_is_taken_over_with_its_number_and_parameters(tmp_path: Path, with_checkpoint: bool) -> None:
    (tmp_path / "resumed.py").write_text(RESUMED.replace("CHECKPOINT", str(with_checkpoint)))
    text = f"{tmp_path / 'resumed.py'}:objective"
    study = launch(text, tmp_path, trials=3, pruner="none")
    where = "--storage", f"sqlite:///{tmp_path / 'hpo.db'}", "--objective", text, "--lease", "1"
    process = start_hpo("worker", "resumed", *where, HPO_HOME=str(tmp_path))
    assert process.wait(120) == -signal.SIGKILL
    done = hpo_process("worker", "resumed", *where, HPO_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    trials = study.trials()
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)
    calls = [line.split() for line in (tmp_path / "calls.txt").read_text().splitlines()]
    first, second = (call for call in calls if call[0] == "1")
    assert first[1] == second[1] == repr(trials[1].params["x"])
    assert second[2] == ("4" if with_checkpoint else "0")
    x = trials[1].params["x"]
    assert trials[1].intermediate_values == {step: step + x for step in range(6)}
    assert not list((tmp_path / "checkpoints").glob("*/1*"))  # its folder is gone with it


def test_a_request_to_stop_interrupts_where_the_function_reports(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=4)
    worker = make_worker(study, function=f"{simple}:objective")
    seen: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        seen.append(trial.number)
        if trial.number == 1:
            worker.should_stop = lambda: True
            try:
                trial.report(1.0, 0)
            except Exception:
                pytest.fail("the interruption must pass through `except Exception`")
        return 0.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    assert seen == [0, 1]
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "WAITING"]


def test_optimize_in_this_process_and_in_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    scale = 3.0

    def objective(trial: optuna.Trial) -> float:
        return scale * trial.suggest_float("x", -1, 1) ** 2

    objective.__module__ = "__main__"  # as in a notebook: there is no module to import
    alone = hpo.optimize(objective, trials=5, storage=url, seed=1)
    assert isinstance(alone, optuna.Study)
    assert len(alone.trials) == 5
    assert all(trial.value == 3 * trial.params["x"] ** 2 for trial in alone.trials)
    again = hpo.optimize(objective, trials=7, storage=url, name=alone.study_name, seed=1)
    assert len(again.trials) == 7
    other = hpo.optimize(objective, trials=4, storage=url, seed=1)
    assert other.study_name == f"{alone.study_name}-2"
    other.optimize(objective, n_trials=1)  # it is a study of Optuna's in every way
    assert len(other.trials) == 5
    with pytest.raises(RuntimeError, match="inside an objective function"):
        other.stop()


@pytest.mark.integration
def test_a_function_of_a_script_travels_to_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import hpo\nscale = 2\n"
        "def objective(trial):\n    return scale * trial.suggest_float('x', 0, 1)\n"
        "study = hpo.optimize(objective, trials=6, workers=2)\n"  # without `if __name__ == '__main__'`
        "print(len(study.trials), len({t.user_attrs['worker'] for t in study.trials}))\n"
        "import threading\nlock = threading.Lock()\n"
        "def locked(trial):\n    return lock.acquire()\n"
        "try:\n    hpo.optimize(locked, workers=2)\n"
        "except hpo.HpoError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True,
        env={**os.environ, "HPO_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith("6 "), done.stderr
    assert "cannot be sent to worker processes (TypeError: cannot pickle '_thread.lock' object)" in lines[1]
    assert not list(tmp_path.glob("home/**/*.pkl"))


def test_a_function_that_cannot_be_sent_leaves_no_study(tmp_path: Path) -> None:
    lock, url = threading.Lock(), f"sqlite:///{tmp_path / 'optuna.db'}"

    def locked(trial: optuna.Trial) -> float:
        with lock:
            return trial.suggest_float("x", 0, 1)

    locked.__module__ = "__main__"  # as of a script or a notebook
    with pytest.raises(RequestError, match="locked: cannot be sent to worker processes"):
        hpo.optimize(locked, trials=2, workers=2, storage=url)
    with pytest.raises(RequestError, match="lives in this process alone"):
        hpo.optimize(locked, trials=2, storage=url, backend=hpo.Slurm({}))
    with pytest.raises(StorageMissingError):
        StudyStorage(url, create=False)
    hpo.optimize(locked, trials=2, storage=url, name="alone")
    with pytest.raises(RequestError, match="cannot be sent"):
        hpo.evaluate("alone", storage=url, objective=locked, workers=2)
    assert study_names(StudyStorage(url)) == ["alone"]


def test_a_checkpoint_outside_a_worker_is_temporary() -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        checkpoint = hpo.checkpoint(trial)
        assert checkpoint.load() is None
        checkpoint.save({"a": 1})
        assert hpo.checkpoint(trial).load() == {"a": 1}
        return 0.0

    study.optimize(objective, n_trials=2)


def test_a_checkpoint_counts_the_steps_that_were_reported(tmp_path: Path) -> None:
    trial = optuna.create_study().ask()
    checkpoint = TrialCheckpoint(tmp_path, trial)
    assert checkpoint.last_step == -1
    for step in (0, 4, 17):
        trial.report(1.0, step)
        checkpoint.save({"step": step})
        assert checkpoint.last_step == step
        assert checkpoint.load() == {"step": step}
    assert len(list(tmp_path.iterdir())) == 1
    next(tmp_path.iterdir()).unlink()
    (tmp_path / "mine.bin").write_bytes(b"x")
    assert checkpoint.last_step is None  # files of its own: who knows up to where


def test_a_checkpoint_is_never_ahead_of_the_database(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=1)
    worker = make_worker(study, function=f"{simple}:objective")
    seen: list[dict[int, float]] = []

    def objective(trial: optuna.Trial) -> float:
        for step in range(3):
            trial.report(float(step), step)
            hpo.checkpoint(trial).save({"step": step})
            other = StudyStorage(f"sqlite:///{tmp_path / 'hpo.db'}")
            seen.append(other.get_trial(trial._trial_id).intermediate_values)
        return 0.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    assert [len(values) for values in seen] == [1, 2, 3]


def test_an_exit_counts_as_a_death_and_fails_the_trial_in_the_end(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=2)
    worker = make_worker(study, function=f"{simple}:objective")
    calls: list[int] = []

    def objective(trial: optuna.Trial) -> float:
        calls.append(trial.number)
        if trial.number == 0:
            sys.exit(0)
        return 1.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    assert calls.count(0) == 5
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "COMPLETE"]
    assert "sys.exit(0) was called" in study.trials()[0].user_attrs["message"]


def test_a_trial_that_takes_too_long_fails_where_it_reports(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=2, trial_timeout="10")
    worker = make_worker(study, function=f"{simple}:objective")
    now = [0.0]
    worker._watchdog._clock = lambda: now[0]

    def objective(trial: optuna.Trial) -> float:
        for step in range(5):
            now[0] += 4 if trial.number == 0 else 1
            try:
                trial.report(1.0, step)
            except Exception:
                pytest.fail("the interruption must pass through `except Exception`")
        return 0.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "COMPLETE"]
    assert "longer than trial_timeout = 10 s" in study.trials()[0].user_attrs["message"]


def test_what_a_function_changes_of_its_process_does_not_reach_later_trials(simple: str, tmp_path: Path) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=2)
    worker = make_worker(study, function=f"{simple}:objective")
    folders: list[str] = []

    def objective(_: optuna.Trial) -> float:
        folders.append(str(Path.cwd()))
        os.chdir("/")
        os.environ["LEFT_BEHIND"] = "yes"
        return 0.0

    worker.trials.function = objective  # type: ignore[union-attr]
    worker.run()
    assert folders == [str(Path.cwd())] * 2
    assert "LEFT_BEHIND" not in os.environ


def test_a_budget_smaller_than_the_studys_is_refused_with_what_was_meant(simple: str, tmp_path: Path) -> None:
    launch(f"{simple}:objective", tmp_path, trials=30)
    with pytest.raises(
        RequestError, match=r"trials = 10: study .* has a budget of 30 trials already.* for 10 more give --trials 40"
    ):
        launch(f"{simple}:objective", tmp_path, trials=10)
    assert launch(f"{simple}:objective", tmp_path).budget.trials == 30
    assert launch(f"{simple}:objective", tmp_path, trials=40).budget.trials == 40


CONSTANTS = """
import optuna
from optuna.study import StudyDirection as Way

D = "maximize"
OPTIONS = {"direction": D, "pruner": optuna.pruners.NopPruner()}
LEFT = D
def objective(trial, way="minimize"):
    return 0.0
def choose():
    return D
def other(LEFT):
    pass
if __name__ == "__main__":
    local = "maximize"; itself = itself
"""


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (["optuna.create_study(direction='maximize')"], ["maximize"]),
        (["create_study(directions=['minimize', 'maximize'], sampler=None)"], ["minimize", "maximize"]),
        (["optuna.create_study()"], ["minimize"]),
        (["optuna.create_study(direction=None)"], ["minimize"]),
        (["optuna.create_study(direction=D)"], ["maximize"]),
        (["optuna.create_study(directions=[D, 'minimize', optuna.study.StudyDirection.MAXIMIZE])"], [*"+-+"]),
        (["optuna.create_study(direction=Way.MAXIMIZE)"], ["maximize"]),
        (["optuna.create_study(direction=StudyDirection.MAXIMIZE)"], ["maximize"]),
        (["optuna.create_study(direction=OPTIONS['direction'])"], ["maximize"]),
        (["optuna.create_study(**OPTIONS)"], ["maximize"]),
        (["optuna.create_study(direction=WAY)"], "line 15 is known only when the file runs"),
        (["optuna.create_study(direction=local)"], ["maximize"]),
        (["optuna.create_study(direction=itself)"], "line 15"),
        (["optuna.create_study(direction=LEFT)"], "line 15"),
        (["optuna.create_study(direction=choose())"], "line 15"),
        (["optuna.create_study(**options)"], "give --direction minimize or --direction maximize"),
        (["optuna.create_study(direction='maximize')", "optuna.create_study(direction=Way.MAXIMIZE)"], ["maximize"]),
        (["optuna.load_study(study_name='x')"], None),
    ],
)
def test_the_direction_of_an_unchanged_script_is_read_from_it(
    tmp_path: Path, calls: list[str], expected: list[str] | str | None
) -> None:
    path = tmp_path / f"script_{abs(hash(str(calls)))}.py"
    path.write_text(CONSTANTS.lstrip("\n") + "".join(f"    study = {call}\n" for call in calls))
    reference = load_function(f"{path}:objective").reference
    if isinstance(expected, str):
        with pytest.raises(RequestError, match=expected):
            find_directions(reference)
        return
    found = find_directions(reference)
    spelled = {"+": "maximize", "-": "minimize"}
    assert (None if found is None else found.directions) == (expected and [spelled.get(e, e) for e in expected])


def test_a_file_that_cannot_be_a_modules_name_is_imported_once(tmp_path: Path) -> None:
    path = tmp_path / "my-script.py"
    path.write_text("def objective(trial): return 0.0\n")
    assert load_function(str(path)).call is load_function(f"{path}:objective").call


def test_a_script_that_leaves_the_direction_out_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "script_default.py"
    path.write_text("def objective(trial): return 0.0\nif __name__ == '__main__':\n    study = optuna.create_study()\n")
    found = find_directions(load_function(f"{path}:objective").reference)
    assert found is not None
    assert found.describe() == (
        "direction minimize, the default of create_study, which script_default.py calls in line 3"
    )


@pytest.mark.parametrize(
    ("arguments", "expected", "note"),
    [
        ("sampler=optuna.samplers.RandomSampler(seed=3)", {"sampler": {"name": "random"}, "seed": 3}, "in line 5"),
        ("sampler=S(sigma0=0.5)", {"sampler": {"name": "cmaes", "sigma0": 0.5}}, "sampler cmaes, as"),
        ("pruner=optuna.pruners.NopPruner()", {"pruner": {"name": "none"}}, "pruner none, as"),
        ("sampler=sampler", {"sampler": {"name": "random"}, "seed": 5}, "sampler random, seed 5"),
        ("sampler=choose()", {}, "sampler: that of .* line 5, is not taken, as it is known only when the file runs"),
        ("sampler=optuna.samplers.QMCSampler()", {}, "QMCSampler has no name here"),
        ("pruner=optuna.pruners.HyperbandPruner()", {}, "HyperbandPruner needs max_resource"),
        ("sampler=optuna.samplers.TPESampler(gamma=len)", {}, "known only when the file runs"),
        ("sampler=optuna.samplers.TPESampler(gamma=None)", {}, "TPESampler has no option gamma here"),
    ],
)
def test_the_sampler_and_the_pruner_of_an_unchanged_script_are_read_or_it_is_said(
    tmp_path: Path, arguments: str, expected: dict[str, object], note: str
) -> None:
    path = tmp_path / f"script_{abs(hash(arguments))}.py"
    path.write_text(
        "from optuna.samplers import CmaEsSampler as S\ndef objective(trial): return 0.0\n"
        "if __name__ == '__main__':\n    sampler = optuna.samplers.RandomSampler(seed=5)\n"
        f"    optuna.create_study({arguments})\n"
    )
    keys, notes = read_components(load_function(f"{path}:objective").reference, ("sampler", "pruner", "seed"))
    for key, value in expected.items():
        assert keys[key] == ({**keys[key], **value} if isinstance(value, dict) else value)
    assert set(keys) == set(expected)
    assert re.search(note, "\n".join(notes))


def test_a_stored_study_keeps_its_direction_whatever_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "script_late.py"
    path.write_text("def objective(trial): return 0.0\ndef main(): create_study(direction='minimize')\n")
    function, url = load_function(f"{path}:objective"), f"sqlite:///{tmp_path / 'hpo.db'}"
    plan_function_launch(function, url, name="pl", direction="maximize").create(url)
    plan = plan_function_launch(function, url, name="pl", read_file=True)
    assert plan.definition.objectives[0].direction == "maximize"
    assert plan.notices == ("study 'pl' keeps its direction, maximize; script_late.py:objective has minimize",)
    path.write_text(path.read_text() + "def again(): create_study(direction='maximize')\n")
    assert plan_function_launch(function, url, name="pl", read_file=True).definition == plan.definition
    with pytest.raises(RequestError, match="no trial of it has completed; remove it with: hpo delete pl"):
        plan_function_launch(function, url, name="pl", direction="minimize")


def test_a_worker_whose_file_has_changed_says_so(simple: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = launch(f"{simple}:objective", tmp_path, trials=1)
    edited = tmp_path / "edited" / "simple_objective.py"
    edited.parent.mkdir()
    edited.write_text(SIMPLE + "\n# a change\n")
    make_worker(study, function=f"{edited}:objective")
    assert "its source is not the one that study 'simple_objective' was launched with (SHA-256 now" in caplog.text


def test_the_options_of_an_evolutionary_sampler_are_kept() -> None:
    sampler = optuna.samplers.NSGAIISampler(population_size=10, mutation_prob=0.1, swapping_prob=0.3)
    table = read_component(sampler)
    assert (table["population_size"], table["mutation_prob"], table["swapping_prob"]) == (10, 0.1, 0.3)


def test_an_option_of_a_sampler_that_could_not_be_kept_is_refused() -> None:
    with pytest.raises(RequestError, match=r"sampler TPESampler: its option gamma = \S+ has no name here"):
        hpo.optimize(lambda _: 0.0, trials=1, sampler=optuna.samplers.TPESampler(gamma=lambda _: 3))


def test_samplers_and_pruners_of_optuna_are_taken_as_they_are(simple: str, tmp_path: Path) -> None:
    samplers, pruners = optuna.samplers, optuna.pruners
    study = launch(
        f"{simple}:objective",
        tmp_path,
        sampler=samplers.TPESampler(seed=1),
        pruner=pruners.MedianPruner(n_min_trials=3),
    )
    definition = study.definition
    assert (definition.sampler.name, definition.seed) == ("tpe", 1)
    assert (definition.pruner.name, definition.pruner.options["n_min_trials"]) == ("median", 3)
    spelled = launch(f"{simple}:objective", tmp_path, name="two", pruner='{name = "hyperband", max_resource = 27}')
    assert spelled.definition.pruner.options == {"max_resource": 27}
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        unknown = pruners.PatientPruner(None, 3)
    with pytest.raises(RequestError, match=r"^pruner = \{name=: .*; write it as \{name = \"median\""):
        launch(f"{simple}:objective", tmp_path, name="three", pruner="{name=")
    with pytest.raises(RequestError, match=r"^pruner PatientPruner has no name here; those that have one are: none,"):
        launch(f"{simple}:objective", tmp_path, name="three", pruner=unknown)


def test_a_launch_says_which_direction_it_has_read_and_refuses_to_choose(tmp_path: Path) -> None:
    main = "if __name__ == '__main__':\n    study = optuna.create_study(direction='maximize')\n"
    text = f"def objective(trial):\n    return 0.0\n\n{main}"
    (tmp_path / "script_one.py").write_text(text)
    (tmp_path / "script_two.py").write_text(f"{text}    other = optuna.create_study()\n")
    asked = "--workers", "0", "--storage", f"sqlite:///{tmp_path / 'hpo.db'}"
    one = run_hpo("launch", "script_one.py:objective", *asked, cwd=tmp_path)
    assert "note: direction maximize, as script_one.py has it in line 5" in one.stderr
    assert Study(StudyStorage(asked[3]), "script_one").maximize
    two = run_hpo("launch", "script_two.py:objective", *asked, cwd=tmp_path)
    assert two.returncode == 2
    assert "makes studies of different directions (lines 5 and 6); say which with --direction" in two.stderr


def test_tensorboard_has_the_reports_and_the_parameters(
    simple: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    url = f"sqlite:///{tmp_path}/hpo.db"
    study = plan_function_launch(load_function(f"{simple}:objective"), url, trials=2, pruner="none").create(url)
    folder = tmp_path / "events"
    make_worker(study, tensorboard=folder, function=f"{simple}:objective").run()
    for trial in study.trials():
        events = EventAccumulator(str(folder / study.name / f"trial_{trial.number}"))
        events.Reload()
        assert {each.step: each.value for each in events.Scalars("value")} == pytest.approx(trial.intermediate_values)
        assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_only_objective_function_of_a_file_needs_no_name(tmp_path: Path) -> None:
    file = tmp_path / "sole_objective.py"
    file.write_text(
        "def helper(x): return x\ndef objective(trial, scale=1): return scale * trial.suggest_float('x', 0, 1)\n"
    )
    done = run_hpo("launch", str(file), "--trials", "2", "--workers", "0", cwd=tmp_path)
    assert f"note: objective function {file}:objective" in done.stderr
    file.write_text("def one(trial): return 0.0\ndef two(trial): return 0.0\n")
    done = run_hpo("launch", str(file), "--trials", "2", "--workers", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert f"name an objective function as {file}:FUNCTION (its functions are: one, two)" in done.stderr


def test_a_function_can_stop_the_study_for_every_worker(tmp_path: Path) -> None:
    file = tmp_path / "stopping_objective.py"
    file.write_text("def objective(trial):\n    if trial.number == 1: trial.study.stop()\n    return trial.number\n")
    function, url = f"{file}:objective", f"sqlite:///{tmp_path}/hpo.db"
    study = plan_function_launch(load_function(function), url, trials=6).create(url)
    for _ in range(2):  # workers
        make_worker(study, function=function).run()
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE"] * 2
    assert study.stop_reason() == "its objective function has stopped it"
    study.start_clock()  # by a launch
    assert study.stop_reason() is None


def test_the_time_of_samplers_is_told_from_training(tmp_path: Path) -> None:
    file = tmp_path / "sampled_objective.py"
    file.write_text("def objective(trial): return trial.suggest_float('x', 0, 1)\n")
    function, url = f"{file}:objective", f"sqlite:///{tmp_path}/hpo.db"
    study = plan_function_launch(load_function(function), url, trials=15).create(url)
    worker = make_worker(study, function=function)
    worker.run()
    assert worker.work.seconds["sampling"] > 0


class Called:
    """An objective that holds its data, as Optuna's FAQ has it."""

    def __call__(self, trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1)


def make_objective(factor: float) -> Callable[[optuna.Trial], float]:
    def call_objective(trial: optuna.Trial) -> float:  # the name of another function of this module
        return factor * trial.suggest_float("x", 0, 1)

    return call_objective


@pytest.mark.parametrize("function", [Called(), make_objective(2.0), partial(call_objective, None)])
def test_a_function_that_its_module_does_not_hold_is_no_functions_of_it(function: Any) -> None:
    reference = describe_function(function)
    assert (reference.module, reference.file) == (None, None)
    assert describe_function(make_objective).module == __name__


def test_a_complete_trial_has_not_failed_whatever_its_function_calls_so(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'own.db'}", study_name="own")
    trial = study.ask()
    trial.set_user_attr("failure", "none")
    trial.set_user_attr("message", "converged")
    study.tell(trial, 0.5)
    (row,) = read_results(Study(StudyStorage(f"sqlite:///{tmp_path / 'own.db'}"), "own")).trials
    assert (row.state, row.failure, row.message) == ("COMPLETE", None, None)
