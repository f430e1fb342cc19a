"""Keys of study files for folds, repeats, random splits, seeds and splits of each trial's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.config.resampling import Resampling, derive_split_seed
from hpo.errors import RequestError, StudyConflictError
from hpo.execution.launch import plan_launch
from hpo.report.chapters.reproduction import study_table
from hpo.report.data.repeats import repeated_trials
from hpo.report.data.results import read_results
from hpo.study import Definition, Study
from hpo.study.input.preview import format_preview
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.best_trials import select_warm_starts
from hpo.study.operations.evaluation_study import parameter_values_of
from hpo.study.operations.fork import fork_study
from hpo.study.racing import explain_idle_pruner
from tests.report.helpers import filled
from tests.study.helpers import holder, make_study

SPACE = {"epochs": 4, "optimizer": ["adam", "rmsprop"], "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))


def parsed(**keys: Any) -> Definition:
    table = {"dataset": "mnist", "parameters": {"epochs": 2}, **keys}
    return parse_definition(table, "small", Path.cwd())[1]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"folds": 3}, "3 fits, of which the smallest p is 0.125, above p_threshold = 0.1; take more, or raise it"),
        ({"seeds": 2, "pruner": {"name": "wilcoxon", "p_threshold": 0.25}}, None),
        ({"folds": 4}, None),
        ({"folds": 3, "intensify": True}, None),
        ({"folds": 3, "pruner": "median"}, None),
        (
            {"folds": 5, "intensify": True, "pruner": {"name": "wilcoxon", "n_startup_steps": 6}},
            "5 fits, and n_startup_steps = 6 asks for more; lower it",
        ),
    ],
)
def test_a_pruner_that_drops_nothing_is_told_of(keys: dict[str, Any], line: str | None) -> None:
    told = None if line is None else f"pruner wilcoxon will drop nothing: each trial has {line}"
    assert explain_idle_pruner(parsed(**{"pruner": "wilcoxon", **keys})) == told


# ---- keys


@pytest.mark.parametrize(
    ("keys", "resampling", "text"),
    [
        ({"folds": 5}, Resampling(folds=5), "5 folds: 5 fits a trial"),
        ({"folds": {}, "repeats": 3}, Resampling(folds=5, repeats=3), "5 folds x 3 repeats: 15 fits a trial"),
        ({"folds": "{count = 3}"}, Resampling(folds=3), "3 folds: 3 fits a trial"),
        ({"holdout": 10, "intensify": True}, Resampling(holdout=10, intensify=True), "10 random splits: 10 fits a"),
        ({"seeds": 3}, Resampling(seeds=3), "3 seeds: 3 fits a trial"),
        ({"seeds": 1, "repeats": 1, "intensify": False, "resplit": "never"}, None, None),
        ({"resplit": "per_trial"}, None, "each trial has a split of its own"),
    ],
)
def test_keys_are_read_shown_stored_and_written_back(
    keys: dict[str, Any], resampling: Resampling | None, text: str | None
) -> None:
    definition = parsed(**keys)
    assert definition.resampling == resampling
    assert Definition.model_validate(definition.model_dump(mode="json")) == definition
    name, again, budget = parse_definition({"dataset": "mnist", "parameters": {"epochs": 2}, **keys}, "x", Path.cwd())
    lines = format_preview(name, again, budget).splitlines()
    assert lines[2].startswith(text or "") if text else lines[2] == ""


def test_a_definition_of_before_is_one_without_resampling() -> None:
    stored = parsed().model_dump(mode="json")
    del stored["resampling"], stored["resplit"]
    assert Definition.model_validate(stored).differences(parsed()) == []


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"folds": True}, 'folds = True: give their number, or { count = 5, by = "group" }, or by = "time"'),
        ({"folds": 5.0}, "folds = 5.0: give their number"),
        ({"folds": {"count": 3, "of": 2}}, "folds = {'count': 3, 'of': 2}: unknown key 'of'; valid: by, count"),
        ({"folds": {"by": "groups"}}, "folds = {'by': 'groups'}: unknown by 'groups'; did you mean 'group'?"),
        ({"seeds": "3"}, "seeds = '3': must be a whole number"),
        (
            {"seeds": 2, "intensify": True, "objective": ["val_accuracy", "parameter_count"]},
            "intensify = true: needs a single objective, by which trials are dropped, but the study has 2",
        ),
        ({"intensify": "yes", "seeds": 2}, "intensify = 'yes': must be true or false"),
        ({"resplit": "always"}, "unknown resplit 'always'; valid: never, per_trial"),
        ({"fold": 3}, "unknown key 'fold'; did you mean 'folds'?"),
        ({"parameters": {"folds": 3}}, "[parameters] folds: is no parameter; write it at the top of the file"),
        ({"folds": 3, "parameters": {"validation": 0.2}}, "[parameters] validation: has no effect with folds"),
        ({"folds": 3, "baseline": {"validation": 0.2}}, "[baseline] validation: has no effect with folds"),
        (
            {"resplit": "per_trial", "parameters": {"split_seed": 1}},
            "[parameters] split_seed: with resplit",
        ),
        (
            {"seeds": 2, "intensify": True, "resplit": "per_trial"},
            "intensify = true: compares trials on the same",
        ),
        (
            {"folds": 3, "pruner": "wilcoxon", "resplit": "per_trial"},
            "pruner 'wilcoxon': compares trials on",
        ),
        (
            {"folds": 3, "intensify": True, "parameters": {"split_seed": [1, 2]}},
            "intensify = true: compares trials on the same splits, and [parameters] split_seed gives them others",
        ),
        (
            {"folds": 3, "pruner": "wilcoxon", "parameters": {"seed": {"low": 0, "high": 9}}},
            "pruner 'wilcoxon': compares trials on the same splits, and [parameters] seed gives them others",
        ),
        (
            {"holdout": 3, "intensify": True, "parameters": {"validation": [0.1, 0.2]}},
            "intensify = true: compares trials on the same splits, and [parameters] validation gives them others",
        ),
        (
            {"seeds": 2, "intensify": True, "parameters": {"validation": [0.1, 0.2]}},
            "intensify = true: compares trials on the same splits, and [parameters] validation gives",
        ),
        ({"seeds": 2, "parameters": {"init_seed": 1, "order_seed": [2, 3]}}, "seeds = 2: all would train alike, for"),
        ({"folds": 999}, "folds = 999: there are only"),
        ({"folds": {"by": "group"}}, "folds = 5 by group: by which column? name it in the data set"),
    ],
)
def test_wrong_keys_are_one_line(keys: dict[str, Any], line: str) -> None:
    table = {"dataset": "sklearn:wine", "parameters": {"epochs": 2}, **keys}
    with pytest.raises(RequestError) as caught:
        parse_definition(table, "small", Path.cwd())
    assert str(caught.value).startswith(line)


def test_folds_need_validation_of_nothing_else_and_several_objectives_are_fine() -> None:
    assert parsed(folds=3, sampler="nsga2", objective=["val_accuracy", "parameter_count"]).fits[2].number == 2
    with pytest.raises(RequestError, match="validation = 0: leaves no samples"):
        parsed(holdout=3, parameters={"validation": 0})


@pytest.mark.parametrize(
    "keys",
    [
        {"folds": 3, "parameters": {"seed": [1, 2], "split_seed": 7}},
        {"folds": 3, "parameters": {"seed": 5}},
        {"holdout": 3, "parameters": {"validation": 0.2}},
    ],
)
def test_trials_that_race_have_the_same_splits(keys: dict[str, Any]) -> None:
    assert parsed(intensify=True, **keys).resampling is not None


def test_options_are_blamed_by_their_names() -> None:
    with pytest.raises(RequestError, match=r"^--folds = 1: must be from 2"):
        plan_launch("quickstart", folds="1")
    with pytest.raises(RequestError, match=r"^--repeats = 3: repeats a division"):
        plan_launch("quickstart", repeats=3)
    assert plan_launch("quickstart", folds="{count = 3}", seeds=2).definition.resampling == Resampling(folds=3, seeds=2)


def test_another_resampling_is_another_study(tmp_path: Path) -> None:
    study = make_study(tmp_path, folds=5)
    with pytest.raises(StudyConflictError, match=r"folds: stored 5, requested 3; repeats: stored 1, requested 2"):
        make_study(tmp_path, folds=3, repeats=2)
    with pytest.raises(StudyConflictError, match=r"resplit: stored 'never', requested 'per_trial'"):
        make_study(tmp_path, folds=5, resplit="per_trial")
    assert make_study(tmp_path, folds=5).id == study.id


# ---- what keeps them


def test_forks_and_written_study_files_keep_the_resampling(tmp_path: Path) -> None:
    keys = {"folds": {"count": 3}, "repeats": 2, "seeds": 2, "intensify": True}
    study = filled(tmp_path, "old", parameters=SPACE, trials=4, sampler="tpe", **keys)
    fork = fork_study(study, "new", trials=8)
    assert (
        fork.definition.resampling
        == study.definition.resampling
        == Resampling(folds=3, repeats=2, seeds=2, intensify=True)
    )
    table = study_table(read_results(study))
    assert study.definition.differences(parse_definition(table, "old", tmp_path)[1]) == []
    with pytest.raises(RequestError, match="fork: unknown key 'folds'"):
        fork_study(study, "newer", folds=5)


def test_each_trial_has_a_split_of_its_own_wherever_it_is_read(tmp_path: Path) -> None:
    study = make_study(tmp_path, resplit="per_trial", parameters=SPACE, trials=5, sampler="tpe", seed=4, baseline={})
    claims = [study.claim(holder()) for _ in range(5)]
    splits = [study.suggest_config(claim).seed_of_split for claim in claims if claim]
    assert splits == [derive_split_seed(4, number) for number in range(5)]
    other = Study(study.storage, study.name)
    other.storage.flush()
    configs = [other.config_of(trial) for trial in other.trials()]
    assert [config.seed_of_split for config in configs] == splits
    assert {config.seed for config in configs} == {4}
    assert [parameter_values_of(config, None)["split_seed"] for config in configs] == splits
    assert [row.config for row in read_results(other).trials] == configs


def test_forks_keep_the_splits_that_trials_were_trained_on(tmp_path: Path) -> None:
    states = ("FAIL", "COMPLETE", "PRUNED")
    study = filled(tmp_path, "old", parameters=SPACE, trials=6, sampler="tpe", states=states, resplit="per_trial")
    splits = {trial.number: study.config_of(trial).seed_of_split for trial in study.trials()}
    fork = fork_study(study, "new", trials=9).create()
    kept = [trial for trial in study.trials() if trial.state.name != "FAIL"]
    of_fork = [fork.config_of(trial).seed_of_split for trial in fork.trials()]
    assert of_fork == [splits[trial.number] for trial in kept]
    again = fork_study(fork, "newer", trials=12).create()
    assert [again.config_of(trial).seed_of_split for trial in again.trials()] == of_fork


def test_warm_starts_and_repeats_look_at_the_parameters(tmp_path: Path) -> None:
    study = filled(tmp_path, "old", parameters=SPACE, trials=6, sampler="tpe", resplit="per_trial")
    tables, note = select_warm_starts(study, parsed(parameters=SPACE, sampler="tpe"), 3)
    assert note is None
    assert all(set(table) == {"optimizer", "learning_rate"} for table in tables)
    results = read_results(study)
    assert repeated_trials(results.trials, results.definition) == {}
