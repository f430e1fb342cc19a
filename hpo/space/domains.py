"""Domains, the values that a parameter may take: a constant, choices, or a range, under an optional condition."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.config.values import OFF, Value, plain_value, spell_value
from hpo.errors import SpaceError
from hpo.utils.text import shorten

CHOICES_LIMIT = 10_000  # each of which is tried before a launch
STEPS_LIMIT = 2**53  # beyond which steps are no longer told apart
# Few enough that 0.1 * 3 is written 0.3, and enough not to change a value.
DIGITS = 12

__all__ = ["Between", "Choices", "Condition", "Constant", "Domain", "Float", "Int", "Range"]


@dataclass(frozen=True)
class Between:
    """Test that a value lies from `low` to `high`, both inclusive."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


Test = tuple[Value, ...] | Between


@dataclass(frozen=True)
class Condition:
    """Conjunction of tests of other parameters' values; an empty one always holds."""

    tests: Mapping[str, Test] = field(default_factory=dict)

    @classmethod
    def from_table(cls, when: Condition | Mapping[str, Any]) -> Condition:
        """Parse the value of `when`: per parameter a value, a list, or a table with low and high."""
        return when if isinstance(when, Condition) else cls({name: _test(literal) for name, literal in when.items()})

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether every test passes; a parameter that is not among `values` fails its test."""
        return all(name in values and values[name] in test for name, test in self.tests.items())

    def excludes(self, other: Condition) -> bool:
        """Return whether no values can satisfy both conditions."""
        return any(_disjoint(test, other.tests[name]) for name, test in self.tests.items() if name in other.tests)

    def label(self) -> str:
        """Return the condition as it stands in a parameter's name: `optimizer=adam|adamw,depth=1..3`."""
        return ",".join(f"{name}={_text(test)}" for name, test in self.tests.items())

    def to_json(self) -> dict[str, Any]:
        """Return the longhand of `when`."""
        return {
            name: {"low": test.low, "high": test.high} if isinstance(test, Between) else list(test)
            for name, test in self.tests.items()
        }


def _test(literal: Any) -> Test:
    if isinstance(literal, Mapping):
        if set(literal) != {"low", "high"}:
            raise SpaceError(f"when … = {dict(literal)!r}: a range has low and high, and nothing else")
        return Between(literal["low"], literal["high"])
    return tuple(literal) if isinstance(literal, list | tuple) else (literal,)


def _disjoint(a: Test, b: Test) -> bool:
    if isinstance(a, Between) and isinstance(b, Between):
        return a.high < b.low or b.high < a.low
    values, other = (b, a) if isinstance(a, Between) else (a, b)
    assert not isinstance(values, Between)
    return not any(value in other for value in values) if isinstance(other, Between) else set(values).isdisjoint(other)


def _text(test: Test) -> str:
    if isinstance(test, Between):
        return f"{test.low:g}..{test.high:g}"
    return "|".join(map(spell_value, test))


class Domain(ABC):
    """Values that a parameter may take, under a condition."""

    when: Condition | Mapping[str, Any]

    @property
    def condition(self) -> Condition:
        """Condition under which the domain applies."""
        return Condition.from_table(self.when)

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """Return the distribution that Optuna samples from."""

    @abstractmethod
    def at(self, unit: float) -> Value:
        """Return the value at `unit` (0 <= unit < 1) of the domain's scale, on which values are spread evenly."""

    @abstractmethod
    def points(self) -> Sequence[Value]:
        """Return every value, for a grid.

        Raises:
            SpaceError: the domain is continuous.
        """

    def count(self) -> int:
        """Return the number of points, of which none is computed.

        Raises:
            SpaceError: the domain is continuous.
        """
        return len(self.points())

    @abstractmethod
    def table(self) -> dict[str, Any]:
        """Return the longhand without the condition."""

    def suggest(self, trial: optuna.trial.Trial, name: str) -> Value:
        """Ask Optuna's trial for a value."""
        return self.exact(trial._suggest(name, self.distribution()))

    def exact(self, value: Any) -> Value:
        """Return the domain's own value for one that Optuna computed or stored: 0.3 for 0.30000000000000004."""
        return plain_value(value)

    def stored(self, value: Value) -> Any:
        """Return one of the domain's values as Optuna stores it; the inverse of `exact`."""
        return value

    def contains(self, value: Any) -> bool:
        """Return whether the domain contains `value`, in its own form or as Optuna stores it."""
        distribution = self.distribution()
        try:
            return bool(distribution._contains(distribution.to_internal_repr(value)))
        except ValueError:
            return False

    def to_json(self) -> dict[str, Any]:
        """Return the longhand, which a study's definition stores and `Space` parses."""
        return self.table() | ({"when": self.condition.to_json()} if self.condition.tests else {})


@dataclass(frozen=True)
class Constant(Domain):
    """Single value; it is not sampled, and is not a parameter of Optuna."""

    value: Value
    when: Condition | Mapping[str, Any] = field(default_factory=Condition)

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution([self.value])

    def at(self, unit: float) -> Value:  # noqa: ARG002
        return self.value

    def points(self) -> Sequence[Value]:
        return (self.value,)

    def table(self) -> dict[str, Any]:
        return {"value": self.value}


@dataclass(frozen=True)
class Choices(Domain):
    """List of values. With `off`, the value `none` among them is None, and Optuna stores it so."""

    values: tuple[Value, ...]
    when: Condition | Mapping[str, Any] = field(default_factory=Condition)
    off: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(map(plain_value, self.values)))
        if not self.values:
            raise SpaceError("the list is empty; give at least one choice")
        if len(self.values) > CHOICES_LIMIT:
            raise SpaceError(f"a list of {len(self.values):,} choices; give at most {CHOICES_LIMIT:,}, or a range")
        if len({(type(value), value) for value in self.values}) < len(self.values):
            raise SpaceError(f"{shorten(list(self.values))}: a choice is listed twice")

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution([self.stored(value) for value in self.values])

    def stored(self, value: Value) -> Any:
        return None if self.off and value == OFF else value

    def contains(self, value: Any) -> bool:
        return super().contains(self.stored(plain_value(value)))

    def at(self, unit: float) -> Value:
        return self.values[int(unit * len(self.values))]

    def points(self) -> Sequence[Value]:
        return self.values

    def table(self) -> dict[str, Any]:
        return {"choices": list(self.values)}


@dataclass(frozen=True)
class Range(Domain):
    """Numbers from `low` to `high`, both inclusive; `log` spreads them evenly over their logarithms.

    Raises:
        SpaceError: a rule is broken; the message names it, and the values that break it.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: Condition | Mapping[str, Any] = field(default_factory=Condition)

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if value is not None and not (-(2**63) <= value < 2**63 or isinstance(value, float)):
                raise SpaceError(f"{name} = {shorten(value)}: must be of 64 bits")
            if value is not None and not math.isfinite(value):
                raise SpaceError(f"{name} = {value}: must be finite")
        if self.low > self.high:
            raise SpaceError(f"low <= high must hold, but got low = {self.low}, high = {self.high}")
        if not math.isfinite(self.high - self.low):
            raise SpaceError(f"low = {self.low}, high = {self.high}: are too far apart to draw from")
        if self.log and self.step is not None:
            raise SpaceError(f"log and step exclude each other, but got log = true, step = {self.step}; remove one")
        if self.log and self.low <= 0:
            raise SpaceError(f"low > 0 must hold for log = true, but got low = {self.low}")
        if self.step is not None:
            self._check_step(self.step)

    def _check_step(self, step: float) -> None:
        if step <= 0:
            raise SpaceError(f"step > 0 must hold, but got step = {step}")
        steps = (self.high - self.low) / step
        if steps > STEPS_LIMIT:
            raise SpaceError(f"step = {step} makes too many steps from low = {self.low} to high = {self.high}")
        if abs(steps - round(steps)) > 1e-8 * max(1, steps):
            raise SpaceError(f"step = {step} does not divide the range from low = {self.low} to high = {self.high}")

    def table(self) -> dict[str, Any]:
        table: dict[str, Any] = {"low": self.low, "high": self.high}
        return table | ({"log": True} if self.log else {}) | ({"step": self.step} if self.step is not None else {})

    def _log_at(self, low: float, high: float, unit: float) -> float:
        return math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))


@dataclass(frozen=True)
class Float(Range):
    """Real numbers from `low` to `high`."""

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def at(self, unit: float) -> Value:
        if self.step is not None:
            return self._point(int(unit * self.count()))
        value = self._log_at(self.low, self.high, unit) if self.log else self.low + unit * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def exact(self, value: Any) -> Value:
        return plain_value(value) if self.step is None else round(float(value), DIGITS)

    def count(self) -> int:
        if self.step is None:
            raise SpaceError(
                f"a grid needs a list or a step, but got the continuous range from {self.low:g} to {self.high:g}"
            )
        return round((self.high - self.low) / self.step) + 1

    def points(self) -> Sequence[Value]:
        return [self._point(i) for i in range(self.count())]

    def _point(self, index: int) -> float:
        assert self.step is not None
        return round(self.low + index * self.step, DIGITS)


@dataclass(frozen=True)
class Int(Range):
    """Whole numbers from `low` to `high`, in steps of 1 unless `step` says otherwise."""

    def distribution(self) -> BaseDistribution:
        return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))

    def at(self, unit: float) -> Value:
        if not self.log:
            return self.points()[int(unit * self.count())]
        value = round(self._log_at(self.low - 0.5, self.high + 0.5, unit))
        return min(max(value, int(self.low)), int(self.high))

    def count(self) -> int:
        return (int(self.high) - int(self.low)) // int(self.step or 1) + 1

    def points(self) -> Sequence[Value]:
        return range(int(self.low), int(self.high) + 1, int(self.step or 1))
