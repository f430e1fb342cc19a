from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hpo.report.write import write_report
from tests.report.helpers import BASELINE, add_foreign, filled

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-component-update",
    "--disable-background-networking", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000",
    # A browser has requests of its own as well; nothing of all this shall leave the machine.
    "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def opened(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """The page's DOM after its scripts have run, and what they said on the console."""
    command = [str(CHROMIUM), *FLAGS, *flags, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def requests(log: Path) -> set[str]:
    """Every URL that the page asked for, from the browser's network log; its own requests have no origin."""
    text = log.read_text()
    events = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    return {params["url"] for params in asked if params["initiator"] != "not an origin"}


def test_the_network_log_shows_what_a_page_asks_for(tmp_path: Path) -> None:
    page, log = tmp_path / "page.html", tmp_path / "net.json"
    page.write_text('<img src="http://nowhere.invalid/picture.png">')
    opened(page, tmp_path / "profile", f"--log-net-log={log}")
    assert requests(log) == {"http://nowhere.invalid/picture.png"}


def test_every_figure_is_drawn_and_nothing_is_fetched(tmp_path: Path) -> None:
    states = ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "diverged")
    study = filled(tmp_path, states=states, trials=30, baseline=BASELINE)
    add_foreign(study, {"<img src=x onerror=alert(1)>": "<script>alert(1)</script>"}, 0.9)
    page = write_report(study, tmp_path / "out").html
    log = tmp_path / "net.json"
    dom, console = opened(page, tmp_path / "profile", f"--log-net-log={log}")
    places = re.findall(r'class="figure[^"]*" id="figure-', dom)
    assert len(places) >= 12
    drawn = re.findall(r'id="figure-[^"]*"[^>]*>\s*<div class="plot-container', dom)
    assert len(drawn) == len(places)
    assert "98.0" in dom.split("Optimisation history", 2)[2]  # the axis's labels are there
    assert "onerror" not in re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL).replace(
        "&lt;img src=x onerror", ""
    )
    assert console == []
    assert requests(log) == set()


def test_several_objectives_are_drawn(tmp_path: Path) -> None:
    study = filled(tmp_path, objective=["val_accuracy", "parameter_count"], pruner="none", trials=12)
    dom, console = opened(write_report(study, tmp_path / "out").html, tmp_path / "profile")
    assert re.search(r'id="figure-pareto"[^>]*>\s*<div class="plot-container', dom)
    assert console == []


def test_a_study_without_results_is_a_page(tmp_path: Path) -> None:
    study = filled(tmp_path, states=("FAIL",), trials=2)
    dom, console = opened(write_report(study, tmp_path / "out").html, tmp_path / "profile")
    assert "No result yet" in dom
    assert console == []
