"""A database whose texts are paths: no command writes to, reads from or removes a folder that is not the study's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from hpo.errors import RequestError
from hpo.study import Study, StudyStorage
from hpo.study.files.artifacts import ArtifactFolders, list_artifacts, save_artifact
from hpo.study.files.cleanup import find_study_folders, find_unneeded_files
from hpo.study.files.marker import MARKER, read_marker
from hpo.study.files.study_files import KEY, StudyFiles, list_local_weights, study_folder
from hpo.study.operations.copy_study import copy_study
from hpo.utils.files import write_atomically
from hpo.utils.home import home
from tests.helpers import run_hpo
from tests.study.helpers import make_study, sqlite_url

KEYS = ["/../../../victim", "../victim", "/etc", "", "0A1B2C3D", "0a1b2c3", "0a1b2c3d/", "..", 7, [1], {"a": 1}, True]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder beside `HPO_HOME`, with a file and with what could pass for a marker."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "precious").write_text("all that I have")
    home().mkdir(exist_ok=True)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def set_key(study: Study, key: Any) -> None:
    study.storage.set_study_user_attr(study.id, KEY, key)


def test_a_key_that_is_none_is_refused_by_name_and_deletes_nothing(tmp_path: Path, victim: Path) -> None:
    study = make_study(tmp_path)
    before = content(victim)
    for key in KEYS:
        set_key(study, key)
        with pytest.raises(RequestError, match=r"study 'small': its attribute hpo:key is ") as error:
            StudyFiles(study)
        assert repr(str(key)) in str(error.value)
        with pytest.raises(RequestError, match="hpo:key"):
            list_local_weights(study)
        [kept] = find_study_folders(study)
        assert kept.stays
        assert find_unneeded_files(study.storage, unknown=True) == []
    assert content(victim) == before
    assert list(home().iterdir()) == []


def test_no_command_leaves_the_home_by_a_key(tmp_path: Path, victim: Path) -> None:
    set_key(make_study(tmp_path), "/../../../victim")
    before = content(victim)
    for command in ("worker", "show"):
        done = run_hpo(command, "small", "--storage", sqlite_url(tmp_path))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "study 'small': its attribute hpo:key is '/../../../victim'" in done.stderr
    deleted = run_hpo("delete", "small", "--yes", "--storage", sqlite_url(tmp_path))
    assert deleted.returncode == 0, deleted.stderr
    assert "hpo:key" in deleted.stderr
    assert content(victim) == before
    assert list(home().iterdir()) == []


def rename(study: Study, name: str) -> Study:
    with study.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE studies SET study_name = :name"), {"name": name})
    return Study(StudyStorage(study.storage.url.render_as_string()), name)


def test_a_name_that_is_none_has_no_folders(tmp_path: Path, victim: Path) -> None:
    study = make_study(tmp_path)
    save_artifact(study, "a.txt", b"one")
    before = content(home())
    for name in ("../../esc/x", "a/b", ".", "..", "/abs", "a\nb", "-x"):
        study = rename(study, name)
        with pytest.raises(RequestError, match="no folder of ours can have its name"):
            StudyFiles(study)
        assert (list_artifacts(study)["a.txt"].path, list_local_weights(study), find_study_folders(study)) == (
            None, {}, [],
        )  # fmt: skip
    assert content(home()) == before


def test_a_name_that_is_none_needs_a_folder_from_the_user(tmp_path: Path, victim: Path) -> None:
    name = "../../esc/x"
    study = rename(make_study(tmp_path), name)
    before = content(tmp_path)
    for command in ("report", "worker"):
        done = run_hpo(command, name, "--storage", sqlite_url(tmp_path))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "--out DIR" in done.stderr
    assert content(tmp_path).keys() == before.keys()
    done = run_hpo("report", name, "--storage", sqlite_url(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()
    assert list(home().iterdir()) == []
    StudyFiles(copy_study(study, study.storage, "good"))


def test_delete_and_gc_follow_no_link_out_of_the_home(tmp_path: Path, victim: Path) -> None:
    study = make_study(tmp_path)
    save_artifact(study, "a.txt", b"one")
    folder = study_folder("weights", study)
    assert folder is not None
    (victim / MARKER).write_bytes((folder / MARKER).read_bytes())  # even with a marker that is right
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.symlink_to(victim)
    (victim / "99.safetensors").write_text("of no trial")
    before = content(victim)
    for options in ((), ("--unknown",)):
        assert run_hpo("gc", "--storage", sqlite_url(tmp_path), *options).returncode == 0
    assert content(victim) == before
    assert folder.is_symlink()
    deleted = run_hpo("delete", "small", "--yes", "--storage", sqlite_url(tmp_path))
    assert deleted.returncode == 0
    assert "link" in deleted.stderr
    assert content(victim) == before


def test_a_marker_of_another_folder_is_none(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = StudyFiles(study).folder("weights")
    other = folder.with_name("precious")
    other.mkdir()
    for text in ((folder / MARKER).read_text(), "[]", "null", "{}", "[" * 100_000, '{"study": [], "key": 1}', "\0"):
        (other / MARKER).write_text(text)
        assert read_marker(other) is None
        assert [each.stays for each in find_unneeded_files(study.storage) if each.path == other] == [True]


@pytest.mark.parametrize("how", ["file", "optuna"])
def test_a_study_that_was_copied_with_its_key_takes_nothing_from_the_first(tmp_path: Path, how: str) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)
    write_atomically(files.weights(4), b"weights")
    write_atomically(files.checkpoint(5), b"checkpoint")
    save_artifact(study, "a.txt", b"one")
    study.storage.flush()
    other = tmp_path / "other"
    other.mkdir()
    if how == "file":  # a backup, which somebody goes on with
        study.storage.engine.dispose()
        (other / "studies.db").write_bytes((tmp_path / "studies.db").read_bytes())
    else:
        optuna.copy_study(
            from_study_name="small", from_storage=sqlite_url(tmp_path), to_storage=sqlite_url(other),
        )  # fmt: skip
    copied = Study(StudyStorage(sqlite_url(other)), "small")
    before = content(home())
    assert copied.storage.get_study_user_attrs(copied.id)[KEY] == files.key
    assert all(each.stays for each in find_study_folders(copied))
    assert all(each.stays for each in find_unneeded_files(copied.storage, unknown=True))
    assert [each.stays for each in find_study_folders(study)] == [False] * 3

    again = StudyFiles(copied)  # as its worker begins
    assert again.key != files.key
    assert {number: path.read_bytes() for number, path in list_local_weights(copied).items()} == {4: b"weights"}
    assert again.checkpoint(5).read_bytes() == b"checkpoint"
    path = list_artifacts(copied)["a.txt"].path
    assert path is not None
    assert StudyFiles(copied).key == again.key
    again.weights(4).unlink()
    assert {name: data for name, data in content(home()).items() if files.key in name} == before
    deleted = run_hpo("delete", "small", "--yes", "--storage", sqlite_url(other))
    assert deleted.returncode == 0, deleted.stderr
    assert content(home()) == before


def test_a_home_that_has_moved_with_its_database_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home().mkdir()
    study = make_study(home())
    files = StudyFiles(study)
    write_atomically(files.weights(4), b"weights")
    study.storage.engine.dispose()
    home().rename(tmp_path / "moved")
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "moved"))
    moved = Study(StudyStorage(sqlite_url(home())), "small")
    assert list(list_local_weights(moved)) == [4]
    assert StudyFiles(moved).key == files.key
    assert [each.stays for each in find_study_folders(moved)] == [False] * 3  # the markers name the new place


@pytest.mark.parametrize(
    ("there", "here", "elsewhere", "same"),
    [
        ("postgresql://me@db/x", "postgresql://you:secret@db/x?sslmode=require", False, True),
        ("postgresql://me@db/x", "postgresql://me@db.example.org/x", False, False),  # perhaps another spelling
        ("postgresql://me@db/x", "postgresql://me@db/y", True, False),
        ("sqlite:////nowhere/a.db", "postgresql://me@db/x", True, False),
        ("postgresql://localhost/x", "sqlite:////nowhere/a.db", True, False),
        ("sqlite:////nowhere/a.db", "sqlite:////nowhere/b.db", False, False),  # perhaps it has moved
    ],
)
def test_what_a_marker_says_of_another_storage(there: str, here: str, elsewhere: bool, same: bool) -> None:
    from hpo.storage.url import normalize
    from hpo.study.files.marker import Marker, storage_place

    marker = Marker("s", "0a1b2c3d", storage_place(normalize(there)))
    assert (marker.is_elsewhere(normalize(here)), marker.is_in(normalize(here))) == (elsewhere, same)


def test_an_artifact_that_is_a_link_is_not_served(tmp_path: Path, victim: Path) -> None:
    study = make_study(tmp_path)
    saved = save_artifact(study, "a.txt", b"one")
    assert saved.path is not None
    saved.path.unlink()
    saved.path.symlink_to(victim / "precious")
    assert list_artifacts(study)["a.txt"].path is None
    with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
        ArtifactFolders().open_reader(saved.id)


def test_a_copy_of_a_study_with_a_bad_key_has_a_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = make_study(tmp_path)
    set_key(study, "/../../victim")
    with pytest.raises(RequestError, match="hpo copy NAME"):
        StudyFiles(study)
    copied = copy_study(study, study.storage, "good")
    assert "no files are copied: study 'small': its attribute hpo:key" in caplog.text
    marker = json.loads((StudyFiles(copied).folder("weights") / MARKER).read_text())
    assert marker["study"] == "good"
