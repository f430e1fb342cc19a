"""Fit of another tool's domain to a parameter of ours: its values translated, and cut to our bounds.

A value that our parameter cannot have is cut with a note where at least half of the domain remains. Otherwise the
parameter does not fit, and nothing is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.config import registry
from hpo.config.aliases import SYNONYM_BOUNDS, VALUE_ALIASES, canonical
from hpo.config.parameter import Parameter
from hpo.config.values import OFF, Value, spell_value
from hpo.errors import ConfigError, DefinitionError, RequestError
from hpo.space.domains import STEPS_LIMIT
from hpo.study.foreign.search import Computed, Constant, ForeignDomain, Range
from hpo.utils.text import shorten

__all__ = ["Fit", "OtherMeaningError", "OutsideBoundsError", "UnknownValueError", "fit_domain", "translate"]

OPEN = 1e-6  # part of a range that is left out at an end that a parameter cannot have


class OtherMeaningError(DefinitionError):
    """Values of another type than a parameter of ours has: the name means something else."""


class UnknownValueError(ConfigError):
    """Text that is none of a parameter's values."""


class OutsideBoundsError(DefinitionError):
    """Values most of which a parameter of ours cannot have."""


@dataclass(frozen=True)
class Fit:
    """Domain as a study file has it.

    Attributes:
        literal: a scalar, a list, or a table with low and high.
        notes: what differs, a phrase each.
        translations: `theirs -> ours` for values that are spelled otherwise.
    """

    literal: Any
    notes: tuple[str, ...] = ()
    translations: tuple[str, ...] = ()


def fit_domain(parameter: Parameter, domain: ForeignDomain, renames: Mapping[str, str]) -> Fit:
    """Fit a domain to a parameter of ours.

    Args:
        parameter: ours.
        domain: theirs.
        renames: our values by the text of theirs.

    Raises:
        OtherMeaningError: its values have another type.
        OutsideBoundsError: more than half of its values are none of the parameter's.
    """
    if isinstance(domain, Range):
        return _fit_range(parameter, domain)
    if isinstance(domain, Computed):
        raise OtherMeaningError(f"{domain.expression} is no value")
    values = [domain.value] if isinstance(domain, Constant) else domain.values
    fit = _fit_values(parameter, values, renames)
    if isinstance(domain, Constant):
        return Fit(fit.literal[0], fit.notes, fit.translations)
    return Fit(fit.literal, (domain.lost, *fit.notes), fit.translations) if domain.lost else fit


def translate(parameter: Parameter, value: Any, renames: Mapping[str, str]) -> Value:
    """Return our value for one of theirs.

    Raises:
        OtherMeaningError: it has another type.
        ConfigError: it is none of the parameter's values.
    """
    given = renames.get(str(value), value)
    if parameter.is_off(given):
        return OFF
    known = _known_values(parameter)
    if parameter.kind is str and (known or not isinstance(given, str)):
        return parameter.check(_translate_text(parameter, given, known))
    if given is None and parameter.help.endswith("0 is off"):
        return parameter.check(0)
    if parameter.kind in (int, float) and isinstance(given, str):
        try:
            given = float(given)
        except ValueError:
            raise _other(parameter, value, "a number") from None
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if parameter.kind in (int, float) and not is_number:
        raise _other(parameter, value, "a number")
    if parameter.kind is bool and not isinstance(given, bool):
        quoted = f"; write {given.lower()} without quotes" if str(given).lower() in ("true", "false") else ""
        raise _other(parameter, value, f"true or false{quoted}")
    if parameter.kind is list and not isinstance(given, list):
        raise _other(parameter, value, "a list")
    return parameter.check(given)


def _other(parameter: Parameter, value: Any, kind: str) -> OtherMeaningError:
    return OtherMeaningError(f"{shorten(value)} is no {parameter.name} of ours, which is {kind}")


def _known_values(parameter: Parameter) -> list[str]:
    return registry.models.names() if parameter.name == "model" else [str(each) for each in parameter.choices]


def _translate_text(parameter: Parameter, value: Any, known: list[str]) -> Any:
    """Return our spelling of a text: `torch.optim.RMSprop` is `rmsprop`."""
    if isinstance(value, list):
        if parameter.separator is None:
            raise _other(parameter, value, "no list")
        return parameter.join(value)
    if value in known or (parameter.name == "model" and registry.models.has(str(value))):
        return str(value)
    aliases = VALUE_ALIASES.get(parameter.name, {})
    by_canonical = {canonical(each): each for each in known}
    for text in (str(value), str(value).rpartition(".")[2]):
        name = canonical(text)
        ours = by_canonical.get(name) or aliases.get(name)
        if ours in known:
            return ours
    if not isinstance(value, str):
        raise _other(parameter, value, "a text")
    example = "OURS, such as timm:resnet18" if parameter.name == "model" else "OURS"
    raise UnknownValueError(
        f"no equivalent among the values of {parameter.name}; name one with --rename {parameter.name}.VALUE={example}"
    )


def _fit_values(parameter: Parameter, values: Any, renames: Mapping[str, str]) -> Fit:
    ours: dict[tuple[type, Value], Value] = {}
    translations, repeats = [], []
    errors: list[tuple[str, RequestError]] = []
    for value in values:
        try:
            fitting = translate(parameter, value, renames)
            _check_meaning(parameter, fitting)
        except (OtherMeaningError, ConfigError) as error:
            errors.append((shorten(value), error))
            continue
        if (type(fitting), fitting) in ours:
            repeats.append(shorten(value))
        ours.setdefault((type(fitting), fitting), fitting)
        if _is_spelled_otherwise(parameter, value, fitting, renames):
            translations.append(f"{value} -> {spell_value(fitting)}")
    if errors and not ours and all(isinstance(error, OtherMeaningError) for _, error in errors):
        raise errors[0][1]
    reasons = _join_reasons(parameter, errors)
    if 2 * len(errors) > len(values):
        raise OutsideBoundsError("; ".join(f"{theirs}: {why}" for why, theirs in reasons.items()))
    notes = [f"without {theirs}: {why}" for why, theirs in reasons.items()]
    if repeats:
        notes.append(f"{', '.join(repeats)}: equal to others of its values, which are likelier there, and not here")
    return Fit([_written(parameter, each) for each in ours.values()], tuple(notes), tuple(translations))


def _is_spelled_otherwise(parameter: Parameter, value: Any, ours: Value, renames: Mapping[str, str]) -> bool:
    """Return whether a value has another text here; numbers, and lists, which all have their own, do not."""
    if isinstance(value, list) or ours == OFF:
        return False
    return (parameter.kind is str or value is None or str(value) in renames) and str(value) != spell_value(ours)


def _join_reasons(parameter: Parameter, errors: Sequence[tuple[str, RequestError]]) -> dict[str, str]:
    """Return the values that have no place, by the reason."""
    joined: dict[str, list[str]] = {}
    for value, error in errors:
        why = str(error).removeprefix(f"{value} is ").removeprefix(f"{parameter.name} = {value}: ")
        joined.setdefault(why, []).append(value)
    return {why: ", ".join(dict.fromkeys(values)) for why, values in joined.items()}


def _written(parameter: Parameter, value: Value) -> Any:
    """Return a value as a study file has it."""
    return parameter.spell(value) if parameter.kind is list else value


def _check_meaning(parameter: Parameter, value: object) -> None:
    low, high = SYNONYM_BOUNDS.get(parameter.name, (-math.inf, math.inf))
    if isinstance(value, int | float) and not low <= value <= high:
        raise OtherMeaningError(f"{value:g} is no {parameter.name} of ours, which is at most {high:g}")


def _fit_range(parameter: Parameter, domain: Range) -> Fit:
    if parameter.kind not in (int, float):
        raise OtherMeaningError(f"a range of numbers is no {parameter.name} of ours")
    _check_meaning(parameter, domain.high)
    low, high, step, notes = domain.low, domain.high, domain.step, []
    if not math.isfinite(float(high) - float(low)) or (step and (high - low) / step > STEPS_LIMIT):
        raise OutsideBoundsError(f"{low:g} to {high:g} is too wide to draw from, or has too many steps")
    if parameter.kind is int:
        if not domain.integer and (step is None or step % 1):
            notes.append(f"only its whole numbers, {math.ceil(low)} to {math.floor(high)}")
            step = None
        low, high = math.ceil(low), math.floor(high)
        step = None if step is None or step <= 1 else int(step)
    elif domain.integer and step is None and not domain.log:
        step = 1.0
    elif domain.integer and domain.log:
        notes.append("any number of its range, not only whole ones")
    if domain.log and step is not None:
        notes.append(f"its steps of {step:g} on a logarithmic scale have no equivalent and are left out")
        step = None
    cut_low, cut_high = _cut(parameter, low, high, step)
    if cut_low > cut_high or 2 * _width(cut_low, cut_high, domain.log) < _width(low, high, domain.log):
        raise OutsideBoundsError(f"{domain.low:g} to {domain.high:g} is out of bounds, must be {parameter.bounds}")
    last = cut_high if step is None else _last_step(cut_low, cut_high, step)
    if (cut_low, cut_high) != (low, high):
        becomes = f"{cut_low:.12g} to {last:.12g}"
        notes.append(f"{low:.12g} to {high:.12g} becomes {becomes}, for it must be {parameter.bounds}")
    high = last
    if cut_low == high:
        return Fit(cut_low, tuple(notes))
    scale = {"log": True} if domain.log else {"step": step} if step else {}
    return Fit({"low": cut_low, "high": high, **scale}, tuple(notes))


def _cut(parameter: Parameter, low: float, high: float, step: float | None) -> tuple[float, float]:
    """Return a range cut to the parameter's bounds; with steps, its lower end stays one of them."""
    whole = parameter.kind is int
    if parameter.low is not None and (low < parameter.low or (low == parameter.low and parameter.low_open)):
        least = parameter.low
        if parameter.low_open:
            least = least + 1 if whole else least + OPEN * (high - low)
        low = least if step is None else low + step * math.ceil((least - low) / step)
    if parameter.high is not None and (high > parameter.high or (high == parameter.high and parameter.high_open)):
        high = parameter.high
        if parameter.high_open:
            high = high - 1 if whole else high - OPEN * (high - low)
    return (int(low), int(high)) if whole else (float(low), float(high))


def _last_step(low: float, high: float, step: float) -> float:
    """Return the last of the steps from `low` that is not above `high`."""
    count = (high - low) / step
    if not math.isfinite(count):
        raise OutsideBoundsError(f"steps of {step:g} from {low:g} to {high:g} cannot be counted")
    last = low + step * math.floor(count + 1e-9)
    return int(last) if isinstance(low, int) else float(f"{last:.12g}")


def _width(low: float, high: float, log: bool) -> float:
    if low > high:
        return 0.0
    return math.log(high / low) if log and low > 0 else high - low
