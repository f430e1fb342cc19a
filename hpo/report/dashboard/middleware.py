"""WSGI middleware for optuna-dashboard: checks of host, token, origin and size, and security headers.

Every check looks at the headers of a request alone. So the server can ask before it reads a byte of the body, and a
request that is refused never has one read.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

__all__ = ["READS", "Application", "Environment", "Guard", "Start", "guard_app", "is_loopback", "send_line"]

Environment = dict[str, Any]
Start = Callable[..., Any]
Headers = list[tuple[str, str]]
Application = Callable[[Environment, Start], Iterable[bytes]]

# Every route of optuna-dashboard that only computes is a GET, and none of its GETs writes. POSTs that compute exist
# for language models alone, which are not served; so there is no list of exceptions.
READS = frozenset({"GET", "HEAD"})
LARGEST_BODY = 2**20  # bytes; the longest that people write are notes
LARGEST_FILE = 2**25  # bytes of an uploaded artifact
UPLOADS = "/api/artifacts/"
# What the dashboard answers of its own; all else holds what somebody uploaded.
OWN = ("/dashboard", "/static/", "/api/", "/csv/", "/favicon.ico", "/incompatible-rdb-schema")
# What a browser shows without running anything in it. HTML, SVG, XML and PDF are not among them.
HARMLESS = frozenset(
    {"application/json", "application/jsonl", "text/plain", "text/csv", "image/png", "image/jpeg", "image/gif"}
    | {"image/webp", "image/avif", "image/bmp", "audio/mpeg", "audio/wav", "audio/ogg", "video/mp4", "video/webm"}
)
SANDBOX = "sandbox; default-src 'none'"


@dataclass(frozen=True)
class Answer:
    """Answer that a check gives instead of the application."""

    status: str
    line: str
    headers: Sequence[tuple[str, str]] = ()


Check = Callable[[Environment], Answer | None]


class Guard:
    """WSGI application around another one, which is asked only for what passes every check."""

    def __init__(self, application: Application, checks: Sequence[Check]) -> None:
        self._application = application
        self._checks = checks

    def check(self, environment: Environment) -> Answer | None:
        """Return the answer of the first check that does not let the request pass; None if all do."""
        return next((answer for check in self._checks if (answer := check(environment)) is not None), None)

    def __call__(self, environment: Environment, start: Start) -> Iterable[bytes]:
        """Answer a request, with security headers."""
        begin = _add_security_headers(environment, start)
        answer = self.check(environment)
        if answer is None:
            return self._application(environment, begin)
        return send_line(environment, begin, answer.status, answer.line, *answer.headers)


def guard_app(application: Application, *, local: bool, writable: bool, token: bytes | None) -> Guard:
    """Wrap the application in all the checks that it needs.

    Args:
        application: optuna-dashboard.
        local: whether only this machine reaches it.
        writable: whether it may be asked to change anything.
        token: what must be shown to get in; None lets everybody in.
    """
    checks: list[Check] = [_check_local_host] if local else []
    if token is not None:
        checks.append(_make_token_check(token))
    checks += [_check_same_origin if writable else _check_read_only, _check_size]
    return Guard(application, checks)


def is_loopback(host: str) -> bool:
    """Return whether the address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def send_line(
    environment: Environment, start: Start, status: str, line: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    """Answer with one line: as text, or to the interface as JSON, whose reason the dashboard's pages show."""
    if environment.get("PATH_INFO", "").startswith("/api/"):
        start(status, [("Content-Type", "application/json"), *headers])
        return [json.dumps({"reason": line}).encode() + b"\n"]
    start(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{line}\n".encode()]


def _check_local_host(environment: Environment) -> Answer | None:
    """Refuse requests for another host name.

    A page on the web can have its own name point to 127.0.0.1 (DNS rebinding) and then talk to whatever listens there;
    its requests still carry its name.
    """
    if is_loopback(_host_name(environment.get("HTTP_HOST", ""))):
        return None
    return Answer("403 Forbidden", "Open this dashboard as 127.0.0.1 or localhost.")


def _host_name(host: str) -> str:
    """Return the host of a `Host` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _check_read_only(environment: Environment) -> Answer | None:
    """Refuse whatever could change a study."""
    if environment["REQUEST_METHOD"] in READS:
        return None
    return Answer("403 Forbidden", "This dashboard is read-only; start it with: hpo dashboard --writable")


def _check_same_origin(environment: Environment) -> Answer | None:
    """Refuse writes that a page of another site, or of another port, makes a browser send."""
    if environment["REQUEST_METHOD"] in READS or _is_same_origin(environment):
        return None
    return Answer("403 Forbidden", "Another site's page may not change a study.")


def _is_same_origin(environment: Environment) -> bool:
    """Return whether a page of this dashboard asks, or a program that is no browser and names neither."""
    if environment.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return False
    origin = environment.get("HTTP_ORIGIN")
    return origin is None or origin.partition("://")[2] == environment.get("HTTP_HOST")


def _check_size(environment: Environment) -> Answer | None:
    """Refuse bodies that are longer than what the dashboard needs."""
    limit = _largest_body(environment)
    if int(environment.get("CONTENT_LENGTH") or 0) <= limit:
        return None
    line = f"The body of this request may have at most {limit / 2**20:.0f} MB." if limit else "A read has no body."
    return Answer("413 Content Too Large", line)


def _largest_body(environment: Environment) -> int:
    """Return how many bytes a request's body may have."""
    method = environment["REQUEST_METHOD"]
    if method in READS:
        return 0
    if method == "POST" and environment.get("PATH_INFO", "").startswith(UPLOADS):
        return LARGEST_FILE * 4 // 3 + LARGEST_BODY  # a file is sent as base64
    return LARGEST_BODY


# Who may ask.


def _make_token_check(token: bytes) -> Check:
    """Make the check that lets in who shows the token: in the address once, then by a cookie, or in a header.

    The cookie holds a digest of the token and not the token: a browser sends a cookie to every port of a host.
    """
    proof = hmac.new(token, b"hpo dashboard", hashlib.sha256).hexdigest()

    def check_token(environment: Environment) -> Answer | None:
        shown = dict(_read_query(environment)).get("token")
        if shown is not None and hmac.compare_digest(_to_bytes(shown), token):
            return _set_cookie(environment, proof)
        if shown is None and _has_credentials(environment, token, proof):
            return None
        line = "The token is missing or wrong; open the dashboard as /dashboard?token=TOKEN."
        return Answer("401 Unauthorized", line, [("WWW-Authenticate", "Bearer"), ("Cache-Control", "no-store")])

    return check_token


def _to_bytes(text: str) -> bytes:
    """Return the bytes that a client sent: WSGI hands them on as latin-1, whatever they are."""
    return text.encode("latin-1", "replace")


def _has_credentials(environment: Environment, token: bytes, proof: str) -> bool:
    scheme, _, bearer = environment.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(_to_bytes(bearer.strip(" \t")), token):
        return True
    try:
        cookie = SimpleCookie(environment.get("HTTP_COOKIE", "")).get(_cookie_name(environment))
    except CookieError:
        return False
    return cookie is not None and hmac.compare_digest(_to_bytes(cookie.value), proof.encode())


def _cookie_name(environment: Environment) -> str:
    """Return the cookie's name, one per port: ports of a host share their cookies."""
    return f"hpo_dashboard_{environment['SERVER_PORT']}"


def _read_query(environment: Environment) -> list[tuple[str, str]]:
    return parse_qsl(environment.get("QUERY_STRING", ""), keep_blank_values=True, encoding="latin-1")


def _set_cookie(environment: Environment, proof: str) -> Answer:
    """Give the cookie, and have the token leave the address, the history and whatever is copied from them."""
    asked = [(key, value) for key, value in _read_query(environment) if key != "token"]
    # One slash: two would name another host.
    path = "/" + quote(_to_bytes(environment.get("PATH_INFO", ""))).lstrip("/")
    place = f"{path}?{urlencode(asked, encoding='latin-1')}" if asked else path
    cookie = f"{_cookie_name(environment)}={proof}; Path=/; HttpOnly; SameSite=Strict"
    headers = [("Location", place), ("Set-Cookie", cookie), ("Cache-Control", "no-store")]
    return Answer("303 See Other", f"Go to {place}", headers)


# What an answer may do.


def _add_security_headers(environment: Environment, start: Start) -> Start:
    """Add headers: no answer is sniffed for another type, or framed by other sites; no artifact runs a script."""
    path = environment.get("PATH_INFO", "")
    own = path == "/" or path.startswith(OWN)

    def begin(status: str, headers: Headers, *more: Any) -> Any:
        shown = headers if own or not status.startswith("2") else _artifact_headers(headers)
        return start(status, [*shown, *_security_headers(own)], *more)

    return begin


def _security_headers(own: bool) -> Headers:
    rules = [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("Referrer-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]
    return rules if own else [*rules, ("Content-Security-Policy", SANDBOX)]


def _artifact_headers(headers: Headers) -> Headers:
    """Return the headers of an artifact: shown if its type is harmless, else a file to be saved; for this site."""
    dropped = {"content-type", "access-control-allow-origin", "content-disposition"}
    others = [(name, value) for name, value in headers if name.lower() not in dropped]
    stated = next((value for name, value in headers if name.lower() == "content-type"), "")
    kind = stated.partition(";")[0].strip().lower()
    if kind in HARMLESS:
        return [*others, ("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)]
    return [*others, ("Content-Type", "application/octet-stream"), ("Content-Disposition", "attachment")]
