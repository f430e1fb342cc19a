"""Keys of study files in another place than their own, and errors that name where a value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from torch import nn

import hpo
from hpo.cli.launch import launch
from hpo.config import registry
from hpo.datasets import make_reference
from hpo.errors import RequestError, find_closest
from hpo.execution.launch import plan_launch
from hpo.study.input.key_places import KEYS, OPTIONS
from hpo.study.input.study_file import parse_definition, read_study
from tests.study.helpers import make_study

ROWS = "\n".join(f"{i},{i * i % 17},{i * 1.5 + 0.25}" for i in range(200))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "house.csv"
    path.write_text(f"rooms,area,price\n{ROWS}\n")
    return path


def refused(folder: Path, **keys: Any) -> str:
    with pytest.raises(RequestError) as raised:
        parse_definition(keys, "one", folder)
    return str(raised.value)


def test_the_task_may_stand_at_the_top(table: Path) -> None:
    source = {"path": str(table), "label": "price"}
    _, inside, _ = parse_definition({"dataset": {**source, "task": "regression"}}, "one", table.parent)
    _, above, _ = parse_definition({"dataset": source, "task": "regression"}, "one", table.parent)
    assert above == inside
    both = refused(table.parent, dataset={**source, "task": "regression"}, task="classification")
    assert both == "task = 'classification': the data set says task = 'regression'; leave one of them out"
    assert "labels of mnist are for classification" in refused(table.parent, dataset="mnist", task="regression")
    assert (
        parse_definition({"dataset": "mnist", "task": "classification"}, "one", table.parent)[1].dataset.name == "mnist"
    )


def test_a_key_in_another_place_is_told_its_own(table: Path) -> None:
    source = {"path": str(table), "label": "price"}
    line = refused(table.parent, dataset={**source, "class_weight": "balanced"})
    assert line.startswith("dataset, class_weight: is a parameter of training, no option of a data set; write it under")
    line = refused(table.parent, dataset={**source, "objective": "val_mae"})
    assert line == "dataset, objective: is no option of a data set; write it at the top of the file, before any [table]"
    assert refused(table.parent, learning_rate=0.1).startswith("key 'learning_rate': it is a parameter, write it under")
    line = refused(table.parent, parameters={"label": "price"})
    assert line == "[parameters] label: is no parameter; say it in the data set: dataset = { path = …, label = … }"
    assert refused(table.parent, label="price").startswith("key 'label': say it in the data set: dataset = { path")
    assert "write it at the top of the file" in refused(table.parent, parameters={"trials": 5})


def test_an_error_names_the_option_or_the_file_that_it_comes_from(table: Path) -> None:
    dataset = make_reference({"path": str(table), "label": "price"})

    def line(sets: dict[str, Any] | None = None, **keys: Any) -> str:
        with pytest.raises(RequestError) as raised:
            read_study("quickstart", sets, **{"dataset": dataset, **keys})
        return str(raised.value)

    assert line(objective="val_accuracy").startswith("--objective = 'val_accuracy': is a metric of classification")
    assert line({"loss": "cross_entropy"}).startswith("--set loss: the space contains invalid configurations: loss =")
    assert line({"learning_rat": 0.1}).startswith("--set learning_rat: unknown parameter 'learning_rat'; did you mean")
    path = table.parent / "own.toml"
    path.write_text('[parameters]\nloss = "cross_entropy"\nepochs = 2\n')
    with pytest.raises(RequestError, match=rf"^{path}: \[parameters\] "):
        read_study(str(path), {"learning_rate": 0.1}, dataset=dataset, trials=3)


def test_what_sets_parameters_is_told_the_option_of_another_key() -> None:
    with pytest.raises(RequestError, match=r"^--set trial_timeout: is no parameter; give it as --trial-timeout$"):
        read_study("quickstart", {"depth": 2, "trial_timeout": 3})
    with pytest.raises(
        RequestError, match=r"^--set baseline: is no parameter; write it at the top of the file, before"
    ):
        read_study("quickstart", {"baseline": 3})
    options = {option.name for option in launch.params}
    assert set(OPTIONS) | {"report"} == options & set(KEYS)  # `--report` is another one


def test_a_model_of_ones_own_may_call_a_parameter_as_a_key_is_called(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(BaseModel):
        folds: int = 2
        label: float = 0.5

    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("named_like_keys", parameters=Own)(lambda *_: nn.Linear(1, 1))
    dataset = make_reference({"path": str(table), "label": "price"})
    given = {"model": "named_like_keys", "folds": [2, 3], "label": 0.1}
    _, definition, _ = read_study("quickstart", given, dataset=dataset)
    assert {"folds", "label"} <= set(definition.parameters)


def test_the_task_of_a_file_is_that_of_other_data_it_is_launched_on(tmp_path: Path) -> None:
    x, ages = np.random.default_rng(0).random((60, 4)), np.arange(60) // 2 % 20  # three times each, or classes
    np.savez(tmp_path / "ages.npz", x=x, y=ages * 50)
    path, data = tmp_path / "own.toml", str(tmp_path / "ages.npz")
    path.write_text('dataset = "mnist"\ntask = "regression"\ntrials = 1\n[parameters]\nepochs = 1\n')
    for dataset in (data, {"path": data}, f'{{path = "{data}"}}'):
        assert plan_launch(str(path), "sqlite://", dataset=dataset).definition.dataset.task == "regression"
    own = plan_launch(str(path), "sqlite://", dataset={"path": data, "task": "classification"})  # as --task says
    assert own.definition.dataset.task == "classification"


@pytest.mark.parametrize("name", ["own.yaml", "own.yml", "own.json"])
def test_a_study_file_may_be_yaml_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text('{"dataset": "none", "trials": 3, "parameters": {"model": "lopo"}}')
    with pytest.raises(RequestError, match=rf"^{tmp_path}/{name}: \[parameters\] unknown model 'lopo'"):
        plan_launch(name, "sqlite://")


def test_a_beginning_suggests_the_name_that_goes_on(table: Path) -> None:
    names = ["val_r2", "val_f1_weighted", "val_f1_macro", "val_f1_micro"]
    assert find_closest("val_f1", names) == "val_f1_macro"
    dataset = str(np_file(table.parent))
    line = refused(table.parent, dataset=dataset, objective="val_f1")
    assert line == "unknown objective 'val_f1'; did you mean 'val_f1_macro'?"
    line = refused(table.parent, dataset={"path": str(table), "label": "price"}, objective="val_f1")
    assert line.startswith("unknown objective 'val_f1'; did you mean 'val_f1_macro'? it is of classification and")


def np_file(folder: Path) -> Path:
    random = np.random.default_rng(0)
    np.savez(folder / "c.npz", x=random.random((60, 4), np.float32), y=random.integers(0, 3, 60))
    return folder / "c.npz"


def test_another_data_set_is_said_by_name_and_label(table: Path) -> None:
    other = table.with_name("other.csv")
    other.write_text(f"rooms,area,y\n{ROWS}\n")
    first, second = (
        make_study(table.parent, name, dataset={"path": str(path), "label": label}, parameters={"epochs": 1})
        for name, path, label in (("a", table, "price"), ("b", other, "y"))
    )
    (line,) = first.definition.differences(second.definition)
    assert line == "dataset: another one, other.csv, label y (stored: house.csv, label price)"
    table.write_text(f"rooms,area,price\n{ROWS}\n1,1,1\n")
    third = make_study(table.parent, "c", dataset={"path": str(table), "label": "price"}, parameters={"epochs": 1})
    (line,) = first.definition.differences(third.definition)
    assert line.startswith("dataset: another one, house.csv, label price, ")
