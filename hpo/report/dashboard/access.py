"""Token of the dashboard: when it is asked for, and which one it is."""

from __future__ import annotations

import os
import pwd
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import RequestError

__all__ = ["Access", "choose_access", "find_other_users"]

TOKEN = "HPO_DASHBOARD_TOKEN"
SHORTEST = 8  # characters of a token that somebody chose
NO_LOGIN = frozenset({"nologin", "false", "true", "sync", "halt", "shutdown"})  # programs in place of a shell
# Sources of accounts that list all they have; directories (sss, ldap, nis) list few of theirs or none.
LISTED = frozenset({"files", "compat", "systemd", "db"})
NAME_SERVICES = Path("/etc/nsswitch.conf")
NAMED = 3  # users in the line that says why


@dataclass(frozen=True)
class Access:
    """Terms on which the dashboard lets people in.

    Attributes:
        token: what must be shown; None lets everybody in who reaches it.
        shown: the token where it is to be printed, as nobody knows it yet.
        reason: why a writable dashboard on loopback asks for a token or does not; None for others.
    """

    token: bytes | None
    shown: str | None = None
    reason: str | None = None


def choose_access(*, local: bool, writable: bool) -> Access:
    """Choose the token: that of the environment, or a new one where others could get in.

    Loopback keeps other machines out, but every user of this one reaches it.

    Args:
        local: whether only this machine reaches the dashboard.
        writable: whether it may change and delete studies.

    Raises:
        RequestError: the token of the environment is too short, or is not UTF-8.
    """
    token = _read_token()
    if token is not None:
        return Access(token)
    if local and not writable:
        return Access(None)
    others = find_other_users() if local else []
    if local and not others:
        return Access(None, reason="--writable asks for no token here: no other user can log in to this machine")
    new = secrets.token_urlsafe(24)
    return Access(new.encode(), new, _name_users(others) if local else None)


def find_other_users() -> list[str]:
    """Return who else can log in to this machine: names of users, and directories that may know more."""
    me = {0, os.getuid()}
    users = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid not in me and _is_login(entry.pw_shell)]
    return [*users, *(f"users of {source}" for source in _find_directories(NAME_SERVICES))]


def _is_login(shell: str) -> bool:
    return Path(shell).name not in NO_LOGIN  # none at all is /bin/sh


def _find_directories(configuration: Path) -> list[str]:
    """Return the sources of accounts that do not list them all."""
    if not configuration.is_file():
        return []
    for line in configuration.read_text(errors="replace").splitlines():
        name, _, sources = line.partition("#")[0].partition(":")
        if name.strip() == "passwd":
            return [source for source in sources.split() if source not in LISTED and not source.startswith("[")]
    return []


def _name_users(others: Iterable[str]) -> str:
    names = list(others)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"--writable asks for a token: others can log in to this machine ({', '.join(names[:NAMED])}{more})"


def _read_token() -> bytes | None:
    """Read the token of the environment, whose bytes are those that a client is to show."""
    token = os.fsencode(os.environ.get(TOKEN, ""))
    try:
        length = len(token.decode())
    except UnicodeDecodeError as error:
        raise RequestError(f"dashboard: {TOKEN} is not UTF-8; set it to letters, digits and hyphens") from error
    if 0 < length < SHORTEST:
        raise RequestError(f"dashboard: {TOKEN} has {length} characters, which can be guessed; set {SHORTEST} or more")
    return token or None
