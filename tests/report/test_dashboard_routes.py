"""Every route of optuna-dashboard, asked for what it does not expect: the client is told, and nothing fails."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna_dashboard import wsgi

from hpo.report.dashboard.application import make_application
from hpo.report.dashboard.middleware import Application, Environment, guard_app
from hpo.storage.study_storage import StudyStorage
from hpo.study import Study
from hpo.study.files.artifacts import ArtifactFolders, save_artifact
from tests.report.helpers import filled

ROUTES = [(route.method, route.rule) for route in wsgi(InMemoryStorage(), artifact_store=ArtifactFolders()).routes]
READING = [rule for method, rule in ROUTES if method == "GET"]
WRITING = [(method, rule) for method, rule in ROUTES if method != "GET"]
# What takes the study away has tests of its own.
ENDING = {("DELETE", "/api/studies/<study_id:int>"), ("POST", "/api/studies/<study_id:int>/rename")}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    application: Application, method: str, path: str, query: str = "", body: bytes = b"", **environment: str
) -> Answer:
    """Ask for a path with escapes, without a server in between; PATH_INFO is made of it as a server makes it."""
    asked: Environment = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8080",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
    }
    answers: list[tuple[str, list[tuple[str, str]]]] = []
    parts = application({**asked, **environment}, lambda status, headers, *_: answers.append((status, headers)))
    content = b"".join(parts)
    getattr(parts, "close", lambda: None)()
    [(status, headers)] = answers
    return Answer(int(status[:3]), dict(headers), content)


class Client:
    """A client of the writable dashboard of a study."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.ask = partial(ask, guard_app(make_application(study.storage), local=True, writable=True, token=None))

    def path(self, rule: str, value: str | None = None) -> str:
        """A path of this route: for its own study, or with a value in place of every part that varies."""
        own = {"study_id": str(self.study.id), "trial_id": str(self.study.trials()[0]._trial_id), "plot_type": "edf"}

        def fill(found: re.Match[str]) -> str:
            return own.get(found[1], "0") if value is None else value

        return re.sub(r"<(\w+)(?::[^>]*)?>", fill, rule).replace("<:re:(/.*)?>", "" if value is None else f"/{value}")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("routes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        study = filled(folder, states=("COMPLETE", "PRUNED", "RUNNING"), trials=6)
        save_artifact(study, "file", b"content", "text/plain")
        yield Client(study)


def is_told(answer: Answer, path: str) -> bool:
    """Return whether the answer is no failure, and an error is one line."""
    if answer.status < 400:
        return True
    reason = json.loads(answer.body)["reason"] if path.startswith("/api/") else answer.body.decode()
    return answer.status < 500 and 0 < len(reason.strip()) < 200 and "\n" not in reason.strip()


NUMBERS = ("0", "-1", "999", "2147483648", "99999999999999999999", "9" * 400, "9" * 5000)
ODD = (*NUMBERS, "abc", "1.5", "%00", "%ff%fe", "..%2f..%2fetc%2fpasswd", "../../..", "%2e%2e", "x" * 100_000)


@pytest.mark.parametrize(("method", "rule"), ROUTES)
def test_ids_and_names_that_do_not_exist(client: Client, method: str, rule: str) -> None:
    for value in ODD:
        path = client.path(rule, value)
        answer = client.ask(method, path, body=b"" if method == "GET" else b"{}")
        assert is_told(answer, path), (value[:40], answer)
        if "_id:int>" in rule and value in NUMBERS:
            assert answer.status >= 400, (value[:40], answer)


@pytest.mark.parametrize("rule", READING)
def test_addresses_and_headers_that_are_not_expected(client: Client, rule: str) -> None:
    path = client.path(rule)
    for part in ("after", "trial_ids", "x"):
        for value in ("abc", "-1", "9" * 30, "9" * 5000, "%ff", "%00", "", "1;2", "%"):
            assert is_told(client.ask("GET", path, f"{part}={value}"), path), (part, value[:40])
    for name in ("HTTP_ACCEPT_ENCODING", "HTTP_RANGE", "HTTP_IF_MODIFIED_SINCE", "HTTP_COOKIE", "CONTENT_TYPE"):
        for value in ("", "\xff", "gzip", "bytes=zz", f"bytes={'9' * 5000}-", "Mon, 99 Foo 99999 99:99:99 GMT"):
            assert is_told(client.ask("GET", path, **{name: value}), path), (name, value[:40])


@pytest.mark.parametrize("rule", sorted({rule for _, rule in ROUTES}))
def test_methods_that_a_route_does_not_have(client: Client, rule: str) -> None:
    path = client.path(rule)
    # The address of a trial's artifacts is also that of a study's artifact whose id has digits alone.
    has = {method for method, other in ROUTES if other == rule} | ({"DELETE"} if "artifacts" in rule else set())
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW", "DELETE"} - has:
        answer = client.ask(method, path, body=b"{}" if method not in ("GET", "HEAD") else b"")
        assert is_told(answer, "" if method == "HEAD" else path) or method == "HEAD"
        assert answer.status in (404, 405) or (method == "HEAD" and "GET" in has), (method, answer)


BODIES = (
    b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe",
    b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"9" * 5000 + b"}",
    b'{"study_name": 5, "directions": [5]}', b'{"study_name": ["a"], "directions": ["minimize"]}',
    b'{"study_name": "\\ud800", "directions": ["minimize"]}', b'{"study_name": "x", "directions": 5}',
    b'{"file": 5}', b'{"file": "no data"}', b'{"file": "data:,A", "filename": 5}',
    b'{"state": "Complete", "values": ["x"]}',
    b'{"state": "Complete", "values": [1, 2, 3]}', b'{"state": 5}', b'{"user_attrs": 5}', b'{"user_attrs": [1]}',
    b'{"version": "x", "body": 5}', b'{"version": {}, "body": []}',
    b'{"mode": "ChooseWorst", "candidates": 5, "clicked": 1}',
    b'{"mode": "ChooseWorst", "candidates": [9e99], "clicked": "x"}', b'{"output_type": ["note"], "artifact_key": 5}',
)  # fmt: skip


@pytest.mark.parametrize(("method", "rule"), [route for route in WRITING if route not in ENDING])
def test_bodies_that_are_not_what_is_asked_for(client: Client, method: str, rule: str) -> None:
    path = client.path(rule)
    for body in BODIES:
        for kind in ("application/json", "text/plain", ""):
            answer = client.ask(method, path, body=body, CONTENT_TYPE=kind)
            assert is_told(answer, path), (body[:60], kind, answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "study_name", "directions", "file", "filename", "state", "values", "user_attrs", "version", "body", "mode",
    "candidates", "clicked", "output_type", "artifact_key", "remove_associated_artifacts"
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    route=st.sampled_from([route for route in WRITING if route not in ENDING]),
    body=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
)
def test_any_json(client: Client, route: tuple[str, str], body: dict[str, Any]) -> None:
    path = client.path(route[1])
    assert is_told(client.ask(route[0], path, body=json.dumps(body).encode()), path)


def test_static_files_with_and_without_encodings(client: Client) -> None:
    for encoding in ({}, {"HTTP_ACCEPT_ENCODING": "gzip"}, {"HTTP_ACCEPT_ENCODING": "identity"}):
        assert client.ask("GET", "/static/bundle.js", **encoding).status == 200
        assert client.ask("GET", "/favicon.ico", **encoding).status == 200
        for missing in ("nothing.js", "nothing", "bundle.js/more", "%00", "bundle.js%00", "x" * 5000):
            answer = client.ask("GET", f"/static/{missing}", **encoding)
            assert (answer.status, answer.body.count(b"\n")) == (404, 1), (missing[:20], encoding)
        assert client.ask("GET", "/static/../_app.py", **encoding).status == 403


def test_answers_keep_their_types(client: Client) -> None:
    for rule in READING:
        if rule.startswith("/api/"):
            assert client.ask("GET", client.path(rule)).headers["Content-Type"] == "application/json", rule
    missing = client.ask("GET", "/api/studies/999")
    assert json.loads(missing.body) == {"reason": "There is no study with this id in the storage."}
    assert client.ask("GET", "/artifacts/999/00").headers["Content-Type"].startswith("text/plain")


def test_a_fault_of_the_dashboard_stays_one(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Callable[..., Any]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(client.study.storage, "get_all_studies", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.ask("GET", "/api/studies")
    assert answer.status == 500
    assert json.loads(answer.body) == {"reason": "The dashboard failed; its terminal says why."}
    assert "the disk is gone" in caplog.text


def test_a_study_is_deleted_with_a_body_and_without(tmp_path: Path) -> None:
    for body in (b"", b"{}", b'{"remove_associated_artifacts": false}'):
        study = filled(tmp_path / str(len(body)), trials=1)
        client = Client(study)
        assert client.ask("DELETE", f"/api/studies/{study.id}", body=body).status == 204
        assert client.ask("DELETE", f"/api/studies/{study.id}", body=body).status == 404


def test_a_study_is_renamed_by_what_is_a_name(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=1)
    client = Client(study)
    path = f"/api/studies/{study.id}/rename"
    for body in (*BODIES[:10], b'{"study_name": null}', b'{"study_name": []}', b'{"study_name": {"a": 1}}'):
        assert is_told(client.ask("POST", path, body=body), path), body[:60]
    assert client.ask("POST", path, body=b'{"study_name": "other"}').status == 201


def test_names_that_a_database_does_not_take(storage: StudyStorage) -> None:
    application = guard_app(make_application(storage), local=True, writable=True, token=None)
    for name in ("x" * 5000, "\0", "\ud800", "", 5, ["a"], {"a": 1}):
        body = json.dumps({"study_name": name, "directions": ["minimize"]}).encode()
        answer = ask(application, "POST", "/api/studies", body=body)
        assert is_told(answer, "/api/studies"), (name, answer)
        assert ask(application, "GET", "/api/studies").status == 200
