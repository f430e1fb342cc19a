"""The next space of an objective function, as calls of `trial.suggest_…`: Python that asks for every value it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from hpo.errors import RequestError
from hpo.report.chapters.order import findings_chapter
from hpo.report.checks.run import run_checks
from hpo.report.data.results import read_results
from hpo.report.next_study import suggest_function, write_suggestion
from hpo.report.suggest_calls import format_suggest_call
from hpo.space import LearnedSpace
from hpo.study import Study, StudyStorage

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")


def objective(trial: optuna.trial.Trial) -> float:
    rate = trial.suggest_float("learning rate", 1e-5, 1e-2, log=True)
    kind = trial.suggest_categorical("class", [None, "a", [1, 2], True, 3])
    trial.suggest_int("n", 1, 3 + trial.number % 4)
    trial.suggest_int("fixed", 3, 3)
    trial.suggest_categorical("one's own", ["it's"])
    if kind == "a":
        trial.suggest_int("only-a", 1, 5, step=2)
    if trial.number == 4:
        trial.suggest_float("once", 0, 1)
    return 1 - rate * 100


@pytest.fixture
def study(tmp_path: Path) -> Study:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    made = optuna.create_study(study_name="theirs", storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(objective, n_trials=40)
    return Study(StudyStorage(url), "theirs")


class Recorder:
    """A trial that records what it is asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def __getattr__(self, method: str) -> Any:
        return lambda name, *arguments, **options: self.asked.update({name: (method, *arguments, options)})


def test_the_calls_are_python_and_ask_for_the_union_of_what_trials_asked_for(study: Study, tmp_path: Path) -> None:
    text = write_suggestion(study, tmp_path / "next.py").read_text()
    trial = Recorder()
    exec(text, {"trial": trial})
    method, low, high, options = trial.asked.pop("learning rate")
    assert (method, low, options) == ("suggest_float", 1e-5, {"log": True})
    assert high > 1e-2  # the best trials crowd that bound
    assert "# the best of 40 trials crowd the high bound 0.01 of learning rate" in text
    assert trial.asked == {
        "class": ("suggest_categorical", [None, "a", [1, 2], True, 3], {}),
        "n": ("suggest_int", 1, 6, {}),
        "fixed": ("suggest_int", 3, 3, {}),
        "one's own": ("suggest_categorical", ["it's"], {}),
        "only-a": ("suggest_int", 1, 5, {"step": 2}),
        "once": ("suggest_float", 0.0, 1.0, {}),
    }
    assert "# its domain changed between trials (1 to 3 in 10; 1 to 4 in 10; 1 to 5 in 10; and 1 more)" in text
    assert "# 1 of 40 trials have it" in text
    assert "hpo launch FILE.py:FUNCTION --name theirs-next --warm-start theirs" in text
    assert write_suggestion(study, tmp_path / "next.py").read_text() == text
    (tmp_path / "other.py").write_text("mine")
    with pytest.raises(RequestError, match="exists with other content"):
        write_suggestion(study, tmp_path / "other.py")


def test_findings_show_calls_in_place_of_toml(study: Study) -> None:
    results = read_results(study)
    chapter = findings_chapter(run_checks(results), results.space)
    assert chapter is not None
    codes = [block.code for block in chapter.blocks if getattr(block, "code", "")]
    assert any(code.startswith('learning_rate = trial.suggest_float("learning rate", 1e-05, ') for code in codes)
    assert isinstance(results.space, LearnedSpace)


def test_a_study_without_trials_has_no_space_to_suggest(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(study_name="empty", storage=url)
    with pytest.raises(RequestError, match="no trial of study 'empty' has a parameter yet"):
        suggest_function(read_results(Study(StudyStorage(url), "empty")), [])


def test_none_and_the_text_none_are_both_asked_for() -> None:
    space = LearnedSpace([{"off": CategoricalDistribution([None, "relu", True, 3.5, "none", [1], "[1]"])}])
    (domain,) = space.domains["off"]
    text = format_suggest_call(space, "off", domain.to_json())
    assert text == """off = trial.suggest_categorical("off", [None, 'none', 'relu', True, 3.5, [1], '[1]'])"""
    only = LearnedSpace([{"off": CategoricalDistribution([None, "none"])}])
    (domain,) = only.domains["off"]
    assert format_suggest_call(only, "off", domain.to_json()).endswith("""("off", [None, 'none'])""")
