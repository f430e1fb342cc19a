from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

import hpo
from hpo.config import registry
from hpo.config.declaration import NONE_DECLARED, NOT_STORED, Declarations, MetricDeclaration
from hpo.config.parameter import Parameter
from hpo.config.trial_config import TrialConfig, all_parameters, model_parameters
from hpo.errors import ConfigError, RegistryError


class Then(BaseModel):
    blocks: int = Field(2, ge=1, le=8, description="hidden blocks")
    kind: Literal["plain", "gated"] = "plain"
    scale: float | None = Field(None, gt=0, lt=2.5)
    gated: bool = False
    code: str = Field("a", pattern="(a+)+b?")


class Now(BaseModel):
    blocks: int = Field(3, ge=1, le=4, description="in other words")
    kind: Literal["plain", "gated"] = "plain"
    scale: float | None = Field(None, gt=0, lt=2.5)
    code: str = Field("a", pattern="(a+)+b?")
    noise: float = 0.5


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def register(parameters: type[BaseModel] = Then, **traits: Any) -> None:
    hpo.model("net", parameters=parameters, **{"uses": ["width", "depth"], **traits})(
        lambda config, shape, classes: None
    )


def declare(parameters: type[BaseModel] = Then, **traits: Any) -> Declarations:
    """Register a model and a metric, store what they declare, and read it back without them."""
    register(parameters, **traits)
    hpo.metric("f1", direction="minimize")(lambda outputs, targets: 0.0)
    stored = NONE_DECLARED.select(["mlp", "net"], ["val_loss", "f1"]).model_dump(mode="json")
    forget()
    return Declarations.model_validate(json.loads(json.dumps(stored)))


def forget() -> None:
    for kind in (registry.models, registry.metrics):
        for name in ("net", "f1"):
            kind._entries.pop(name, None)  # type: ignore[attr-defined]


def test_only_what_is_the_users_own_is_declared() -> None:
    declared = declare()
    assert [model.name for model in declared.models] == ["net"]
    assert [(metric.name, metric.direction) for metric in declared.metrics] == [("f1", "minimize")]
    assert declared.has("model", "net")
    assert not declared.has("model", "mlp")
    assert declared.metric("f1").direction == "minimize"
    assert declared.metric("val_loss").direction == "minimize"
    with pytest.raises(RegistryError, match="unknown model 'nett'"):
        declared.get("nett")


def test_every_field_of_a_parameter_is_read_back_apart_from_what_a_database_may_not_say() -> None:
    declared = declare()
    register()
    now, then = model_parameters(registry.models.get("net")), model_parameters(declared.get("net"))
    assert list(then) == list(now) == ["blocks", "kind", "scale", "gated", "code"]
    for name, row in now.items():
        for field in fields(Parameter):
            if field.name not in NOT_STORED:
                assert getattr(then[name], field.name) == getattr(row, field.name), (name, field.name)
        assert type(then[name].default) is type(row.default)
        assert then[name].group == "net"
        assert then[name].effect.text == "model is net"
        assert then[name].pattern is None


def test_a_configuration_is_checked_and_resolved_without_the_code() -> None:
    declared = declare()
    config = TrialConfig.of({"model": "net", "blocks": 5, "width": 32, "dropout": 0.5}, declared)
    effective = config.effective()
    assert effective["blocks"] == 5
    assert effective["kind"] == "plain"
    assert effective["width"] == 32
    assert "dropout" not in effective  # the model does not use it
    assert effective["scale"] == "none"
    assert config.model_copy(update={"width": 64}).effective()["width"] == 64
    with pytest.raises(ConfigError, match="blocks = 9: out of bounds, must be 1 <= x <= 8"):
        TrialConfig.of({"model": "net", "blocks": 9}, declared)
    with pytest.raises(RegistryError, match="unknown model 'net'"):
        TrialConfig(model="net")


def test_loops_and_models_that_reconstruct_are_known_without_the_code() -> None:
    declared = declare(reconstructs=True)
    assert TrialConfig.of({"model": "net"}, declared).reconstructs
    assert TrialConfig.of({"model": "net"}, declared).loss == "mse"
    hpo.training_loop("loop", uses=["epochs"], reports={"rmse": "minimize"})(lambda trial: None)
    loops = NONE_DECLARED.select(["loop"], ["rmse"])
    del registry.models._entries["loop"], registry.metrics._entries["rmse"]
    assert "optimizer" not in TrialConfig.of({"model": "loop"}, loops).effective()
    assert loops.metric("rmse").reported


def test_a_study_keeps_what_its_model_was() -> None:
    declared = declare()
    register(Now)
    assert TrialConfig.of({"model": "net"}, declared).effective()["blocks"] == 2
    assert TrialConfig(model="net").effective()["blocks"] == 3
    assert all_parameters(["net"], declared)["blocks"].high == 8
    config = TrialConfig.of({"model": "net"}, declared)
    assert config.noise == 0.5  # type: ignore[attr-defined]  # the function reads it
    assert "noise" not in config.effective()


def test_code_that_says_something_else_by_now_is_told_in_a_line() -> None:
    declared = declare()
    assert declared.describe_changes() == []
    register()
    hpo.metric("f1", direction="minimize")(lambda outputs, targets: 1.0)
    assert declared.describe_changes() == []
    register(Now, uses=["width", "dropout"])
    hpo.metric("f1")(lambda outputs, targets: 1.0)
    assert declared.describe_changes() == [
        "model 'net' is not what it was when the study was launched (no longer has gated; has gained noise, left "
        "at the default; no longer uses depth; now uses dropout; blocks: default 2 then, 3 now; blocks: 1 <= x <= 8 "
        "then, 1 <= x <= 4 now); the study keeps what it was",
        "metric 'f1' is not what it was when the study was launched (was to minimize, and is to maximize); the study "
        "keeps what it was",
    ]
    declared.check_code()


def test_code_that_is_another_kind_of_thing_by_now_trains_nothing() -> None:
    declared = declare()
    hpo.metric("f1")(lambda outputs, targets: 1.0)
    register(reconstructs=True)
    with pytest.raises(RegistryError, match=r"'net' .* \(was not a model that reconstructs its input\)"):
        declared.check_code()

    class Other(BaseModel):
        blocks: str = "many"

    register(Other)
    with pytest.raises(RegistryError, match="its parameter 'blocks' was int, and is str"):
        declared.check_code()
    register()
    hpo.training_loop("loop", reports={"f1": "minimize"})(lambda trial: None)
    with pytest.raises(RegistryError, match=r"metric 'f1' .*was a function of outputs and targets"):
        declared.check_code()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (3, "must be a table of a parameter"),
        ({"name": "a", "kind": "int", "pattern": "(a+)+$"}, "must be a table of a parameter"),
        ({"name": "a", "kind": "object"}, "its kind must be one of bool, int, float, str"),
        ({"name": "a", "kind": ["int"]}, "its kind must be one of"),
        ({"name": "a", "kind": "int", "default": [1]}, "default"),
        ({"name": "a", "kind": "int", "low": "many"}, "low"),
        ({"kind": "int"}, "name"),
    ],
)
def test_a_damaged_declaration_is_not_read(row: Any, words: str) -> None:
    stored = {"models": [{"name": "net", "module": "m", "rows": [row]}]}
    with pytest.raises(ValidationError, match=words):
        Declarations.model_validate(stored)


def test_declarations_of_a_later_version_are_not_read() -> None:
    with pytest.raises(ValidationError, match="version"):
        Declarations.model_validate({"version": 2})


def test_a_declared_parameter_may_not_take_the_place_of_ours() -> None:
    stored = {"models": [{"name": "net", "module": "m", "rows": [{"name": "epochs", "kind": "int", "default": 1}]}]}
    with pytest.raises(ConfigError, match="its parameter 'epochs' is one of ours already"):
        all_parameters(["net"], Declarations.model_validate(stored))


def test_a_loop_of_an_earlier_study_may_report_what_has_become_built_in() -> None:
    declared = NONE_DECLARED.model_copy(
        update={"metrics": (MetricDeclaration(name="val_mae", module="mine", direction="minimize", reported=True),)}
    )
    declared.check_code()
    assert declared.metric("val_mae").module == "mine"
