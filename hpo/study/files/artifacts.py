"""Artifacts: files that belong to a study or to one of its trials, as Optuna and optuna-dashboard know them.

Their bytes lie in `HPO_HOME/artifacts/<name>-<key>/<id>`, in a folder of the study alone, as its weights do. Their
names and types are in the database, in Optuna's system attribute for them (`artifacts:<id>`). The bytes are written
first, so that whoever finds the attribute finds the file, on any machine that shares the `HPO_HOME`.
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

from hpo.storage.stored_values import parse_value
from hpo.study.attributes import read_table
from hpo.study.files.marker import leads_out
from hpo.study.files.study_files import StudyFiles, study_folder
from hpo.study.study import Study
from hpo.utils.files import write_atomically
from hpo.utils.home import home
from hpo.utils.paths import is_own_file

__all__ = ["Artifact", "ArtifactFolders", "find_artifact", "list_artifact_ids", "list_artifacts", "save_artifact"]

PREFIX = "artifacts:"
ID = re.compile(r"[0-9a-f-]{8,64}")


@dataclass(frozen=True)
class Artifact:
    """File that belongs to a study or a trial.

    Attributes:
        id: its name on disk.
        filename: its name for people.
        mimetype: the type of its content.
        path: its path if it is in this `HPO_HOME`, else None.
    """

    id: str
    filename: str
    mimetype: str
    path: Path | None


def save_artifact(
    study: Study, filename: str, content: bytes, mimetype: str = "application/octet-stream", trial_id: int | None = None
) -> Artifact:
    """Save a file with a study, or with one of its unfinished trials; an earlier one of that name is replaced.

    Raises:
        LeaseLostError: another worker has taken the trial over.
        OSError: the file cannot be written.
    """
    folder = StudyFiles(study).folder("artifacts")
    earlier = list_artifacts(study, _system_attrs(study, trial_id)).get(filename)
    key = secrets.token_hex(16) if earlier is None else earlier.id
    write_atomically(folder / key, content, sync=False)
    metadata = {"artifact_id": key, "filename": filename, "mimetype": mimetype, "encoding": None}
    text = json.dumps(metadata)  # Optuna and its dashboard store a text
    if trial_id is None:
        study.storage.set_study_system_attr(study.id, f"{PREFIX}{key}", text)
    else:
        study.storage.set_trial_system_attr(trial_id, f"{PREFIX}{key}", text)
    return Artifact(key, filename, mimetype, folder / key)


def list_artifacts(study: Study, system_attrs: Mapping[str, Any] | None = None) -> dict[str, Artifact]:
    """List the artifacts of a study, or those in the system attributes of a trial, by file name."""
    attrs = study.storage.get_study_system_attrs(study.id) if system_attrs is None else system_attrs
    folder = study_folder("artifacts", study)
    artifacts: dict[str, Artifact] = {}
    for name, value in attrs.items():
        if name.startswith(PREFIX):
            metadata = parse_value(value) if isinstance(value, str) else value
            texts = [read_table({name: metadata}, name).get(part) for part in ("artifact_id", "filename", "mimetype")]
            if not all(isinstance(text, str) for text in texts):  # deleted in optuna-dashboard, or damaged
                continue
            key, filename, mimetype = map(str, texts)
            here = folder is not None and ID.fullmatch(key) is not None and is_own_file(folder, key)
            existing = folder / key if folder is not None and here else None
            artifacts[filename] = Artifact(key, filename, mimetype, existing)
    return artifacts


def find_artifact(study: Study, filename: str, system_attrs: Mapping[str, Any] | None = None) -> Path | None:
    """Return the path of an artifact of a study or, given its system attributes, of a trial; None if it is not here."""
    artifact = list_artifacts(study, system_attrs).get(filename)
    return None if artifact is None else artifact.path


def list_artifact_ids(study: Study) -> set[str]:
    """List the ids of all artifacts of a study and its trials."""
    owners = [study.storage.get_study_system_attrs(study.id), *(trial.system_attrs for trial in study.trials())]
    return {key.removeprefix(PREFIX) for attrs in owners for key in attrs if key.startswith(PREFIX)}


def _system_attrs(study: Study, trial_id: int | None) -> Mapping[str, Any]:
    if trial_id is None:
        return study.storage.get_study_system_attrs(study.id)
    attrs: Mapping[str, Any] = study.storage.get_trial(trial_id).system_attrs
    return attrs


class ArtifactFolders:
    """Artifacts of this `HPO_HOME` as an `ArtifactStore` of Optuna, for optuna-dashboard."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file by its id.

        Raises:
            ArtifactNotFound: the file is not here.
        """
        return self._path(artifact_id).open("rb")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Save an upload, whose study is not known."""
        if not ID.fullmatch(artifact_id):
            raise ArtifactNotFound(artifact_id)
        folder = home() / "artifacts" / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / artifact_id).write_bytes(content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Delete a file.

        Raises:
            ArtifactNotFound: the file is not here.
        """
        self._path(artifact_id).unlink()

    def _path(self, artifact_id: str) -> Path:
        if ID.fullmatch(artifact_id):
            for path in (home() / "artifacts").glob(f"*/{artifact_id}"):
                if not leads_out(path):
                    return path
        raise ArtifactNotFound(f"artifact {artifact_id} is not in {home() / 'artifacts'}")
