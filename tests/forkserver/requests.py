"""Requests to the fork server, in place of the function by which `subprocess` starts processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.forkserver.start import LIBRARIES, ROOT, Start, find_start, receive, send, starts_alike

__all__ = ["SERVER_NAME", "cold", "install", "is_server", "uninstall"]

SERVER_NAME = "fork-server"  # as whose only argument /proc shows a server that was forked itself
PADDING = "-" * 32_000  # room in /proc for the arguments and the variables of forked processes
SET_CHILD_SUBREAPER = 36  # of prctl
_cold = False


@contextlib.contextmanager
def cold() -> Iterator[None]:
    """Start everything in an interpreter of its own meanwhile: for tests of the start itself."""
    global _cold
    before, _cold = _cold, True
    try:
        yield
    finally:
        _cold = before


def install(server: socket.socket | None = None) -> None:
    """Start processes through a fork server from now on: the given one, or one of our own at the first need."""
    if sys.platform == "linux" and not os.environ.get("HPO_TESTS_COLD"):
        uninstall()
        subprocess._fork_exec = Requests(subprocess._fork_exec, server)  # type: ignore[attr-defined]


def uninstall() -> None:
    """Start processes cold, and close the connection to the server."""
    before: Any = subprocess._fork_exec  # type: ignore[attr-defined]
    subprocess._fork_exec = getattr(before, "start_cold", before)  # type: ignore[attr-defined]


def is_server(pid: int) -> bool:
    """Return whether a child of a forked process is its fork server, which ends with it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == SERVER_NAME.encode()


class Requests:
    """Stand-in for `subprocess._fork_exec`.

    Args:
        start_cold: that function.
        server: connection to a server that is a child of this process; None starts one at the first need.
    """

    def __init__(self, start_cold: Callable[..., int], server: socket.socket | None) -> None:
        self.start_cold = start_cold
        self._server = server
        self._process: object = None
        self._owner = os.getpid()
        self._environment = dict(os.environ)
        self._lock = threading.Lock()

    def __call__(self, arguments: Any, executables: Any, close: Any, kept: Any, *more: Any) -> int:
        """Return the process id of a new child."""
        if not _cold and os.getpid() == self._owner and len(more) == 19:
            start = _read_call(arguments, kept, *more)
            if start is not None and starts_alike(start.environment, self._environment):
                streams = [own if given == -1 else given for own, given in enumerate((more[2], more[5], more[7]))]
                with self._lock:
                    return self._ask(start, streams)
        return self.start_cold(arguments, executables, close, kept, *more)

    def _ask(self, start: Start, streams: list[int]) -> int:
        if self._server is None:
            self._server = self._start_server()
        with _adopting():
            send(self._server, tuple(start), streams)
            pid: int = receive(self._server)[0]
        return pid

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        variables = {**self._environment, **LIBRARIES, "FORK_SERVER_PADDING": PADDING}
        command = [sys.executable, "-c", "from tests.forkserver.server import main; main()", PADDING]
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), cwd=ROOT, env=variables)
        return ours


def _read_call(arguments: Any, kept: Any, folder: Any, variables: Any, *more: Any) -> Start | None:
    """Return what a call of `_fork_exec` starts; None for what only a start of its own can do."""
    errors, session, group, gid, gids, uid, umask, before = more[7], *more[9:16]
    if set(kept) != {errors} or before is not None or (gid, gids, uid) != (None, None, None):
        return None
    pairs = os.environb.items() if variables is None else (pair.split(b"=", 1) for pair in variables)
    environment = {os.fsdecode(name): os.fsdecode(value) for name, value in pairs}
    start = find_start([os.fsdecode(word) for word in arguments], environment, os.fsdecode(folder or Path.cwd()))
    return start and start.inherit()._replace(umask=umask, session=bool(session), group=group)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of what a descendant leaves behind, meanwhile."""
    prctl = ctypes.CDLL(None).prctl
    prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)
