"""Reports in a browser: every figure is drawn, and nothing is fetched."""

from __future__ import annotations

from pathlib import Path

from hpo.report.write import write_report
from tests.report.browser import Page, needs_chromium
from tests.report.helpers import BASELINE, add_foreign, filled

pytestmark = needs_chromium
DRAWN = "document.querySelectorAll('.figure > .plot-container').length"


def test_what_a_page_asks_for_is_seen(page: Page, tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    place.write_text('<img src="http://nowhere.invalid/picture.png">')
    page.open(place)
    assert page.requests == [place.as_uri(), "http://nowhere.invalid/picture.png"]


def test_every_figure_is_drawn_and_nothing_is_fetched(page: Page, tmp_path: Path) -> None:
    states = ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "diverged")
    study = filled(tmp_path, states=states, trials=30, baseline=BASELINE)
    add_foreign(study, {"<img src=x onerror=alert(1)>": "<script>alert(1)</script>"}, 0.9)
    place = write_report(study, tmp_path / "out").html
    page.open(place)
    places = page.value("document.querySelectorAll('.figure').length")
    assert places >= 12
    assert page.value(DRAWN) == places
    assert "96.0%" in page.value("document.querySelector('#figure-history').textContent")  # the axis's labels
    assert page.value("document.querySelectorAll('[onerror], main img, main script').length") == 0
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [place.as_uri()]


def test_several_objectives_are_drawn(page: Page, tmp_path: Path) -> None:
    study = filled(tmp_path, objective=["val_accuracy", "parameter_count"], pruner="none", trials=12)
    page.open(write_report(study, tmp_path / "out").html)
    assert page.value("document.querySelectorAll('#figure-pareto > .plot-container').length") == 1
    assert page.complaints == []


def test_a_study_without_results_is_a_page(page: Page, tmp_path: Path) -> None:
    page.open(write_report(filled(tmp_path, states=("FAIL",), trials=2), tmp_path / "out").html)
    assert "No result yet" in page.value("document.body.innerText")
    assert page.complaints == []
