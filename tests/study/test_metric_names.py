"""Metrics in study files: which are known, which fit the task, and what is recorded beside the objectives."""

from pathlib import Path

import pytest

from hpo.errors import DefinitionError
from hpo.space import Space
from hpo.study.definition import test_metric as name_on_test_set
from hpo.study.input.config_file import read_config
from hpo.study.input.study_file import check_objective_metrics, default_objective, parse_definition


def test_recorded_metrics_are_measured_beside_the_objectives():
    table = {"objective": "val_f1_macro", "metrics": ["val_mcc", "val_f1_macro", "val_mcc"], "trials": 2}
    _, definition, _ = parse_definition(table, "one", Path())
    assert definition.recorded == ("val_mcc", "val_f1_macro")
    assert definition.metrics == ("val_f1_macro", "val_mcc")
    assert definition.objectives[0].direction == "maximize"
    assert definition.model_validate_json(definition.model_dump_json()) == definition
    _, plain, _ = parse_definition({"objective": "val_f1_macro", "trials": 2}, "one", Path())
    assert [line.partition(":")[0] for line in plain.differences(definition)] == ["recorded"]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"metrics": ["val_f1_makro"]}, "unknown metric 'val_f1_makro'; did you mean 'val_f1_macro'?"),
        ({"metrics": "val_mcc"}, "metrics = 'val_mcc': give a list of names, such as"),
        ({"metrics": [1]}, "metrics = "),
        ({"metrics": ["val_rmse"]}, "metrics: 'val_rmse': is a metric of regression, but the task is classification; "),
        (
            {"objective": "val_r2"},
            "objective = 'val_r2': is a metric of regression, but the task is classification; use",
        ),
        (
            {"metrics": ["val_mcc"], "parameters": {"model": "autoencoder"}},
            "metrics: 'val_mcc': model 'autoencoder' has none; use val_loss or val_reconstruction_error",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_one_line(table, line):
    with pytest.raises(DefinitionError) as error:
        parse_definition({"trials": 2, **table}, "one", Path())
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "default", "wrong"),
    [
        ("classification", "val_accuracy", "val_mae"),
        ("multilabel", "val_f1_macro", "val_cohen_kappa"),
        ("regression", "val_r2", "val_accuracy"),
    ],
)
def test_the_default_objective_is_the_tasks(task, default, wrong):
    assert default_objective(["mlp"], task=task) == default
    check_objective_metrics({default: "objective"}, ["mlp"], task=task)
    with pytest.raises(DefinitionError, match=f"but the task is {task}; use {default} or val_"):
        check_objective_metrics({wrong: "objective"}, ["mlp"], task=task)


def test_a_constant_task_is_part_of_every_configuration():
    space = Space({"task": "regression", "loss": ["mae", "huber"], "learning_rate": 0.01})
    assert space.values({"loss": "huber"}) == {"task": "regression", "loss": "huber", "learning_rate": 0.01}
    space.check()
    assert "task" not in Space({"task": "classification"}).values({})


def test_a_configuration_is_chosen_by_the_metric_of_its_task():
    request = read_config(
        sets={"task": "regression", "loss": "mae"}, dataset="sklearn:diabetes", objective="val_spearman"
    )
    assert (request.objective.metric, request.objective.direction) == ("val_spearman", "maximize")


@pytest.mark.parametrize(
    ("metric", "name"),
    [("val_f1_macro", "test_f1_macro"), ("val_r2", "test_r2"), ("train_seconds", None), ("parameter_count", None)],
)
def test_a_metric_has_a_name_on_the_test_set(metric, name):
    assert name_on_test_set(metric) == name
