"""Stored studies as callers name them: by name, as ours, or as Optuna's."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from hpo.config import registry
from hpo.errors import RequestError
from hpo.storage.study_storage import StudyStorage
from hpo.study.study import Study
from hpo.utils.home import default_storage

__all__ = ["open_study"]


def open_study(study: str | Study | optuna.Study, storage: str | None = None, imports: Sequence[str] = ()) -> Study:
    """Return a stored study. To read it, what its definition names need not be registered.

    Args:
        study: its name; or a study, as `hpo.launch` returns one.
        storage: URL of the storage that a name is looked up in; by default the one that the commands use.
        imports: modules that register the user's models, data sets and metrics.

    Raises:
        RequestError: there is no such storage or study, a module cannot be imported, or Optuna's study is in a storage
            of another kind.
    """
    registry.import_modules(imports)
    return _open(study, storage)


def _open(study: str | Study | optuna.Study, storage: str | None) -> Study:
    if isinstance(study, Study):
        return study
    if isinstance(study, str):
        return Study(StudyStorage(storage or default_storage(), create=False), study)
    if not isinstance(study._storage, StudyStorage):
        raise RequestError(f"study '{study.study_name}' is not in an hpo.StudyStorage; give its name and storage=URL")
    return Study(study._storage, study.study_name)
