"""Programs for a shell: `hpo` and `python` as clients of a fork server."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)  # a client is started without any path

from tests.forkserver.start import FORWARDED, Start, find_start, receive, send, starts_alike  # noqa: E402

__all__ = ["programs"]


@contextlib.contextmanager
def programs(folder: Path) -> Iterator[None]:
    """Put `hpo` and `python` into a folder, for a shell to find them there; they work as long as this.

    Args:
        folder: with a short path, for it gets a socket.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address := str(folder / "server"))
    listener.listen()
    for name in ("hpo", "python", "python3"):
        real = Path(sys.executable).with_name(name)
        client = f'"{sys.executable}" -IS "{Path(__file__).resolve()}" "{address}" "{real}"'
        (folder / name).write_text(f'#!/bin/sh\nexec {client} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    with listener:
        command = [sys.executable, "-m", "tests.forkserver.shell"]
        server = subprocess.Popen(command, stdin=listener.fileno(), cwd=ROOT)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def _follow(address: str, command: Sequence[str]) -> None:
    """Stand for a forked process: pass signals on to it, and end as it does."""
    start = find_start(command, os.environ, str(Path.cwd()))
    connection = socket.socket(socket.AF_UNIX)
    pid = 0
    if start is not None:
        connection.connect(address)
        send(connection, tuple(start.inherit()), (0, 1, 2))
        pid = receive(connection)[0]
    if not pid:
        os.execv(command[0], command)
    for each in FORWARDED:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, lambda number, _: os.kill(pid, number))
    status = receive(connection)[0]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(1)
    os._exit(os.WEXITSTATUS(status))


def _listen(listener: socket.socket) -> tuple[Start, list[int]]:
    """Fork for each client; return its request in the forked process. The client gets the process id and the end."""
    own = os.getpid()
    clients: dict[socket.socket, int] = {}
    ends: dict[int, socket.socket] = {}  # by the descriptor of its process
    while True:
        for ready in select.select([listener, *clients, *ends], [], [])[0]:
            if ready is listener:
                client = listener.accept()[0]
                message, descriptors = receive(client)
                start = Start(*message)
                pid = os.fork() if starts_alike(start.environment, os.environ) else 0
                if os.getpid() != own:
                    return start, descriptors
                for each in descriptors:
                    os.close(each)
                send(client, pid)
                if pid:
                    clients[client] = pid
                    ends[os.pidfd_open(pid)] = client
            elif isinstance(ready, int):
                client = ends.pop(ready)
                os.close(ready)
                status = os.waitpid(clients.pop(client), 0)[1]
                with contextlib.suppress(OSError), client:
                    send(client, status)
            elif ready in clients and not ready.recv(1):  # the client was killed
                os.kill(clients[ready], signal.SIGKILL)


def main() -> None:
    """Follow a process as a client, or be the server of the clients."""
    if len(sys.argv) > 1:
        _follow(sys.argv[1], sys.argv[2:])
    from tests.forkserver.server import run

    run(*_listen(socket.socket(fileno=os.dup(0))))


if __name__ == "__main__":
    main()
