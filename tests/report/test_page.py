"""The HTML report as its reader uses it, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.report.write import write_report
from hpo.study import Study
from tests.report.browser import CHROMIUM, Page, browser
from tests.report.helpers import BASELINE, add_foreign, evaluated, filled
from tests.report.test_error_analysis import drawn_predictions, saved
from tests.study.helpers import make_study

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing")
MIXED = ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "diverged")
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
TABLE = "#table-trials .live"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figure of report.md, which takes most of the time of a report and is nothing of the page."""
    monkeypatch.setattr("hpo.report.render.markdown.render_svg", lambda _: "<svg/>")


def open_report(page: Page, study: Study, out: Path, **window: int) -> dict[str, Any]:
    """Open the report of a study; what its report.json holds."""
    paths = write_report(study, out)
    page.emulate()
    page.open(paths.html, **window)
    document: dict[str, Any] = json.loads(paths.json.read_text())
    return document


def column(page: Page, name: str) -> list[str]:
    """The texts of one column of the table of trials, top to bottom."""
    cells: list[str] = page.value(f"""(() => {{
        const table = document.querySelector({json.dumps(TABLE)});
        const names = [...table.querySelectorAll("th")].map((header) => header.textContent);
        return [...table.querySelectorAll("tbody tr")].map((row) => row.cells[names.indexOf({json.dumps(name)})].textContent);
    }})()""")  # noqa: E501
    return cells


def header(page: Page, name: str) -> str:
    """The selector of a header's button."""
    names = page.value(f"[...document.querySelectorAll('{TABLE} th')].map((header) => header.textContent)")
    return f"{TABLE} th:nth-child({names.index(name) + 1}) button"


def order(page: Page) -> list[str]:
    """What `aria-sort` says of every header."""
    told: list[str] = page.value(
        f"[...document.querySelectorAll('{TABLE} th')].map((header) => header.getAttribute('aria-sort'))"
    )
    return told


def status(page: Page) -> str:
    text: str = page.value(f"document.querySelector('{TABLE} [role=status]').textContent")
    return text


def shown(numbers: list[int]) -> list[str]:
    return [str(number) for number in numbers]


def test_trials_are_sorted_by_their_headers(page: Page, tmp_path: Path) -> None:
    document = open_report(page, filled(tmp_path, states=MIXED, trials=30, baseline=BASELINE), tmp_path / "out")
    rows = document["trials"]
    given = column(page, "trial")
    assert given[0] == str(document["best"]["number"])
    assert set(order(page)) == {"none"}

    page.click(header(page, "dropout"))
    held = [row["dropout"] for number in column(page, "trial") for row in rows if row["number"] == int(number)]
    assert held == sorted(held)
    assert order(page).count("ascending") == 1

    page.click(header(page, "dropout"))
    held = [row["dropout"] for number in column(page, "trial") for row in rows if row["number"] == int(number)]
    assert held == sorted(held, reverse=True)
    assert order(page).count("descending") == 1

    page.click(header(page, "dropout"))
    assert column(page, "trial") == given
    assert set(order(page)) == {"none"}
    assert page.complaints == []


def test_values_that_are_missing_come_last_both_ways(page: Page, tmp_path: Path) -> None:
    document = open_report(page, filled(tmp_path, states=MIXED, trials=30), tmp_path / "out")
    missing = [row["number"] for row in document["trials"] if row["val_accuracy"] is None]
    assert 0 < len(missing) < 30
    for _ in range(2):
        page.click(header(page, "val_accuracy"))
        assert {int(number) for number in column(page, "trial")[-len(missing) :]} == set(missing)


def test_the_table_is_sorted_from_the_keyboard(page: Page, tmp_path: Path) -> None:
    open_report(page, filled(tmp_path, states=MIXED, trials=12), tmp_path / "out")
    page.value(f"document.querySelector({json.dumps(header(page, 'trial'))}).focus()")
    page.press("Enter")
    assert column(page, "trial") == shown(list(range(12)))
    page.press(" ")
    assert column(page, "trial") == shown(list(reversed(range(12))))


def test_trials_are_filtered_by_text_and_state(page: Page, tmp_path: Path) -> None:
    document = open_report(page, filled(tmp_path, states=MIXED, trials=30), tmp_path / "out")
    diverged = [row["number"] for row in document["trials"] if row["failure"] == "diverged"]
    page.type(f"{TABLE} input", "DIVERGED")
    assert column(page, "trial") == shown(diverged)
    assert status(page) == f"1 to {len(diverged)} of {len(diverged)}"
    page.type(f"{TABLE} input", " nothing of the kind")
    assert column(page, "trial") == []
    assert status(page) == "no row"

    page.value(f"""(() => {{
        const [input, select] = document.querySelectorAll("{TABLE} input, {TABLE} select");
        input.value = "adam";
        select.value = "complete";
        select.dispatchEvent(new Event("change"));
    }})()""")
    adam = {row["number"] for row in document["trials"] if row["optimizer"] == "adam" and row["state"] == "COMPLETE"}
    assert {int(number) for number in column(page, "trial")} == adam


def test_a_long_table_is_turned_in_pages(page: Page, tmp_path: Path) -> None:
    open_report(page, filled(tmp_path, parameters={"depth": {"low": 1, "high": 3}}, trials=120), tmp_path / "out")
    page.click(header(page, "trial"))
    assert status(page) == "1 to 50 of 120"
    page.click(f"{TABLE} [aria-label='next page']")
    page.click(f"{TABLE} [aria-label='next page']")
    assert status(page) == "101 to 120 of 120"
    assert column(page, "trial") == shown(list(range(100, 120)))
    assert page.value(f"document.querySelector(\"{TABLE} [aria-label='next page']\").disabled")


def test_hostile_texts_are_texts(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hpo.study.input.study_file.check_name", lambda name: name
    )  # not ours, but a database can hold any name
    study = filled(tmp_path, f"a {HOSTILE}", states=MIXED, trials=10)
    add_foreign(study, {HOSTILE: HOSTILE, "__proto__": "x"}, 0.99)
    open_report(page, study, tmp_path / "out")
    assert page.value("document.title") == f"a {HOSTILE}: report"
    assert page.value("document.querySelectorAll('main img, header img, body script[src]').length") == 0
    assert HOSTILE in column(page, HOSTILE)
    assert page.value("document.querySelectorAll('.figure .plot-container').length") > 5
    assert page.complaints == []


@pytest.mark.parametrize("kind", ["evaluated", "hostile", "several", "one", "empty"])
def test_a_phone_scrolls_down_only(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("hpo.study.input.study_file.check_name", lambda name: name)
    open_report(page, studies(tmp_path, kind), tmp_path / "out", width=360, height=740)
    assert page.value("innerWidth") == 360
    assert page.value("document.documentElement.scrollWidth") == 360
    assert page.complaints == []


def studies(folder: Path, kind: str) -> Study:
    match kind:
        case "evaluated":
            study = filled(folder, states=MIXED, trials=15, baseline=BASELINE)
            best = study.best()
            assert best is not None
            evaluated(study, [best.number], {f"trial {best.number}": 0.97, "baseline": 0.95, "defaults": 0.94})
            return study
        case "hostile":
            study = filled(folder, "x" * 200, states=MIXED, trials=10)
            add_foreign(study, {"y" * 200: "z" * 200}, 0.99)
            return study
        case "several":
            objectives = ["val_accuracy", "parameter_count", "val_loss"]
            return filled(folder, objective=objectives, pruner="none", trials=12)
        case "one":
            return filled(folder, trials=1)
        case _:
            return make_study(folder)


def test_paper_has_the_best_trials_as_a_plain_table(page: Page, tmp_path: Path) -> None:
    study = filled(tmp_path, parameters={"depth": {"low": 1, "high": 3}}, trials=60)
    document = open_report(page, study, tmp_path / "out")
    visible = "(selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).length"
    assert page.value(f"({visible})('#table-trials .fixed tr')") == 0
    page.emulate(media="print")
    assert page.value(f"({visible})('{TABLE}')") == 0
    assert page.value(f"({visible})('#table-trials .fixed tbody tr')") == 50
    first = page.value("document.querySelector('#table-trials .fixed tbody td').textContent")
    assert first == str(document["best"]["number"])
    assert page.value(f"({visible})('nav, button')") == 0
    assert page.pdf().startswith(b"%PDF-")


def test_figures_follow_the_colour_scheme(page: Page, tmp_path: Path) -> None:
    open_report(page, filled(tmp_path, trials=8), tmp_path / "out")
    ink = "getComputedStyle(document.querySelector('#figure-history .xtick text')).fill"
    light = page.value(ink)
    page.emulate(scheme="dark")
    # The page is told of the change between two frames.
    dark = page.value(f"""(async () => {{
        for (let frame = 0; frame < 100 && {ink} === {json.dumps(light)}; frame++) await new Promise(requestAnimationFrame);
        return {ink};
    }})()""")  # noqa: E501
    assert light != dark
    assert page.value("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_scales_of_colours_are_of_the_theme(page: Page, tmp_path: Path) -> None:
    study = filled(tmp_path, trials=8)
    predictions = saved(drawn_predictions(3), tmp_path / "predictions.npz").read_bytes()
    evaluated(study, [0], {"trial 0": 0.9, "defaults": 0.8}, predictions=predictions)
    open_report(page, study, tmp_path / "out")
    scale = page.value("document.getElementById('figure-confusion').data[0].colorscale")
    assert scale == [[0, "#ffffff"], [1, "#b3261e"]]


def test_after_printing_the_page_is_as_before(page: Page, tmp_path: Path) -> None:
    open_report(page, filled(tmp_path, states=MIXED, trials=12), tmp_path / "out")
    heights = "[...document.querySelectorAll('.figure')].map((figure) => figure.getBoundingClientRect().height)"
    overlaps = "[...document.querySelectorAll('.figure')].filter((f) => f.scrollHeight > f.clientHeight + 1).length"
    before = page.value(heights)
    page.pdf()
    assert page.value(heights) == before
    assert page.value(overlaps) == 0
    assert page.value("document.querySelectorAll('details[open]').length") == 0
