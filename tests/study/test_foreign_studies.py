"""Studies that plain Optuna has made: read, reported and gone on with as if they were ours."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from hpo.errors import StudyForeignError
from hpo.study import Study, StudyStorage
from tests.helpers import run_hpo

optuna.logging.set_verbosity(optuna.logging.WARNING)
SOURCE = """
import optuna

def objective(trial):
    if trial.number == 2:
        raise ValueError("two")
    kind = trial.suggest_categorical("kind", ["square", "line", None])
    x = trial.suggest_float("x", -2, 2)
    if kind == "line":
        trial.suggest_int("slope", 1, 2 + trial.number % 3)
    for step in range(4):
        trial.report(abs(x) + 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return x * x
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of plain Optuna, and the file of its objective function."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "mine.py").write_text(SOURCE)
    names: dict[str, object] = {}
    exec(SOURCE, names)
    study = optuna.create_study(
        study_name="theirs",
        storage=f"sqlite:///{folder / 'optuna.db'}",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=10),
    )
    study.optimize(names["objective"], n_trials=24, catch=(ValueError,))  # type: ignore[arg-type]
    study.enqueue_trial({"x": 0.25})
    several = optuna.create_study(
        study_name="two", storage=study._storage, directions=["minimize", "maximize"], sampler=None
    )
    several.set_metric_names(["error", "speed"])
    several.optimize(lambda t: (t.suggest_float("x", 0, 1), t.params["x"] ** 2), n_trials=12)
    return folder


def url(plain: Path) -> str:
    return f"sqlite:///{plain / 'optuna.db'}"


def test_a_foreign_study_has_a_definition_and_a_learned_space(plain: Path) -> None:
    study = Study(StudyStorage(url(plain)), "theirs")
    assert study.definition.foreign
    assert [each.metric for each in study.definition.objectives] == ["value"]
    assert study.budget.trials == 25
    assert [dimension.key for dimension in study.space.varied] == ["kind", "x", "slope"]
    assert study.space.notices()[0].startswith("slope: its domain changed")
    with pytest.raises(StudyForeignError, match=r"hpo launch FILE.py:FUNCTION --name theirs"):
        study.check_trainable()


def test_commands_that_read_do_not_need_its_code(plain: Path, tmp_path: Path) -> None:
    where = "--storage", url(plain)
    shown = json.loads(run_hpo("show", "theirs", "--format", "json", *where).stdout)
    optimum = optuna.load_study(study_name="theirs", storage=url(plain))
    assert shown["best"]["number"] == optimum.best_trial.number
    assert shown["counts"]["FAIL"] == 1
    rows = json.loads(run_hpo("trials", "theirs", "--format", "json", *where).stdout)
    for row, trial in zip(rows, optimum.trials, strict=True):
        assert row["state"] == trial.state.name
        assert row["value"] == trial.value
        assert row["kind"] == (trial.params["kind"] or "none" if "kind" in trial.params else None)
        assert row["epochs_done"] == len(trial.intermediate_values)
    listed = json.loads(run_hpo("list", "--format", "json", *where).stdout)
    assert {row["name"]: row["trials"] for row in listed} == {"theirs": 25, "two": 12}
    python = run_hpo("export", "theirs", "--format", "python", *where).stdout
    names: dict[str, optuna.trial.FixedTrial] = {}
    exec(python, names)  # type: ignore[arg-type]
    assert names["trial"].number == optimum.best_trial.number
    assert {key: names["trial"]._params[key] for key in optimum.best_params} == optimum.best_params
    for style in ("json", "yaml", "toml"):
        assert "kind" in run_hpo("export", "theirs", "--format", style, *where).stdout


@pytest.mark.parametrize("name", ["theirs", "two"])
def test_its_report_has_the_chapters_that_its_data_allow(plain: Path, tmp_path: Path, name: str) -> None:
    done = run_hpo("report", name, "--out", str(tmp_path / "out"), "--storage", url(plain))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "report.md").read_text()
    chapters = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    common = [
        "Best parameters",
        "Findings",
        "Parameter importance",
        "Cost",
        "All trials",
        "Definition",
        "Reproduction",
    ]
    assert [each for each in chapters if each in common] == common
    assert ("Intermediate values" in chapters) == (name == "theirs")
    assert "hpo evaluate" not in text
    assert "hpo train" not in text
    assert "| made by | another tool |" in text
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(document["trials"]) == (25 if name == "theirs" else 12)


def test_what_would_train_it_says_how_to_go_on(plain: Path) -> None:
    where = "--storage", url(plain)
    launch, named = "hpo launch FILE.py:FUNCTION --name theirs", "with --objective FILE.py:FUNCTION"
    for command, says in (
        (["worker", "theirs"], launch),
        (["launch", "theirs"], launch),
        (["reproduce", "theirs", "0"], named),
        (["evaluate", "theirs"], named),
        (["fork", "theirs", "mine"], named),
    ):
        done = run_hpo(*command, *where)
        assert done.returncode == 2, (command, done.stderr)
        assert says in done.stderr, (command, done.stderr)


def test_it_goes_on_with_its_objective_function(plain: Path, tmp_path: Path) -> None:
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert run_hpo("copy", "theirs", "--storage", url(plain), "--to", copy).returncode == 0
    launched = run_hpo("launch", f"{plain / 'mine.py'}:objective", "--name", "theirs", "--trials", "30",
                       "--workers", "0", "--storage", copy)  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    done = run_hpo("worker", "theirs", "--objective", f"{plain / 'mine.py'}:objective", "--storage", copy)
    assert done.returncode == 0, done.stderr
    trials = optuna.load_study(study_name="theirs", storage=copy).trials
    assert [trial.number for trial in trials] == list(range(30))
    assert all(trial.state.is_finished() for trial in trials)
    assert trials[24].params["x"] == 0.25  # it was enqueued
    before = optuna.load_study(study_name="theirs", storage=url(plain)).trials
    assert [t.params for t in trials[:24]] == [t.params for t in before[:24]]
    other = run_hpo("launch", f"{plain / 'mine.py'}:objective", "--name", "two", "--storage", url(plain),
                    "--direction", "minimize")  # fmt: skip
    assert other.returncode == 2
    assert "its directions are minimize, maximize, not minimize;" in other.stderr


def test_it_can_be_deleted(plain: Path, tmp_path: Path) -> None:
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    assert run_hpo("copy", "two", "--storage", url(plain), "--to", copy).returncode == 0
    assert run_hpo("delete", "two", "--yes", "--storage", copy).returncode == 0
    assert optuna.get_all_study_names(copy) == []
