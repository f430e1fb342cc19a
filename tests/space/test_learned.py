"""Spaces that are learned from the distributions of trials."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.config.values import plain_value
from hpo.space import Choices, Constant, Float, Int, LearnedSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)
NUMBERS = st.integers(1, 50)
CHOICES = [None, True, False, -1, 0, 1, 2.5, 1.0, "", "a", "none", "1"]


@st.composite
def distributions(draw: st.DrawFn) -> BaseDistribution:
    kind = draw(st.sampled_from(["float", "int", "choices"]))
    if kind == "choices":
        return CategoricalDistribution(draw(st.lists(st.sampled_from(CHOICES), min_size=1, max_size=4, unique_by=repr)))
    low = draw(NUMBERS)
    high, log = low + draw(st.integers(0, 20)), draw(st.booleans())
    if kind == "int":
        step = 1 if log else draw(st.integers(1, 3))
        return IntDistribution(low, low + (high - low) // step * step, log=log, step=step)
    step = None if log else draw(st.sampled_from([None, 0.5, 1.0]))
    return FloatDistribution(low, high, log=log, step=step)


def sample(distribution: BaseDistribution, seed: int) -> object:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask({"p": distribution})
    return trial.params["p"]


@settings(deadline=None, max_examples=60)
@given(st.lists(distributions(), min_size=1, max_size=4), st.integers(0, 2**31))
def test_the_union_contains_every_value_that_a_trial_can_have(recorded: list[BaseDistribution], seed: int) -> None:
    kinds = {isinstance(each, CategoricalDistribution) for each in recorded}
    recorded = recorded if len(kinds) == 1 else recorded[:1]  # Optuna refuses both kinds under one name
    space = LearnedSpace({"p": each} for each in recorded)
    (domain,) = space.domains["p"]
    for each in recorded:
        value = plain_value(sample(each, seed))
        assert domain.contains(value), (domain, each, value)
        assert space.values({"p": value})["p"] == pytest.approx(value) if isinstance(value, float) else True


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ([FloatDistribution(1e-4, 1e-2, log=True), FloatDistribution(1e-3, 1.0, log=True)], Float(1e-4, 1.0, log=True)),
        ([IntDistribution(1, 3), IntDistribution(2, 8)], Int(1, 8)),
        ([IntDistribution(8, 64, step=8), IntDistribution(16, 128, step=8)], Int(8, 128, step=8)),
        ([IntDistribution(8, 64, step=8), IntDistribution(9, 65, step=8)], Int(8, 65)),
        ([IntDistribution(1, 3), FloatDistribution(0.5, 2)], Float(0.5, 3)),
        ([FloatDistribution(1, 10, log=True), FloatDistribution(1, 10)], Float(1, 10)),
        ([CategoricalDistribution(["a", None]), CategoricalDistribution([None, "b"])], Choices(("a", "none", "b"))),
        ([CategoricalDistribution([[1, 2], [3]])], Choices(("[1, 2]", "[3]"))),
        ([CategoricalDistribution([True, 1])], Choices((True, 1))),
        ([CategoricalDistribution(["only"])], Constant("only")),
        ([IntDistribution(4, 4)], Constant(4)),
    ],
)
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_union(recorded: list[BaseDistribution], expected: object) -> None:
    space = LearnedSpace({"p": each} for each in recorded)
    assert space.domains["p"] == (expected,)


def test_a_domain_that_changed_is_said_once_for_each_parameter() -> None:
    trials = [{"n": IntDistribution(1, 3), "x": FloatDistribution(0, 1)}, {"n": IntDistribution(1, 5)}]
    assert LearnedSpace(trials).notices() == [
        "n: its domain changed between trials (1 to 3 in 1; 1 to 5 in 1); the space has their union"
    ]


def test_a_trial_has_the_values_that_it_asked_for_and_no_others() -> None:
    space = LearnedSpace([{"x": FloatDistribution(0, 1)}, {"x": FloatDistribution(0, 1), "y": IntDistribution(1, 2)}])
    assert space.values({"x": 0.5}) == {"x": 0.5}
    assert [dimension.key for dimension in space.varied] == ["x", "y"]
    assert LearnedSpace().varied == ()


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_that_look_alike_are_said() -> None:
    off, sizes = CategoricalDistribution([None, "relu", "none"]), CategoricalDistribution([[1, 2], "[1, 2]"])
    assert LearnedSpace([{"off": off, "sizes": sizes, "x": CategoricalDistribution([None, True, 1])}]).notices() == [
        "off: its choices None and 'none' are counted as one in reports",
        "sizes: its choices [1, 2] and '[1, 2]' are counted as one in reports",
    ]
