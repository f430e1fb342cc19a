"""Slots of fixed studies: each trial's parameters, from the definition and the trial's number alone."""

from __future__ import annotations

import itertools
from typing import cast

import numpy as np

from hpo.config.parameter import Value
from hpo.space import Space
from hpo.study.definition import Definition
from hpo.study.warm_start import warm_params

__all__ = ["fixed_trials"]


def fixed_trials(definition: Definition, start: int, stop: int) -> list[dict[str, Value]]:
    """Return the Optuna parameters of slots `start` to `stop - 1`.

    Slot 0 is the baseline if there is one, and warm starts follow it. Random slot n is drawn from (study seed, n);
    quasi-random slot n is point n of scipy's scrambled Sobol sequence over the varied dimensions (Sobol, 1967;
    scrambling after Matousek, 1998); grid slots are the leaves of the conditional tree, in order. An adaptive study has
    slots for its baseline and its warm starts alone. A study whose space is learned has its warm starts, as they are.
    """
    if definition.learned:
        return [cast(dict[str, Value], dict(params)) for params in definition.warm_start[start:stop]]
    space = definition.space
    first = _leading_trials(definition, space)[start:stop]
    draw = {"random": _random, "qmc": _sobol, "grid": _grid}.get(definition.sampler.name)
    return first if draw is None else first + draw(definition, space, start + len(first), stop)


def _leading_trials(definition: Definition, space: Space) -> list[dict[str, Value]]:
    """Return the baseline, and the warm starts after it."""
    baseline = [] if definition.baseline is None else [space.params(definition.baseline_config(space).effective())]
    return baseline + [warm_params(space, cast(dict[str, Value], table)) for table in definition.warm_start]


def _random(definition: Definition, space: Space, start: int, stop: int) -> list[dict[str, Value]]:
    size = len(space.varied)
    return [space.draw(np.random.default_rng([definition.seed, n]).random(size).tolist()) for n in range(start, stop)]


def _sobol(definition: Definition, space: Space, start: int, stop: int) -> list[dict[str, Value]]:
    size = len(space.varied)
    if size == 0:
        return [{} for _ in range(start, stop)]
    from scipy.stats import qmc  # half a second to import

    engine = qmc.Sobol(size, scramble=True, rng=definition.seed)
    # Drawn one by one: scipy warns of a first draw that is no power of two, but a budget is what the user says.
    if start:
        engine.fast_forward(start)
    return [space.draw(engine.random(1)[0].tolist()) for _ in range(start, stop)]


def _grid(definition: Definition, space: Space, start: int, stop: int) -> list[dict[str, Value]]:
    offset = 1 if definition.baseline is not None else 0
    return list(itertools.islice(space.grid(), start - offset, stop - offset))
