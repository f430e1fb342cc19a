"""Paths made of texts from a database: whatever the text, they stay inside, or one line says why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hpo.errors import RequestError
from hpo.utils.home import home, make_folder
from hpo.utils.paths import LONGEST, LONGEST_BYTES, ROOM, fit_name, is_key, is_name, is_own_file, study_path
from hpo.utils.text import shorten

WORDS = ("..", ".", "/", "\\", "~", "\0", "\n", " ", "-", "a", "é", "日", "x.y", "//", "C:", "\udc80", "%2e", "$HOME")
PARTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join)
TEXTS = PARTS | st.text(max_size=120) | st.text("ab12 .", max_size=110) | st.text("0123456789abcdef", max_size=10)
OTHER = st.none() | st.booleans() | st.integers() | st.floats() | st.lists(TEXTS, max_size=2)
NO_FILES = {"link", "../victim", "missing", ".", "", "../folder/own", "./own"}
SLOW = (HealthCheck.function_scoped_fixture,)


@settings(max_examples=200, deadline=None, suppress_health_check=SLOW)
@given(name=TEXTS, key=TEXTS | OTHER, kind=st.sampled_from(["weights", "logs", ""]))
@example(name="s", key="/../../../victim", kind="weights")
@example(name="../../esc/x", key=None, kind="weights")
@example(name="s", key="0a1b2c3d\n", kind="weights")
@example(name="日" * 90, key="0a1b2c3d", kind="weights")
def test_a_path_is_a_folder_directly_below_its_kind_or_there_is_none(name: str, key: object, kind: str) -> None:
    if not is_name(name) or not (key is None or is_key(key)):
        with pytest.raises(RequestError) as error:
            study_path(kind, name, key)
        line = str(error.value)
        assert (repr(name) if is_name(name) else shorten(name)) in line  # the study
        assert not is_name(name) or "hpo:key" in line  # the attribute
        assert len(line.splitlines()) == 1
        return
    path = study_path(kind, name, key)
    assert path.parent == home() / kind
    assert path.name == (name if key is None else f"{name}-{key}")
    assert Path(os.path.normpath(path)) == path
    make_folder(path)  # its name is one that this system allows
    assert path.resolve().parent == (home() / kind).resolve()


@pytest.mark.parametrize("place", ["the folder", "its kind"])
@pytest.mark.parametrize("target", ["outside", "missing"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, place: str, target: str) -> None:
    (tmp_path / "outside").mkdir()
    link = home() / "weights" / "s" if place == "the folder" else home() / "weights"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / target)
    with pytest.raises(RequestError, match=rf"study 's': its folder .* the link leads to .*/{target}"):
        study_path("weights", "s")


def test_a_home_that_is_a_link_itself_is_none_that_leads_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "link"))
    assert make_folder(study_path("logs", "s")) == tmp_path / "link" / "logs" / "s"


def test_a_file_is_a_folders_own_unless_a_link_leads_to_another(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own").touch()
    (folder / "link").symlink_to(tmp_path / "victim")
    found = {name: is_own_file(folder, name) for name in NO_FILES | {"own"}}
    assert found == {"own": True, **dict.fromkeys(NO_FILES, False)}


@settings(max_examples=100, deadline=None)
@given(name=st.text(min_size=1, max_size=130), suffix=st.sampled_from(["-evaluation-refit", "-evaluation-12", "-next"]))
@example(name="x" * 100, suffix="-evaluation-refit")
@example(name="日" * 100, suffix="-evaluation-refit")
def test_a_name_made_from_another_fits(name: str, suffix: str) -> None:
    fitted = fit_name(name, suffix)
    assert fitted.endswith(suffix)
    assert len(fitted) <= LONGEST
    assert len(fitted.encode(errors="replace")) <= LONGEST_BYTES
    if is_name(name, ROOM):
        assert fitted == name + suffix  # a new name leaves the room
    if is_name(name):
        assert is_name(fitted)
