"""Reports of objective functions: their words, the chapters that they have, and parameters that only some trials ask
for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpo.report.chapters.order import make_chapters
from hpo.report.chapters.verdict import write_verdict
from hpo.report.checks.run import run_checks
from hpo.report.data.results import read_results
from hpo.report.data.trial_table import shown_trials
from hpo.report.render.markdown import render_markdown
from hpo.report.report_data import ReportData, read_report_data
from hpo.study import Study, StudyStorage
from tests.helpers import run_hpo

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Choices for a categorical distribution", "ignore::optuna.exceptions.ExperimentalWarning"
)
# Words for what only our own models have.
MODEL_WORDS = r"\b(epochs?|configurations?|weights|baseline|validation|test set|TOML|gradient|trained|learning rate)\b"


def reports(trial: optuna.trial.Trial) -> float:
    x = trial.suggest_float("x", 0.0, 1.0 + trial.number % 3)
    if trial.suggest_categorical("kind", ["a", None, [1, 2]]) == "a":
        trial.suggest_int("depth", 1, 2 + trial.number % 2)
    if trial.number == 5:
        trial.suggest_float("once", 0, 1)
    for step in range(0, 2000, 400):
        trial.report(x + 100 / (step + 100), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return x


def quiet(trial: optuna.trial.Trial) -> float:
    return trial.suggest_float("x", -1, 1) ** 2


def two(trial: optuna.trial.Trial) -> tuple[float, float]:
    x = trial.suggest_float("x", 0, 1)
    return x, 1 - x * x


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('reports') / 'optuna.db'}"
    for objective in (reports, quiet, two):
        study = optuna.create_study(
            study_name=objective.__name__,
            storage=url,
            directions=["minimize"] * (2 if objective is two else 1),
            sampler=optuna.samplers.RandomSampler(seed=1),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=12),
        )
        study.optimize(objective, n_trials=24)  # type: ignore[arg-type]
    return url


@pytest.fixture(params=["reports", "quiet", "two"])
def data(url: str, request: pytest.FixtureRequest) -> ReportData:
    return read_report_data(Study(StudyStorage(url), request.param))


def prose(data: ReportData) -> str:
    text, _ = render_markdown(data.results.name, write_verdict(data), [], make_chapters(data), "now")
    return text


def test_a_report_has_no_words_for_what_only_models_have(data: ReportData) -> None:
    assert re.findall(MODEL_WORDS, prose(data), re.IGNORECASE) == []


def test_the_chapters_follow_from_what_trials_recorded(data: ReportData) -> None:
    keys = {chapter.key: chapter.title for chapter in make_chapters(data)}
    assert keys.get("curves") == ("Intermediate values" if data.results.name == "reports" else None)
    assert ("pareto" in keys) == (data.results.name == "two")
    assert keys["best"] == "Best parameters"
    assert {"mattered", "slices", "parallel", "history", "trials", "definition"} <= keys.keys()
    assert "honest" not in keys
    columns = next(iter(next(c for c in make_chapters(data) if c.key == "trials").blocks)).columns  # type: ignore[union-attr]
    assert ("steps" in [column.name for column in columns]) == (data.results.name == "reports")  # type: ignore[union-attr]


def figures(data: ReportData) -> Iterator[Any]:
    for chapter in make_chapters(data):
        for block in chapter.blocks:
            if getattr(block, "spec", None):
                yield block


def test_every_parameter_is_in_the_importances_and_the_slices_whatever_its_domain_was(url: str) -> None:
    data = read_report_data(Study(StudyStorage(url), "reports"))
    assert {share.key for share in data.importances.shares} == {"x", "kind", "depth", "once"}
    assert data.importances.shares[0].key == "x"  # its range changes from trial to trial, and it alone decides
    titles = {figure.title for figure in figures(data) if figure.key.startswith("slice")}
    assert titles == {"x", "kind", "depth", "once"}
    definition = prose(data).partition("## Definition")[2]
    assert "| once | 0 to 1 | 1 of 24 |" in definition
    assert "x: its domain changed between trials (0 to 1 in 8; 0 to 2 in 8; 0 to 3 in 8)" in definition


def test_the_axis_of_steps_has_few_ticks_however_large_the_steps_are(url: str) -> None:
    data = read_report_data(Study(StudyStorage(url), "reports"))
    (curves,) = [figure for figure in figures(data) if figure.key == "curves"]
    axis = curves.spec["layout"]["xaxis"]
    assert axis["title"]["text"] == "step"
    assert "dtick" not in axis


def test_evidence_of_random_trials_is_not_called_weaker(url: str) -> None:
    study = Study(StudyStorage(url), "quiet")
    results = read_results(study)
    known = results.definition.model_copy(
        update={"sampler": results.definition.sampler.model_copy(update={"name": "random"})}
    )
    texts = [finding.evidence for finding in run_checks(replace(results, definition=known))]
    assert not any("weaker evidence" in text for text in texts)
    assert any("weaker evidence" in finding.evidence for finding in run_checks(results))  # whose sampler is not known


def test_the_table_of_trials_counts_steps_and_has_no_columns_of_models(url: str) -> None:
    rows = shown_trials(read_results(Study(StudyStorage(url), "reports")))
    assert list(rows[0]) == [
        *("number", "state", "value", "x", "kind", "depth", "once"),
        *("steps", "seconds", "worker", "started", "finished", "failure", "message"),
    ]
    assert rows[0]["steps"] == 5


def test_how_to_go_on_names_the_function_that_is_not_known(url: str) -> None:
    study = optuna.load_study(study_name="two", storage=url)
    study.enqueue_trial({"x": 0.5})
    text = prose(read_report_data(Study(StudyStorage(url), "two")))
    assert "hpo launch FILE.py:FUNCTION --name two" in text


def test_show_lists_the_front_as_a_table(url: str) -> None:
    shown = run_hpo("show", "two", "--storage", url).stdout
    _, _, table = shown.partition("\nfront:\n")
    head, *rows = table.partition("\n\n")[0].splitlines()
    assert head.split() == ["number", "value_0", "value_1", "x", "steps", "seconds"]
    front = read_results(Study(StudyStorage(url), "two")).front
    assert [int(row.split()[0]) for row in rows] == sorted(row.number for row in front)
    assert "{" not in shown
    assert "\nfront:\n" not in run_hpo("show", "quiet", "--storage", url).stdout


@pytest.mark.parametrize(
    ("returned", "levels"),
    [
        (lambda reports: reports[-1], {"improving": "warning", "flat": "ok"}),
        (min, {"improving": "warning", "flat": "ok"}),
        (sum, {"improving": "unknown", "flat": "unknown"}),
        (lambda reports: min(reports[:3]), {"improving": "unknown", "flat": "unknown"}),
    ],
)
def test_curves_say_something_about_values_that_they_end_in_alone(
    tmp_path: Path, returned: Callable[[list[float]], float], levels: dict[str, str]
) -> None:
    def falls(trial: optuna.trial.Trial) -> float:
        reports = [trial.suggest_float("x", 0, 1) + 10 - step for step in range(10)]
        for step, value in enumerate(reports):
            trial.report(value, step)
        return returned(reports)

    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(study_name="falls", storage=url).optimize(falls, n_trials=4)
    findings = run_checks(read_results(Study(StudyStorage(url), "falls")), [])
    assert {each.check: each.level for each in findings if each.check in levels} == levels


def test_a_failure_of_which_optuna_keeps_nothing_is_called_failed(tmp_path: Path) -> None:
    def fails(trial: optuna.trial.Trial) -> float:
        if trial.number % 2:
            raise ValueError("which Optuna does not store")
        return trial.suggest_float("x", 0, 1)

    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(study_name="fails", storage=url).optimize(fails, n_trials=6, catch=ValueError)
    study = Study(StudyStorage(url), "fails")
    data = read_report_data(study)
    assert data.results.failures == {"failed": 3}
    text = prose(data)
    assert "| failed | 3 |" in text
    assert "Messages of the first failures" not in text
    assert "failed: failed" not in text
    old = optuna.trial.create_trial(state=TrialState.FAIL, system_attrs={"fail_reason": "it is old"})
    study.optuna_study.add_trial(old)
    assert "| 6 | failed | failed | it is old |" in prose(read_report_data(study))
