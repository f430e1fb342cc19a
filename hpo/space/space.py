"""Search space, an ordered set of parameters and their domains: validation, sampling, drawing, grids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna

from hpo.config import registry
from hpo.config.choices import OPTIMIZERS
from hpo.config.parameter import Parameter
from hpo.config.registry import Models
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.config.values import OFF, Value
from hpo.errors import ConfigError, InvalidSpaceError, SpaceError
from hpo.space.domains import Choices, Constant, Domain
from hpo.space.parse import parse

__all__ = ["Dimension", "Space", "list_models"]

Params = dict[str, Any]  # by dimension, as Optuna stores them
Values = dict[str, Value]  # by parameter, in plain form
PROBES = 256
COUNTED_LIMIT = 100_000  # nodes of the conditional tree that are gone through to count its leaves
TOO_MANY = f"more than {COUNTED_LIMIT:,} combinations of values decide which parameters matter"
# The parameter of a space whose points are whole configurations by name, as those of an evaluation are.
CONFIGURATION = Parameter("configuration", str, None, "values of many parameters, known by a name", "evaluation")


@dataclass(frozen=True)
class Dimension:
    """Domain of a parameter; its key is the name of the Optuna parameter."""

    key: str
    parameter: Parameter
    domain: Domain

    @property
    def parents(self) -> set[str]:
        """Parameters that decide whether this dimension is active."""
        return {*self.parameter.effect.parents, *self.domain.condition.tests}


def list_models(literals: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the models of a space's parameters; each brings in parameters of its own.

    Raises:
        SpaceError: the domain of `model` is wrong.
    """
    domains = parse("model", literals.get("model", "mlp"), all_parameters())
    return tuple(dict.fromkeys(str(value) for domain in domains for value in domain.points()))


class Space:
    """Search space: parameters and their domains, with conditions.

    `Space(learning_rate=hpo.Float(1e-4, 1e-1, log=True), optimizer=["adam", "sgd"], epochs=5)` and the same as a TOML
    table are equal. A parameter that has no effect under the values of the others is not sampled and not stored.

    With `configurations`, sets of values by name, the space may contain the parameter `configuration`: it is sampled
    and stored by name, and stands for all values of that name.

    `registered` knows the models that the space may name: by default those registered in this process.

    Raises:
        SpaceError: a rule is broken; the message names the parameter, the value and the rule.
        RegistryError: a model is not registered.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any] | None = None,
        /,
        *,
        configurations: Mapping[str, Mapping[str, Value]] = MappingProxyType({}),
        registered: Models = registry.models,
        **more: Any,
    ) -> None:
        literals = {**(parameters or {}), **more}
        self.models = list_models(literals)
        self.registered = registered
        self.table = all_parameters(self.models, registered)
        self.configurations = configurations
        if configurations:
            self.table[CONFIGURATION.name] = CONFIGURATION
        self.domains = {name: parse(name, literal, self.table) for name, literal in literals.items()}
        self.dimensions = self._order_dimensions()
        self.check()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(tuple(self.domains))

    def __repr__(self) -> str:
        return f"Space({self.to_json()!r})"

    def to_json(self) -> dict[str, Any]:
        """Return the longhand of every parameter, which `Space(...)` parses."""
        return {
            name: domains[0].to_json() if len(domains) == 1 else [domain.to_json() for domain in domains]
            for name, domains in self.domains.items()
        }

    def spell(self, literals: Mapping[str, Any]) -> dict[str, Any]:
        """Return values or domains, by parameter, as people write them: with lists as lists."""
        return {name: self.table[name].spell(each) if name in self.table else each for name, each in literals.items()}

    @property
    def varied(self) -> tuple[Dimension, ...]:
        """Dimensions that are not constant, Optuna's parameters, parents before children."""
        return tuple(d for d in self.dimensions if not isinstance(d.domain, Constant))

    def _order_dimensions(self) -> tuple[Dimension, ...]:
        """Return the dimensions with parents before children, otherwise in the order in which they were given.

        Raises:
            SpaceError: conditions form a cycle.
        """
        grouped = {name: self._dimensions_of(name) for name in self.domains}
        ordered: dict[str, tuple[Dimension, ...]] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                raise SpaceError(f"{name}: its condition is a cycle: {' -> '.join((*path[path.index(name) :], name))}")
            parents = set().union(*(dimension.parents for dimension in grouped[name]))
            for parent in (p for p in grouped if p in parents and p not in ordered):
                visit(parent, (*path, name))
            ordered[name] = grouped[name]

        for name in grouped:
            if name not in ordered:
                visit(name, ())
        return tuple(itertools.chain.from_iterable(ordered.values()))

    def _dimensions_of(self, name: str) -> tuple[Dimension, ...]:
        domains = self.domains[name]
        if len(domains) == 1:
            return (Dimension(name, self.table[name], domains[0]),)
        return tuple(Dimension(f"{name}[{d.condition.label()}]", self.table[name], d) for d in domains)

    @cached_property
    def _defaults(self) -> dict[str, Value | None]:
        return {name: parameter.default for name, parameter in self.table.items()}

    @cached_property
    def _outside(self) -> dict[str, Value]:
        outside = {name: value for name, value in self._defaults.items() if name not in self.domains}
        return {name: OFF if value is None else value for name, value in outside.items()}

    def _is_active(self, dimension: Dimension, values: Mapping[str, Any]) -> bool:
        """Return whether the dimension matters under these values of its parents.

        A parameter of the space that is itself inactive satisfies no condition; one that is not in the space has its
        default.
        """
        if not dimension.domain.condition.holds(self._outside | dict(values)):
            return False
        off = {name: None for name, value in values.items() if value == OFF and self.table[name].is_off(OFF)}
        # Whether a constant has an effect may depend on its own value, as that of the task does.
        own = {dimension.parameter.name: dimension.domain.value} if isinstance(dimension.domain, Constant) else {}
        return dimension.parameter.effect.holds({**self._defaults, **own, **values, **off}, self.registered)

    def _fill(self, choose: Callable[[Dimension], Value]) -> Values:
        values: Values = {}
        for dimension in self.dimensions:
            if self._is_active(dimension, values):
                constant = isinstance(dimension.domain, Constant)
                values[dimension.parameter.name] = dimension.domain.at(0) if constant else choose(dimension)
        named = values.pop(CONFIGURATION.name, None)
        return values if named is None else {**self.configurations[str(named)], **values}

    def suggest(self, trial: optuna.trial.Trial) -> Values:
        """Return the values of one trial, suggested by Optuna's trial, which stores those that are not constant."""
        return self._fill(lambda dimension: dimension.domain.suggest(trial, dimension.key))

    def values(self, params: Mapping[str, Any]) -> Values:
        """Return the values that a trial with these Optuna parameters has, including constants.

        Raises:
            SpaceError: a parameter is missing.
        """

        def read(dimension: Dimension) -> Value:
            if dimension.key not in params:
                raise SpaceError(f"{dimension.key}: the trial has no value for it")
            return dimension.domain.exact(params[dimension.key])

        return self._fill(read)

    def params(self, values: Mapping[str, Value]) -> Params:
        """Return the Optuna parameters of a configuration: those of its values that the space contains."""
        params: Params = {}
        for dimension in self.varied:
            name = dimension.parameter.name
            if name in values and self._is_active(dimension, values) and dimension.domain.contains(values[name]):
                params[dimension.key] = dimension.domain.stored(values[name])
        return params

    def misfits(self, values: Mapping[str, Value]) -> dict[str, Domain | None]:
        """Return those of a configuration's values that the space does not contain, by name, with the violated domain.

        The domain is None if none applies under the other values. Parameters that the space does not have at all are
        left out: they have their defaults.
        """
        misfits: dict[str, Domain | None] = {}
        for name in (name for name in values if name in self.domains):
            own = [d for d in self.dimensions if d.parameter.name == name and self._is_active(d, values)]
            if not (own and own[0].domain.contains(values[name])):
                misfits[name] = own[0].domain if own else None
        return misfits

    def draw(self, units: Sequence[float]) -> Params:
        """Return the Optuna parameters at a point of the unit cube.

        Args:
            units: a coordinate from 0 to below 1 for each varied dimension, active or not.
        """
        unit = {dimension.key: u for dimension, u in zip(self.varied, units, strict=True)}
        params: Params = {}

        def choose(dimension: Dimension) -> Value:
            value = dimension.domain.at(unit[dimension.key])
            params[dimension.key] = dimension.domain.stored(value)
            return value

        self._fill(choose)
        return params

    def grid(self) -> Iterator[Params]:
        """Yield every combination once: the leaves of the conditional tree, the last parameter changing fastest.

        Raises:
            SpaceError: a range is continuous.
        """
        self._check_countable()
        return self._leaves(0, {}, {})

    def grid_size(self) -> int:
        """Count the combinations of `grid`, from the domains' own counts.

        Only parameters that decide on the effect of others are gone through value by value.

        Raises:
            SpaceError: a range is continuous, or too many values decide on the effect of others.
        """
        self._check_countable()
        return self._count_leaves(0, {}, {})

    @cached_property
    def size(self) -> int | None:
        """Number of configurations; None where a range is continuous, or there are too many to count."""
        try:
            return self.grid_size()
        except SpaceError:
            return None

    def _check_countable(self) -> None:
        for dimension in self.varied:
            try:
                dimension.domain.count()
            except SpaceError as error:
                raise SpaceError(f"{dimension.key}: {error}") from error

    def _count_leaves(self, index: int, values: Values, known: dict[tuple[Any, ...], int]) -> int:
        """Count the leaves below a node of the tree, which differ only by the values that later conditions ask for."""
        if index == len(self.dimensions):
            return 1
        parents = self._parents_from[index]
        key = (index, *((name, values[name]) for name in sorted(parents & values.keys())))
        if key not in known:
            if len(known) >= COUNTED_LIMIT:
                raise SpaceError(TOO_MANY)
            known[key] = self._count_children(index, values, known)
        return known[key]

    def _count_children(self, index: int, values: Values, known: dict[tuple[Any, ...], int]) -> int:
        dimension = self.dimensions[index]
        if not self._is_active(dimension, values):
            return self._count_leaves(index + 1, values, known)
        name, domain = dimension.parameter.name, dimension.domain
        if name in self._parents_from[index + 1]:
            if domain.count() > COUNTED_LIMIT:
                raise SpaceError(TOO_MANY)
            return sum(self._count_leaves(index + 1, {**values, name: value}, known) for value in domain.points())
        return domain.count() * self._count_leaves(index + 1, values, known)

    @cached_property
    def _parents_from(self) -> list[set[str]]:
        """By index, the parameters that decide on the effect of the dimension there or of a later one."""
        parents: list[set[str]] = [set()]
        for dimension in reversed(self.dimensions):
            parents.append(parents[-1] | dimension.parents)
        return parents[::-1]

    def _leaves(self, index: int, values: Values, params: Params) -> Iterator[Params]:
        if index == len(self.dimensions):
            yield params
            return
        dimension = self.dimensions[index]
        if not self._is_active(dimension, values):
            yield from self._leaves(index + 1, values, params)
            return
        for value in dimension.domain.points():
            stored = {} if isinstance(dimension.domain, Constant) else {dimension.key: dimension.domain.stored(value)}
            yield from self._leaves(index + 1, values | {dimension.parameter.name: value}, params | stored)

    def _probes(self) -> Iterator[Values]:
        """Yield configurations that cover the space: every choice and bound among random values, then random points."""
        rng = np.random.default_rng(0)
        for index, dimension in enumerate(self.varied):
            domain = dimension.domain
            edges = len(domain.values) if isinstance(domain, Choices) else 2
            for edge in range(edges):
                units = rng.random(len(self.varied))
                units[index] = edge / edges if isinstance(domain, Choices) else edge * (1 - 1e-12)
                yield self.values(self.draw(units.tolist()))
        for _ in range(PROBES):
            yield self.values(self.draw(rng.random(len(self.varied)).tolist()))

    def check(self, rule: Callable[[TrialConfig], object] = lambda _: None) -> None:
        """Check that the space contains no configuration that is invalid or breaks `rule`, which raises ConfigError.

        Raises:
            InvalidSpaceError: it does; the message names the parameter, its value and what is wrong.
        """
        seen: set[str] = set()  # a small space, as an evaluation's, is drawn again and again
        reasons: dict[str, ConfigError] = {}
        for values in self._probes():
            if (key := repr(values)) in seen:
                continue
            seen.add(key)
            try:
                rule(TrialConfig.of(values, self.registered))
            except ConfigError as error:
                reasons.setdefault(str(error), error)
        if reasons:
            first = next(iter(reasons.values()))
            raise InvalidSpaceError(f"the space contains invalid configurations: {first}", reasons) from first

    def notices(self) -> list[str]:
        """Return notices for a launch: parameters that never have an effect, and where a default is used."""
        used = {CONFIGURATION.name} if self.configurations else set()
        gaps: dict[str, Values] = {}
        for values in self._probes():
            used |= set(values)
            for name in self.domains:
                if (
                    name not in values
                    and len(self.domains[name]) > 1
                    and self.table[name].effect.holds(self._defaults | values, self.registered)
                ):
                    gaps.setdefault(name, values)
        lines = [
            f"{name} has no effect in this space and is left out{self._explain_effect(name)}"
            for name in self.domains
            if name not in used | set(gaps)
        ]
        for name, values in gaps.items():
            parents = sorted({parent for domain in self.domains[name] for parent in domain.condition.tests})
            case = ", ".join(f"{p} = {values.get(p, self._defaults[p])}" for p in parents)
            default = OPTIMIZERS[str((self._defaults | values)["optimizer"])].defaults.get(name, self._defaults[name])
            lines.append(f"{name}: no condition holds where {case}; its default {default} is used there")
        return lines

    def _explain_effect(self, name: str) -> str:
        """Say where a parameter would have an effect, unless its own conditions alone decide that."""
        effect = self.table[name].effect
        return f"; it has one where {effect.text}" if effect.parents else ""
