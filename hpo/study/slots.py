"""Slots of fixed studies: each trial's parameters, from the definition and the trial's number alone."""

from __future__ import annotations

import itertools
from typing import cast

import numpy as np

from hpo.errors import SpaceError
from hpo.space import Space
from hpo.space.space import Params
from hpo.study.definition import Definition
from hpo.study.repeats import Key, make_key
from hpo.study.warm_start import warm_params

__all__ = ["baseline_params", "count_first", "explain_merges", "explain_repeats", "fixed_trials"]

DRAWS = 100  # of a random slot, until one is no repeat


def fixed_trials(definition: Definition, start: int, stop: int) -> list[Params]:
    """Return the Optuna parameters of slots `start` to `stop - 1`.

    Slot 0 is the baseline if there is one, and warm starts follow it, each configuration once. Random slot n is drawn
    from (study seed, n), and drawn again while an earlier slot has the same parameters, if the space is finite;
    quasi-random slot n is point n of scipy's scrambled Sobol sequence over the varied dimensions (Sobol, 1967;
    scrambling after Matousek, 1998); grid slots are the leaves of the conditional tree, in order, without the one that
    equals the baseline. An adaptive study has slots for its baseline and its warm starts alone. A study whose space is
    learned has its warm starts, as they are.
    """
    if definition.learned:
        return [cast(Params, dict(params)) for params in definition.warm_start[start:stop]]
    space = definition.space
    leading, keys = _leading_trials(definition, space)
    first = leading[start:stop]
    start += len(first)
    match definition.sampler.name:
        case "random":
            return first + _random(definition, space, keys, len(leading), start, stop)
        case "qmc":
            return first + _sobol(definition, space, start, stop)
        case "grid":
            return first + _grid(definition, space, start, stop)
    return first


def baseline_params(definition: Definition, space: Space) -> Params | None:
    """Return the Optuna parameters of the baseline; None if there is none, or the space does not contain it."""
    if definition.baseline is None:
        return None
    baseline = definition.baseline_config(space)
    params = space.params(baseline.effective(space.domains))
    try:
        inside = definition.config(space.values(params)).effective(space.domains) == baseline.effective(space.domains)
    except SpaceError:  # one of its values is outside
        return None
    return params if inside else None


def explain_merges(definition: Definition) -> list[str]:
    """Return a line for each trial that a study would begin with, or a grid would have, and that it has already."""
    if definition.learned:
        return []
    space = definition.space
    lines = []
    twin = baseline_params(definition, space)
    if twin is not None and definition.sampler.name == "grid":
        lines.append("the baseline is a point of the grid, and is trained once, as trial 0")
    earlier = {} if twin is None else {make_key(twin): "the baseline"}
    for index, table in enumerate(definition.warm_start):
        params = warm_params(space, table)
        name = f"warm_start[{index}]"
        if _is_complete(space, params) and (same := earlier.setdefault(make_key(params), name)) != name:
            lines.append(f"{name} equals {same}, and is trained once")
    return lines


def explain_repeats(definition: Definition, trials: int) -> str | None:
    """Return a line if a budget has more trials than the space has configurations; None if it has not."""
    size = definition.space.size
    if definition.learned or definition.sampler.name == "grid" or not size:
        return None
    size += definition.baseline is not None and baseline_params(definition, definition.space) is None
    if trials <= size:
        return None
    what = "1 configuration" if size == 1 else f"{size} configurations"
    return (
        f"the space has {what}, and the budget {trials} trials, of which {trials - size} will repeat an earlier one; "
        'sampler = "grid" trains each configuration once'
    )


def count_first(definition: Definition, space: Space | None = None) -> int:
    """Count the trials that a study begins with: its baseline and its warm starts.

    Args:
        definition: of the study.
        space: its space, if it has been parsed, which takes long.
    """
    if definition.learned:
        return len(definition.warm_start)
    return len(_leading_trials(definition, space or definition.space)[0])


def _leading_trials(definition: Definition, space: Space) -> tuple[list[Params], set[Key]]:
    """Return the baseline and the warm starts after it, without those that equal an earlier one, and the keys of all
    that are whole configurations of the space.
    """
    leading = (
        []
        if definition.baseline is None
        else [space.params(definition.baseline_config(space).effective(space.domains))]
    )
    twin = baseline_params(definition, space)
    keys = set() if twin is None else {make_key(twin)}
    for table in definition.warm_start:
        params = warm_params(space, table)
        if make_key(params) not in keys:
            leading.append(params)
        if _is_complete(space, params):  # what a table leaves out, a sampler chooses anew for each
            keys.add(make_key(params))
    return leading, keys


def _is_complete(space: Space, params: Params) -> bool:
    try:
        space.values(params)
    except SpaceError:
        return False
    return True


def _random(definition: Definition, space: Space, keys: set[Key], leading: int, start: int, stop: int) -> list[Params]:
    """Return random slots; in a finite space all earlier ones are drawn too, for they decide what is a repeat."""
    if space.size is None:
        return [_draw(definition, space, n, 0) for n in range(start, stop)]
    slots = []
    for number in range(leading, stop):
        draws = DRAWS if len(keys) < space.size else 1
        drawn = (_draw(definition, space, number, again) for again in range(draws))
        new = (params for params in drawn if make_key(params) not in keys)
        slots.append(next(new, _draw(definition, space, number, 0)))
        keys.add(make_key(slots[-1]))
    return slots[start - leading :]


def _draw(definition: Definition, space: Space, number: int, again: int) -> Params:
    seed = [definition.seed, number, *([again] if again else [])]
    return space.draw(np.random.default_rng(seed).random(len(space.varied)).tolist())


def _sobol(definition: Definition, space: Space, start: int, stop: int) -> list[Params]:
    size = len(space.varied)
    if size == 0:
        return [{} for _ in range(start, stop)]
    from scipy.stats import qmc  # half a second to import

    engine = qmc.Sobol(size, scramble=True, rng=definition.seed)
    # Drawn one by one: scipy warns of a first draw that is no power of two, but a budget is what the user says.
    if start:
        engine.fast_forward(start)
    return [space.draw(engine.random(1)[0].tolist()) for _ in range(start, stop)]


def _grid(definition: Definition, space: Space, start: int, stop: int) -> list[Params]:
    offset = 1 if definition.baseline is not None else 0
    twin = baseline_params(definition, space)
    points = space.grid() if twin is None else (point for point in space.grid() if make_key(point) != make_key(twin))
    return list(itertools.islice(points, start - offset, stop - offset))
