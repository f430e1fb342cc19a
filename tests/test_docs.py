"""Every block of the documentation, as it stands, page by page, each page in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpo.cli import app
from tests.execution.backends.cluster import ALONE, marked
from tests.helpers import ROOT

# docs/postgresql.md has a test of its own, with a server that may not run as root.
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "postgresql.md")
BESIDE = [
    ROOT / name
    for name in ("README.md", "BENCHMARKS.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md")
]
GENERATED = ("docs/cli.md", "docs/parameters.md")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"#\s*([\w-]+\.(?:py|toml|yaml))\b")
# What no test can run: it installs, waits for a person, or needs a cluster; or what is not there yet.
NOT_RUN = {"sh install", "sh yourself", "sh cluster"}
KINDS = {"sh", "sh fails", "python", "toml", "yaml", "text", *NOT_RUN}


@dataclass
class Reader:
    """A person who does what a page says, in one shell: what a block sets, the next one has."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def do(self, kind: str, block: str) -> None:
        """Follow a block."""
        if kind == "text":
            self.check(block)
        elif kind in ("sh", "sh fails"):
            self.run(block, fails=kind == "sh fails")
        elif kind in ("toml", "yaml", "python") and (file := FILE.match(block)):
            (self.folder / file[1]).write_text(block, encoding="utf-8")
        elif kind == "toml":
            assert tomllib.loads(block)
        elif kind == "python":
            (self.folder / ".block.py").write_text(block, encoding="utf-8")
            self.run(f"{sys.executable} .block.py", fails=False)

    def run(self, block: str, *, fails: bool) -> None:
        """Type it; it must end well, or with one line and no traceback."""
        script = f"set -aeo pipefail\n{block}\nenv --null > .variables"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280, preexec_fn=one_core,
        )  # fmt: skip
        self.output = done.stdout
        assert (done.returncode != 0) == fails, f"{block}\n{done.stdout}"
        assert "Traceback" not in done.stdout, f"{block}\n{done.stdout}"
        if not fails:
            pairs = (self.folder / ".variables").read_text(encoding="utf-8").rstrip("\0").split("\0")
            self.variables = dict(pair.split("=", 1) for pair in pairs)

    def check(self, block: str) -> None:
        """What the page shows is in what was printed; `…` stands for anything."""
        for line in block.splitlines():
            pattern = ".*".join(map(re.escape, line.split("…")))
            assert re.search(pattern, self.output), f"{line}\nis not in\n{self.output}"


def one_core() -> None:
    """A machine of one core: where a page leaves the number of workers to the machine, one is quicker to start.

    Each process of the tests has its own, or two pages could share one while the other idles.
    """
    cores = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})


def reader(folder: Path) -> Reader:
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    variables = {"PATH": os.pathsep.join(places), "HOME": str(folder), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    kept = {name: os.environ[name] for name in ("HPO_SQLITE_ON_NETWORK", "PYTHONPATH") if name in os.environ}
    return Reader(folder, {**variables, **kept})


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    for kind, block in FENCE.findall(path.read_text(encoding="utf-8")):
        yield kind.strip(), block


RAY = {"scaling": pytest.mark.xdist_group("ray")}  # pages that start a cluster


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem, marks=RAY.get(page.stem, ())) for page in PAGES])
@pytest.mark.timeout(900)
def test_what_a_page_says_works(page: Path, tmp_path: Path) -> None:
    person = reader(tmp_path)
    with ALONE if page.stem == "scaling" else contextlib.nullcontext():
        follow(page, person)


def follow(page: Path, person: Reader) -> None:
    try:
        for kind, block in blocks(page):
            assert kind in KINDS, kind
            if kind not in NOT_RUN:
                person.do(kind, block)
    finally:
        for pid in marked(f"HOME={person.folder}\0".encode()):  # a cluster that the page has started
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_the_pages_are_those_that_people_need() -> None:
    assert {page.stem for page in PAGES} == {
        "cli", "cohorts", "dashboard", "experiments", "exporting", "folds", "from-hydra", "from-katib",
        "from-kerastuner", "from-nni", "from-optuna", "from-ray-tune", "from-wandb", "images", "importing",
        "index", "integrations", "metrics", "models", "objective-function", "optimizers", "own-data",
        "own-loop", "own-model", "parameters", "pretrained", "python-api", "quickstart", "reading-a-report",
        "resuming", "scaling", "sequences", "study-file", "test-set", "trackers", "troubleshooting",
    }  # fmt: skip


def test_little_is_not_run() -> None:
    skipped = [(page.name, line) for page in PAGES for kind, block in blocks(page) if kind in NOT_RUN
               for line in block.splitlines() if line and not line.startswith("#")]  # fmt: skip
    assert len(skipped) <= 12, skipped


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_command_and_every_option_that_is_written_exists() -> None:
    """Those in the text too, and those of pages whose commands would take hours."""
    commands = {
        name: {option for each in command.params for option in each.opts} for name, command in app.commands.items()
    }
    for page in (*PAGES, *BESIDE, ROOT / "docs" / "postgresql.md"):
        text = page.read_text(encoding="utf-8")
        typed = re.findall(r"`(hpo [a-z][^`\n]*)`", text)
        for kind, block in blocks(page):
            if kind.startswith("sh"):
                typed += re.findall(r"^\s*(?:\w+=\S+ )*(hpo [a-z][^\n|>]*)", block, re.MULTILINE)
        for line in typed:
            words = line.split("#")[0].split()
            assert words[1] in commands, f"{page.name}: {line}"
            given = {word.split("=")[0] for word in words if word.startswith("--")}
            for option in given - {"--help", "--debug"}:
                assert option in commands[words[1]], f"{page.name}: {line}"


def test_every_command_and_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## hpo (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(app.commands)
    for name, command in app.commands.items():
        for option in (option for each in command.params for option in each.opts if option.startswith("--")):
            assert option in sections[name], f"hpo {name} {option} is not in docs/cli.md: run make docs"


def test_the_readme_is_short_and_its_python_runs(tmp_path: Path) -> None:
    """Its commands are tested elsewhere; that they exist is checked above."""
    readme = ROOT / "README.md"
    assert readme.stat().st_size <= 7000
    person = reader(tmp_path)
    python = [block for kind, block in blocks(readme) if kind == "python"]
    assert len(python) == 1
    person.do("python", python[0])


@pytest.mark.parametrize("page", GENERATED)
def test_generated_pages_are_up_to_date(page: str) -> None:
    command = [sys.executable, "-m", "cogapp", "--check", page]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{page} is stale: run make docs and commit it\n{done.stdout}{done.stderr}"


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "cli.html").exists()
