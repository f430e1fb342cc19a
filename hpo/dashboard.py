"""optuna-dashboard over a storage, served by waitress on loopback."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hpo.errors import RequestError
from hpo.signals import StopRequest

if TYPE_CHECKING:
    from hpo.study import Study, StudyStorage

__all__ = ["serve"]

Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]
POLL = 0.5  # seconds until a signal is noticed


def serve(
    storage: StudyStorage,
    host: str = "127.0.0.1",
    port: int = 8080,
    study: Study | None = None,
    allow_remote: bool = False,
) -> int:
    """Serve optuna-dashboard until SIGINT, SIGTERM or SIGHUP; returns 128 plus the signal's number.

    The address is printed on standard error once it answers.

    Args:
        storage: whose studies are shown.
        host: name or IP address to listen on.
        port: port to listen on; 0 takes a free one.
        study: whose page is printed as well.
        allow_remote: whether an address that others reach may be listened on. The dashboard has no login: whoever
            reaches it can change and delete studies.

    Raises:
        RequestError: the port is taken, or the address is not this machine's loopback, or does not exist.
    """
    local = _loopback(host)
    if not local and not allow_remote:
        raise RequestError(
            f"dashboard: {host} can be reached by others, and the dashboard has no login; listen on 127.0.0.1, "
            "or add --allow-remote"
        )
    from optuna_dashboard import wsgi
    from waitress import create_server, wasyncore

    application: Application = wsgi(storage)
    sockets: dict[int, Any] = {}
    with StopRequest() as stop:
        try:
            server = create_server(
                _own_names_only(application) if local else application, sockets, host=host, port=port
            )
        except (OSError, ValueError) as error:
            raise RequestError(f"dashboard: cannot listen on {host}:{port}: {_why(error)}") from error
        try:
            _announce(_address(server, host), storage, study)
            while not stop():
                wasyncore.loop(timeout=POLL, map=sockets, count=1)
        finally:
            server.task_dispatcher.shutdown()
            wasyncore.close_all(sockets)
    return stop.exit_code


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; choose another port with --port"
    return str(error)


def _loopback(host: str) -> bool:
    """Whether the address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _own_names_only(application: Application) -> Application:
    """Refuse requests for another host name.

    A page on the web can have its own name point to 127.0.0.1 (DNS rebinding) and then talk to whatever listens there;
    its requests still carry its name.
    """

    def guarded(environment: Environment, start: Callable[..., Any]) -> Iterable[bytes]:
        name = environment.get("HTTP_HOST", "").rsplit(":", 1)[0].strip("[]")
        if _loopback(name):
            return application(environment, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"Open this dashboard as 127.0.0.1 or localhost.\n"]

    return guarded


def _address(server: Any, host: str) -> str:
    """The URL to open; where several addresses are listened on, the first."""
    listening = getattr(server, "effective_listen", None) or [(host, server.effective_port)]
    port = int(listening[0][1])
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def _announce(address: str, storage: StudyStorage, study: Study | None) -> None:
    lines = [f"dashboard of {storage.masked_url}: {address}/dashboard"]
    if study is not None:
        lines.append(f"study {study.name}: {address}/dashboard/studies/{study.id}")
    sys.stderr.write("\n".join([*lines, "Ctrl-C stops it"]) + "\n")
    sys.stderr.flush()
