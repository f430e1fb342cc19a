"""Fixtures, the tier of each test, and the list of what was skipped because the machine lacks a server or a browser."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: threads of tests that run side by side wait for each other, spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from hpo.storage import network_fs
from hpo.storage.study_storage import StudyStorage
from tests import servers
from tests.study.helpers import new_storage, sqlite_url

# The whole disk of some sandboxes is of a network's kind; the databases of the tests are this machine's alone.
if network_fs.find_network_mount(network_fs.normalize(f"sqlite:///{tempfile.gettempdir()}/studies.db")):
    os.environ[network_fs.ALLOW] = "1"

VISION = Path(__file__).parent.parent / "build" / "vision"  # timm and torchvision, where they are not installed

# The slowest tier is begun first, so that no long test is the last one.
TIERS = ("system", "integration", "unit")
SYSTEM = ("tests/chaos/", "tests/execution/backends/", "tests/integrations/",
          "tests/test_docs.py::test_what_a_page_says_works", "tests/test_examples.py",
          "tests/test_postgresql_recipe.py", "tests/training/test_loggers.py")  # fmt: skip
INTEGRATION = ("tests/cli/", "tests/storage/test_two_processes.py", "tests/report/test_browser.py",
               "tests/report/test_dashboard.py", "tests/report/test_page.py", "tests/test_docs.py")  # fmt: skip
SERVERS = {"postgres_url", "mariadb_url"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its one tier, and those that share a module's fixture one process, in which it is made once.

    Raises:
        pytest.UsageError: a test is marked with several tiers.
    """
    for item in items:
        tiers = {mark.name for mark in item.iter_markers() if mark.name in TIERS}
        if not tiers:
            tiers = {_tier(item)}
            item.add_marker(*tiers)
        if len(tiers) > 1:
            raise pytest.UsageError(f"{item.nodeid}: is marked {' and '.join(sorted(tiers))}; a test has one tier")
        if item.get_closest_marker("xdist_group") is None and _has_module_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
    items.sort(key=lambda item: next(i for i, tier in enumerate(TIERS) if item.get_closest_marker(tier)))


def _tier(item: pytest.Item) -> str:
    """Return the tier of a test that is not marked, by where it stands and by the servers that it uses."""
    if item.nodeid.startswith(SYSTEM):
        return "system"
    callspec: Any = getattr(item, "callspec", None)
    database = None if callspec is None else callspec.params.get("any_url")
    uses_server = SERVERS & set(getattr(item, "fixturenames", ())) or database in ("postgres", "mariadb")
    return "integration" if uses_server or item.nodeid.startswith(INTEGRATION) else "unit"


def _has_module_fixture(item: pytest.Item) -> bool:
    info: Any = getattr(item, "_fixtureinfo", None)
    return info is not None and any(each[-1].scope == "module" for each in info.name2fixturedefs.values())


@pytest.fixture(autouse=True)
def _no_process_in_a_unit_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test starts no program: `make test-fast` is to stay fast."""
    if request.node.get_closest_marker("unit") is None:
        return
    start = subprocess.Popen.__init__

    def check(self: subprocess.Popen[Any], args: str | Sequence[str], *more: Any, **keys: Any) -> None:
        if isinstance(args, list | tuple) and Path(args[0]).name.startswith(("python", "hpo", "chromium")):
            pytest.fail(f"starts {args}: mark it `@pytest.mark.integration`")
        start(self, args, *more, **keys)

    monkeypatch.setattr(subprocess.Popen, "__init__", check)


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
        new_storage(tmp_path).engine.dispose()
        return sqlite_url(tmp_path)
    url: str = request.getfixturevalue(f"{request.param}_url")
    servers.empty_database(url)
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


@pytest.fixture
def vision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have timm and torchvision for a test, in this process and in those that it starts."""
    if importlib.util.find_spec("timm") is None:
        if not VISION.is_dir():
            pytest.skip("package: no timm")
        monkeypatch.setattr(sys, "path", [*sys.path, str(VISION)])
        monkeypatch.setenv("PYTHONPATH", str(VISION))
