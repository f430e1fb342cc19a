"""Numbers of metrics and loops: any type that stands for one real number, and a line for anything else."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import RunError
from hpo.training.losses import compute_metric
from hpo.training.numbers import to_number


class Scalar:
    """Of another library."""

    def __float__(self) -> float:
        return 0.5


class Broken:
    def __float__(self) -> float:
        raise ValueError("no value\n" * 1_000_000)

    def __repr__(self) -> str:
        raise RuntimeError("no text either")


NUMBERS = [
    1,
    0.5,
    Decimal("0.25"),
    Fraction(1, 4),
    Scalar(),
    np.float32(0.5),
    np.float16(0.5),
    np.longdouble(0.5),
    np.int8(-3),
    np.array(0.5),
    np.array([[7]]),
    np.array([Fraction(1, 2)], dtype=object),
    torch.tensor(0.5, requires_grad=True),
    torch.tensor([[0.5]], dtype=torch.bfloat16),
    torch.tensor(3),
    torch.nn.Parameter(torch.ones(1)),
]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: type(value).__name__)
def test_one_real_number_is_taken_whatever_its_type(value: Any) -> None:
    number = to_number(value, "here")
    assert type(number) is float
    assert number == float(value.item() if isinstance(value, torch.Tensor | np.ndarray) else value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, np.float32("inf"), torch.tensor(math.inf), Decimal("Infinity")])
def test_infinities_keep_their_meaning(value: Any) -> None:
    assert math.isinf(to_number(value, "here"))
    assert math.isnan(to_number(torch.tensor(math.nan), "here"))


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("0.5", "must be a number, not str '0.5'; convert it, such as with float(…)"),
        (b"0.5", "must be a number, not bytes b'0.5'; return a single real number"),
        (True, "must be a number, not bool True; return a measure of how good the model is, such as a fraction"),
        (np.bool_(True), "must be a number, not bool"),
        (torch.tensor(True), "must be a number, not Tensor tensor(True)"),
        (None, "must be a number, not NoneType None; return a single real number"),
        (1j, "must be a number, not complex 1j"),
        (torch.tensor(1j), "must be a number, not Tensor tensor(0.+1.j)"),
        (torch.ones(3), "must be a number, not Tensor of shape (3,); reduce it to one number, such as its mean"),
        (np.ones((2, 2)), "must be a number, not ndarray of shape (2, 2); reduce it"),
        (torch.ones(0), "must be a number, not Tensor of shape (0,)"),
        (torch.ones((), device="meta"), "cannot be made a number: "),
        (np.timedelta64(3, "s"), "must be a number, not timedelta64"),
        ([0.5], "must be a number, not list [0.5]"),
        (10**400, "cannot be made a number: OverflowError"),
        (Broken(), "Broken cannot be made a number: ValueError: no value"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_one_line_that_names_it(value: Any, line: str) -> None:
    with pytest.raises(RunError) as raised:
        compute_metric("mine", lambda *_: value, None, torch.ones(1))
    text = str(raised.value)
    assert text.startswith("metric 'mine': ")
    assert line in text
    assert "\n" not in text
    assert len(text) < 500


@given(st.text() | st.binary() | st.lists(st.integers()) | st.dictionaries(st.text(), st.floats()))
def test_no_value_is_more_than_a_line(value: Any) -> None:
    with pytest.raises(RunError) as raised:
        to_number(value, "here")
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 300


@given(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.fractions().filter(lambda x: abs(x) < 10**300))
def test_numbers_of_python_come_back_as_they_are(value: Any) -> None:
    assert to_number(value, "here") == float(value)
