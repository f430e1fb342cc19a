"""optuna-dashboard over a storage, served by waitress: read-only and on loopback by default."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from hpo.errors import RequestError
from hpo.report.dashboard.access import choose_access
from hpo.report.dashboard.middleware import guard_app, is_loopback
from hpo.utils.signals import StopRequest

if TYPE_CHECKING:
    from hpo.report.dashboard.access import Access
    from hpo.report.dashboard.connections import Server
    from hpo.study import Study, StudyStorage

__all__ = ["serve"]

POLL = 0.5  # seconds until a signal, or a client that has taken too long, is noticed
UNSAFE = "plain HTTP is not encrypted: whoever can read the network can read the token and the studies"


def serve(
    storage: StudyStorage,
    host: str = "127.0.0.1",
    port: int = 8080,
    study: Study | None = None,
    writable: bool = False,
) -> int:
    """Serve optuna-dashboard until SIGINT, SIGTERM or SIGHUP; returns 128 plus the signal's number.

    The address is printed on standard error once it answers. A host that others reach asks for a token: that of the
    environment variable `HPO_DASHBOARD_TOKEN`, or one that is made and printed. Loopback asks for one where the
    variable is set, or where it is writable and other users can log in to this machine.

    Args:
        storage: whose studies are shown.
        host: name or IP address to listen on.
        port: port to listen on; 0 takes a free one.
        study: whose page is printed as well.
        writable: whether the dashboard may change and delete studies.

    Raises:
        RequestError: the port is taken, the address is not this machine's, or the token is too short or not UTF-8.
    """
    from waitress import wasyncore

    from hpo.report.dashboard.application import make_application
    from hpo.report.dashboard.connections import close_overdue, open_servers

    local = is_loopback(host)
    access = choose_access(local=local, writable=writable)
    guard = guard_app(make_application(storage), local=local, writable=writable, token=access.token)
    sockets: dict[int, Any] = {}
    with StopRequest() as stop:
        try:
            server, *_ = open_servers(guard, sockets, host, port)
        except (OSError, ValueError) as error:
            raise RequestError(f"dashboard: cannot listen on {host}:{port}: {_error_text(error)}") from error
        try:
            lines = _address_lines(_dashboard_url(server, host), storage, study, access)
            _print_lines([*lines, *_remote_access_lines(server, host, local), "Ctrl-C stops it"])
            while not stop():
                wasyncore.loop(timeout=POLL, map=sockets, count=1, use_poll=True)
                close_overdue(sockets, monotonic())
        finally:
            server.task_dispatcher.shutdown()
            wasyncore.close_all(sockets)
    return stop.exit_code


def _error_text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; choose another port with --port"
    return str(error)


def _dashboard_url(server: Server, host: str) -> str:
    """Return the URL to open."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{server.effective_port}"


def _address_lines(address: str, storage: StudyStorage, study: Study | None, access: Access) -> list[str]:
    """Return lines with the addresses; a generated token is shown here and nowhere else."""
    lines = [f"dashboard of {storage.masked_url}: {address}/dashboard"]
    if study is not None:
        lines.append(f"study {study.name}: {address}/dashboard/studies/{study.id}")
    if access.shown is not None:
        lines[-1] += f"?token={access.shown}"
    return [*lines, access.reason] if access.reason else lines


def _remote_access_lines(server: Server, host: str, local: bool) -> list[str]:
    """Say how to reach it from elsewhere, and at what risk."""
    if not local:
        return [UNSAFE]
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:
        return []
    port, name = server.effective_port, f"[{host}]" if ":" in host else host
    at = "" if connection[3] == "22" else f" -p {connection[3]}"
    return [f"from your own machine: ssh{at} -L {port}:{name}:{port} {getpass.getuser()}@{connection[2]}"]


def _print_lines(lines: list[str]) -> None:
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
