"""HPO_HOME in a URL: whatever its characters, the database is the file in that folder."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from hpo.errors import RequestError
from hpo.storage.url import mask, normalize
from hpo.study import StudyStorage, study_names
from hpo.utils.home import default_storage, file_url, home
from tests.helpers import run_hpo
from tests.study.helpers import make_study

PIECES = (
    *("?", "#", "%", "%20", "%3F", " ", "'", '"', "\\", "+", "&", "=", "@", ":", ";", "~", "{", "}", "$(x)", "é", "日"),
    *("password=x", "\n", "a", "..", "*", "[", "!"),
)
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
TEXTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20)


HOMES = ["a b", "a%20b", "a?b", 'it\'s #1: "100%" é+日 b\\\\c {0} $x']


@settings(max_examples=200, deadline=None)
@given(names=st.lists(NAMES | TEXTS, min_size=1, max_size=3))
@example(names=["a?b"])
@example(names=["a%20b"])
@example(names=["100%"])
def test_a_path_comes_back_from_its_url(names: list[str]) -> None:
    path = Path("/" + "/".join(names))
    url = file_url(path)
    for text in (
        url,
        make_url(url).render_as_string(hide_password=False),
        mask(url),
        shlex.split(shlex.quote(mask(url)))[0],
    ):
        assert make_url(text).database == str(path)
        assert dict(make_url(text).query) == {}
        assert normalize(text).database == str(path)


def test_a_study_is_in_the_file_of_its_own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process would see it: the URL goes to workers by the environment, and to people in commands to paste."""
    for number, name in enumerate(HOMES):
        monkeypatch.setenv("HPO_HOME", str(tmp_path / name))
        study = make_study(tmp_path, f"study {number}")
        storage = StudyStorage(default_storage())
        assert study_names(storage) == []
        copied = run_hpo("copy", study.name, "--to", default_storage(), "--storage", file_url(tmp_path / "studies.db"))
        assert copied.returncode == 0, copied.stderr
        assert (tmp_path / name / "hpo.db").is_file()
        command = shlex.split(copied.stderr.splitlines()[-1].partition(":  ")[2])
        pasted = command[command.index("--storage") + 1]
        listed = run_hpo("list", "--format", "json", "--storage", pasted)
        assert f'"study {number}"' in listed.stdout
        assert study_names(StudyStorage(pasted)) == [f"study {number}"]
    assert len(list(tmp_path.glob("*/hpo.db"))) == len(HOMES)


def test_a_home_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", os.fsdecode(b"/tmp/\xff"))
    with pytest.raises(RequestError, match=r"HPO_HOME: .* is not UTF-8"):
        home()
