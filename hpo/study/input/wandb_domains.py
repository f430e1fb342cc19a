"""Distributions of Weights & Biases sweeps as domains: the same if there is one, else the nearest, with a note.

Source: "Sweep configuration options", Weights & Biases documentation. `min` and `max` are inclusive there as here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hpo.config.parameter import Parameter
from hpo.errors import DefinitionError, describe_unknown
from hpo.utils.text import shorten

__all__ = ["DISTRIBUTIONS", "ConvertedDomain", "convert_domain"]

DIGITS = 12  # significant; e ** ln(0.001) is 0.0010000000000000002
SIGMAS = 2  # half the width of the range that replaces a normal distribution: 95 % of it


@dataclass(frozen=True)
class ConvertedDomain:
    """Domain as a study file has it, and a note on what differs from the sweep's distribution."""

    literal: Any
    note: str = ""


Spec = Mapping[str, Any]
Convert = Callable[[Parameter, Spec], ConvertedDomain]


def convert_domain(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    """Convert the distribution that a sweep gives a parameter to a domain.

    Args:
        parameter: the parameter of ours.
        spec: its table in the sweep file, with values already translated to ours.

    Raises:
        DefinitionError: the distribution is unknown, or lacks a number. The message does not name the parameter.
    """
    name = spec.get("distribution") or _infer_distribution(spec)
    if not isinstance(name, str) or name not in DISTRIBUTIONS:
        raise DefinitionError(describe_unknown("distribution", str(name), DISTRIBUTIONS))
    return DISTRIBUTIONS[name](parameter, spec)


def _infer_distribution(spec: Spec) -> str:
    """Return the distribution of a table that names none."""
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical"
    if not {"min", "max"} <= set(spec):
        raise DefinitionError(f"{shorten(dict(spec))}: gives neither value, nor values, nor min and max")
    whole = all(isinstance(spec[key], int) for key in ("min", "max"))
    return "int_uniform" if whole else "uniform"


def _number(spec: Spec, key: str, default: float | None = None) -> float:
    value = spec.get(key, default)
    try:
        number = float(value)  # YAML reads 1e-4 as a text
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DefinitionError(f"{key} = {shorten(value)}: must be a number")
    return number


def _exp(power: float) -> float:
    try:
        return math.exp(power)
    except OverflowError:
        raise DefinitionError(f"e to the power of {power:g} is no number that a parameter can have") from None


def _round_digits(value: float) -> float:
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if math.isclose(rounded, value, rel_tol=1e-12) else value


def _constant(_parameter: Parameter, spec: Spec) -> ConvertedDomain:
    return ConvertedDomain(spec["value"])


def _categorical(_parameter: Parameter, spec: Spec) -> ConvertedDomain:
    values = spec.get("values")
    if not isinstance(values, list) or not values or any(isinstance(value, list | dict) for value in values):
        raise DefinitionError(f"values = {shorten(values)}: must be a list of values")
    distinct = list(dict.fromkeys(values))
    probabilities = spec.get("probabilities")
    weighted = isinstance(probabilities, list) and any(each != probabilities[0] for each in probabilities)
    note = "its probabilities have no equivalent: all values are equally likely" if weighted else ""
    return ConvertedDomain(distinct, note)


def _range(parameter: Parameter, low: float, high: float, *, log: bool = False, step: float | None = None) -> Any:
    """Return a range, of whole numbers if the parameter is one."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DefinitionError(f"a range from {low:g} to {high:g}: must be finite")
    low, high = _round_digits(low), _round_digits(high)
    if parameter.kind is int:
        low, high = math.ceil(low), math.floor(high)
        step = None if step is None or step < 1 else int(step)
    if parameter.kind not in (int, float):
        raise DefinitionError(
            f"a range from {low:g} to {high:g}, but the parameter takes {parameter.bounds or 'texts'}"
        )
    return {"low": low, "high": high, **({"log": True} if log else {}), **({"step": step} if step else {})}


def _uniform(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    return ConvertedDomain(_range(parameter, _number(spec, "min"), _number(spec, "max")))


def _q_uniform(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    """Convert round(x / q) * q, which is multiples of q, the outermost ones half as likely as the others."""
    q = Fraction(str(_number(spec, "q", 1.0)))
    if q <= 0:
        raise DefinitionError(f"q = {spec.get('q')!r}: must be above 0")
    low, high = (float(round(Fraction(str(_number(spec, key))) / q) * q) for key in ("min", "max"))
    if parameter.kind is int and q == 1:
        return ConvertedDomain(_range(parameter, low, high))
    return ConvertedDomain(_range(parameter, low, high, step=float(q)))


def _log(parameter: Parameter, low: float, high: float, spec: Spec) -> ConvertedDomain:
    """Return a range on a logarithmic scale; rounding to multiples of q has an equivalent for whole numbers alone."""
    note = ""
    if str(spec.get("distribution")).startswith("q_") and not (parameter.kind is int and _number(spec, "q", 1.0) == 1):
        note = f"its steps of {_number(spec, 'q', 1.0):g} on a logarithmic scale have no equivalent and are left out"
    return ConvertedDomain(_range(parameter, low, high, log=True), note)


def _log_uniform(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    """Convert exp(x), with x uniform from min to max."""
    return _log(parameter, _exp(_number(spec, "min")), _exp(_number(spec, "max")), spec)


def _log_uniform_values(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    return _log(parameter, _number(spec, "min"), _number(spec, "max"), spec)


def _inv_log_uniform(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    """Convert x with log(1 / x) uniform from min to max: x is log-uniform from exp(-max) to exp(-min)."""
    return _log(parameter, _exp(-_number(spec, "max")), _exp(-_number(spec, "min")), spec)


def _clip_range(parameter: Parameter, low: float, high: float) -> tuple[float, float]:
    """Return a range clipped to the parameter's bounds, its ends rounded to four digits."""
    low, high = float(f"{low:.4g}"), float(f"{high:.4g}")
    if parameter.low is not None and low <= parameter.low:
        low = math.nextafter(parameter.low, math.inf) if parameter.low_open else parameter.low
    if parameter.high is not None and high >= parameter.high:
        high = math.nextafter(parameter.high, -math.inf) if parameter.high_open else parameter.high
    return low, high


def _approximate(parameter: Parameter, spec: Spec, low: float, high: float, *, log: bool = False) -> ConvertedDomain:
    low, high = _clip_range(parameter, low, high)
    name = spec["distribution"]
    numbers = ", ".join(f"{key}={spec[key]}" for key in ("mu", "sigma", "a", "b", "q") if key in spec)
    scale = "evenly on a logarithmic scale" if log else "evenly"
    replacement = f"has no equivalent: {low:g} to {high:g}, {scale}, replaces it"
    return ConvertedDomain(_range(parameter, low, high, log=log), f"{name}({numbers}) {replacement}")


def _normal(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    mu, sigma = _number(spec, "mu", 0.0), _number(spec, "sigma", 1.0)
    return _approximate(parameter, spec, mu - SIGMAS * sigma, mu + SIGMAS * sigma)


def _log_normal(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    mu, sigma = _number(spec, "mu", 0.0), _number(spec, "sigma", 1.0)
    return _approximate(parameter, spec, _exp(mu - SIGMAS * sigma), _exp(mu + SIGMAS * sigma), log=True)


def _beta(parameter: Parameter, spec: Spec) -> ConvertedDomain:
    return _approximate(parameter, spec, 0.0, 1.0)


DISTRIBUTIONS: Mapping[str, Convert] = {
    "constant": _constant,
    "categorical": _categorical,
    "categorical_w_probabilities": _categorical,
    "int_uniform": _uniform,
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
    "log_normal": _log_normal,
    "q_log_normal": _log_normal,
    "beta": _beta,
    "q_beta": _beta,
}
