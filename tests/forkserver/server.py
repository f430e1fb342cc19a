"""Server that forks, and what a forked process does to become the one that was asked for."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import runpy
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.forkserver.requests import SERVER_NAME, install, uninstall
from tests.forkserver.start import FORWARDED, Start, receive, send

__all__ = ["main", "run"]

# What the commands import besides our own modules; none of it starts a thread.
LIBRARIES = ("torch._dynamo", "scipy.stats", "sqlalchemy.dialects.sqlite", "psycopg", "pymysql")
FIELDS = {"arguments": 45, "variables": 47}  # of /proc/self/stat, after the name: where they begin; the end is next


def main() -> None:
    """Serve the process at the other end of standard input."""
    _import_all()
    run(*_serve(socket.socket(fileno=os.dup(0))))


def _import_all() -> None:
    """Import what commands import.

    Raises:
        RuntimeError: that has started a thread, which no forked process would have.
    """
    import hpo

    names = [each.name for each in pkgutil.walk_packages(hpo.__path__, "hpo.")]
    for name in (*names, *LIBRARIES):
        if not name.startswith("hpo.integrations") and not name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("an import of the fork server has started a thread: let it import less")
    gc.collect()
    gc.freeze()


def _serve(connection: socket.socket) -> tuple[Start, list[int]]:
    """Fork for each request; return it in the forked process. Ends with the other end of the connection.

    Each forked process is an orphan at once, and so becomes a child of the ancestor that has asked, who adopts.
    """
    for each in FORWARDED:
        signal.signal(each, signal.SIG_IGN)  # they reach a whole group; the server ends with its parent
    while True:
        try:
            message, descriptors = receive(connection)
        except (EOFError, OSError):
            os._exit(0)
        number, go = os.pipe(), os.pipe()
        if (middle := os.fork()) == 0:
            if pid := os.fork():
                os.write(number[1], struct.pack("!I", pid))
                os._exit(0)
            os.close(go[1])
            os.read(go[0], 1)  # until it has its parent
            return Start(*message), descriptors
        os.waitpid(middle, 0)
        pid = struct.unpack("!I", os.read(number[0], 4))[0]
        for each in (*number, *go, *descriptors):
            os.close(each)
        with contextlib.suppress(OSError):
            send(connection, pid)


def run(start: Start, descriptors: Sequence[int]) -> None:
    """Run a module or a script in this forked process, as `python` does, to the end of the process."""
    _become(start, descriptors)
    main = sys.modules["__main__"] = ModuleType("__main__")
    if start.module:
        _, spec, code = runpy._get_module_details(start.module)  # type: ignore[attr-defined]
        main.__file__, main.__spec__, main.__package__ = spec.origin, spec, spec.parent
        sys.argv = [spec.origin, *start.rest]
    else:
        main.__file__, main.__loader__ = start.script, SourceFileLoader("__main__", start.script)
        code = compile(Path(start.script).read_bytes(), start.script, "exec")
        sys.argv = start.arguments[-1 - len(start.rest) :]
    _end(_execute(code, main.__dict__))


def _become(start: Start, descriptors: Sequence[int]) -> None:
    uninstall()  # before its descriptor is another's
    _take_descriptors(descriptors)
    if start.session:
        os.setsid()
    if start.group >= 0:
        os.setpgid(0, start.group)
    for each in FORWARDED:
        signal.signal(each, signal.SIG_IGN if each in start.ignored else signal.SIG_DFL)
    if signal.SIGINT not in start.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.sched_setaffinity(0, start.cores)
    os.nice(max(0, start.nice - os.getpriority(os.PRIO_PROCESS, 0)))
    if start.umask >= 0:
        os.umask(start.umask)
    os.chdir(start.folder)
    _show(start.arguments, [f"{name}={value}" for name, value in start.environment.items()])
    _find_modules(start)
    os.environ.clear()
    os.environ.update(start.environment)
    install(_fork_server())
    _set_libraries(start.environment)


def _take_descriptors(descriptors: Sequence[int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) > 2:
            with contextlib.suppress(OSError):
                os.close(int(path.name))


def _find_modules(start: Start) -> None:
    """Look for modules where the process would, and forget those of this package."""
    before = {"", *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    first = [] if start.safe_path else [start.folder if start.module else str(Path(start.script).parent)]
    added = [path for path in start.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*first, *added, *(path for path in sys.path[1:] if path not in before)]
    sys.orig_argv = list(start.arguments)
    sys.dont_write_bytecode = bool(start.environment.get("PYTHONDONTWRITEBYTECODE"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]


def _set_libraries(environment: dict[str, str]) -> None:
    """Set what libraries read from variables as they are imported, and what each process has of its own."""
    import numpy as np
    import torch

    for stream in (sys.stdout, sys.stderr):
        at_once = bool(environment.get("PYTHONUNBUFFERED"))
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty(), write_through=at_once)  # type: ignore[union-attr]
    np.random.seed()
    threads = int(environment.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def _fork_server() -> socket.socket:
    """Fork a server for the children of this process, while it is as clean as the server that it came from."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.close(nothing)
    _show([SERVER_NAME], [])
    run(*_serve(theirs))
    raise AssertionError("a forked process returned from its end")


def _show(arguments: Iterable[str], variables: Iterable[str]) -> None:
    """Write arguments and variables where /proc shows them, over the padding that the first server was given."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    for name, texts in (("arguments", arguments), ("variables", variables)):
        begin, end = map(int, fields[FIELDS[name] : FIELDS[name] + 2])
        data = b"".join(os.fsencode(text) + b"\0" for text in texts)[: end - begin - 1]
        ctypes.memset(begin, 0, end - begin)
        ctypes.memmove(begin, data, len(data))


def _execute(code: Any, variables: dict[str, Any]) -> int:
    """Run code, and return the exit code of its process."""
    try:
        exec(code, variables)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        return 1
    return 0


def _end(code: int) -> None:
    """Do what an interpreter does as it ends, but take thousands of modules apart, which takes most of a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = 120
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code & 0xFF)
