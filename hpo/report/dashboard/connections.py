"""HTTP connections: waitress with a check before the body, and with limits on time and number.

waitress reads headers and bodies of all clients in one thread that never waits for any, so that a slow one holds
nobody up; servers with a thread per connection (cheroot, gunicorn) are stopped by as many slow clients as they have
threads. Three things it lacks are added here. It keeps a whole body, in a temporary file, before the application sees
the token: here the application's guard is asked as soon as the headers are there. It counts a connection as active
with each byte: here times run from the beginning of what is waited for. And at its limit of connections it serves
nobody new: here the one that has kept waiting the longest makes room.
"""

from __future__ import annotations

import socket
from collections import Counter
from functools import partial
from time import monotonic
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import BadRequest

from hpo.report.dashboard.middleware import LARGEST_BODY, Guard

__all__ = ["Channel", "Server", "close_overdue", "open_servers"]

CONNECTIONS = 256  # at a time; each is a file descriptor, and few processes may have more than 1024
HEADERS = 15.0  # seconds from the connection, or from the last answer, until a request's headers are there
BODY = 300.0  # seconds from the headers to the end of the body
LINGER = 2.0  # seconds in which a body that nobody reads is thrown away
STALL = 30.0  # seconds of an answer that its client does not take, and beyond them
SLOWEST = 10_000  # bytes per second that it is to take
NEVER = 2**31


class Request(HTTPRequestParser):  # type: ignore[misc]
    """Request whose body is read only if the guard lets its headers pass."""

    def __init__(self, adj: Adjustments, channel: Channel) -> None:
        super().__init__(adj)
        self.since = monotonic()
        self._channel = channel

    def received(self, data: bytes) -> int:
        """Take in part of a request and return its length; a body that is left is no further request."""
        consumed: int = super().received(data)
        return len(data) if self._channel.leaves_body else consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the headers; then decide on the body."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # of more digits than Python reads
            raise ParsingError("Content-Length is invalid") from error
        self.since = monotonic()
        if self.chunked:  # its length is not known beforehand; no browser sends it
            self._leave_body()
            self.error = BadRequest("A body needs a Content-Length.")
        elif self.body_rcv is not None and self._channel.is_refused(self):
            self._leave_body()  # the guard refuses it again when it is to answer

    def _leave_body(self) -> None:
        self.body_rcv = None
        self.content_length = 0
        self.expect_continue = False
        self.headers["CONNECTION"] = "close"
        self._channel.leaves_body = True


class Channel(HTTPChannel):  # type: ignore[misc]
    """Connection that knows for how long it has been waited for.

    Attributes:
        leaves_body: whether a body is not read, so that the connection ends with this request.
    """

    def __init__(self, server: Server, sock: socket.socket, addr: Any, adj: Adjustments, map: dict[int, Any]) -> None:  # noqa: A002
        self.leaves_body = False
        self.parser_class = partial(Request, channel=self)
        self._lingers = False
        self._began = self._active = monotonic()  # the answer, and its last byte
        self._sent = 0
        super().__init__(server, sock, addr, adj, map=map)

    def is_refused(self, request: Request) -> bool:
        """Return whether the guard refuses a request by its headers."""
        return self.server.guard.check(self.task_class(self, request).get_environment()) is not None

    def service(self) -> None:
        """Answer one request.

        Requests that were sent ahead are dropped, and the connection is closed: no browser does so, and a thread would
        wait until their sender has taken the first answer.
        """
        with self.requests_lock:
            if len(self.requests) > 1:
                self.requests[0].headers["CONNECTION"] = "close"
        if not self.total_outbufs_len:
            self._sent = 0
        super().service()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the client takes, and note when it did."""
        count: int = super().send(data, do_close)
        if count:
            self._active = monotonic()
            self._began = self._began if self._sent else self._active
            self._sent += count
        return count

    def received(self, data: bytes) -> bool:
        """Receive part of a request, unless nobody reads it."""
        return False if self._lingers else bool(super().received(data))

    def handle_close(self) -> None:
        """Close; a client that is still sending can read its answer first.

        Closing at once would reset the connection, which discards the answer on the client's side.
        """
        if self.leaves_body and self.connected and not self._lingers:
            self._lingers = True
            self._active = monotonic()
            self.will_close = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            else:
                return
        super().handle_close()

    def find_wait(self) -> tuple[float, float]:
        """Return since when the client has been waited for, and for how many seconds it may be."""
        if self._lingers:
            return self._active, LINGER
        if self.total_outbufs_len and self._sent:
            return self._began, STALL + self._sent / SLOWEST
        if self.request is not None and self.request.body_rcv is not None:
            return self.request.since, BODY
        return self._active, HEADERS

    def drop(self) -> None:
        """Close without waiting for anything."""
        self._lingers = True
        self.handle_close()


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Listening socket.

    Attributes:
        guard: the application, whose checks are asked before a body is read.
    """

    channel_class = Channel
    guard: Guard

    def handle_accept(self) -> None:
        """Accept a connection; if there are too many, close the longest wait of the peer that has the most."""
        super().handle_accept()
        channels = list(self.active_channels.values())
        if len(channels) <= CONNECTIONS:
            return
        peers = Counter(channel.addr[0] for channel in channels)
        waiting = [channel for channel in channels if not channel.requests]
        min(waiting, key=lambda channel: (-peers[channel.addr[0]], channel.find_wait()[0])).drop()


def open_servers(guard: Guard, sockets: dict[int, Any], host: str, port: int) -> list[Server]:
    """Listen on every address of a host; `sockets` is what `waitress.wasyncore.loop` waits for.

    Raises:
        OSError: the port is taken, or an address is not this machine's.
        ValueError: the host has no address.
    """
    adjustments = Adjustments(
        host=host,
        port=port,
        ident=None,
        log_socket_errors=False,
        inbuf_overflow=LARGEST_BODY,  # beyond it, in a temporary file
        connection_limit=NEVER,  # `handle_accept` and `close_overdue` have limits of their own
        channel_timeout=NEVER,
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(adjustments.threads)
    servers = []
    for address in adjustments.listen:
        server = Server(guard, sockets, dispatcher=dispatcher, adj=adjustments, sockinfo=address)
        server.guard = guard
        servers.append(server)
    return servers


def close_overdue(sockets: dict[int, Any], now: float) -> None:
    """Close the connections whose clients have taken too long."""
    for channel in [each for each in sockets.values() if isinstance(each, Channel) and not each.requests]:
        since, limit = channel.find_wait()
        if now > since + limit:
            channel.drop()
