"""A SQLite file that is deleted, moved or replaced while it is open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.study import StudyDirection

from hpo.errors import StorageLostError
from hpo.study import StudyStorage
from tests.study.helpers import new_storage, sqlite_url


def _delete(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def _delete_alone(path: Path) -> None:
    path.unlink()


def _move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def _replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").replace(path)


def _replace_by_an_empty_file(path: Path) -> None:
    path.unlink()
    path.touch()


GONE, REPLACED = "was deleted or moved", "was replaced by another file"
WAYS = {
    _delete: GONE,
    _delete_alone: GONE,
    _move: GONE,
    _replace_by_a_copy: REPLACED,
    _replace_by_an_empty_file: REPLACED,
}


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__.strip("_"))
def way(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    chosen: Callable[[Path], None] = request.param
    return chosen


def _open(tmp_path: Path) -> tuple[StudyStorage, Path, int]:
    storage = new_storage(tmp_path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    return storage, Path(str(storage.url.database)), study_id


def test_nothing_is_read_or_written_any_more(tmp_path: Path, way: Callable[[Path], None]) -> None:
    storage, path, study_id = _open(tmp_path)
    way(path)
    left = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    for call in (
        lambda: storage.set_study_user_attr(study_id, "a", 1),
        lambda: storage.create_new_trial(study_id),
        lambda: storage.get_all_trials(study_id),
        lambda: storage.get_all_studies(),
    ):
        with pytest.raises(StorageLostError, match=f"storage sqlite:.*: the file {WAYS[way]} while it was in use"):
            call()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()} == left


def test_what_it_held_is_saved_where_that_is_asked_for(tmp_path: Path, way: Callable[[Path], None]) -> None:
    storage, path, study_id = _open(tmp_path)
    storage.rescue_if_lost()
    storage.set_study_user_attr(study_id, "last", "written")
    way(path)
    for _ in range(2):
        with pytest.raises(StorageLostError):
            storage.get_all_studies()
    saved = storage.rescued
    assert [*tmp_path.glob("*.lost-*"), *tmp_path.glob(".*")] == [saved]
    copy = StudyStorage(f"sqlite:///{saved}", create=False)
    assert copy.get_study_user_attrs(copy.get_study_id_from_name("s")) == {"last": "written"}


def test_a_copy_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage, path, _ = _open(tmp_path)
    storage.rescue_if_lost()
    path.parent.rename(tmp_path.with_name("elsewhere"))
    with pytest.raises(StorageLostError, match=GONE):
        storage.get_all_studies()
    assert storage.rescued is None
    assert "could not be written, to save what the database held" in caplog.text


def test_a_file_that_stays_is_left_alone(tmp_path: Path) -> None:
    storage, path, study_id = _open(tmp_path)
    shutil.copy(path, tmp_path / "backup.db")
    path.touch()
    storage.engine.dispose()
    other = StudyStorage(sqlite_url(tmp_path))
    other.set_study_user_attr(study_id, "a", 1)
    assert storage.get_study_user_attrs(study_id) == {"a": 1}


def test_optunas_own_ask_and_tell_say_so_too(tmp_path: Path, way: Callable[[Path], None]) -> None:
    storage, path, _ = _open(tmp_path)
    study = optuna.load_study(study_name="s", storage=storage)
    trial = study.ask()
    trial.report(0.5, 1)  # waits to be written
    way(path)
    with pytest.raises(StorageLostError):
        study.tell(trial, 0.5)
