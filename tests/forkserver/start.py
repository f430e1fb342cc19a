"""Descriptions of processes to be started, and the messages that carry them."""

from __future__ import annotations

import array
import marshal
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# Read while Python or a library starts: with other values than the server's, a process needs a start of its own.
AT_START = ("PYTHON", "LD_", "LC_", "MKL_", "KMP_", "OPENBLAS_", "MALLOC_", "TORCH")
LIBRARIES = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # of the server, the second as `hpo` has it
# The first three are applied by the forked process, the last is what Python itself sets where there is no locale.
APPLIED = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}


class Start(NamedTuple):
    """What a process is started with.

    Attributes:
        arguments: of the interpreter.
        module: to run with `-m`, or an empty text.
        script: the file to run, or an empty text.
        rest: arguments of the module or script.
        safe_path: whether `-P` was given.
        environment: its variables.
        folder: to start in.
        umask: -1 leaves it as it is.
        session: whether it opens a session.
        group: of processes that it joins, 0 to found one; -1 stays in the one it is in.
        nice: priority.
        cores: that it may use.
        ignored: signals that it ignores.
    """

    arguments: list[str]
    module: str
    script: str
    rest: list[str]
    safe_path: bool
    environment: dict[str, str]
    folder: str
    umask: int = -1
    session: bool = False
    group: int = -1
    nice: int = 0
    cores: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()

    def inherit(self) -> Start:
        """Add what a child of this process would inherit."""
        ignored = tuple(int(each) for each in FORWARDED if signal.getsignal(each) == signal.SIG_IGN)
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        return self._replace(nice=nice, cores=tuple(sorted(os.sched_getaffinity(0))), ignored=ignored)


def find_start(arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> Start | None:
    """Return what a command starts; None where that cannot be forked: only `hpo`, files of users and our tests can."""
    programs = Path(sys.executable).parent
    words = list(arguments)
    if words[0] == str(programs / "hpo"):
        words.insert(0, sys.executable)
    if words[0] not in {sys.executable, *(str(programs / name) for name in ("python", "python3"))}:
        return None
    rest, safe_path = words[1:], words[1:2] == ["-P"]
    rest = rest[safe_path:]
    module = script = ""
    if rest[:1] == ["-m"] and (rest[1] == "hpo" or rest[1].startswith("tests.")):
        module, rest = rest[1], rest[2:]
    elif rest and (rest[0].endswith(".py") or rest[0] == str(programs / "hpo")):
        script, rest = str(Path(folder, rest[0])), rest[1:]
    if not Path(folder).is_dir() or not (module or Path(script).is_file()):
        return None
    if script.endswith(".py") and script.startswith((f"{ROOT}/hpo/", f"{sys.prefix}/", f"{sys.base_prefix}/")):
        return None
    return Start(words, module, script, rest, safe_path, dict(environment), folder)


def starts_alike(environment: Mapping[str, str], server: Mapping[str, str]) -> bool:
    """Return whether variables are those of the server, as far as they are read while a process starts."""
    names = {name for name in {*environment, *server} if name.startswith(AT_START)} - APPLIED
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    return (
        all(environment.get(name) == server.get(name) for name in names)
        and environment.get("OMP_NUM_THREADS", "1").isdecimal()
        and environment.get("OMP_WAIT_POLICY", "PASSIVE") == "PASSIVE"
        and not any(Path(path, "sitecustomize.py").exists() for path in paths)
    )


def send(connection: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:
    """Send a message, and descriptors with its length."""
    data = marshal.dumps(message)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([struct.pack("!I", len(data))], rights)
    connection.sendall(data)


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Return a message and its descriptors.

    Raises:
        EOFError: the other end is closed.
    """
    head, rights, *_ = connection.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    descriptors = array.array("i")
    for _, _, data in rights:
        descriptors.frombytes(data)
    if len(head) < 4:
        raise EOFError
    size, body = struct.unpack("!I", head)[0], b""
    while len(body) < size:
        if not (part := connection.recv(size - len(body))):
            raise EOFError
        body += part
    return marshal.loads(body), list(descriptors)
