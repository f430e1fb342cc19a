"""Fixtures, and the list of what was skipped because the machine lacks a server, a browser or a data set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.storage import network_fs
from hpo.storage.study_storage import StudyStorage
from tests import servers
from tests.study.helpers import sqlite_url

# The whole disk of some sandboxes is of a network's kind; the databases of the tests are this machine's alone.
if network_fs.find_network_mount(network_fs.normalize(f"sqlite:///{tempfile.gettempdir()}/studies.db")):
    os.environ[network_fs.ALLOW] = "1"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a home of its own, and nothing from the user's environment."""
    for name in ("OPTUNA_STORAGE", "HPO_IMPORT", "HPO_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if servers.POSTGRES is None:
        pytest.skip("PostgreSQL's programs are missing")
    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    if servers.MARIADB is None:
        pytest.skip("mariadbd is missing")
    with servers.mariadb() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that holds no studies."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    url: str = request.getfixturevalue(f"{request.param}_url")
    storage = StudyStorage(url)
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)
    storage.engine.dispose()
    return url


@pytest.fixture
def storage(any_url: str) -> Iterator[StudyStorage]:
    """An empty storage."""
    opened = StudyStorage(any_url)
    yield opened
    opened.engine.dispose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("not tested on this machine")
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where all that can be installed has been, a skip for want of it is a failure; hardware is no such thing."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if not (os.environ.get("HPO_NO_SKIPS") and reporter):
        return
    missing = [report for report in reporter.stats.get("skipped", []) if "hardware:" not in report.longrepr[2]]
    if missing and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
