"""Connections of the dashboard: what is read before the token is seen, and who waits for whom.

The clock is the test's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest
from waitress import buffers, wasyncore

from hpo.report.dashboard import connections
from hpo.report.dashboard.connections import close_overdue, open_servers
from hpo.report.dashboard.middleware import LARGEST_BODY, LARGEST_FILE, Environment, guard_app

pytestmark = pytest.mark.integration  # a server, though in this process

TOKEN = b"a token of the test"
BEARER = f"Authorization: Bearer {TOKEN.decode()}\r\n"
BIG = 5 * 2**20  # what the buffers of two sockets do not hold


class Dashboard:
    """A server whose loop the test turns, and what its application was asked."""

    def __init__(self, writable: bool, token: bytes | None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.sockets: dict[int, Any] = {}
        self.late = 0.0  # seconds by which the clock is ahead
        guard = guard_app(self.answer, local=True, writable=writable, token=token)
        [self.server] = open_servers(guard, self.sockets, "127.0.0.1", 0)
        self.clients: list[socket.socket] = []

    def answer(self, environment: Environment, start: Callable[..., Any]) -> Iterable[bytes]:
        path, body = environment["PATH_INFO"], environment["wsgi.input"].read()
        self.asked.append((path, len(body)))
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"x" * BIG if path == "/big" else b"fine"]

    def connect(self, sent: str | bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.effective_port), source_address=(source, 0))
        client.setblocking(False)
        self.clients.append(client)
        self.turn()
        send(client, sent)
        self.turn()
        return client

    def turn(self, until: Callable[[], bool] | None = None) -> None:
        """Turn the loop, until something has happened; it is given two minutes of the real clock."""
        deadline = monotonic() + 120
        while True:
            wasyncore.loop(timeout=0.01 if until else 0, map=self.sockets, count=1, use_poll=True)
            close_overdue(self.sockets, monotonic() + self.late)
            if until is None or until():
                return
            assert monotonic() < deadline, "it did not happen"

    def read(self, client: socket.socket) -> bytes:
        """Return what a client receives until the connection ends, or a whole short answer."""
        received = bytearray()

        def ended() -> bool:
            with suppress(BlockingIOError):
                while data := client.recv(2**20):
                    received.extend(data)
                return True
            return received.endswith(b"\r\n\r\nfine")

        self.turn(ended)
        return bytes(received)

    def is_open(self, client: socket.socket) -> bool:
        """Return whether the server keeps the connection; nothing is read of an answer."""
        return client.getsockname() in [channel.addr for channel in self.server.active_channels.values()]

    def later(self, seconds: float) -> None:
        self.late += seconds
        self.turn()


def send(client: socket.socket, data: str | bytes) -> int:
    """Send what there is room for."""
    with suppress(BlockingIOError):
        return client.send(data.encode("latin-1") if isinstance(data, str) else data)
    return 0


def request(path: str = "/", *headers: str, method: str = "GET", length: int | str | None = None) -> str:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{size}{''.join(headers)}\r\n"


@pytest.fixture
def start() -> Iterator[Callable[..., Dashboard]]:
    started: list[Dashboard] = []

    def start(*, writable: bool = True, token: bytes | None = TOKEN) -> Dashboard:
        started.append(Dashboard(writable, token))
        return started[-1]

    yield start
    for dashboard in started:
        for client in dashboard.clients:
            client.close()
        dashboard.server.task_dispatcher.shutdown()
        wasyncore.close_all(dashboard.sockets)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary file may be made for a body."""
    monkeypatch.setattr(buffers.OverflowableBuffer, "_set_large_buffer", lambda _: pytest.fail("a temporary file"))


# The body.

UPLOAD = "/api/artifacts/1"
REFUSED = {
    "no token": (401, UPLOAD, []),
    "another token": (401, UPLOAD, ["Authorization: Bearer wrong\r\n"]),
    "a token that is not UTF-8": (401, UPLOAD, ["Authorization: Bearer \xff\xfe\r\n"]),
    "another token in the address": (401, f"{UPLOAD}?token=%ff", [BEARER]),
    "a cookie that is none": (401, UPLOAD, ["Cookie: =;;\xff\r\n"]),
    "no token, and the body only if it is asked for": (401, UPLOAD, ["Expect: 100-continue\r\n"]),
    "another site": (403, UPLOAD, [BEARER, "Origin: http://evil.example\r\n"]),
    "too long for a note": (413, "/api/studies/1/note", [BEARER]),
    "HTTP/1.0": (401, UPLOAD, ["Connection: keep-alive\r\n"]),
}


@pytest.mark.parametrize(("status", "path", "headers"), REFUSED.values(), ids=REFUSED)
def test_no_body_of_a_refused_request_is_read(
    start: Callable[..., Dashboard], no_files: None, status: int, path: str, headers: list[str]
) -> None:
    dashboard = start()
    text = request(path, *headers, method="POST", length=BIG)
    client = dashboard.connect(text.replace("HTTP/1.1", "HTTP/1.0") if "keep-alive" in text else text)
    # More requests are not made of a body that nobody reads.
    rest = (request("/body", BEARER) * 100_000)[:BIG].encode()
    while rest:
        sent = send(client, rest)
        rest = rest[sent:]
        dashboard.turn()
    answer = dashboard.read(client)
    assert answer.startswith(f"HTTP/1.{0 if 'keep-alive' in text else 1} {status} ".encode())
    assert answer.count(b"HTTP/1.") == 1
    assert dashboard.asked == []
    dashboard.later(connections.LINGER + 1)
    assert not dashboard.is_open(client)


def test_read_only_dashboards_read_no_body(start: Callable[..., Dashboard], no_files: None) -> None:
    dashboard = start(writable=False, token=None)
    for method, status in {"POST": 403, "DELETE": 403, "FOO": 403, "GET": 413}.items():
        client = dashboard.connect(request("/api/studies", method=method, length=10))
        assert dashboard.read(client).startswith(f"HTTP/1.1 {status} ".encode())
    assert dashboard.asked == []


@pytest.mark.parametrize(
    "headers", ["Transfer-Encoding: chunked\r\n", "Content-Length: x\r\n", f"Content-Length: {'9' * 5000}\r\n"]
)
def test_a_body_of_unknown_length_is_refused(start: Callable[..., Dashboard], headers: str) -> None:
    dashboard = start()
    client = dashboard.connect(request(UPLOAD, BEARER, headers, method="POST"))
    assert dashboard.read(client).startswith(b"HTTP/1.1 400 ")
    assert dashboard.asked == []


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        (UPLOAD, LARGEST_BODY + 1, 200),
        (UPLOAD, LARGEST_FILE * 4 // 3 + LARGEST_BODY + 1, 413),
        ("/api/studies", LARGEST_BODY, 200),
        ("/api/studies", LARGEST_BODY + 1, 413),
    ],
)
def test_a_body_has_a_limit(start: Callable[..., Dashboard], path: str, length: int, status: int) -> None:
    dashboard = start()
    client = dashboard.connect(request(path, BEARER, method="POST", length=length))
    rest = b"x" * length
    while status == 200 and rest:
        rest = rest[send(client, rest) :]
        dashboard.turn()
    assert dashboard.read(client).startswith(f"HTTP/1.1 {status} ".encode())
    assert dashboard.asked == ([(path, length)] if status == 200 else [])


# Number.


@pytest.mark.parametrize(
    "said", ["", "GET / HTTP/1.1\r\nHost: ", request("/big"), request(UPLOAD, method="POST", length=9)]
)
def test_clients_that_keep_waiting_hold_nobody_up(
    start: Callable[..., Dashboard], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said:
        monkeypatch.setattr(connections, "CONNECTIONS", 20)
    dashboard = start(token=None)
    for _ in range(connections.CONNECTIONS + 20):
        dashboard.connect(said)
        if said:
            dashboard.turn(lambda: not any(each.requests for each in dashboard.server.active_channels.values()))
    client = dashboard.connect(request("/mine"))
    assert dashboard.read(client).startswith(b"HTTP/1.1 200 ")
    assert len(dashboard.server.active_channels) <= connections.CONNECTIONS


def test_a_peer_with_many_connections_loses_its_own(start: Callable[..., Dashboard]) -> None:
    dashboard = start(token=None)
    quiet = dashboard.connect("GET /quiet HTTP/1.1\r\n", source="127.0.0.2")
    for _ in range(connections.CONNECTIONS + 20):
        dashboard.connect()
    send(quiet, "Host: 127.0.0.1\r\n\r\n")
    assert dashboard.read(quiet).startswith(b"HTTP/1.1 200 ")


# Time.


def test_a_connection_that_asks_for_nothing_is_closed(start: Callable[..., Dashboard]) -> None:
    dashboard = start(token=None)
    silent, slow = dashboard.connect(), dashboard.connect("GET / HTTP/1.1\r\nX: ")
    dashboard.later(connections.HEADERS - 1)
    send(slow, "still there")
    dashboard.turn()
    assert dashboard.is_open(silent)
    assert dashboard.is_open(slow)
    dashboard.later(2)
    assert not dashboard.is_open(silent)
    assert not dashboard.is_open(slow)


def test_an_answer_gives_a_connection_new_time(start: Callable[..., Dashboard]) -> None:
    dashboard = start(token=None)
    client = dashboard.connect(request("/first"))
    assert dashboard.read(client).startswith(b"HTTP/1.1 200 ")
    dashboard.later(connections.HEADERS - 1)
    send(client, request("/second"))
    assert dashboard.read(client).startswith(b"HTTP/1.1 200 ")
    dashboard.later(2)
    assert not dashboard.is_open(client)


def test_a_body_that_does_not_end_is_given_up(start: Callable[..., Dashboard]) -> None:
    dashboard = start()
    client = dashboard.connect(request(UPLOAD, BEARER, method="POST", length=10) + "12345")
    dashboard.later(connections.BODY - 1)
    send(client, "678")
    dashboard.turn()
    assert dashboard.is_open(client)
    dashboard.later(2)
    assert not dashboard.is_open(client)
    assert dashboard.asked == []


def test_an_answer_that_nobody_takes_is_given_up(start: Callable[..., Dashboard]) -> None:
    dashboard = start(token=None)
    client = dashboard.connect(request("/big"))
    dashboard.turn(lambda: bool(dashboard.asked))
    [channel] = dashboard.server.active_channels.values()
    dashboard.turn(lambda: not channel.requests and channel.total_outbufs_len > 0)
    sent = BIG - channel.total_outbufs_len
    dashboard.later(connections.STALL + sent / connections.SLOWEST - 10)
    assert dashboard.is_open(client)
    dashboard.later(20)
    assert not dashboard.is_open(client)


def test_requests_that_are_sent_ahead_are_not_answered(start: Callable[..., Dashboard]) -> None:
    dashboard = start(token=None)
    client = dashboard.connect(request("/first") + request("/second") + request("/third"))
    assert dashboard.read(client).count(b"HTTP/1.1 200 ") == 1
    assert dashboard.asked == [("/first", 0)]
