from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.dashboard import serve
from hpo.errors import RequestError
from hpo.study import Study
from tests.report.helpers import filled

CODE = """
import sys
from hpo.dashboard import serve
from hpo.study import Study, StudyStorage
storage = StudyStorage(sys.argv[1])
sys.exit(serve(storage, port=0, study=Study(storage, sys.argv[2])))
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return filled(tmp_path, states=("COMPLETE", "PRUNED"), trials=4)


@pytest.fixture
def server(study: Study) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", CODE, str(study.storage.url), study.name]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        found = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard/studies/1", lines[1])
        assert found, lines
        yield process, found[1]
        process.kill()


def fetch(url: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_serves_the_study_and_stops_on_a_signal(server: tuple[subprocess.Popen[str], str], study: Study) -> None:
    process, address = server
    summaries: Any = json.loads(fetch(f"{address}/api/studies")[1])["study_summaries"]
    assert [summary["study_name"] for summary in summaries] == ["filled"]
    trials = json.loads(fetch(f"{address}/api/studies/{study.id}")[1])["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Pruned", "Complete", "Pruned"]
    assert trials[0]["values"] == list(study.trials()[0].values)
    status, page = fetch(f"{address}/dashboard/studies/{study.id}")
    assert status == 200
    assert "<html" in page
    assert fetch(f"{address}/api/studies", host="evil.example")[0] == 403
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143


def test_a_port_that_is_taken(study: Study) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RequestError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            serve(study.storage, port=port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org"])
def test_an_address_that_others_reach_is_refused(study: Study, host: str) -> None:
    with pytest.raises(RequestError, match="the dashboard has no login"):
        serve(study.storage, host=host)


def test_an_address_that_is_not_ours(study: Study) -> None:
    with pytest.raises(RequestError, match="cannot listen on"):
        serve(study.storage, host="192.0.2.1", allow_remote=True)
