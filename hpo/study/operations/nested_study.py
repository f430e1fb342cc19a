"""Nested evaluations: a study launched anew on the training part of each outer fold.

The study of an outer fold is a study of its own in the same storage: the definition of the study that is evaluated, on
its data set without the fold. What it chooses is evaluated as of any study, on its test set, which is the fold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from hpo.datasets import OuterFold
from hpo.errors import RequestError, StudyConflictError, StudyDamagedError
from hpo.study.attributes import DEFINITION, read_table
from hpo.study.definition import Definition
from hpo.study.operations.evaluation_study import evaluation_studies
from hpo.study.study import Study
from hpo.utils.paths import fit_name

__all__ = [
    "count_trials",
    "create_outer_study",
    "find_outer_study",
    "list_companions",
    "outer_studies",
    "present_outer_studies",
]

log = logging.getLogger("hpo.study")
MOST_NAMES = 100  # that are tried


def outer_studies(study: Study) -> list[Study]:
    """Return the studies of a study's outer folds in its storage, ordered by name; also those that are damaged."""
    names = [
        summary.study_name
        for summary in study.storage.get_all_studies()
        if read_table(summary.user_attrs, DEFINITION).get("nested_of") == study.name
    ]
    return [Study(study.storage, name) for name in sorted(names) if name != study.name]


def list_companions(study: Study) -> list[Study]:
    """List what belongs to a study: its evaluations, and the studies of its outer folds, each before its own."""
    nested = [each for outer in outer_studies(study) for each in (outer, *evaluation_studies(outer))]
    return [*evaluation_studies(study), *nested]


def present_outer_studies(study: Study) -> list[tuple[OuterFold, Study]]:
    """Return the outer folds that have a study, with it, ordered by the study's name.

    Left out are those with another definition than the study has now, for it was deleted and made again, and damaged
    ones, which is logged.
    """
    found: dict[OuterFold, Study] = {}
    for outer in outer_studies(study):
        if (fold := _read_fold(study, outer)) is not None:
            found.setdefault(fold, outer)
    return list(found.items())


def _read_fold(study: Study, outer: Study) -> OuterFold | None:
    """Return the fold of an outer study that has the study's definition and can be read."""
    try:
        fold = outer.definition.dataset.outer
        readable = bool(outer.space and outer.budget)
    except StudyDamagedError as error:
        log.warning("left out: %s", error)
        return None
    if fold is None or not readable or outer.definition.differences(_define(study, fold)):
        return None
    return fold


def find_outer_study(study: Study, fold: OuterFold) -> Study | None:
    """Return the study of an outer fold, if it is there with the definition that the study has now."""
    return next((outer for each, outer in present_outer_studies(study) if each == fold), None)


def create_outer_study(study: Study, fold: OuterFold) -> Study:
    """Create the study of an outer fold, or return the one that is there, with the study's budget.

    Raises:
        RequestError: no name is free.
    """
    if (existing := find_outer_study(study, fold)) is not None:
        existing.extend(study.budget)
        return existing
    definition = _define(study, fold)
    for name in _list_names(study, fold):
        try:
            return Study.create(study.storage, name, definition, study.budget)
        except StudyConflictError:
            continue
    raise RequestError(
        f"evaluate --outer-folds: the names of {MOST_NAMES} studies like {name} are taken; remove old ones with "
        "hpo delete"
    )


def count_trials(study: Study, folds: Sequence[OuterFold]) -> list[tuple[str, int, int]]:
    """Return for each outer fold the name of its study, the trials to train, and those that are finished."""
    rows = []
    for fold in folds:
        existing = find_outer_study(study, fold)
        budget = study.budget.trials
        if existing is None:
            rows.append((next(_list_names(study, fold)), budget, 0))
        else:
            done = sum(trial.state.is_finished() for trial in existing.trials())
            rows.append((existing.name, max(budget - done, 0), done))
    return rows


def _list_names(study: Study, fold: OuterFold) -> Iterator[str]:
    """Yield the names that the study of an outer fold may have, the usual one first."""
    usual = f"-outer-{fold.index + 1}-of-{fold.count}"
    yield fit_name(study.name, usual)
    for number in range(2, MOST_NAMES + 1):
        yield fit_name(study.name, f"{usual}-{number}")


def _define(study: Study, fold: OuterFold) -> Definition:
    definition = study.definition
    return definition.model_copy(update={"dataset": definition.dataset.without(fold), "nested_of": study.name})
