"""The studies of a storage, a row each."""

from __future__ import annotations

from typing import Any

from optuna.study._frozen import FrozenStudy

from hpo.study.definition import Definition
from hpo.study.storage import StudyStorage
from hpo.study.study import DEFINITION, Study

__all__ = ["listing"]


def listing(storage: StudyStorage) -> list[dict[str, Any]]:
    """A row per study: how far it is, its best value, what it is about. Studies that others made are named as such."""
    return [_row(storage, study) for study in sorted(storage.get_all_studies(), key=lambda study: study.study_name)]


def _row(storage: StudyStorage, frozen: FrozenStudy) -> dict[str, Any]:
    counts = {state.name.lower(): count for state, count in storage.count_trials(frozen._study_id).items()}
    row: dict[str, Any] = {"name": frozen.study_name}
    if DEFINITION not in frozen.user_attrs:
        return {**row, "trials": sum(counts.values()), **counts, "note": "not made by hpo"}
    study = Study(storage, frozen.study_name)
    definition = Definition.model_validate(frozen.user_attrs[DEFINITION])
    best = study.best()
    return {
        **row,
        "trials": study.budget.trials,
        **counts,
        "best": best.values[0] if best else None,
        "objective": ", ".join(objective.metric for objective in definition.objectives),
        "dataset": definition.dataset.name,
        "sampler": definition.sampler.name,
    }
