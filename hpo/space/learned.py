"""Space of a study whose objective function chose it: the union of the distributions that its trials recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from hpo.config import registry
from hpo.config.parameter import Parameter
from hpo.config.values import Value, plain_value
from hpo.errors import SpaceError
from hpo.space.domains import Choices, Constant, Domain, Float, Int
from hpo.space.space import Params, Space, Values
from hpo.utils.text import shorten

__all__ = ["ExtendedSpace", "LearnedSpace"]

GROUP = "learned"  # of its parameters, which no registry knows


class LearnedSpace(Space):
    """Space that is learned from trials, parameter by parameter.

    It knows no conditions: a parameter that a trial lacks was not asked for there.

    Args:
        trials: the distributions of each trial, by parameter.
    """

    def __init__(self, trials: Iterable[Mapping[str, BaseDistribution]] = ()) -> None:
        self._recorded: dict[str, Counter[str]] = {}
        distributions: dict[str, dict[str, BaseDistribution]] = {}
        for trial in trials:
            for name, distribution in trial.items():
                key = distribution_to_json(distribution)
                self._recorded.setdefault(name, Counter())[key] += 1
                distributions.setdefault(name, {})[key] = distribution
        self._distributions = {name: tuple(each.values()) for name, each in distributions.items()}
        self.models = ()
        self.configurations = MappingProxyType({})
        self.registered = registry.models
        self.domains = {name: (_unite(list(each.values())),) for name, each in distributions.items()}
        self.table = {name: _make_parameter(name, domain) for name, (domain,) in self.domains.items()}
        self.dimensions = self._order_dimensions()

    def values(self, params: Mapping[str, Any]) -> Values:
        """Return the values that a trial with these Optuna parameters has, which are just those."""
        return {d.key: d.domain.exact(params[d.key]) for d in self.dimensions if d.key in params}

    def params(self, values: Mapping[str, Value]) -> Params:
        """Return the Optuna parameters of these values: those that the space knows."""
        return {name: value for name, value in values.items() if name in self.domains}

    def stored_values(self, name: str) -> list[Any]:
        """List the choices of a parameter, and the ends of its ranges, as its trials have them: not as plain values."""
        return [value for each in self._distributions[name] for value in _list_choices(each)]

    def is_number(self, name: str) -> bool:
        """Tell whether a parameter was asked for as a number, not as a choice."""
        return not any(isinstance(each, CategoricalDistribution) for each in self._distributions[name])

    def count(self, name: str) -> int:
        """Count the trials that have a parameter."""
        return self._recorded[name].total()

    def notices(self) -> list[str]:
        """Return a line for each parameter that was asked for with more than one domain, or whose choices look alike.

        Such choices are None and the text `none`, or a list and its JSON.
        """
        changed = {name: counts for name, counts in self._recorded.items() if len(counts) > 1}
        alike = {name: texts for name in self.domains if (texts := self._list_alike(name))}
        return [
            *(
                f"{name}: its domain changed between trials ({_list_domains(counts)}); the space has their union"
                for name, counts in changed.items()
            ),
            *(
                f"{name}: its choices {' and '.join(texts)} are counted as one in reports"
                for name, texts in alike.items()
            ),
        ]

    def _list_alike(self, name: str) -> list[str]:
        """List the choices of a parameter that have the plain form of another one, as Python writes them."""
        forms: dict[str, dict[str, None]] = {}
        for value in self.stored_values(name):
            forms.setdefault(repr(plain_value(value)), {})[shorten(value)] = None
        return [text for texts in forms.values() if len(texts) > 1 for text in texts]


class ExtendedSpace(Space):
    """Space of a study whose training loops asked for parameters themselves: its own, and what they asked for.

    Args:
        space: the study's.
        asked: what was asked for, learned from the trials.

    Attributes:
        asked: its dimensions.
    """

    def __init__(self, space: Space, asked: LearnedSpace) -> None:
        self._space = space
        self.models, self.configurations, self.registered = space.models, space.configurations, space.registered
        self.table = {**space.table, **asked.table}
        self.domains = {**asked.domains, **space.domains}
        self.asked = asked.dimensions
        self.dimensions = (*space.dimensions, *asked.dimensions)

    def values(self, params: Mapping[str, Value]) -> Values:
        """Return the values of a trial's configuration, to which what was asked for does not belong."""
        return self._space.values(params)


def _make_parameter(name: str, domain: Domain) -> Parameter:
    kind = float if isinstance(domain, Float) else type(domain.at(0))
    return Parameter(name, kind, None, "", GROUP)


def _list_domains(counts: Counter[str]) -> str:
    """List the domains of a parameter with the number of their trials, the most frequent first."""
    texts = [f"{_domain_text(key)} in {count}" for key, count in counts.most_common(3)]
    return "; ".join([*texts, f"and {len(counts) - 3} more"] if len(counts) > 3 else texts)


def _domain_text(key: str) -> str:
    attributes = json.loads(key)["attributes"]
    if "choices" in attributes:
        return " | ".join(str(plain_value(choice)) for choice in attributes["choices"])
    return f"{attributes['low']:g} to {attributes['high']:g}"


def _unite(distributions: Sequence[BaseDistribution]) -> Domain:
    """Return the smallest domain that contains all values of these distributions."""
    if all(isinstance(each, FloatDistribution | IntDistribution) for each in distributions):
        return _unite_ranges([each for each in distributions if isinstance(each, FloatDistribution | IntDistribution)])
    values: dict[tuple[type, Value], Value] = {}
    for each in distributions:
        for choice in map(plain_value, _list_choices(each)):
            values.setdefault((type(choice), choice), choice)
    united = tuple(values.values())
    return Constant(united[0]) if len(united) == 1 else Choices(united)


def _list_choices(distribution: BaseDistribution) -> Sequence[Any]:
    """List the choices of a distribution. A range beside choices cannot be kept: its ends stand for it."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # Optuna has no other kinds
    return distribution.low, distribution.high


def _unite_ranges(ranges: Sequence[FloatDistribution | IntDistribution]) -> Domain:
    low, high = min(each.low for each in ranges), max(each.high for each in ranges)
    whole = all(isinstance(each, IntDistribution) for each in ranges)
    if low == high:
        return Constant(int(low) if whole else float(low))
    log = all(each.log for each in ranges)
    step = None if log else _common_step(ranges, low)
    kind = Int if whole else Float
    try:
        return kind(low, high, log=log, step=step)
    except SpaceError:  # the step does not divide what the ranges make together
        return kind(low, high, log=log)


def _common_step(ranges: Sequence[FloatDistribution | IntDistribution], low: float) -> float | None:
    """Return the step of all ranges, if they have one and lie on one grid."""
    steps = {each.step for each in ranges}
    step = steps.pop()
    if steps or step is None or any(abs((each.low - low) / step % 1) > 1e-8 for each in ranges):
        return None
    return None if step == 1 and isinstance(ranges[0], IntDistribution) else step
