"""The command as a user runs it, in a process of its own or in this one."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpo.cli import main
from hpo.config import registry

ROOT = Path(__file__).parent.parent  # of the checkout
ALONE = {"OMP_NUM_THREADS": "1"}  # threads of tests that run side by side wait for each other, spinning


def hpo(
    *arguments: str, cwd: Path | None = None, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which takes seconds: its imports are most of it."""
    return subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        cwd=cwd,
        env={**ALONE, **os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start_hpo(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start the command, to be waited for or stopped."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpo", *arguments],
        cwd=cwd,
        env={**ALONE, **os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        # Tests that are started with nohup ignore SIGHUP, and what they start would too.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def run_hpo(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, with the result that `hpo` has.

    For whoever reads what a command prints or leaves behind. Signals, and what a process does as it starts and ends,
    need `hpo`.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        _like_a_process(patch, cwd, imports="--import" in arguments),
        CliRunner().isolation() as (output, errors, _),
    ):
        patch.setattr(sys, "argv", [str(ROOT / "hpo" / "__main__.py"), *arguments])
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in environment.items():
            patch.setenv(name, value)
        code = _exit_code(patch, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        return subprocess.CompletedProcess(arguments, code, output.getvalue().decode(), errors.getvalue().decode())


def train_here(study: str, *options: str, cwd: Path, storage: str | None = None) -> None:
    """Launch a study file, and train it in this process: a worker of its own takes seconds to start.

    Args:
        study: the file, or the template.
        options: of `hpo worker`; `--import` goes to both commands.
    """
    where = () if storage is None else ("--storage", storage)
    imports = [part for i, part in enumerate(options) if "--import" in (part, options[i - 1] if i else "")]
    for command in (["launch", study, "--workers", "0", *imports], ["worker", Path(study).stem, *options]):
        done = run_hpo(*command, *where, cwd=cwd)
        assert done.returncode == 0, done.stderr


def _exit_code(patch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> int:
    """Run the command and all that it would leave to the end of its process."""
    endings: list[Callable[[], object]] = []

    def register(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        endings.append(lambda: function(*args, **kwargs))
        return function

    patch.setattr(atexit, "register", register)
    try:
        main(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    finally:
        for ending in reversed(endings):
            ending()
    raise AssertionError("the command returned without an exit code")


@contextlib.contextmanager
def _like_a_process(patch: pytest.MonkeyPatch, cwd: Path | None, *, imports: bool) -> Iterator[None]:
    """Undo what only the end of a process undoes: logging, warnings, registered names, variables, torch's threads.

    A command that imports no module knows no names but ours, whatever other tests have registered in this process.
    """
    patch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()  # a module of the user's may have been written a moment ago
    root, alembic = logging.getLogger(), logging.getLogger("alembic")
    patch.setattr(root, "handlers", [])  # pytest's
    levels = root.level, alembic.level
    entries = [(kind._entries, dict(kind._entries)) for kind in (registry.models, registry.datasets, registry.metrics)]
    if not imports:
        for registered, before in entries:
            registered.clear()
            registered.update({name: entry for name, entry in before.items() if entry.builtin})
    variables = dict(os.environ)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    try:
        with warnings.catch_warnings():
            _warn_like_an_interpreter()
            yield
    finally:
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", "1")))
        for name, module in list(sys.modules.items()):
            if cwd is not None and (getattr(module, "__file__", None) or "").startswith(f"{cwd}{os.sep}"):
                del sys.modules[name]
        os.environ.clear()
        os.environ.update(variables)
        for known, before in entries:
            known.clear()  # type: ignore[attr-defined]
            known.update(before)  # type: ignore[attr-defined]
        root.setLevel(levels[0])
        alembic.setLevel(levels[1])


def _warn_like_an_interpreter() -> None:
    """Print warnings on standard error, but those that Python itself leaves out."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    warnings.showwarning = show
