"""The reader of what a database holds: whatever that is, there is a value or one error."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

from hpo.storage.stored_values import (
    DEEPEST,
    LONGEST,
    SHOWN,
    UnreadableError,
    parse_distribution,
    parse_json,
    parse_metrics,
    parse_number,
    parse_param,
    parse_system_attr,
    parse_value,
)

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))
BRACKETS = st.text(alphabet='[]{}",:\\u0d8e1tfn-. ', max_size=40)
ANYTHING = SCALARS | st.binary(max_size=20) | JSON.map(json.dumps) | BRACKETS


@given(JSON)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    text = json.dumps(value)
    assert json.dumps(parse_json(text)) == text


def message(parse: Callable[[Any], object], stored: object) -> str:
    """Return what is said of a stored value that cannot be read, or nothing."""
    try:
        parse(stored)
    except UnreadableError as error:
        return str(error)
    return ""


@given(ANYTHING)
def test_anything_is_a_value_that_can_be_printed_or_one_error(stored: object) -> None:
    json.dumps(parse_value(stored), ensure_ascii=False).encode()
    for parse in (parse_json, parse_metrics, parse_distribution, partial(parse_system_attr, "artifacts:1")):
        said = message(parse, stored)
        assert "\n" not in said
        assert len(said) < 3 * SHOWN


def test_lists_among_choices_are_read_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        read = parse_distribution('{"name": "CategoricalDistribution", "attributes": {"choices": [[8], [16, 8]]}}')
    assert isinstance(read, CategoricalDistribution)
    assert read.choices == ([8], [16, 8])
    assert seen == []


@given(ANYTHING)
def test_a_parameter_is_one_of_its_values_or_one_error(stored: object) -> None:
    for distribution in (FloatDistribution(0, 1), IntDistribution(0, 9), CategoricalDistribution(["a", None])):
        assert parse_distribution(distribution_to_json(distribution)) == distribution
        if not message(partial(parse_param, distribution), stored):
            assert parse_param(distribution, stored) is None or not isinstance(stored, str)


@pytest.mark.parametrize(
    "text",
    [
        "[" * (DEEPEST + 3) + "]" * (DEEPEST + 3),
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 200 + "1" + "}" * 200,
        json.dumps("x" * LONGEST),
        "9" * 5000,
        '"\\ud800"',
        "{'a': 1}",
        "",
        None,
        b"\xff",
    ],
)
def test_what_is_beyond_the_limits_is_refused_and_shown_shortened(text: object) -> None:
    with pytest.raises(UnreadableError):
        parse_json(text)
    assert text is None or len(parse_value(text)) <= SHOWN + 1


def test_numbers_are_as_optuna_stores_them() -> None:
    assert parse_number("FINITE", 0.5) == 0.5
    assert parse_number("INF_NEG", None) == -math.inf
    assert math.isnan(parse_number("NAN", None))
    for kind, stored in (("FINITE", None), ("FINITE", math.inf), ("FINITE", "abc"), ("OTHER", 1.0), ("INF_POS", 1.0)):
        with pytest.raises(UnreadableError):
            parse_number(kind, stored)
    with pytest.raises(UnreadableError):
        parse_param(CategoricalDistribution(["a", "b"]), -1)
