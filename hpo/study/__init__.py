"""Studies: definition and budget, samplers and pruners, and their trials in SQL."""

from hpo.storage.study_storage import StudyStorage
from hpo.study.definition import Budget, Definition, Objective
from hpo.study.study import ClaimedTrial, Study, study_names

__all__ = ["Budget", "ClaimedTrial", "Definition", "Objective", "Study", "StudyStorage", "study_names"]
