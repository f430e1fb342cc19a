"""Warm starts from another study: its best trials' values, as far as a new space holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from optuna.trial import FrozenTrial, TrialState

from hpo.config.trial_config import Value
from hpo.errors import HpoError, RequestError
from hpo.space import Space
from hpo.study.definition import Definition, constant_parameters
from hpo.study.study import Study
from hpo.study.warm_start import warm_params

__all__ = ["select_warm_starts"]


def select_warm_starts(
    study: Study, definition: Definition, top: int
) -> tuple[tuple[dict[str, Value], ...], str | None]:
    """The tables `warm_start` of a definition that begins with the best trials of a study.

    What the study held constant, or left to its default, is a value of theirs as well. Of trials that make the same
    table the best counts, and one that is the definition's baseline is left out: it is trained anyway.

    Args:
        study: whose trials.
        definition: what begins with them.
        top: how many.

    Returns:
        The tables, the best first; and a line that says which values the space does not hold, and that they are fewer
        than were asked for, None where there is nothing to say.

    Raises:
        RequestError: the study is an evaluation, has no COMPLETE trial, or none with a value that the space holds.
    """
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(f"warm_start: study '{study.name}' is an evaluation; begin with the trials of '{of}'")
    space, tables, lost = definition.space, list[dict[str, Value]](), dict[str, list[int]]()
    baseline = definition.baseline_config(space).effective() if definition.baseline is not None else {}
    best = _best(study)
    for trial in best:
        values = _values(study, trial)
        table = _table(space, values)
        if len(tables) < top and table and table not in tables and values != baseline:
            tables.append(table)
            for name in _lost(definition, space, values, table):
                lost.setdefault(f"{name} = {values[name]!r}", []).append(trial.number)
    if not tables:
        why = "the new space holds no value of its trials" if best else "it has no COMPLETE trial"
        raise RequestError(f"warm_start: nothing to begin with in study '{study.name}': {why}")
    words = ", ".join(f"{text} (trial {', '.join(map(str, numbers))})" for text, numbers in lost.items())
    parts = [f"begins with {len(tables)} of its trials, for no others differ in this space"] * (len(tables) < top)
    parts += [f"left out, for the space does not hold it: {words}"] * bool(lost)
    return tuple(tables), f"warm start from {study.name}: {'; '.join(parts)}" if parts else None


def _best(study: Study) -> list[FrozenTrial]:
    """The COMPLETE trials with a finite first objective, the best first: of several objectives the Pareto front first.

    Trials that violate a constraint are not COMPLETE.
    """
    done = [t for t in study.trials() if t.state == TrialState.COMPLETE and math.isfinite(t.values[0])]
    several = len(study.definition.objectives) > 1
    front = {trial.number for trial in study.optuna_study.best_trials} if several else set()
    sign = -1 if study.maximize else 1
    return sorted(done, key=lambda trial: (trial.number not in front, sign * trial.values[0], trial.number))


def _values(study: Study, trial: FrozenTrial) -> dict[str, Value]:
    try:
        return study.config_of(trial).effective()
    except (HpoError, TypeError, ValueError):  # others may have added what cannot be
        return {}


def _table(space: Space, values: Mapping[str, Value]) -> dict[str, Value]:
    """Of a configuration's values those that a trial of the space can be begun with."""
    misfits = space.misfits({**values, **constant_parameters(space)})
    varied = {d.parameter.name for d in space.varied}
    held = {name: value for name, value in values.items() if name in varied and name not in misfits}
    params = warm_params(space, held)
    return {d.parameter.name: params[d.key] for d in space.varied if d.key in params}


def _lost(definition: Definition, space: Space, values: Mapping[str, Value], table: Mapping[str, Value]) -> list[str]:
    """The names of values that a trial of the space will not have, or not for sure; a study has a seed of its own."""
    any_point = {d.key: d.domain.at(0) for d in space.varied}
    there = definition.config(space.values({**any_point, **warm_params(space, table)})).effective()
    varied = {d.parameter.name for d in space.varied} - {*table}
    return [name for name, value in values.items() if name != "seed" and (name in varied or there.get(name) != value)]
