"""Commands on a damaged database, in this process, with a canary beside HPO_HOME."""

from __future__ import annotations

import hashlib
import shutil
import signal
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from alembic.script import ScriptDirectory
from optuna.storages import _rdb

from hpo.report.dashboard.application import make_application
from hpo.report.dashboard.middleware import guard_app
from hpo.study import StudyStorage
from tests.helpers import run_hpo
from tests.hostile.damage import Damage

__all__ = ["COMMANDS", "HEALTHY", "Home", "list_faults"]

HEALTHY = Path(__file__).parents[1] / "study" / "fixtures" / "before_0.2"
NAME = "random"
COMMANDS: dict[str, Sequence[str]] = {
    "list": ("list",),
    "list --format json": ("list", "--format", "json"),
    "show": ("show", NAME),
    "show --format json": ("show", NAME, "--format", "json"),
    "trials": ("trials", NAME),
    "trials --format json": ("trials", NAME, "--format", "json"),
    "report": ("report", NAME),
    "report --suggest": ("report", NAME, "--suggest", "next.toml"),
    "export": ("export", NAME),
    "export --trial": ("export", NAME, "--trial", "1"),
    "export --weights": ("export", NAME, "--weights", "model"),
    "export --trials": ("export", NAME, "--trials", "records"),
    "evaluate": ("evaluate", NAME, "--workers", "0", "--seeds", "3"),
    "reproduce": ("reproduce", NAME, "1"),
    "copy": ("copy", NAME, "--to", "sqlite:///copy.db"),
    "fork": ("fork", NAME, "forked", "--set", "epochs=3"),
    "delete": ("delete", NAME, "--yes"),
    "gc": ("gc",),
    "gc NAME": ("gc", NAME, "--dry-run"),
    "retry": ("retry", NAME),
    "retry --trial": ("retry", NAME, "--trial", "1"),
    "stop": ("stop", NAME, "--wait", "0"),
    "worker": ("worker", NAME, "--device", "cpu"),
    "launch": ("launch", "study.toml", "--workers", "0"),
    "launch --trials": ("launch", "study.toml", "--workers", "0", "--trials", "6"),
    "launch --warm-start": ("launch", "warm.toml", "--workers", "0", "--warm-start", NAME),
    "doctor": ("doctor",),
    "list others": ("show", "tpe"),
    "dashboard": (),
}
OTHER = "tpe"  # a study that nothing is done to
PAGES = ("/", "/dashboard", "/dashboard/studies/1", "/api/studies", "/api/studies/1", "/api/studies/4", "/api/meta")
SAID = 2000  # characters of a line
HEAD = ScriptDirectory(str(Path(_rdb.__file__).parent / "alembic")).get_current_head()
LIMIT = 30  # seconds of a command


class Home:
    """Copy of the healthy `HPO_HOME` with a canary beside it, whose database is damaged anew for each command.

    Attributes:
        code, stdout, stderr: of the last command.
    """

    code: int
    stdout: str
    stderr: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "outer" / "home"
        self.work = folder / "outer" / "work"
        for canary in (folder / "victim", folder / "outer" / "victim"):
            canary.mkdir(parents=True)
            (canary / "kept.txt").write_text("kept")
        shutil.copytree(HEALTHY, self.home)
        self.files = _list_files(self.home)
        signal.signal(signal.SIGALRM, _fail)
        self.outside = self._digest_outside()

    def run(self, damage: Damage, command: str) -> list[str]:
        """Run a command on the damaged database, and list what is wrong with how it went."""
        self.restore()
        damage.do(self.home / "hpo.db")
        (self.work / "study.toml").write_text(_study_file(NAME))
        (self.work / "warm.toml").write_text(_study_file("warm", 'sampler = "tpe"'))
        before = _read_other(self.home / "hpo.db")
        signal.alarm(LIMIT)
        # Each command finds out which revision of the tables is the newest, by running every script of Optuna's.
        with mock.patch.object(ScriptDirectory, "get_current_head", return_value=HEAD):
            try:
                faults = (
                    _ask_dashboard(self.home / "hpo.db") if command == "dashboard" else self._run(COMMANDS[command])
                )
            except _TooSlowError:
                faults = [f"took more than {LIMIT} s"]
            finally:
                signal.alarm(0)
        if _read_other(self.home / "hpo.db") != before:
            faults.append("another study was changed")
        if self._digest_outside() != self.outside:
            faults.append("something outside HPO_HOME was changed")
            self.outside = self._digest_outside()
        return faults

    def restore(self) -> None:
        """Make everything healthy again."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for file in self.home.glob("hpo.db*"):  # another file, for the last command's may still be open
            file.unlink()
        shutil.copyfile(HEALTHY / "hpo.db", self.home / "hpo.db")
        if _list_files(self.home) != self.files:
            shutil.rmtree(self.home)
            shutil.copytree(HEALTHY, self.home)

    def _run(self, arguments: Sequence[str]) -> list[str]:
        done = run_hpo(*arguments, cwd=self.work, HPO_HOME=str(self.home), HPO_DATA=str(self.home))
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        return list_faults(self.code, self.stdout, self.stderr)

    def _digest_outside(self) -> dict[str, str]:
        inner = (self.home, self.work)
        folders = [path for path in (*self.folder.iterdir(), *self.home.parent.iterdir()) if path not in inner]
        return {
            f"{path}/{name}": digest
            for path in folders
            if path != self.home.parent
            for name, digest in _digest(path).items()
        }


class _TooSlowError(BaseException):
    """Alarm of a command that takes too long, which no `except Exception` stops."""


def _fail(*_: object) -> None:
    raise _TooSlowError


def list_faults(code: int, stdout: str, stderr: str) -> list[str]:
    """List what is wrong with how a command ended."""
    errors = [line for line in stderr.splitlines() if line.startswith("hpo: ")]
    faults = [f"exit code {code}"] if code not in (0, 1, 2) else []
    faults += [f"{word}: {stderr[-3000:]}" for word in ("unexpected", "Traceback") if word in stderr + stdout]
    faults += [f"{len(errors)} errors: {errors}"] if len(errors) > 1 else []
    faults += [f"a line of {len(line)} characters: {line[:200]}" for line in stderr.splitlines() if len(line) > SAID]
    return faults


def _study_file(name: str, more: str = "") -> str:
    return (
        f'name = "{name}"\ndataset = "before.npz"\ntrials = 4\n{more}\n[parameters]\nwidth = [2, 4]\nvalidation = 40\n'
    )


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def _list_files(folder: Path) -> set[tuple[str, int]]:
    """Return the files of a folder with their sizes."""
    return {
        (path, Path(path).stat().st_size)
        for path in map(str, folder.rglob("*"))
        if not path.endswith((".db-shm", ".db-wal"))
    }


def _read_other(file: Path) -> list[Any]:
    connection = sqlite3.connect(file)
    query = "SELECT study_id FROM studies WHERE study_name = ?"
    rows = connection.execute(
        f"SELECT key, value_json FROM study_user_attributes WHERE study_id IN ({query}) "
        f"UNION ALL SELECT trial_id, state FROM trials WHERE study_id IN ({query})",
        (OTHER, OTHER),
    ).fetchall()
    connection.close()
    return rows


def _ask_dashboard(file: Path) -> list[str]:
    storage = StudyStorage(f"sqlite:///{file}", create=False)
    faults = []
    for page in PAGES:
        errors: list[str] = []
        status = _ask(guard_app(make_application(storage), local=True, writable=False, token=None), page, errors.append)
        if status.startswith("5") or errors:
            faults.append(f"{page}: {status} {' '.join(errors)[-1500:]}")
    storage.engine.dispose()
    return faults


def _ask(application: Any, page: str, write: Callable[[str], object]) -> str:
    import io

    said: list[str] = []
    errors = io.StringIO()
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": page,
        "HTTP_HOST": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": errors,
        "HTTP_ACCEPT_ENCODING": "gzip",
    }
    body = application(environment, lambda status, headers, *_: said.append(status))
    b"".join(body)
    if errors.getvalue():
        write(errors.getvalue())
    return said[0]
