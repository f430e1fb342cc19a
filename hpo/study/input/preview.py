"""Preview of a launch, for `hpo launch --dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hpo.config.registry import NO_DATA
from hpo.config.values import Value, spell_value
from hpo.errors import SpaceError
from hpo.space import Choices, Constant, Dimension, Space
from hpo.space.domains import Domain, Range
from hpo.study.definition import SETTLED, Budget, Definition
from hpo.study.slots import fixed_trials
from hpo.utils.text import quantity

__all__ = ["format_learned_preview", "format_preview", "format_resampling"]

SAMPLES = 3


def format_preview(
    name: str, definition: Definition, budget: Budget, samples: int = SAMPLES, asked: Sequence[Dimension] = ()
) -> str:
    """Format a study's parameters, their domains and conditions, the grid's size, and a few sampled configurations.

    Args:
        name, definition, budget: of the study.
        samples: number of sampled configurations.
        asked: dimensions that its training loops have asked for themselves.
    """
    if definition.learned:
        return format_learned_preview(name, definition, budget, definition.space)
    space = definition.space
    objectives = _format_objectives(definition)
    sampled = _sample_params(definition, space, min(samples, budget.trials))
    lines = [
        f"study {name}: {quantity(budget.trials, 'trial')}{_format_subject(definition)}, {objectives}",
        f"sampler {definition.sampler.name}, pruner {definition.pruner.name}, seed {definition.seed}",
        *format_resampling(definition),
        *_format_limits(budget),
        "",
        *(_format_dimension(dimension) for dimension in space.dimensions),
        *(f"{_format_dimension(dimension)}   (asked for by the training loop)" for dimension in asked),
        "",
        f"grid: {_format_grid_size(space)}",
        *(f"note: {notice}" for notice in space.notices()),
        *(f"\nwarm start: {_format_values(table)}" for table in definition.warm_start),
        *(f"\nfor example: {_format_values(space.values(params))}" for params in sampled),
    ]
    return "\n".join(lines)


def format_learned_preview(name: str, definition: Definition, budget: Budget, space: Space) -> str:
    """Format a study of an objective function, or of another tool, with what its trials have shown of the space."""
    function = "another tool" if definition.function is None else definition.function.label
    lines = [f"study {name}: {quantity(budget.trials, 'trial')} of {function}, {_format_objectives(definition)}"]
    if definition.function is not None:
        lines.append(f"sampler {definition.sampler.name}, pruner {definition.pruner.name}, seed {definition.seed}")
    lines += ["", *(_format_dimension(dimension) for dimension in space.dimensions)]
    if not space.dimensions:
        lines.append("the space is learned from the trials, which have recorded nothing yet")
    return "\n".join([*lines, *(f"note: {notice}" for notice in space.notices())])


def _format_subject(definition: Definition) -> str:
    """Return what trials call or train on; nothing where a training loop reads its own data."""
    if definition.function is not None:
        return f" of {definition.function.label}"
    return "" if definition.dataset.name == NO_DATA else f" on {definition.dataset.label}"


def _format_objectives(definition: Definition) -> str:
    return ", ".join(f"{objective.direction} {objective.metric}" for objective in definition.objectives)


def format_resampling(definition: Definition) -> list[str]:
    """Return how often a trial is fitted, and on which splits: no line where each has one fit on the study's split."""
    lines = [] if definition.resampling is None else [definition.resampling.text]
    return lines + (["each trial has a split of its own"] if definition.resplit == "per_trial" else [])


def _format_limits(budget: Budget) -> list[str]:
    """Return a line of the budget's limits besides the number of trials, where it has any."""
    limits = [
        *([f"no trial begins after {budget.timeout:g} s"] if budget.timeout is not None else []),
        *([f"a trial fails after {budget.trial_timeout:g} s"] if budget.trial_timeout is not None else []),
        *([f"the study ends at {budget.target:g}"] if budget.target is not None else []),
        *(["the study ends once it has settled"] if budget.until == SETTLED else []),
    ]
    return [", ".join(limits)] if limits else []


def _format_dimension(dimension: Dimension) -> str:
    name = dimension.parameter.name
    conditions = [
        f"when {dimension.domain.condition.label()}" if dimension.domain.condition.tests else "",
        f"where {dimension.parameter.effect.text}" if dimension.parameter.effect.parents else "",
    ]
    return f"{name} = {_format_domain(dimension.domain)}" + "".join(f"   ({c})" for c in conditions if c)


def _format_domain(domain: Domain) -> str:
    if isinstance(domain, Constant):
        return spell_value(domain.value)
    if isinstance(domain, Choices):
        return "one of " + ", ".join(map(spell_value, domain.values))
    assert isinstance(domain, Range)
    scale = " on a log scale" if domain.log else f" in steps of {domain.step:g}" if domain.step is not None else ""
    return f"{domain.low:g} to {domain.high:g}{scale}"


def _format_grid_size(space: Space) -> str:
    try:
        return f"{space.grid_size()} points"
    except SpaceError as error:
        return f"none ({error})"


def _sample_params(definition: Definition, space: Space, count: int) -> list[dict[str, Value]]:
    if definition.fixed:
        return fixed_trials(definition.model_copy(update={"baseline": None}), 0, count)
    size = len(space.varied)
    return [space.draw(np.random.default_rng([definition.seed, n]).random(size).tolist()) for n in range(count)]


def _format_values(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {spell_value(value)}"
        for name, value in values.items()
    )
