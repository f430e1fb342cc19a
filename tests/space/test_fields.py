"""Classes of parameters whose fields declare their domains, and what becomes of them in a space."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, create_model

import hpo
from hpo.config import registry
from hpo.config.trial_config import parameter_rows
from hpo.errors import HpoError, RequestError, SpaceError
from hpo.space import Choices, Float, Int, Space
from hpo.study.definition import Definition
from hpo.study.input.study_file import parse_definition

COUNT = itertools.count()


class Mine(BaseModel):
    learning_rate: float = hpo.Float(1e-4, 1e-1, log=True)
    blocks: int = hpo.Int(1, 9, step=2, description="hidden blocks")
    hidden_sizes: list[int] = hpo.Categorical([[8, 4], [16]])
    clip_norm: float | None = hpo.Categorical([None, 1.0])
    residual: bool = hpo.Categorical([True, False], default=False)
    plain: int = Field(3, ge=1)


def register(parameters: type[BaseModel], **options: Any) -> str:
    name = f"declared-{next(COUNT)}"
    hpo.training_loop(name, parameters=parameters, **options)(lambda trial: None)
    return name


def define(model: str | list[str], **parameters: Any) -> Definition:
    table = {"objective": "val_loss", "dataset": "mnist", "parameters": {"model": model, **parameters}}
    return parse_definition(table, "declared", Path())[1]


def test_a_class_has_sensible_defaults() -> None:
    mine = Mine()
    assert mine.learning_rate == pytest.approx(10**-2.5)  # the geometric mean
    assert (mine.blocks, mine.hidden_sizes, mine.clip_norm, mine.residual) == (5, [8, 4], None, False)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"learning_rate": 1.0}, "must be from 0.0001 to 0.1"),
        ({"blocks": 2}, "must be from 1 to 9 in steps of 2"),
        ({"hidden_sizes": [8]}, r"must be \[8, 4\] or \[16\]"),
        ({"clip_norm": 2.0}, "must be none or 1.0"),
    ],
)
def test_pydantic_refuses_what_is_outside_the_domain(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Mine(**values)
    with pytest.raises(HpoError, match=says):
        hpo.TrialConfig(model=register(Mine), **values)


def test_declared_domains_are_the_space_without_a_word() -> None:
    space = define(register(Mine)).space
    assert space.domains["learning_rate"] == (Float(1e-4, 1e-1, log=True),)
    assert space.domains["blocks"] == (Int(1, 9, step=2),)
    assert space.domains["hidden_sizes"] == (Choices(("[8, 4]", "[16]")),)
    assert space.domains["clip_norm"] == (Choices(("none", 1.0), off=True),)
    assert space.domains["residual"] == (Choices((True, False)),)
    assert "plain" not in space.domains


def test_a_study_file_takes_a_part_of_a_declared_domain() -> None:
    space = define(register(Mine), blocks=3, learning_rate={"low": 1e-3, "high": 1e-2}).space
    assert [dimension.key for dimension in space.varied] == ["learning_rate", "hidden_sizes", "clip_norm", "residual"]
    with pytest.raises(RequestError, match=r"learning_rate: high = 1.0: out of bounds, must be from 0.0001 to 0.1"):
        define(register(Mine), learning_rate={"low": 1e-3, "high": 1.0})


def test_a_shared_parameter_with_a_domain_is_used_and_has_its_default() -> None:
    name = register(Mine)
    assert "learning_rate" in hpo.TrialConfig(model=name).effective()
    assert hpo.TrialConfig(model=name).learning_rate == Mine().learning_rate
    assert hpo.TrialConfig().learning_rate == 0.001
    rows = {row["name"]: row for row in parameter_rows(name)}
    assert rows["learning_rate"]["bounds"] == "from 0.0001 to 0.1"
    assert (rows["hidden_sizes"]["type"], rows["blocks"]["help"]) == ("list[int]", "hidden blocks")


def test_beside_other_models_it_holds_under_its_own() -> None:
    one, other = register(Mine), register(create_model("Other", batch_size=(int, hpo.Int(8, 64, log=True))))
    space = define([one, other], learning_rate={"low": 1e-3, "high": 1e-2, "when": {"model": one}}).space
    assert space.domains["batch_size"][0].condition.holds({"model": other})
    assert not space.domains["batch_size"][0].condition.holds({"model": one})
    assert define([one, "mlp"]).space.domains["learning_rate"][0].condition.tests == {"model": (one,)}


def test_the_stored_definition_has_all_of_it() -> None:
    definition = define(register(Mine))
    assert Definition.model_validate(definition.model_dump(mode="json")).space == definition.space


def test_a_field_is_a_domain_of_a_space_as_well() -> None:
    space = Space(
        learning_rate=hpo.Float(1e-4, 1e-1, log=True), depth=hpo.Int(1, 3), widths=hpo.Categorical([None, "8"])
    )
    assert space.domains["learning_rate"] == (Float(1e-4, 1e-1, log=True),)
    assert space.domains["widths"] == (Choices(("none", "8"), off=True),)
    assert hpo.Choices is hpo.Categorical


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: hpo.Float(0.0, 1.0, log=True), "low > 0 must hold"),
        (lambda: hpo.Int(1, 9, default=12), "default = 12: must be from 1 to 9"),
        (lambda: hpo.Categorical(["a", "b"], default="c"), "default = 'c': must be a or b"),
        (lambda: hpo.Categorical([]), "the list is empty"),
    ],
)
def test_a_wrong_declaration_is_one_line(declare: Any, says: str) -> None:
    with pytest.raises(SpaceError, match=says):
        declare()


@pytest.mark.parametrize(
    ("annotation", "field", "says"),
    [
        (int, hpo.Categorical(["a"]), "x = 'a': must be a whole number"),
        (int, hpo.Float(1.0, 2.0), "the parameter is int; use Int"),
    ],
)
def test_a_domain_of_another_type_is_refused(annotation: Any, field: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        define(register(create_model("Wrong", x=(annotation, field))))


def test_a_shared_parameter_of_another_type_is_refused() -> None:
    with pytest.raises(RequestError, match="its parameter 'batch_size' is float, but the shared one is int"):
        define(register(create_model("Wrong", batch_size=(float, hpo.Float(1.0, 2.0)))))
    with pytest.raises(RequestError, match=r"is one of ours already; give it a domain: hpo.Float\(…\)"):
        define(register(create_model("Wrong", batch_size=(int, 32))))


def test_uses_name_what_is_declared() -> None:
    assert "learning_rate" in registry.models.get(register(Mine, uses=["epochs"])).uses
