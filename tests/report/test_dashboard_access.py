"""When the dashboard asks for a token, and what it takes for one."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import RequestError
from hpo.report.dashboard import access
from hpo.report.dashboard.access import choose_access, find_other_users
from hpo.report.dashboard.middleware import Environment, guard_app

ME = os.getuid() or 1000
ROOT, MYSELF, DAEMON = ("root", 0, "/bin/bash"), ("me", ME, "/bin/zsh"), ("daemon", 1, "/usr/sbin/nologin")


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Sets who has an account, and where accounts come from."""
    monkeypatch.delenv("HPO_DASHBOARD_TOKEN", raising=False)

    def set_accounts(*entries: tuple[str, int, str], sources: str = "files systemd", me: int = ME) -> None:
        users = [SimpleNamespace(pw_name=name, pw_uid=uid, pw_shell=shell) for name, uid, shell in entries]
        monkeypatch.setattr(pwd, "getpwall", lambda: users)
        monkeypatch.setattr(os, "getuid", lambda: me)
        switch = tmp_path / "nsswitch.conf"
        switch.write_text(f"# accounts\ngroup: ldap\npasswd:\t{sources} # as ever\n")
        monkeypatch.setattr(access, "NAME_SERVICES", switch)

    return set_accounts


@pytest.mark.parametrize(
    ("others", "sources", "found"),
    [
        ([], "files systemd", []),
        ([DAEMON, ("sync", 4, "/bin/sync"), ("mysql", 102, "/bin/false")], "files", []),
        ([("anna", 1001, "/bin/bash")], "files", ["anna"]),
        ([("postgres", 101, "/bin/sh"), ("old", 1002, "")], "compat", ["postgres", "old"]),
        ([], "files [NOTFOUND=return] sss", ["users of sss"]),
    ],
)
def test_users_who_can_log_in(
    accounts: Any, others: list[tuple[str, int, str]], sources: str, found: list[str]
) -> None:
    accounts(ROOT, MYSELF, *others, sources=sources)
    assert find_other_users() == found


def test_root_has_the_other_users_of_the_machine(accounts: Any) -> None:
    accounts(ROOT, MYSELF, me=0)
    assert find_other_users() == ["me"]


def test_a_writable_dashboard_on_loopback_asks_for_a_token_where_others_can_log_in(accounts: Any) -> None:
    accounts(ROOT, MYSELF)
    alone = choose_access(local=True, writable=True)
    assert alone.token is None
    assert alone.reason == "--writable asks for no token here: no other user can log in to this machine"
    accounts(ROOT, MYSELF, *((name, 2000 + i, "/bin/sh") for i, name in enumerate("abcde")))
    asked = choose_access(local=True, writable=True)
    assert asked.shown is not None
    assert len(asked.shown) > 20
    assert asked.token == asked.shown.encode()
    assert asked.reason == "--writable asks for a token: others can log in to this machine (a, b, c and 2 more)"
    assert choose_access(local=True, writable=True).token != asked.token
    assert choose_access(local=True, writable=False).token is None


def test_another_host_asks_for_a_token_whoever_can_log_in(accounts: Any) -> None:
    accounts(ROOT, MYSELF)
    for writable in (False, True):
        asked = choose_access(local=False, writable=writable)
        assert (asked.token is not None, asked.reason) == (True, None)


@pytest.mark.parametrize("local", [True, False])
def test_the_token_of_the_environment_is_asked_for_and_never_shown(
    local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", "gänsefüßchen")
    assert choose_access(local=local, writable=True) == access.Access("gänsefüßchen".encode())


@pytest.mark.parametrize("value", [b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe", b"good beginning \xe4", b"\xed\xa0\x80" * 8])
def test_a_token_of_the_environment_that_is_not_utf8_is_one_line(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", os.fsdecode(value))
    with pytest.raises(RequestError) as caught:
        choose_access(local=True, writable=False)
    assert str(caught.value) == "dashboard: HPO_DASHBOARD_TOKEN is not UTF-8; set it to letters, digits and hyphens"


def test_a_token_that_can_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", "äöüäöüä")  # 7 characters, 14 bytes
    with pytest.raises(RequestError, match="HPO_DASHBOARD_TOKEN has 7 characters"):
        choose_access(local=True, writable=False)


def status_of(token: str, **environment: str) -> str:
    answers = []
    guard = guard_app(lambda *_: answers.append("200 OK") or [], local=True, writable=True, token=token.encode())
    asked: Environment = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "127.0.0.1", "SERVER_PORT": "8080"}
    list(guard({**asked, **environment}, lambda status, _: answers.append(status)))
    return answers[0]


TOKENS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=8, max_size=40)


@given(token=TOKENS, data=st.data())
def test_whatever_bytes_are_sent_for_a_token_they_are_compared(token: str, data: st.DataObject) -> None:
    sent = data.draw(st.binary(max_size=40) | st.just(token.encode()))
    text = sent.decode("latin-1")  # as WSGI hands bytes on
    right = sent == token.encode()
    assert status_of(token, QUERY_STRING=f"token={quote_from_bytes(sent)}").startswith("303" if right else "401")
    assert status_of(token, HTTP_COOKIE=f"hpo_dashboard_8080={text}").startswith("401")
    stripped = sent.strip(b" \t") == token.encode()
    assert status_of(token, HTTP_AUTHORIZATION=f"Bearer {text}").startswith("200" if stripped else "401")
    shown = quote_from_bytes(token.encode())
    assert status_of(token, QUERY_STRING=f"token={shown}", PATH_INFO=f"/{text}").startswith("303")
    assert status_of(token, QUERY_STRING=text, HTTP_AUTHORIZATION=text, HTTP_COOKIE=text).startswith("401")
