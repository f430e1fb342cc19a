"""Artifacts: where they lie, what Optuna knows of them, and what copies, deletions and sweeps make of them."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from hpo.study import Study, StudyStorage
from hpo.study.files.artifacts import ArtifactFolders, find_artifact, list_artifacts, save_artifact
from hpo.study.files.cleanup import find_study_folders, find_unneeded_files
from hpo.study.files.study_files import study_folder
from hpo.study.operations.copy_study import copy_study
from tests.study.helpers import holder, make_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path)


def test_a_studys_artifact_is_as_optuna_lists_it(study: Study) -> None:
    saved = save_artifact(study, "a.txt", b"one", "text/plain")
    (meta,) = optuna.artifacts.get_all_artifact_meta(study.optuna_study)
    assert (meta.artifact_id, meta.filename, meta.mimetype) == (saved.id, "a.txt", "text/plain")
    with ArtifactFolders().open_reader(meta.artifact_id) as file:
        assert file.read() == b"one"


def test_another_of_that_name_replaces_it_and_keeps_its_id(study: Study) -> None:
    first = save_artifact(study, "a.txt", b"one")
    second = save_artifact(study, "a.txt", b"two", "text/plain")
    assert first.id == second.id
    path = find_artifact(study, "a.txt")
    assert path is not None
    assert path.read_bytes() == b"two"
    assert list_artifacts(study)["a.txt"].mimetype == "text/plain"
    assert find_artifact(study, "b.txt") is None


def test_a_trials_artifact_is_the_trials_alone(study: Study) -> None:
    claim = study.claim(holder("w"))
    assert claim is not None
    save_artifact(study, "p.npz", b"p", trial_id=claim.id)
    trial = study.trials()[claim.number]
    assert find_artifact(study, "p.npz", trial.system_attrs) is not None
    assert list_artifacts(study) == {}


@pytest.mark.parametrize("key", ["../studies.db", "..", "", "a/b", "zz" * 16, "0" * 32])
def test_nothing_but_an_artifact_is_read_or_removed(study: Study, key: str) -> None:
    save_artifact(study, "a.txt", b"one")
    store = ArtifactFolders()
    with pytest.raises(ArtifactNotFound):
        store.open_reader(key)
    with pytest.raises(ArtifactNotFound):
        store.remove(key)


def test_a_copy_has_its_own_files(study: Study, tmp_path: Path) -> None:
    save_artifact(study, "a.txt", b"one")
    copied = copy_study(study, StudyStorage(f"sqlite:///{tmp_path / 'other.db'}"), "copy")
    save_artifact(study, "a.txt", b"two")
    path = find_artifact(copied, "a.txt")
    assert path is not None
    assert path.read_bytes() == b"one"


def test_sweeping_keeps_what_is_named_and_finds_what_is_not(study: Study) -> None:
    save_artifact(study, "a.txt", b"one")
    folder = study_folder("artifacts", study)
    assert folder is not None
    stray = folder / ("f" * 32)
    stray.write_bytes(b"left by a writer that was killed")
    assert find_unneeded_files(study.storage) == []  # it may be about to be named
    os.utime(stray, (0, 0))
    assert [each.path for each in find_unneeded_files(study.storage)] == [stray]
    assert folder in [each.path for each in find_study_folders(study)]
