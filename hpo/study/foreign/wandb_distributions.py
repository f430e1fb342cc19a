"""Distributions of Weights & Biases sweeps as domains: the same if there is one, else the nearest, with a note.

Source: "Sweep configuration options", Weights & Biases documentation, and the schema in wandb/sweeps. `min` and `max`
are inclusive there as here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import DefinitionError, describe_unknown
from hpo.study.foreign.domains import approximate, list_choices, normal, rounded
from hpo.study.foreign.search import Choices, Constant, ForeignDomain, Range
from hpo.utils.text import shorten

__all__ = ["DISTRIBUTIONS", "read_distribution", "read_number", "read_value"]

DIGITS = 12  # significant; e ** ln(0.001) is 0.0010000000000000002
POWER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d{1,3}")

Spec = Mapping[str, Any]
Read = tuple[ForeignDomain, str]  # and what it loses


def read_distribution(spec: Spec) -> Read:
    """Read the distribution of a parameter's table in a sweep, and what the domain that is returned loses of it.

    Raises:
        DefinitionError: the distribution is unknown, or lacks a number. The message does not name the parameter.
    """
    name = spec.get("distribution") or _infer_distribution(spec)
    if not isinstance(name, str) or name not in DISTRIBUTIONS:
        raise DefinitionError(describe_unknown("distribution", str(name), DISTRIBUTIONS))
    return DISTRIBUTIONS[name](spec)


def _infer_distribution(spec: Spec) -> str:
    """Return the distribution of a table that names none."""
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical"
    if not {"min", "max"} <= set(spec):
        raise DefinitionError(f"{shorten(dict(spec))}: gives neither value, nor values, nor min and max")
    if "q" in spec:
        return "q_uniform"
    whole = all(isinstance(spec[key], int) for key in ("min", "max"))
    return "int_uniform" if whole else "uniform"


def read_number(spec: Spec, key: str, default: float | None = None) -> float:
    """Return a number of a table; a text is one too, for YAML reads 1e-4 as a text.

    Raises:
        DefinitionError: it is none.
    """
    value = spec.get(key, default)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DefinitionError(f"{key} = {shorten(value)}: must be a number")
    return number


def _round_digits(value: float) -> float:
    """Return a computed number without its last, inexact digits."""
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if math.isclose(rounded, value, rel_tol=1e-12) else value


def _exp(power: float) -> float:
    try:
        return math.exp(power)
    except OverflowError:
        raise DefinitionError(f"e to the power of {power:g} is no number that a parameter can have") from None


def read_value(value: Any) -> Any:
    """Return a value; 1e-4 is a text to YAML, and a number to everyone who writes it."""
    if isinstance(value, list):
        return [read_value(each) for each in value]
    return float(value) if isinstance(value, str) and POWER.fullmatch(value) else value


def _constant(spec: Spec) -> Read:
    if "value" not in spec:
        raise DefinitionError("a constant without value")
    return Constant(read_value(spec["value"])), ""


def _categorical(spec: Spec) -> Read:
    values, probabilities = spec.get("values"), spec.get("probabilities")
    if not isinstance(values, list) or not values:
        raise DefinitionError(f"values = {shorten(values)}: must be a list of values")
    listed = [read_value(value) for value in values]
    if probabilities is None:
        return _merge(listed, None), ""
    numbers = [read_number({"probabilities": each}, "probabilities") for each in _list(probabilities)]
    if len(numbers) != len(values) or min(numbers) < 0 or sum(numbers) <= 0:
        raise DefinitionError(f"probabilities = {shorten(probabilities)}: must be a number from 0 for each of values")
    return _merge(listed, numbers), ""


def _merge(values: list[Any], probabilities: list[float] | None) -> Choices:
    """Return the values, each once; a single one is a list there, too."""
    merged = list_choices(values, probabilities)
    return Choices((merged.value,)) if isinstance(merged, Constant) else merged


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _range(low: float, high: float, *, log: bool = False, whole: bool = False) -> Range:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DefinitionError(f"a range from {low:g} to {high:g}: must be finite")
    low, high = _round_digits(low), _round_digits(high)
    if low > high:
        raise DefinitionError(f"min = {low:g} is above max = {high:g}")
    if log and low <= 0:
        raise DefinitionError(f"min = {low:g}: must be above 0 on a logarithmic scale")
    return Range(low, high, log, integer=whole)


def _uniform(spec: Spec) -> Read:
    return _range(read_number(spec, "min"), read_number(spec, "max")), ""


def _int_uniform(spec: Spec) -> Read:
    return _range(math.ceil(read_number(spec, "min")), math.floor(read_number(spec, "max")), whole=True), ""


def _quantum(spec: Spec) -> float | None:
    """Return the q of a distribution that rounds to its multiples; None of another."""
    return read_number(spec, "q", 1.0) if str(spec.get("distribution")).startswith("q_") else None


def _q_uniform(spec: Spec) -> Read:
    return rounded(read_number(spec, "min"), read_number(spec, "max"), read_number(spec, "q", 1.0))


def _log(spec: Spec, low: float, high: float) -> Read:
    q = _quantum(spec)
    return (_range(low, high, log=True), "") if q is None else rounded(low, high, q, log=True)


def _log_uniform(spec: Spec) -> Read:
    """Read exp(x), with x uniform from min to max: often they are taken for the ends themselves."""
    low, high = read_number(spec, "min"), read_number(spec, "max")
    domain, note = _log(spec, _exp(low), _exp(high))
    if 0 < low < high <= 1:
        range_text = f"{_exp(low):.4g} to {_exp(high):.4g}"
        warning = f"min and max of {spec['distribution']} are powers of e, so that it is {range_text}; if {low:g} to "
        note = "; ".join(filter(None, [note, f"{warning}{high:g} is meant, write log_uniform_values in the sweep"]))
    return domain, note


def _log_uniform_values(spec: Spec) -> Read:
    return _log(spec, read_number(spec, "min"), read_number(spec, "max"))


def _inv_log_uniform(spec: Spec) -> Read:
    """Read x with log(1 / x) uniform from min to max: x is log-uniform from exp(-max) to exp(-min)."""
    return _log(spec, _exp(-read_number(spec, "max")), _exp(-read_number(spec, "min")))


def _normal(spec: Spec, *, log: bool = False) -> Read:
    mu, sigma = read_number(spec, "mu", 0.0), read_number(spec, "sigma", 1.0)
    return normal(mu, sigma, _write(spec), log=log, q=_quantum(spec))


def _beta(spec: Spec) -> Read:
    return approximate(0.0, 1.0, _write(spec), q=_quantum(spec))


def _write(spec: Spec) -> str:
    """Return a distribution as a call, for messages."""
    numbers = ", ".join(f"{key}={spec[key]}" for key in ("mu", "sigma", "a", "b", "q") if key in spec)
    return f"{spec['distribution']}({numbers})"


DISTRIBUTIONS: Mapping[str, Callable[[Spec], Read]] = {
    "constant": _constant,
    "categorical": _categorical,
    "categorical_w_probabilities": _categorical,
    "int_uniform": _int_uniform,
    "uniform": _uniform,
    "q_uniform": _q_uniform,
    "log_uniform": _log_uniform,
    "log_uniform_values": _log_uniform_values,
    "q_log_uniform": _log_uniform,
    "q_log_uniform_values": _log_uniform_values,
    "inv_log_uniform": _inv_log_uniform,
    "inv_log_uniform_values": _log_uniform_values,  # from log(1 / max) to log(1 / min): the same
    "normal": _normal,
    "q_normal": _normal,
    "log_normal": lambda spec: _normal(spec, log=True),
    "q_log_normal": lambda spec: _normal(spec, log=True),
    "beta": _beta,
    "q_beta": _beta,
}
