"""Work that goes on, from the command line: forks, and studies that begin with the best trials of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.study import Study, StudyStorage, study_names
from tests.helpers import run_hpo
from tests.report.helpers import SPACE, filled
from tests.study.helpers import sqlite_url

LESS = 'optimizer=["adam", "nadam"]'


@pytest.fixture
def old(tmp_path: Path) -> Study:
    space = {**SPACE, "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    del space["momentum"]
    return filled(tmp_path, "old", parameters=space, trials=12, states=("COMPLETE", "COMPLETE", "FAIL"))


def test_a_fork_names_what_it_leaves_and_how_to_go_on(tmp_path: Path, old: Study) -> None:
    url = sqlite_url(tmp_path)
    asked = ["fork", "old", "new", "--set", LESS, "--trials", "20", "--storage", url]
    lost = [t.number for t in old.trials() if t.params["optimizer"] == "momentum" and t.state.name == "COMPLETE"]
    failed = [t.number for t in old.trials() if t.state.name == "FAIL"]
    kept = len(old.trials()) - len(lost) - len(failed)
    looked = run_hpo(*asked, "--dry-run", cwd=tmp_path)
    assert looked.returncode == 0, looked.stderr
    said = looked.stdout + looked.stderr
    for number in lost:
        assert f"not kept: trial {number}: optimizer = 'momentum' is no longer a choice (adam, nadam)" in said
    assert f"not kept: FAIL trials {', '.join(map(str, failed))}" in said
    assert f"study new would keep {kept} of 12 trials of old; its budget would be 20" in said
    assert study_names(old.storage) == ["old"]
    done = run_hpo(*asked, cwd=tmp_path)
    assert f"keeps {kept} trials of old; {20 - kept} of 20 are left" in done.stdout + done.stderr
    assert f"hpo launch new --storage {url}" in done.stdout + done.stderr
    assert Study(StudyStorage(url, create=False), "new").remaining() == 20 - kept


def test_a_fork_that_cannot_be_is_a_line(tmp_path: Path, old: Study) -> None:
    done = run_hpo("fork", "old", "old", "--set", LESS, "--storage", sqlite_url(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has a study 'old' already" in done.stderr


def test_a_warm_start_says_what_it_leaves_out(tmp_path: Path, old: Study) -> None:
    url = sqlite_url(tmp_path)
    (tmp_path / "next.toml").write_text("[parameters]\ndepth = [1, 2, 3]\n")
    asked = ["launch", "./next.toml", "--warm-start", "old", "--top", "3", "--workers", "0", "--storage", url]
    done = run_hpo(*asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: warm start from old: left out because the space does not allow it: " in done.stdout + done.stderr
    warm = Study(StudyStorage(url, create=False), "next").definition.warm_start
    assert 1 <= len(warm) <= 3
    refused = run_hpo(*asked, "--sampler", "random", "--name", "other", cwd=tmp_path)
    assert refused.returncode == 2
    assert "learns from no others; use an adaptive one, such as tpe" in refused.stderr


def test_a_smaller_budget_is_refused_by_file_and_by_name(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    (tmp_path / "small.toml").write_text('trials = 6\nsampler = "random"\n[parameters]\nwidth = [16, 32]\n')
    asked = ["--workers", "0", "--storage", url]
    assert run_hpo("launch", "./small.toml", "--trials", "20", *asked, cwd=tmp_path).returncode == 0
    for study in ("./small.toml", "small"):
        done = run_hpo("launch", study, "--trials", "5", *asked, cwd=tmp_path)
        assert done.returncode == 2
        assert "trials = 5: study 'small' has a budget of 20 trials already" in done.stderr
        assert "for 5 more give --trials 25" in done.stderr
        again = run_hpo("launch", study, *asked, cwd=tmp_path)  # the file's own number is no request
        assert again.returncode == 0, again.stderr
    assert Study(StudyStorage(url, create=False), "small").budget.trials == 20
