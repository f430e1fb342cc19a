"""Artifacts: files that belong to a study or to one of its trials, as Optuna and optuna-dashboard know them.

Their bytes lie in `HPO_HOME/artifacts/<name>-<key>/<id>`, a folder of the study alone, as its weights do; what they are
called and what they hold stands in the database, in the system attribute that Optuna has for it (`artifacts:<id>`).
The bytes are written first: whoever finds the attribute finds the file, on a machine that shares the `HPO_HOME`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound

from hpo.study.files.study_files import StudyFiles, study_folder
from hpo.study.study import Study
from hpo.utils.files import write_atomically
from hpo.utils.home import home

__all__ = ["Artifact", "ArtifactFolders", "find_artifact", "list_artifact_ids", "list_artifacts", "save_artifact"]

PREFIX = "artifacts:"
ID = re.compile(r"[0-9a-f-]{8,64}")


@dataclass(frozen=True)
class Artifact:
    """A file that belongs to a study or a trial.

    Attributes:
        id: its name on disk.
        filename: what it is called.
        mimetype: what it holds.
        path: where it is, if it is in this `HPO_HOME`.
    """

    id: str
    filename: str
    mimetype: str
    path: Path | None


def save_artifact(
    study: Study, filename: str, content: bytes, mimetype: str = "application/octet-stream", trial_id: int | None = None
) -> Artifact:
    """Keep a file with a study, or with one of its trials that has not ended; an earlier one of that name is replaced.

    Raises:
        LeaseLostError: the trial is another worker's by now.
        OSError: it cannot be written.
    """
    folder = StudyFiles(study).folder("artifacts")
    earlier = list_artifacts(study, _attrs(study, trial_id)).get(filename)
    key = secrets.token_hex(16) if earlier is None else earlier.id
    write_atomically(folder / key, content, sync=False)
    about = {"artifact_id": key, "filename": filename, "mimetype": mimetype, "encoding": None}
    text = json.dumps(about)  # Optuna and its dashboard store a text
    if trial_id is None:
        study.storage.set_study_system_attr(study.id, f"{PREFIX}{key}", text)
    else:
        study.storage.set_trial_system_attr(trial_id, f"{PREFIX}{key}", text)
    return Artifact(key, filename, mimetype, folder / key)


def list_artifacts(study: Study, system_attrs: Mapping[str, Any] | None = None) -> dict[str, Artifact]:
    """The artifacts of a study by file name, or those that the system attributes of a trial name."""
    attrs = study.storage.get_study_system_attrs(study.id) if system_attrs is None else system_attrs
    folder = study_folder("artifacts", study)
    found: dict[str, Artifact] = {}
    for key, value in attrs.items():
        if key.startswith(PREFIX):
            about = json.loads(value) if isinstance(value, str) else value
            if about is None:  # deleted in optuna-dashboard
                continue
            path = folder / about["artifact_id"] if folder and ID.fullmatch(about["artifact_id"]) else None
            here = path if path is not None and path.is_file() else None
            found[about["filename"]] = Artifact(about["artifact_id"], about["filename"], about["mimetype"], here)
    return found


def find_artifact(study: Study, filename: str, system_attrs: Mapping[str, Any] | None = None) -> Path | None:
    """The file of that name of a study, or of the trial with these system attributes; None where it is not here."""
    found = list_artifacts(study, system_attrs).get(filename)
    return None if found is None else found.path


def list_artifact_ids(study: Study) -> set[str]:
    """The ids of all artifacts of a study and its trials."""
    owners = [study.storage.get_study_system_attrs(study.id), *(trial.system_attrs for trial in study.trials())]
    return {key.removeprefix(PREFIX) for attrs in owners for key in attrs if key.startswith(PREFIX)}


def _attrs(study: Study, trial_id: int | None) -> Mapping[str, Any]:
    if trial_id is None:
        return study.storage.get_study_system_attrs(study.id)
    attrs: Mapping[str, Any] = study.storage.get_trial(trial_id).system_attrs
    return attrs


class ArtifactFolders:
    """All artifacts of this `HPO_HOME` as an `ArtifactStore` of Optuna, for optuna-dashboard."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file by its id.

        Raises:
            ArtifactNotFound: it is not here.
        """
        return self._path(artifact_id).open("rb")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep a file that somebody uploads, who does not say for which study."""
        if not ID.fullmatch(artifact_id):
            raise ArtifactNotFound(artifact_id)
        folder = home() / "artifacts" / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / artifact_id).write_bytes(content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Delete a file.

        Raises:
            ArtifactNotFound: it is not here.
        """
        self._path(artifact_id).unlink()

    def _path(self, artifact_id: str) -> Path:
        if ID.fullmatch(artifact_id):
            for path in (home() / "artifacts").glob(f"*/{artifact_id}"):
                return path
        raise ArtifactNotFound(f"artifact {artifact_id} is not in {home() / 'artifacts'}")
