"""Numbers that metrics and training loops of the user's give, of any type that stands for one real number."""

from __future__ import annotations

import decimal
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from hpo.errors import RunError
from hpo.utils.text import shorten_message, summarize_error

__all__ = ["to_number"]

LONGEST_VALUE = 60  # characters of a value in a message
REAL_KINDS = "iuf"  # numpy's letters for signed, unsigned and floating


def to_number(value: object, where: str) -> float:
    """Return a value as a float where it is one real number; infinities and NaN are.

    It may be a number of Python's, numpy's or another library's that can be made a float, a Decimal or Fraction, or a
    tensor or array with one such element, on any device, with or without a gradient. A bool and a text are none: what
    they would mean as a value to optimize is not clear.

    Args:
        value: the value.
        where: where it comes from, to begin a message with.

    Raises:
        RunError: it is anything else.
    """
    try:
        number = _convert(value)
    except Exception as error:  # a class of the user's can raise anything
        raise RunError(f"{where}: {_describe(value)} cannot be made a number: {summarize_error(error)}") from error
    if number is None:
        raise RunError(f"{where}: must be a number, not {_describe(value)}; {_advice(value)}")
    return number


def _convert(value: Any) -> float | None:
    """Return a real number as a float; None for anything else."""
    if isinstance(value, Tensor):
        single = value.numel() == 1 and not value.is_complex()
        return _convert(value.detach().item()) if single else None
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype == object and value.size == 1:
            return _convert(value.item())
        return float(value.item()) if value.size == 1 and value.dtype.kind in REAL_KINDS else None
    if isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", None) == "b":
        return None
    return float(value) if isinstance(value, Real | decimal.Decimal) or hasattr(value, "__float__") else None


def _describe(value: object) -> str:
    """Return a value's type, and the value itself or the shape of an array, in a few words."""
    kind, shape = type(value).__name__, getattr(value, "shape", ())
    if isinstance(value, Tensor | np.ndarray) and len(shape):
        return f"{kind} of shape {tuple(shape)}"
    try:
        text = repr(value)
    except Exception:
        return kind
    return f"{kind} {shorten_message(' '.join(text.split()), LONGEST_VALUE)}"


def _advice(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray) and np.prod(value.shape) != 1:
        return "reduce it to one number, such as its mean"
    if isinstance(value, bool):
        return "return a measure of how good the model is, such as a fraction"
    return "convert it, such as with float(…)" if isinstance(value, str) else "return a single real number"
