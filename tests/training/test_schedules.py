"""Every schedule against its formula."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.config.choices import SCHEDULES
from hpo.config.trial_config import TrialConfig
from hpo.training.schedules import rate_at


def half_cosine(a, b, p):
    return b + (a - b) * (1 + math.cos(math.pi * p)) / 2


def one_cycle(a, b, p):
    return half_cosine(a / 25, a, p / 0.3) if p < 0.3 else half_cosine(a, b, (p - 0.3) / 0.7)


FORMULAS = {
    "constant": lambda a, b, p: a,
    "linear": lambda a, b, p: a + (b - a) * p,
    "exponential": lambda a, b, p: a * (b / a) ** p,
    "cosine": half_cosine,
    "one_cycle": one_cycle,
}


def test_every_schedule_has_a_formula():
    assert set(FORMULAS) == set(SCHEDULES)


@pytest.mark.parametrize("warmup", [0, 0.25])
@pytest.mark.parametrize("name", SCHEDULES)
def test_formula(name, warmup):
    config = TrialConfig(schedule=name, learning_rate=0.1, final_learning_rate=0.002, warmup=warmup)
    rising = 0 if name == "one_cycle" else round(warmup * 40)
    for step in range(41):
        got = rate_at(config, step, 40)
        if step < rising:
            assert got == pytest.approx(0.1 * (step + 1) / rising)
        else:
            assert got == pytest.approx(FORMULAS[name](0.1, 0.002, (step - rising) / (40 - rising)), rel=1e-12)


rates = st.floats(1e-8, 100)


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    rate=rates,
    final=rates,
    steps=st.integers(1, 10**6),
    warmup=st.floats(0, 0.999),
)
def test_step_after_the_last_is_exactly_final(name, rate, final, steps, warmup):
    config = TrialConfig(schedule=name, learning_rate=rate, final_learning_rate=final, warmup=warmup)
    assert rate_at(config, steps, steps) == (final if SCHEDULES[name].decays else rate)


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    ratio=st.floats(1e-6, 1),
    steps=st.integers(1, 500),
    warmup=st.floats(0, 0.999),
)
def test_rates_stay_between_zero_and_the_highest(name, ratio, steps, warmup):
    config = TrialConfig(schedule=name, learning_rate=0.1, final_learning_rate_ratio=ratio, warmup=warmup)
    assert all(0 < rate_at(config, step, steps) <= 0.1 * (1 + 1e-12) for step in range(steps))


def test_ratio():
    config = TrialConfig(schedule="linear", learning_rate=0.3, final_learning_rate_ratio=0.1)
    assert rate_at(config, 7, 7) == 0.3 * 0.1 == config.final_rate


def test_final_rate_of_zero():
    assert rate_at(TrialConfig(schedule="cosine", final_learning_rate=0), 9, 9) == 0.0
