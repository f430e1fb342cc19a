from __future__ import annotations

import math
import time
import tomllib
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpo
from hpo.config.choices import TASK_LOSSES
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.errors import RequestError, SpaceError
from hpo.space import Choices, Constant, Float, Int, Space
from hpo.study.input import templates
from hpo.utils.documents import read_document

ALTERNATIVES = [
    {"low": 1e-4, "high": 1e-2, "log": True, "when": {"optimizer": "adam"}},
    {"low": 1e-2, "high": 1e-1, "log": True, "when": {"optimizer": ["sgd", "momentum"]}},
]


@pytest.mark.parametrize(
    ("shorthand", "longhand", "python"),
    [
        (5, {"value": 5}, Constant(5)),
        ([5, 6], {"choices": [5, 6]}, Choices((5, 6))),
        ({"low": 1, "high": 4}, {"low": 1, "high": 4, "log": False}, Int(1, 4)),
        ({"low": 1, "high": 9, "step": 4}, {"low": 1, "high": 9, "step": 4}, Int(1, 9, step=4)),
    ],
)
def test_shorthand_equals_longhand_equals_python(shorthand: Any, longhand: Any, python: Any) -> None:
    assert Space(epochs=shorthand) == Space(epochs=longhand) == Space(epochs=python) == Space({"epochs": shorthand})


def test_python_equals_toml_with_conditions() -> None:
    from_python = hpo.Space(
        optimizer=["adam", "sgd"],
        learning_rate=[
            hpo.Float(1e-4, 1e-2, log=True, when={"optimizer": "adam"}),
            hpo.Constant(0.1, when={"optimizer": ["sgd"]}),
        ],
        label_smoothing=hpo.Choices([0.0, 0.1], when={"epochs": {"low": 2, "high": 4}}),
        epochs=hpo.Int(1, 4),
    )
    toml = """
    optimizer = ["adam", "sgd"]
    learning_rate = [
      { low = 1e-4, high = 1e-2, log = true, when = { optimizer = "adam" } },
      { value = 0.1, when = { optimizer = "sgd" } },
    ]
    label_smoothing = { choices = [0, 0.1], when = { epochs = { low = 2, high = 4 } } }
    epochs = { low = 1, high = 4 }
    """
    assert from_python == Space(tomllib.loads(toml))


@pytest.mark.parametrize("name", templates.template_names("search_spaces"))
def test_space_templates_are_spaces_and_survive_their_json(name: str) -> None:
    space = Space(read_document(templates.find_template("search_spaces", name)))
    assert Space(space.to_json()) == space
    assert space.notices() == []
    varied = {dimension.parameter.name for dimension in space.varied}
    assert {"optimizer", "schedule", "batch_size", "activation"} <= varied
    assert varied & {"depth", "conv_layers", "block_channels"}
    assert varied & {"width", "channels", "block_channels"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"depht": 1}, "did you mean 'depth'"),
        ({"n_layers": 1}, "`n_layers` is called `depth` here"),
        ({"learning_rate": {"low": 1, "high": 0.1}}, "low <= high must hold"),
        ({"learning_rate": {"low": 0, "high": 0.1, "log": True}}, "low > 0 must hold"),
        ({"learning_rate": {"low": 0.1, "high": 0.3, "log": True, "step": 0.1}}, "log and step"),
        ({"learning_rate": {"low": 0.1, "high": 0.35, "step": 0.1}}, "does not divide"),
        ({"learning_rate": {"low": 0.1, "high": math.inf}}, "finite"),
        ({"learning_rate": {"low": math.nan, "high": 1}}, "finite"),
        ({"learning_rate": {"low": 0.1}}, "both low and high"),
        ({"learning_rate": {"low": 0.1, "high": 1, "steps": 3}}, "did you mean 'step'"),
        ({"learning_rate": {"value": 0.1, "choices": [0.1]}}, "value, or choices"),
        ({"learning_rate": []}, "the list is empty"),
        ({"learning_rate": [0.1, 0.1]}, "twice"),
        ({"learning_rate": [0.1, "x"]}, "must be a number"),
        ({"learning_rate": {"low": 0.1, "high": 1, "log": 1}}, "true or false"),
        ({"learning_rate": {"low": 0.1, "high": 1, "step": 1e-300}}, "makes too many steps"),
        ({"learning_rate": {"low": 0.1, "high": 10**5000}}, "high = a number of thousands of digits"),
        ({"width": {"low": 1, "high": 10**400}}, "high = 1000"),
        ({"width": [*range(1, 20_000)]}, "a list of 19,999 choices; give at most 10,000"),
        ({"width": {"low": 1.5, "high": 3}}, "whole number"),
        ({"width": hpo.Float(1, 3)}, "use Int"),
        ({"dropout": {"low": 0, "high": 1}}, "0 <= x < 1"),
        ({"depth": [1, 17]}, "16"),
        ({"optimizer": {"low": 1, "high": 2}}, "list of choices"),
        ({"width": {"value": 1, "when": {"widht": 3}}}, "did you mean 'width'"),
        ({"width": {"value": 1, "when": {"epochs": []}}}, "can never hold"),
        ({"width": {"value": 1, "when": "adam"}}, "must be a table"),
        ({"width": {"value": 1, "when": {"epochs": 3}}, "epochs": {"value": 3, "when": {"width": 1}}}, "cycle"),
        ({"dropout": [{"value": 0.1, "when": {"depth": [1, 2]}}, {"value": 0.2, "when": {"depth": 2}}]}, "overlapping"),
        ({"momentum": [{"value": 0.1}, {"value": 0.2, "when": {"depth": 2}}]}, "overlapping"),
        ({"schedule": "exponential", "final_learning_rate": [0.0, 0.1]}, "above 0"),
        ({"batch_norm": True, "batch_size": {"low": 1, "high": 64}}, "batch_size = 1"),
    ],
)  # fmt: skip
def test_mistakes_are_found_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as error:
        Space(given)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert any(name in str(error.value) for name in given)


def test_the_conditional_tree_is_enumerated_once_each() -> None:
    space = Space(optimizer=["adam", "sgd"], depth={"low": 0, "high": 2}, width=[32, 64], momentum=[0.0, 0.5])
    points = list(space.grid())
    # adam: depth 0, and widths at depths 1 and 2; sgd the same for two momenta.
    assert len(points) == 5 + 5 * 2
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert {"optimizer": "adam", "depth": 0} in points


CHOICES = {
    "optimizer": ["adam", "sgd", "momentum"],
    "depth": [{"low": 0, "high": 3}, 0, [1, 2]],
    "width": [[32, 64], {"low": 1, "high": 9, "step": 4}, {"low": 8, "high": 9, "log": True}],
    "momentum": [
        [0.0, 0.5],
        {"low": 0.1, "high": 0.4, "step": 0.1},
        {"choices": [0.0, 0.1], "when": {"depth": [1, 2]}},
    ],
    "schedule": [["constant", "cosine"], "cosine"],
    "warmup": [[0.0, 0.1], {"choices": [0.0, 0.2], "when": {"optimizer": "adam"}}],
    "activation": [["relu", "tanh"]],
    "epochs": [{"low": 1, "high": 3}, [{"value": 5, "when": {"width": {"low": 1, "high": 32}}}]],
}


@settings(max_examples=60, deadline=None, database=None)
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CHOICES.items()}))
def test_a_grid_is_counted_as_it_is_enumerated(literals: dict[str, Any]) -> None:
    space = Space(literals)
    assert space.grid_size() == sum(1 for _ in space.grid())


def test_a_large_grid_is_counted_at_once() -> None:
    wide = {"low": 1, "high": 65_536}
    rates = {"low": 1e-9, "high": 1.000000001, "step": 1e-9}
    start = time.process_time()
    assert Space(width=wide, batch_size={"low": 2, "high": 1_000_000}, dense_width=wide).grid_size() == 65_536 * 999_999
    assert Space(learning_rate=rates, width=wide).grid_size() == (10**9 + 1) * 65_536
    deep = Space(depth={"low": 0, "high": 16}, width=wide, optimizer=["adam", "sgd"], momentum={**rates, "high": 0.5})
    assert deep.grid_size() == (1 + 16 * 65_536) * (1 + 500_000_000)
    when = {"value": 1, "when": {"batch_size": [7], "width": [7]}}
    with pytest.raises(SpaceError, match="more than 100,000 combinations of values decide"):
        Space(batch_size={"low": 1, "high": 1_000_000}, width=wide, epochs=[when]).grid_size()
    assert time.process_time() - start < 3


def test_a_range_of_many_steps_is_drawn_from_without_listing_them() -> None:
    domain = Float(1e-9, 1.000000001, step=1e-9)
    start = time.process_time()
    assert [domain.at(unit) for unit in (0.0, 0.5, 1 - 1e-12)] == [1e-9, 0.500000001, 1.000000001]
    assert domain.count() == 10**9 + 1
    assert Int(-(2**63), 2**63 - 1).at(0.5) == 0
    assert time.process_time() - start < 1


def test_a_grid_over_a_continuous_range_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"learning_rate\[optimizer=adam\].*continuous"):
        list(Space(optimizer=["adam", "sgd"], learning_rate=ALTERNATIVES).grid())


def test_alternatives_are_parameters_of_their_own() -> None:
    space = Space(optimizer=["adam", "sgd", "rmsprop"], learning_rate=ALTERNATIVES)
    assert [d.key for d in space.varied] == [
        "optimizer", "learning_rate[optimizer=adam]", "learning_rate[optimizer=sgd|momentum]",
    ]  # fmt: skip
    assert space.notices() == [
        "learning_rate: no condition holds where optimizer = rmsprop; its default 0.001 is used there"
    ]


def test_a_parameter_without_effect_is_said() -> None:
    assert Space(channels=[8, 16]).notices() == [
        "channels has no effect in this space and is left out; it has one where the model uses it, block_channels is "
        "not given"
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"warmup": 0.1, "warmup_epochs": 2},
            "warmup has no effect in this space and is left out; it has one where the optimizer follows a schedule, "
            "which is not one_cycle, and neither warmup_steps nor warmup_epochs is given",
        ),
        (
            {"final_learning_rate": 0.1, "final_learning_rate_ratio": 0.1, "schedule": "cosine"},
            "final_learning_rate_ratio has no effect in this space and is left out; it has one where the schedule "
            "decays to it, and final_learning_rate is not given",
        ),
        (
            {"optimizer": "rprop", "schedule": ["constant", "cosine"]},
            "schedule has no effect in this space and is left out; it has one where optimizer is not rprop",
        ),
        (
            {"optimizer": "lbfgs", "gradient_clip": [0.0, 1.0]},
            "gradient_clip has no effect in this space and is left out; it has one where optimizer is neither lbfgs "
            "nor rprop",
        ),
        (
            {"epochs": [1, 2], "seed": {"value": 3, "when": {"epochs": 5}}},
            "seed has no effect in this space and is left out",
        ),
    ],
)
def test_what_would_give_a_parameter_its_effect_is_said(given: dict[str, Any], line: str) -> None:
    assert Space(given).notices() == [line]


def test_no_schedule_is_sampled_under_rprop() -> None:
    space = Space(optimizer=["rprop", "sgd"], schedule=["constant", "step"], step_epochs=[1, 2], warmup=[0.0, 0.1])
    assert [len(point) for point in space.grid()].count(1) == 1  # of rprop the optimizer alone
    assert space.grid_size() == len(list(space.grid())) == 1 + 2 + 2 * 2
    stored = {"optimizer": "rprop", "schedule": "step", "step_epochs": 2, "warmup": 0.1}
    assert space.values(stored) == {"optimizer": "rprop"}  # of a trial from before


def test_a_model_that_varies_brings_its_own_parameters() -> None:
    space = Space(model=["mlp", "cnn"], depth=[1, 2], channels=[8])
    assert {frozenset(point) for point in space.grid()} == {
        frozenset({"model", "depth"}),
        frozenset({"model", "channels"}),
    }


def _spaces() -> st.SearchStrategy[dict[str, Any]]:
    """Tables of domains in every form, over parameters that condition each other."""
    floats = st.floats(1e-4, 0.5)

    def ranged(pair: tuple[float, float], log: bool) -> dict[str, Any]:
        return {"low": min(pair), "high": max(pair), "log": log}

    number = st.one_of(
        floats,
        st.lists(floats, min_size=1, max_size=4, unique=True),
        st.builds(ranged, st.tuples(floats, floats), st.booleans()),
    )
    whole = st.one_of(
        st.integers(0, 5),
        st.lists(st.integers(0, 5), min_size=1, unique=True),
        st.builds(lambda low, more: {"low": low, "high": low + more}, st.integers(0, 3), st.integers(0, 4)),
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "learning_rate": st.one_of(number, st.just(ALTERNATIVES)),
            "momentum": number,
            "dropout": number,
            "depth": whole,
            "width": st.lists(st.integers(1, 512), min_size=1, max_size=3, unique=True),
            "optimizer": st.lists(st.sampled_from(["adam", "sgd", "momentum"]), min_size=1, unique=True),
            "schedule": st.lists(st.sampled_from(["constant", "cosine"]), min_size=1, unique=True),
            "final_learning_rate_ratio": number,
            "batch_norm": st.sampled_from([True, False, [True, False]]),
            "label_smoothing": st.builds(lambda d: {"choices": [0.1, 0.2], "when": {"depth": d}}, st.integers(0, 5)),
        },
    )


@settings(deadline=None, max_examples=60)
@given(_spaces(), st.integers(0, 2**32 - 1))
def test_any_space_survives_json_and_its_draws_are_configurations(literals: dict[str, Any], seed: int) -> None:
    space = Space(literals)
    assert Space(space.to_json()) == space
    units = np.random.default_rng(seed).random(len(space.varied)).tolist()
    params = space.draw(units)
    values = space.values(params)
    effective = TrialConfig(**values).effective()
    assert {name: effective[name] for name in values} == values  # whatever is sampled has an effect
    assert space.params(values) == params
    for dimension in space.varied:
        if dimension.key in params:
            assert dimension.domain.contains(params[dimension.key])


@settings(deadline=None, max_examples=25)
@given(_spaces(), st.integers(0, 1000))
def test_optunas_trial_gets_the_same_parameters_as_a_fixed_one(literals: dict[str, Any], seed: int) -> None:
    space = Space(literals)
    params = space.draw(np.random.default_rng(seed).random(len(space.varied)).tolist())
    assert space.suggest(optuna.trial.FixedTrial(params)) == space.values(params)  # type: ignore[arg-type]


@given(
    st.text(max_size=12),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)),
)
@settings(max_examples=200)
def test_no_input_ends_in_anything_but_a_request_error(name: str, literal: object) -> None:
    for key in (name, "learning_rate", "width", "optimizer"):
        try:
            Space({key: {"low": literal, "high": literal} if isinstance(literal, float) else literal})
        except RequestError as error:
            assert "\n" not in str(error)  # noqa: PT017


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1.0), st.floats(1.0, 100.0))
def test_a_range_stays_inside_its_bounds(unit: float, low: float, factor: float) -> None:
    for log in (False, True):
        value = Float(low, low * factor, log=log).at(unit)
        assert low <= value <= low * factor


def test_units_spread_evenly_over_whole_numbers() -> None:
    counts = np.bincount([int(Int(0, 3).at(u)) for u in np.linspace(0, 1, 4000, endpoint=False)])
    assert counts.tolist() == [1000, 1000, 1000, 1000]


def test_every_parameter_can_be_varied_by_one_line() -> None:
    plain = {bool: [True, False], int: [1, 2], float: [0.01, 0.02], str: ["a.pth", "b.pth"]}
    for name, parameter in all_parameters().items():
        if name != "model":
            choices = TASK_LOSSES["classification"] if name == "loss" else parameter.choices
            lists = {"-": ["8-4", [8]], "+": ["flip+crop", ["cutout"]]}.get(parameter.separator or "")
            Space({name: lists or list(choices) or plain[parameter.kind]})
