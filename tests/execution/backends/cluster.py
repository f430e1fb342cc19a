"""A Ray cluster of one's own: every node is a `ray start`, whose processes can be killed as a machine's are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

# One cluster at a time on this machine: Ray finds others by their processes, and takes a second head for a mistake.
# Within one session the group "ray" of tests sees to it, without a process that waits.
ALONE = FileLock(Path(tempfile.gettempdir()) / "hpo-tests-ray.lock")
RAY = str(Path(sys.executable).parent / "ray")
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
MARK = "HPO_TEST_NODE"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """The nodes of a cluster; `address` is the head's, `folder` holds Ray's sessions and logs."""

    def __init__(self, folder: Path, cpus: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._nodes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.node("head", cpus, "--head", f"--port={self.address.split(':')[1]}", f"--temp-dir={folder}")

    def node(self, name: str, cpus: int, *options: str) -> None:
        """Start a node, and wait until it is part of the cluster."""
        joins = options or (f"--address={self.address}",)
        mark = f"{name}-{self.address}"
        command = [RAY, "start", "--block", f"--num-cpus={cpus}", "--object-store-memory=80000000", *joins]
        if options:
            command += ["--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
        with (self.folder / f"{name}.out").open("wb") as output:
            process = subprocess.Popen(
                command, env={**os.environ, **ENVIRONMENT, MARK: mark}, stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._nodes.append((mark, process))
        deadline = 60.0
        while b"Ray runtime started" not in (self.folder / f"{name}.out").read_bytes():
            assert process.poll() is None, (self.folder / f"{name}.out").read_text()
            deadline -= 0.2
            assert deadline > 0, (self.folder / f"{name}.out").read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)

    def kill(self, name: str) -> None:
        """End all processes of a node at once, those of its tasks too, as when its machine loses power."""
        mark = f"{MARK}={name}-{self.address}\0".encode()
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for mark, process in reversed(self._nodes):
            self.kill(mark.removesuffix(f"-{self.address}"))
            process.wait(120)


def marked(mark: bytes) -> list[int]:
    """The processes whose environment holds it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def cluster(cpus: int) -> Iterator[Cluster]:
    """A cluster of one node; Ray's sockets need a short path."""
    with ALONE:
        folder = Path(tempfile.mkdtemp(prefix="ray-"))
        made = None
        try:
            made = Cluster(folder, cpus)
            yield made
        finally:
            if made is not None:
                made.stop()
            shutil.rmtree(folder, ignore_errors=True)
