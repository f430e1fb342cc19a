"""optuna-dashboard over a storage, served by waitress: read-only and on loopback by default."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from hpo.errors import RequestError
from hpo.report.dashboard.middleware import guard_app, is_loopback
from hpo.utils.signals import StopRequest

if TYPE_CHECKING:
    from hpo.study import Study, StudyStorage

__all__ = ["serve"]

POLL = 0.5  # seconds until a signal is noticed
TOKEN = "HPO_DASHBOARD_TOKEN"
SHORTEST = 8  # characters of a token that somebody chose
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
    variable is set.

    Args:
        storage: whose studies are shown.
        host: name or IP address to listen on.
        port: port to listen on; 0 takes a free one.
        study: whose page is printed as well.
        writable: whether the dashboard may change and delete studies.

    Raises:
        RequestError: the port is taken, the address is not this machine's, or the token is too short.
    """
    from waitress import create_server, wasyncore

    local = is_loopback(host)
    token_of_environment = _token_from_environment()
    token = token_of_environment or (None if local else secrets.token_urlsafe(24))
    application = guard_app(_make_dashboard(storage), local=local, writable=writable, token=token)
    sockets: dict[int, Any] = {}
    with StopRequest() as stop:
        try:
            server = create_server(application, sockets, host=host, port=port, ident=None)
        except (OSError, ValueError) as error:
            raise RequestError(f"dashboard: cannot listen on {host}:{port}: {_error_text(error)}") from error
        try:
            lines = _address_lines(
                _dashboard_url(server, host), storage, study, None if token_of_environment else token
            )
            _print_lines([*lines, *_remote_access_lines(server, host, local), "Ctrl-C stops it"])
            while not stop():
                wasyncore.loop(timeout=POLL, map=sockets, count=1)
        finally:
            server.task_dispatcher.shutdown()
            wasyncore.close_all(sockets)
    return stop.exit_code


def _token_from_environment() -> str | None:
    token = os.environ.get(TOKEN, "")
    if token and len(token) < SHORTEST:
        raise RequestError(
            f"dashboard: {TOKEN} has {len(token)} characters, which can be guessed; set {SHORTEST} or more"
        )
    return token or None


def _make_dashboard(storage: StudyStorage) -> Any:
    """Make optuna-dashboard with the artifacts of this `HPO_HOME`."""
    from bottle import HTTPError
    from optuna.artifacts.exceptions import ArtifactNotFound
    from optuna_dashboard import wsgi

    from hpo.study.files.artifacts import ArtifactFolders

    class Served(ArtifactFolders):
        """A database may name artifacts whose files are on another machine: that is no error of the server."""

        def open_reader(self, artifact_id: str) -> BinaryIO:
            try:
                return super().open_reader(artifact_id)
            except ArtifactNotFound as error:
                raise HTTPError(404, "This artifact's file is not in this HPO_HOME.") from error

        def remove(self, artifact_id: str) -> None:
            with suppress(ArtifactNotFound):
                super().remove(artifact_id)

    return wsgi(storage, artifact_store=Served())


def _error_text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; choose another port with --port"
    return str(error)


def _listening_port(server: Any) -> int:
    """Return the port; of several addresses, the first one's."""
    listening = getattr(server, "effective_listen", None) or [("", server.effective_port)]
    return int(listening[0][1])


def _dashboard_url(server: Any, host: str) -> str:
    """Return the URL to open."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{_listening_port(server)}"


def _address_lines(address: str, storage: StudyStorage, study: Study | None, token: str | None) -> list[str]:
    """Return lines with the addresses; a generated token is shown here and nowhere else."""
    lines = [f"dashboard of {storage.masked_url}: {address}/dashboard"]
    if study is not None:
        lines.append(f"study {study.name}: {address}/dashboard/studies/{study.id}")
    if token is not None:
        lines[-1] += f"?token={token}"
    return lines


def _remote_access_lines(server: Any, host: str, local: bool) -> list[str]:
    """Say how to reach it from elsewhere, and at what risk."""
    if not local:
        return [UNSAFE]
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) != 4:
        return []
    port, name = _listening_port(server), f"[{host}]" if ":" in host else host
    at = "" if connection[3] == "22" else f" -p {connection[3]}"
    return [f"from your own machine: ssh{at} -L {port}:{name}:{port} {getpass.getuser()}@{connection[2]}"]


def _print_lines(lines: list[str]) -> None:
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
