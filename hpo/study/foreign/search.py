"""Searches of other tools, in one form that every reader returns and from which a study is made.

A reader keeps what the file says in the file's own names and values. What of it a study of ours can have is decided
afterwards, by `hpo.study.foreign.mapping`, and a training loop of the user's own can have all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hpo.config.choices import Direction
from hpo.utils.text import shorten

__all__ = [
    "Choices",
    "Computed",
    "Constant",
    "ForeignDomain",
    "ForeignParameter",
    "ForeignSearch",
    "Goal",
    "Method",
    "Range",
    "name_values",
]

Method = Literal["random", "grid", "tpe", "gp", "cmaes", "nsga2", "qmc"]  # our samplers


@dataclass(frozen=True)
class Constant:
    """One value.

    Attributes:
        value: anything that a document can hold: a number, a text, a switch, None, a list or a table.
    """

    value: Any


@dataclass(frozen=True)
class Choices:
    """Values that can be listed.

    Attributes:
        values: at least one, in the file's order; see `Constant.value`.
        probabilities: of each value, or None where they are equal.
    """

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None

    @property
    def lost(self) -> str:
        """Note on what a study loses, where all values are equally likely; empty if it is nothing."""
        weights = self.probabilities or ()
        if len(set(weights)) < 2:
            return ""
        listed = shorten(", ".join(f"{each:.3g}" for each in weights), quote=False)
        return f"its values are not equally likely there ({listed}), and are here"


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both inclusive.

    Attributes:
        low: the smallest.
        high: the largest.
        log: whether they are spread evenly on a logarithmic scale.
        step: the distance of neighbours, counted from `low`; None for any number, or any whole number.
        integer: whether they are whole.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False


@dataclass(frozen=True)
class Computed:
    """Value that the other tool's own code computes, when it runs, or that cannot be read for another reason.

    Attributes:
        expression: as the file has it: `lambda spec: spec.config.lr * 2`, `${oc.env:DATA}`; empty where it is wrong.
        problem: why its values, which a search needs, cannot be read; empty where the file does mean to compute one.
    """

    expression: str
    problem: str = ""


ForeignDomain = Constant | Choices | Range | Computed


@dataclass(frozen=True)
class ForeignParameter:
    """Parameter of another tool's search.

    Attributes:
        path: its name, after those of the tables that it is in: `("dqn", "epsilon")`.
        domain: its values.
        when: the values of other parameters, by dotted name, under which it exists; all conditions must hold.
        note: what reading has lost, such as a normal distribution that became a range; a phrase for a person.
        expression: what the file computes of the value and uses in its place, such as `2 ** …`; empty where it uses the
            value itself.
    """

    path: tuple[str, ...]
    domain: ForeignDomain
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    note: str = ""
    expression: str = ""

    @property
    def name(self) -> str:
        """Dotted name, such as `dqn.epsilon`."""
        return ".".join(self.path)

    def excludes(self, other: ForeignParameter) -> bool:
        """Return whether no condition lets both parameters exist."""
        both = self.when.keys() & other.when.keys()
        return any(not set(map(repr, self.when[key])) & set(map(repr, other.when[key])) for key in both)


@dataclass(frozen=True)
class Goal:
    """Objective of another tool's search: its name of a metric, and the direction that is better, where it says so."""

    metric: str | None
    direction: Direction | None


def name_values(directions: Sequence[Direction], name: str = "value") -> dict[str, Any]:
    """Return the objectives, as attributes of a search, of a tool whose functions return numbers without names.

    They have that name, or `value_1`, `value_2`, … where there are several.
    """
    names = [name] if len(directions) == 1 else [f"{name}_{number + 1}" for number in range(len(directions))]
    first, *others = [Goal(*pair) for pair in zip(names, directions, strict=True)]
    return {"metric": first.metric, "direction": first.direction, "also": tuple(others)}


@dataclass(frozen=True)
class ForeignSearch:
    """Search that another tool's file describes.

    Attributes:
        tool: whose file it is, for messages: "Weights & Biases".
        parameters: in the file's order; no two have the same path unless their conditions exclude each other.
        metric: the file's name of what is optimized, or None where it names none.
        direction: in which the metric is better, or None where the file does not say.
        target: value of the metric at which the search ends.
        method: our sampler for the file's method; None where the file names none.
        sampler_options: of that sampler, as a study file has them.
        seed: of its random numbers; None where the file names none.
        trials: how many; None where the file sets no limit.
        timeout: seconds after which no trial begins.
        pruner: as a study file has it: a name, or a table with a `name`; None where the file stops no trial early.
        name: of the search, as the file has it.
        about: the file's description, of any number of lines.
        also: further objectives, of a search that has several.
        notes: what reading has lost or changed, a phrase each, that concerns no single parameter.
        problems: what is wrong with the file beside its parameters, a line each, for which it is refused.
        own_key: under which a parameter that is a table of others, too, has its own value in a configuration.
    """

    tool: str
    parameters: tuple[ForeignParameter, ...]
    metric: str | None = None
    direction: Direction | None = None
    target: float | None = None
    method: Method | None = None
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    trials: int | None = None
    timeout: float | None = None
    pruner: Mapping[str, Any] | str | None = None
    name: str | None = None
    about: str = ""
    also: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    own_key: str = "_value_"
