"""Warm starts from another study: the values of its best trials, as far as a new space allows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from hpo.config.parameter import Value
from hpo.errors import HpoError, RequestError
from hpo.space import Space
from hpo.study.definition import Definition, constant_parameters
from hpo.study.study import Study
from hpo.study.warm_start import warm_params

__all__ = ["select_warm_starts"]


def select_warm_starts(
    study: Study, definition: Definition, top: int
) -> tuple[tuple[dict[str, JsonValue], ...], str | None]:
    """Select the tables `warm_start` of a definition that begins with the best trials of a study.

    Constants and defaults of the study are values of its trials as well. Of trials that make the same table the best
    one counts, and one that equals the definition's baseline is left out: it is trained anyway.

    Args:
        study: the study whose trials are used.
        definition: the definition of the new study.
        top: the number of trials.

    Returns:
        The tables, the best first; and a line that says which values the space does not allow, and if there are fewer
        tables than requested. The line is None if there is nothing to say.

    Raises:
        RequestError: the study is an evaluation, has no COMPLETE trial, or none with a value that the space allows.
    """
    if definition.configured:
        study.check_configured("warm_start")
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(f"warm_start: study '{study.name}' is an evaluation; begin with the trials of '{of}'")
    if not definition.configured:
        return _select_params(study, top)
    space, tables, lost = definition.space, list[dict[str, JsonValue]](), dict[str, list[int]]()
    baseline = definition.baseline_config(space).effective(space.domains) if definition.baseline is not None else {}
    best = _rank_trials(study)
    for trial in best:
        values = _trial_values(study, trial, space)
        table = _warm_start_table(space, values)
        if len(tables) < top and table and table not in tables and values != baseline:
            tables.append({**table})
            for name in _lost_values(definition, space, values, table):
                lost.setdefault(f"{name} = {values[name]!r}", []).append(trial.number)
    if not tables:
        why = "the new space allows no value of its trials" if best else "it has no COMPLETE trial"
        raise RequestError(f"warm_start: nothing to begin with in study '{study.name}': {why}")
    return tuple(tables), _format_note(study, tables, lost, top)


def _select_params(study: Study, top: int) -> tuple[tuple[dict[str, JsonValue], ...], str | None]:
    """Select the parameters of the best trials for an objective function, which may ask for others in their place."""
    if study.definition.configured:
        raise RequestError(
            f"warm_start: study '{study.name}' trains models, whose parameters an objective function does not know; "
            "begin with the trials of another objective function"
        )
    tables: list[dict[str, JsonValue]] = []
    for trial in _rank_trials(study):
        if len(tables) < top and trial.params and trial.params not in tables:
            tables.append(trial.params)
    if not tables:
        raise RequestError(f"warm_start: nothing to begin with in study '{study.name}': it has no COMPLETE trial")
    return tuple(tables), _format_note(study, tables, {}, top)


def _format_note(
    study: Study, tables: Sequence[Mapping[str, JsonValue]], lost: Mapping[str, Sequence[int]], top: int
) -> str | None:
    """Say which values are lost, by trial, and that there are fewer tables than requested; None for neither."""
    parts = []
    if len(tables) < top:
        parts.append(f"begins with {len(tables)} of its trials; no others differ in this space")
    if lost:
        values = ", ".join(f"{text} (trial {', '.join(map(str, numbers))})" for text, numbers in lost.items())
        parts.append(f"left out because the space does not allow it: {values}")
    return f"warm start from {study.name}: {'; '.join(parts)}" if parts else None


def _rank_trials(study: Study) -> list[FrozenTrial]:
    """Rank the COMPLETE trials with a finite first objective, the best first; with several objectives the Pareto front.

    Trials that violate a constraint are not COMPLETE.
    """
    complete = [t for t in study.trials() if t.state == TrialState.COMPLETE and t.values and math.isfinite(t.values[0])]
    several = len(study.definition.objectives) > 1
    front = {trial.number for trial in study.optuna_study.best_trials} if several else set()
    sign = -1 if study.maximize else 1
    return sorted(complete, key=lambda trial: (trial.number not in front, sign * trial.values[0], trial.number))


def _trial_values(study: Study, trial: FrozenTrial, space: Space) -> dict[str, Value]:
    try:
        return study.space_config_of(trial).effective(space.domains)
    except (HpoError, TypeError, ValueError):  # others may have added impossible values
        return {}


def _warm_start_table(space: Space, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values of a configuration that a trial of the space can begin with."""
    misfits = space.misfits({**values, **constant_parameters(space)})
    varied = {d.parameter.name for d in space.varied}
    allowed = {name: value for name, value in values.items() if name in varied and name not in misfits}
    params = warm_params(space, allowed)
    return {d.parameter.name: d.domain.exact(params[d.key]) for d in space.varied if d.key in params}


def _lost_values(
    definition: Definition, space: Space, values: Mapping[str, Value], table: Mapping[str, Value]
) -> list[str]:
    """Return the names of values that a trial of the space may not have; the seed is the study's own."""
    any_point = {d.key: d.domain.at(0) for d in space.varied}
    new = definition.config(space.values({**any_point, **warm_params(space, table)})).effective(space.domains)
    varied = {d.parameter.name for d in space.varied} - {*table}
    return [name for name, value in values.items() if name != "seed" and (name in varied or new.get(name) != value)]
