"""Definitions, storage, samplers, pruners: many trials in SQL."""

from hpo.study.definition import Budget, Definition, Objective
from hpo.study.storage import StudyStorage
from hpo.study.study import Claim, Study, study_names

__all__ = ["Budget", "Claim", "Definition", "Objective", "Study", "StudyStorage", "study_names"]
