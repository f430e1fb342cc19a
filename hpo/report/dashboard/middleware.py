"""WSGI middleware for optuna-dashboard: token, CSRF and host checks, security headers.

Each gate is a WSGI application around another one. A gate that refuses answers with one line of plain text.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

__all__ = ["Application", "Environment", "guard_app", "is_loopback"]

Environment = dict[str, Any]
Start = Callable[..., Any]
Headers = list[tuple[str, str]]
Application = Callable[[Environment, Start], Iterable[bytes]]

# Every route of optuna-dashboard that only computes is a GET, and none of its GETs writes. POSTs that compute exist
# for language models alone, which are not served; so there is no list of exceptions.
READS = frozenset({"GET", "HEAD"})
# What the dashboard answers of its own; all else holds what somebody uploaded.
OWN = ("/dashboard", "/static/", "/api/", "/csv/", "/favicon.ico", "/incompatible-rdb-schema")
# What a browser shows without running anything in it. HTML, SVG, XML and PDF are not among them.
HARMLESS = frozenset(
    {"application/json", "application/jsonl", "text/plain", "text/csv", "image/png", "image/jpeg", "image/gif"}
    | {"image/webp", "image/avif", "image/bmp", "audio/mpeg", "audio/wav", "audio/ogg", "video/mp4", "video/webm"}
)
SANDBOX = "sandbox; default-src 'none'"
PLAIN = [("Content-Type", "text/plain; charset=utf-8")]


def guard_app(application: Application, *, local: bool, writable: bool, token: str | None) -> Application:
    """Wrap the application in all the gates that it needs.

    Args:
        application: optuna-dashboard.
        local: whether only this machine reaches it.
        writable: whether it may be asked to change anything.
        token: what must be shown to get in; None lets everybody in.
    """
    inner = _require_same_origin(application) if writable else _require_read_only(application)
    if token is not None:
        inner = _require_token(inner, token)
    return _add_security_headers(_require_local_host(inner) if local else inner)


def is_loopback(host: str) -> bool:
    """Return whether the address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_write(environment: Environment, start: Start, reason: str) -> Iterable[bytes]:
    """Refuse a write; the dashboard's pages show the reason that an answer of its interface gives."""
    if not environment.get("PATH_INFO", "").startswith("/api/"):
        return _refuse(start, "403 Forbidden", reason)
    start("403 Forbidden", [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]


def _refuse(start: Start, status: str, line: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    start(status, [*PLAIN, *headers])
    return [f"{line}\n".encode()]


def _require_local_host(application: Application) -> Application:
    """Refuse requests for another host name.

    A page on the web can have its own name point to 127.0.0.1 (DNS rebinding) and then talk to whatever listens there;
    its requests still carry its name.
    """

    def guarded(environment: Environment, start: Start) -> Iterable[bytes]:
        if is_loopback(_host_name(environment.get("HTTP_HOST", ""))):
            return application(environment, start)
        return _refuse(start, "403 Forbidden", "Open this dashboard as 127.0.0.1 or localhost.")

    return guarded


def _host_name(host: str) -> str:
    """Return the host of a `Host` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _require_read_only(application: Application) -> Application:
    """Refuse whatever could change a study."""

    def guarded(environment: Environment, start: Start) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] in READS:
            return application(environment, start)
        return _refuse_write(environment, start, "This dashboard is read-only; start it with: hpo dashboard --writable")

    return guarded


def _require_same_origin(application: Application) -> Application:
    """Refuse writes that a page of another site, or of another port, makes a browser send."""

    def guarded(environment: Environment, start: Start) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] in READS or _is_same_origin(environment):
            return application(environment, start)
        return _refuse_write(environment, start, "Another site's page may not change a study.")

    return guarded


def _is_same_origin(environment: Environment) -> bool:
    """Return whether a page of this dashboard asks, or a program that is no browser and names neither."""
    if environment.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return False
    origin = environment.get("HTTP_ORIGIN")
    return origin is None or origin.partition("://")[2] == environment.get("HTTP_HOST")


# Who may ask.


def _require_token(application: Application, token: str) -> Application:
    """Let in who shows the token: in the address once, then by a cookie, or in a header.

    The cookie holds a digest of the token and not the token: a browser sends a cookie to every port of a host.
    """
    proof = hmac.new(token.encode(), b"hpo dashboard", hashlib.sha256).hexdigest()

    def guarded(environment: Environment, start: Start) -> Iterable[bytes]:
        token_in_address = _read_query(environment).get("token")
        if token_in_address is not None and _equals_secret(token_in_address.encode(), token):
            return _set_cookie(environment, start, proof)
        if token_in_address is None and _has_credentials(environment, token, proof):
            return application(environment, start)
        line = "The token is missing or wrong; open the dashboard as /dashboard?token=TOKEN."
        return _refuse(start, "401 Unauthorized", line, ("WWW-Authenticate", "Bearer"), ("Cache-Control", "no-store"))

    return guarded


def _equals_secret(value: bytes, secret: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(value, secret.encode())


def _has_credentials(environment: Environment, token: str, proof: str) -> bool:
    scheme, _, bearer = environment.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and _equals_secret(bearer.strip().encode("latin-1"), token):
        return True
    try:
        cookie = SimpleCookie(environment.get("HTTP_COOKIE", "")).get(_cookie_name(environment))
    except CookieError:
        return False
    return cookie is not None and _equals_secret(cookie.value.encode(), proof)


def _cookie_name(environment: Environment) -> str:
    """Return the cookie's name, one per port: ports of a host share their cookies."""
    return f"hpo_dashboard_{environment['SERVER_PORT']}"


def _read_query(environment: Environment) -> dict[str, str]:
    return dict(parse_qsl(environment.get("QUERY_STRING", ""), keep_blank_values=True))


def _set_cookie(environment: Environment, start: Start, proof: str) -> Iterable[bytes]:
    """Give the cookie, and have the token leave the address, the history and whatever is copied from them."""
    asked = {key: value for key, value in _read_query(environment).items() if key != "token"}
    # One slash: two would name another host.
    path = "/" + quote(environment.get("PATH_INFO", "").encode("latin-1")).lstrip("/")
    place = f"{path}?{urlencode(asked)}" if asked else path
    cookie = f"{_cookie_name(environment)}={proof}; Path=/; HttpOnly; SameSite=Strict"
    headers = [("Location", place), ("Set-Cookie", cookie), ("Cache-Control", "no-store")]
    return _refuse(start, "303 See Other", f"Go to {place}", *headers)


# What an answer may do.


def _add_security_headers(application: Application) -> Application:
    """Add headers: no answer is sniffed for another type, or framed by other sites; no artifact runs a script."""

    def guarded(environment: Environment, start: Start) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "")
        own = path == "/" or path.startswith(OWN)

        def begin(status: str, headers: Headers, *more: Any) -> Any:
            shown = headers if own or not status.startswith("2") else _artifact_headers(headers)
            return start(status, [*shown, *_security_headers(own)], *more)

        return application(environment, begin)

    return guarded


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
