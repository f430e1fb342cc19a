"""Workers that end with a wrong request: the launch says their own line, and does not advise to launch again."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from hpo.errors import RequestError, RunError
from hpo.execution.launch import run_workers
from hpo.execution.worker_options import WorkerOptions
from tests.study.helpers import make_study

LINE = "data set 'mine': its labels are for regression, but the study is for classification; register it anew"
REFUSED = "worker 7 ended with exit code 2: hpo: {} (log: /logs/a (1).log)"
CRASHED = "worker 8 ended with exit code 1: hpo: out of memory (log: /logs/b.log)"


class NoBackend:
    def start(self, *_: object) -> list[object]:
        return []


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, failures: list[str]) -> str:
    monkeypatch.setattr("hpo.execution.launch.watch_study", lambda *_: failures)
    with pytest.raises((RequestError, RunError)) as raised:
        run_workers(make_study(folder, trials=3), WorkerOptions(), backend=NoBackend())  # type: ignore[arg-type]
    return f"{raised.value.exit_code} {raised.value}"


def test_workers_that_all_refuse_are_one_line_and_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch, [REFUSED.format(LINE)] * 3) == f"2 {LINE}"


def test_one_that_fails_otherwise_may_be_launched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = run(tmp_path, monkeypatch, [REFUSED.format(LINE), CRASHED])
    assert line.startswith("1 worker 7 ended")
    assert line.endswith("3 of 3 trials are left; launch again to go on with them")


def test_a_study_in_memory_has_no_workers_of_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, trials=3)
    monkeypatch.setattr(study.storage, "url", make_url("sqlite://"))
    with pytest.raises(RequestError, match=r"^storage sqlite://: is in memory, .*; give a file, as sqlite:///"):
        run_workers(study, WorkerOptions(), backend=NoBackend())  # type: ignore[arg-type]
