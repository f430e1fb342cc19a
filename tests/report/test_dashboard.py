"""`hpo dashboard` as a process, asked by a program and by a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from optuna_dashboard import wsgi
from waitress import create_server

from hpo.errors import RequestError
from hpo.report.chapters.order import make_chapters
from hpo.report.dashboard.access import find_other_users
from hpo.report.dashboard.middleware import Application, Environment, guard_app
from hpo.report.dashboard.publish import publish
from hpo.report.dashboard.server import serve
from hpo.report.figures.plotly_spec import Figure
from hpo.report.report_data import read_report_data
from hpo.study import Study
from hpo.study.files.artifacts import ArtifactFolders, save_artifact
from tests.helpers import hpo
from tests.report.browser import Page, needs_chromium
from tests.report.helpers import filled

TOKEN = "an old friend's token; of some length"  # what a cookie could not hold as it is
SHOWN = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Answer:
    status: int
    body: str
    headers: Mapping[str, str]


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:  # type: ignore[override]
        return None


def ask(url: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """One request; header names have underscores for hyphens, redirects are not followed."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None:
        named["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=data, headers=named, method=method)
    try:
        with urllib.request.build_opener(NoRedirects).open(request, timeout=120) as answer:
            return Answer(answer.status, answer.read().decode(errors="replace"), answer.headers)
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read().decode(), error.headers)


@dataclass
class Running:
    process: subprocess.Popen[str]
    said: list[str]

    @property
    def address(self) -> str:
        found = re.search(r":(\d+)/dashboard", self.said[0])
        assert found, self.said
        return f"http://127.0.0.1:{found[1]}"


@contextmanager
def running(study: Study, *options: str, **environment: str) -> Iterator[Running]:
    """A real `hpo dashboard`, once it answers."""
    command = [sys.executable, "-m", "hpo", "dashboard", study.name, "--storage", str(study.storage.url)]
    clean = {key: value for key, value in os.environ.items() if key not in ("SSH_CONNECTION", "HPO_DASHBOARD_TOKEN")}
    with subprocess.Popen(
        [*command, "--port", "0", *options], stderr=subprocess.PIPE, text=True, env={**clean, **environment}
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        try:
            yield Running(process, said)
        finally:
            process.kill()


def opened(page: Page, url: str, *texts: str, figures: int = 0) -> str:
    """The DOM of a page of the dashboard once it shows these texts, and so many figures of ours."""
    page.open(url)
    page.tab.wait_for_function("(texts) => texts.every((text) => document.body.innerText.includes(text))", arg=texts)
    drawn = "document.querySelectorAll(\"[id^='user-defined-plot:hpo-'].js-plotly-plot\").length"
    page.tab.wait_for_function(f"{drawn} >= {figures}")
    return page.tab.content()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return filled(tmp_path, states=("COMPLETE", "PRUNED"), trials=4)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, Running, Path]]:
    """A study, a dashboard without options that serves it, and their HPO_HOME; for tests that leave no trace there."""
    folder = tmp_path_factory.mktemp("dashboard")
    home = folder / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(home))
        study = filled(folder, states=("COMPLETE", "PRUNED"), trials=4)
        with running(study) as server:
            yield study, server, home


@pytest.fixture
def shared(started: tuple[Study, Running, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Running]:
    """A study and its dashboard, which other tests have too."""
    study, server, home = started
    monkeypatch.setenv("HPO_HOME", str(home))
    return study, server


def content(study: Study) -> list[str]:
    with sqlite3.connect(str(study.storage.url.database)) as connection:
        return list(connection.iterdump())


# Serving.


def test_serves_the_study_and_stops_on_a_signal(study: Study) -> None:
    with running(study) as server:
        assert server.said[1] == f"study filled: {server.address}/dashboard/studies/{study.id}"
        summaries: Any = json.loads(ask(f"{server.address}/api/studies").body)["study_summaries"]
        assert [summary["study_name"] for summary in summaries] == ["filled"]
        trials = json.loads(ask(f"{server.address}/api/studies/{study.id}").body)["trials"]
        assert [trial["state"] for trial in trials] == ["Complete", "Pruned", "Complete", "Pruned"]
        assert trials[0]["values"] == list(study.trials()[0].values)
        page = ask(f"{server.address}/dashboard/studies/{study.id}")
        assert page.status == 200
        assert "<html" in page.body
        assert page.headers["X-Frame-Options"] == "SAMEORIGIN"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=120) == 143


def test_only_its_own_names_are_answered(shared: tuple[Study, Running]) -> None:
    _, server = shared
    for host, status in {"evil.example": 403, "localhost:1": 200, "[::1]": 200, "[": 403}.items():
        assert ask(f"{server.address}/api/studies", Host=host).status == status


def test_a_port_that_is_taken(study: Study) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RequestError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            serve(study.storage, port=port)


def test_an_address_that_is_not_ours(study: Study) -> None:
    with pytest.raises(RequestError, match="cannot listen on"):
        serve(study.storage, host="192.0.2.1")


def test_the_way_through_ssh_is_printed_where_somebody_came_by_it(study: Study) -> None:
    with running(study, SSH_CONNECTION="198.51.100.7 50000 192.0.2.5 2222") as server:
        port = server.address.rsplit(":", 1)[1]
        assert re.fullmatch(
            rf"from your own machine: ssh -p 2222 -L {port}:127\.0\.0\.1:{port} \S+@192\.0\.2\.5", server.said[2]
        )


# Reading and writing.

PLOTS = ("contour", "slice", "parallel_coordinate", "rank", "edf", "timeline", "pareto_front", "nothing")


def routes(study: Study, reading: bool) -> list[tuple[str, str]]:
    """Every route of optuna-dashboard that reads, or that does not, as a method and a path of this study."""
    names = {"study_id": study.id, "trial_id": study.trials()[0]._trial_id, "artifact_id": "0" * 32, "filename": "x.js"}
    found = []
    for route in wsgi(study.storage, artifact_store=ArtifactFolders()).routes:
        rule = re.sub(r"<(\w+)(:[^>]*)?>|<:re:\(/\.\*\)\?>", lambda m: str(names.get(m[1], f"<{m[1]}>")), route.rule)
        paths = [rule.replace("<plot_type>", plot) for plot in (PLOTS if "<plot_type>" in rule else ("",))]
        if (route.method == "GET") == reading:
            found += [(route.method, re.sub(r"<\w+>", "x", path)) for path in paths]
    return found


def test_nothing_that_is_read_writes(study: Study) -> None:
    before = content(study)
    with running(study, "--writable", HPO_DASHBOARD_TOKEN=TOKEN) as server:
        url = server.address
        asked = {path: ask(url + urllib.parse.quote(path), **SHOWN).status for _, path in routes(study, True)}
    assert f"/api/studies/{study.id}/plot/edf" in asked
    assert f"/csv/{study.id}" in asked
    assert asked[f"/api/studies/{study.id}"] == 200
    assert content(study) == before


def test_every_write_is_refused_without_the_right(shared: tuple[Study, Running]) -> None:
    study, server = shared
    before = content(study)
    writes = routes(study, False)
    assert len(writes) >= 15
    for method, path in [*writes, ("PATCH", "/api/studies"), ("OPTIONS", "/api/studies")]:
        answer = ask(server.address + path, method, {"study_name": "other", "directions": ["minimize"]})
        assert (answer.status, "hpo dashboard --writable" in answer.body) == (403, True), (method, path)
        assert answer.body.count("\n") <= 1
    assert content(study) == before


def test_with_the_right_a_write_passes_and_another_sites_does_not(study: Study) -> None:
    body = {"study_name": "other", "directions": ["minimize"]}
    with running(study, "--writable", HPO_DASHBOARD_TOKEN=TOKEN) as server:
        url, host = f"{server.address}/api/studies", server.address.removeprefix("http://")
        for strange in (
            {"Origin": "https://evil.example"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site", "Origin": f"http://{host}"},
        ):
            answer = ask(url, "POST", body, **SHOWN, **strange)
            assert (answer.status, "Another site's page" in answer.body) == (403, True)
        assert len(json.loads(ask(url, **SHOWN).body)["study_summaries"]) == 1
        assert ask(url, "POST", body).status == 401
        assert ask(url, "POST", body, **SHOWN, Origin=f"http://{host}", Sec_Fetch_Site="same-origin").status == 201
        assert ask(f"{url}/{study.id}/note", "PUT", {"version": 1, "body": "mine"}, **SHOWN).status == 204
        assert len(json.loads(ask(url, **SHOWN).body)["study_summaries"]) == 2


# Tokens.


def test_a_host_that_others_reach_asks_for_the_token_that_it_printed(study: Study) -> None:
    with running(study, "--host", "0.0.0.0") as server:
        tokens = re.findall(r"\?token=([\w-]{20,})", "\n".join(server.said))
        assert len(tokens) == 1
        assert any("plain HTTP is not encrypted" in line for line in server.said)
        for path in ("/dashboard", "/api/studies", "/dashboard?token=wrong", "/static/bundle.js", "/artifacts/1/00"):
            answer = ask(server.address + path)
            assert (answer.status, answer.body.count("\n")) == (401, 1)
            assert tokens[0] not in answer.body
        assert ask(f"{server.address}/api/studies", Authorization=f"Bearer {tokens[0]}").status == 200
        assert ask(f"{server.address}/api/studies", Authorization="Bearer wrong").status == 401
        assert ask(f"{server.address}/api/studies", "POST", {}, Authorization=f"Bearer {tokens[0]}").status == 403


def test_a_token_opens_the_dashboard_once_and_leaves_the_address(study: Study) -> None:
    with running(study, HPO_DASHBOARD_TOKEN=TOKEN) as server:
        assert not any(TOKEN in line for line in server.said)
        shown = urllib.parse.urlencode({"numbers": "1", "token": TOKEN})
        answer = ask(f"{server.address}/dashboard/studies/1?{shown}")
        assert (answer.status, answer.headers["Location"]) == (303, "/dashboard/studies/1?numbers=1")
        cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        pair = cookie.split(";")[0]
        assert ask(f"{server.address}/api/studies", Cookie=f"other=1; {pair}").status == 200
        for wrong in (pair[:-1], f"{pair.split('=')[0]}={urllib.parse.quote(TOKEN)}", "=;;", "\xff=\xff"):
            assert ask(f"{server.address}/api/studies", Cookie=wrong).status == 401
        assert ask(f"{server.address}/dashboard?token=wrong", Cookie=pair).status == 401
        assert ask(f"{server.address}//evil.example/?{shown}").headers["Location"] == "/evil.example/?numbers=1"
        assert ask(f"{server.address}/api/studies", Host="evil.example", Cookie=pair).status == 403


def test_a_writable_dashboard_says_whether_it_asks_for_a_token_and_why(study: Study) -> None:
    others = find_other_users()
    with running(study, "--writable") as server:
        [line] = [line for line in server.said if line.startswith("--writable")]
        tokens = re.findall(r"\?token=([\w-]{20,})", server.said[1])
        assert (len(tokens), "asks for a token" in line) == ((1, True) if others else (0, False))
        assert ask(f"{server.address}/api/studies").status == (401 if others else 200)
        for token in tokens:
            assert ask(f"{server.address}/api/studies", Authorization=f"Bearer {token}").status == 200


def test_the_command_says_in_one_line_that_a_token_is_not_utf8(study: Study) -> None:
    done = hpo("dashboard", "--storage", str(study.storage.url), HPO_DASHBOARD_TOKEN=os.fsdecode(b"\xff\xfe" * 8))
    assert done.returncode == 2
    assert done.stderr == "hpo: dashboard: HPO_DASHBOARD_TOKEN is not UTF-8; set it to letters, digits and hyphens\n"


def test_a_token_that_can_be_guessed_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_TOKEN", "abc")
    with pytest.raises(RequestError, match="HPO_DASHBOARD_TOKEN has 3 characters"):
        serve(study.storage, port=0)


# Artifacts.


@pytest.mark.parametrize(
    ("mimetype", "shown"),
    [
        ("image/png", "image/png"),
        ("text/plain; charset=utf-7", "text/plain; charset=utf-8"),
        ("text/html", None),
        ("image/svg+xml", None),
        ("application/xhtml+xml", None),
        ("text/xml", None),
        ("application/pdf", None),
        ("TEXT/HTML", None),
        ("", None),
    ],
)
def test_artifacts_are_shown_only_where_they_are_harmless(
    shared: tuple[Study, Running], mimetype: str, shown: str | None
) -> None:
    study, server = shared
    saved = save_artifact(study, "file", b"<b>content</b>", mimetype)
    answer = ask(f"{server.address}/artifacts/{study.id}/{saved.id}")
    # Bottle leaves out bytes that are no UTF-8, so that this is the same file.
    again = ask(f"{server.address}/artif%FFacts/{study.id}/{saved.id}")
    assert answer.body == "<b>content</b>"
    assert again.headers["Content-Type"] == answer.headers["Content-Type"] == (shown or "application/octet-stream")
    assert (answer.headers["Content-Disposition"] == "attachment") == (shown is None)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_artifact_whose_file_is_elsewhere_is_not_found(shared: tuple[Study, Running]) -> None:
    study, server = shared
    saved = save_artifact(study, "file", b"content", "text/plain")
    assert saved.path is not None
    saved.path.unlink()
    assert ask(f"{server.address}/artifacts/{study.id}/{saved.id}").status == 404


class Beacon:
    """A server that notes what it is asked for."""

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.asked = asked
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # browsers also open connections that say nothing
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def beacon() -> Iterator[Beacon]:
    beacon = Beacon()
    yield beacon
    beacon.server.shutdown()
    beacon.server.server_close()


@contextmanager
def beside(application: Application) -> Iterator[tuple[str, list[str]]]:
    """A server with an empty page of the same origin at its address, and the paths that have been answered."""
    answered: list[str] = []

    def framed(environment: Environment, start: Callable[..., Any]) -> Iterable[bytes]:
        if environment["PATH_INFO"] != "/page":
            yield from application(environment, start)
            answered.append(environment["PATH_INFO"])
            return
        start("200 OK", [("Content-Type", "text/html")])
        yield b"<!doctype html><p>the page</p>"

    server = create_server(framed, host="127.0.0.1", port=0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}/page", answered
    server.close()


def until(happened: Callable[[], bool], page: Page) -> bool:
    """Whether something happens while the browser goes on working; it is given a minute where it must."""
    deadline = time.monotonic() + 60
    while not happened() and time.monotonic() < deadline:
        page.value("new Promise(requestAnimationFrame)")
    return happened()


def html(script: str) -> bytes:
    return f"<!doctype html><html><body><script>{script}</script></body></html>".encode()


def svg(script: str) -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg"><script>{script}</script></svg>'.encode()


@needs_chromium
@pytest.mark.parametrize(("make", "mimetype"), [(html, "text/html"), (svg, "image/svg+xml"), (html, "text/plain")])
def test_scripts_of_artifacts_do_not_run(
    page: Page, study: Study, beacon: Beacon, make: Callable[[str], bytes], mimetype: str
) -> None:
    saved = save_artifact(study, "file", make(f"new Image().src = '{beacon.address}/ran';"), mimetype)
    place = f"/artifacts/{study.id}/{saved.id}"
    plain: Application = wsgi(study.storage, artifact_store=ArtifactFolders())
    if mimetype != "text/plain":  # without the gates it runs
        with beside(plain) as (address, _):
            frame(page, address, place)
            assert until(lambda: "/ran" in beacon.asked, page)
    beacon.asked.clear()
    with beside(guard_app(plain, local=True, writable=False, token=None)) as (address, answered):
        frame(page, address, place)
        assert until(lambda: place in answered, page)
        # A script of the frame would have asked before this page does, after a second frame.
        page.value(AFTER.replace("ADDRESS", beacon.address))
        assert until(lambda: "/after" in beacon.asked, page)
    assert "/ran" not in beacon.asked


AFTER = """new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.onload = () => { new Image().src = "ADDRESS/after"; resolve(); };
    frame.src = "/page";
    document.body.append(frame);
})"""


def frame(page: Page, address: str, place: str) -> None:
    page.open(address)
    page.value(f"document.body.append(Object.assign(document.createElement('iframe'), {{src: '{place}'}}))")


# In a browser.


@needs_chromium
def test_the_pages_show_the_study_its_note_and_its_figures(page: Page, study: Study) -> None:
    figures = [
        block
        for chapter in make_chapters(read_report_data(study))
        for block in chapter.blocks
        if isinstance(block, Figure)
    ]
    drawn = [figure for figure in figures if figure.spec is not None]
    publish(study, ["<b>Verdict</b> of $x$: *none*", "`hpo show filled` shows it"], [], figures)
    save_artifact(study, "notes.txt", b"content", "text/plain")
    with running(study) as server:
        place = f"{server.address}/dashboard/studies/{study.id}"
        opened(page, f"{server.address}/dashboard", "1. filled")
        overview = opened(page, place, "notes.txt", figures=len(drawn))
        note = opened(page, f"{place}/note", "hpo show filled")
        trial = opened(page, f"{place}/trials?numbers=0", "parameter_count")
    places = re.findall(r'js-plotly-plot" id="user-defined-plot:hpo-([^"]+)"', overview)
    assert sorted(places) == sorted(figure.key for figure in drawn)
    assert "Optimization history" in overview
    assert "notes.txt" in overview
    assert "&lt;b&gt;Verdict&lt;/b&gt; of $x$: *none*" in note
    assert re.search(r"<code[^>]*>hpo show filled</code>", note), re.findall(r".{80}hpo show filled.{80}", note)
    assert "hpo writes between" not in note
    assert "parameter_count" in trial


@needs_chromium
def test_a_browser_is_let_in_by_the_token(page: Page, study: Study) -> None:
    with running(study, HPO_DASHBOARD_TOKEN=TOKEN) as server:
        opened(page, f"{server.address}/dashboard?token=wrong", "The token is missing or wrong")
        shown = urllib.parse.urlencode({"token": TOKEN})
        opened(page, f"{server.address}/dashboard?{shown}", "1. filled")
