"""Coverage of a space: every model, choice and bound, in few configurations."""

from __future__ import annotations

import hpo
from hpo.space.coverage import cover


def test_every_choice_and_bound_of_each_model_occurs() -> None:
    space = hpo.Space(
        model=["mlp", "cnn"],
        activation=["relu", "tanh", "gelu"],
        optimizer=["adam", "sgd"],
        momentum={"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
        depth={"low": 1, "high": 3},
        batch_size=[64, 16, 32],
        learning_rate={"low": 1e-3, "high": 1e-1, "log": True},
    )
    found = cover(space)
    for model in ("mlp", "cnn"):
        own = [values for values in found if values["model"] == model]
        assert {values["activation"] for values in own} == {"relu", "tanh", "gelu"}
        assert {values["batch_size"] for values in own} == {16, 64}
        assert {round(values["momentum"], 6) for values in own if "momentum" in values} == {0.0, 0.9}
    assert {values.get("depth") for values in found if values["model"] == "mlp"} == {1, 3}
    assert len(found) <= 12


def test_the_first_configuration_has_the_lower_bounds() -> None:
    first = cover(hpo.Space(width={"low": 4, "high": 64}, optimizer=["sgd", "adam"]))[0]
    assert first == {"width": 4, "optimizer": "sgd"}


def test_a_space_of_constants_has_one() -> None:
    assert cover(hpo.Space(width=8)) == [{"width": 8}]
