"""What a report leaves on a study's pages of optuna-dashboard, read back as the dashboard reads it."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from sqlalchemy import event

from hpo.report.checks.finding import Finding
from hpo.report.dashboard.publish import PALETTE, publish
from hpo.report.figures.plotly_spec import Figure, build_spec
from hpo.study import Study
from tests.report.helpers import filled

LINES = ["Trial 3 leads.", "It is better than the baseline.", "Next: run `hpo evaluate filled`"]
FINDINGS = [
    Finding("calm", "calm", "ok", "nothing to see"),
    Finding("known", "seeds", "note", "one seed each"),
    Finding("boundary", "boundary of depth", "warning", "3 of 4 lie at 3", "raise its upper bound", "high = 6"),
    Finding("odd", "odd", "unknown", "too few trials"),
]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return filled(tmp_path, trials=3)


def figure(key: str, **trace: Any) -> Figure:
    data = {"type": "scatter", "x": [1, 2], "y": [3, 4], "text": ["@accent", "b"], "marker": {"color": "@accent"}}
    return Figure(key, f"Figure <{key}>", "how to read it", build_spec([{**data, **trace}], 300))


def note(study: Study) -> str:
    return get_note(study.optuna_study)


def figures(study: Study) -> dict[str, Any]:
    there = get_plotly_graph_objects(study.storage.get_study_system_attrs(study.id))
    return {place: json.loads(text) for place, text in there.items()}


def shown(study: Study) -> str:
    """The note's text as a renderer of Markdown shows it that passes HTML through, as the dashboard's does."""
    return MarkdownIt("commonmark", {"html": True}).render(note(study))


def content(study: Study) -> list[str]:
    with sqlite3.connect(str(study.storage.url.database)) as connection:
        return list(connection.iterdump())


def test_the_note_holds_the_verdict_and_what_to_act_on_first(study: Study) -> None:
    publish(study, LINES, FINDINGS, [])
    page = shown(study)
    assert "<strong>Trial 3 leads.</strong>" in page
    assert "<code>hpo evaluate filled</code>" in page
    assert re.findall(r"<li>[^<]*<strong>(.*?)</strong>", page) == ["boundary of depth", "seeds"]
    assert "3 of 4 lie at 3 → raise its upper bound" in page
    assert "Checks: 1 passed, 1 not computed." in page
    assert "hpo writes between" not in page


def test_what_a_person_wrote_stays(study: Study) -> None:
    mine = "## Mine\n\nabove $x$ [link](https://example.org)"
    save_note(study.optuna_study, mine)
    publish(study, LINES, FINDINGS, [])
    assert note(study).endswith(mine)
    save_note(study.optuna_study, f"before\n\n{note(study)}\n\nafter")
    publish(study, ["Something \\1 else."], [], [])
    there = note(study)
    assert there.startswith("before\n\n")
    assert there.endswith(f"{mine}\n\nafter")
    assert "Something \\\\1 else." in there
    assert "Trial 3 leads." not in there


def test_a_mark_that_a_person_removed_costs_nothing_of_theirs(study: Study) -> None:
    publish(study, LINES, [], [])
    broken = note(study).replace("[//]: # (hpo ends here)", "and my own words")
    save_note(study.optuna_study, broken)
    publish(study, ["New."], [], [])
    assert note(study).endswith(broken)
    publish(study, ["Newer."], [], [])
    assert note(study).endswith(broken)
    assert "New." not in note(study)


def test_a_second_time_changes_nothing(study: Study) -> None:
    publish(study, LINES, FINDINGS, [figure("history"), figure("curves", y=list(range(2000)))])
    before = content(study)
    publish(study, LINES, FINDINGS, [figure("history"), figure("curves", y=list(range(2000)))])
    assert content(study) == before


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1)) ![b](http://x.invalid/y.png)",
        "&lt;b&gt; **bold** _it_ ~~s~~ # head",
        "`<b>` and \\` <i>",
        "$x$ \\(y\\) `unclosed <u>",
        "one\n\n# two\n[//]: # (hpo ends here)",
    ],
)
def test_unknown_text_is_text(study: Study, text: str) -> None:
    publish(study, ["First.", text], [Finding("x", text, "warning", text, text)], [])
    page = shown(study)
    tags = {tag.lower() for tag in re.findall(r"</?([a-zA-Z]\w*)", page)}
    assert tags <= {"p", "strong", "h3", "ul", "li", "code"}
    assert note(study).count("\n[//]: # (hpo ends here)") == 1


def test_figures_have_a_title_and_colours_that_plotly_knows(study: Study) -> None:
    publish(study, [], [], [figure("a"), Figure("empty", "Empty", reason="no trials")])
    (saved,) = figures(study).values()
    (trace,) = saved["data"]
    assert trace["marker"]["color"] == PALETTE["accent"]
    assert trace["text"] == ["@accent", "b"]  # what a trial is called is no colour
    assert saved["layout"]["title"]["text"] == "Figure &lt;a&gt;"
    assert "@" not in json.dumps(saved["layout"])


def test_a_figure_that_is_no_more_says_so_and_a_persons_own_stays(study: Study) -> None:
    import plotly.graph_objects as go
    from optuna_dashboard import save_plotly_graph_object

    save_plotly_graph_object(study.optuna_study, go.Figure({"data": [{"y": [1]}]}), graph_object_id="mine")
    publish(study, [], [], [figure("a"), figure("b c/ü")])
    publish(study, [], [], [figure("a")])
    there = figures(study)
    assert set(there) == {"mine", "hpo-a", "hpo-b-c--"}
    assert there["mine"]["data"][0]["y"] == [1]
    assert there["hpo-b-c--"]["data"] == []


def test_a_figure_too_large_for_the_database_is_left_out(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    publish(study, LINES, [], [figure("big", text=["x" * 1000] * 500), figure("a")])
    assert set(figures(study)) == {"hpo-a"}
    assert "figure hpo-big of filled is too large" in caplog.text


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("page", ["#ffffff", "#1e1e1e"])
@pytest.mark.parametrize("name", ["ink", "muted", "accent", "second", "third", "fourth", "fifth", "fail"])
def test_colours_are_readable_on_light_and_dark_pages(name: str, page: str) -> None:
    dark, light = sorted((luminance(PALETTE[name]), luminance(page)))
    assert (light + 0.05) / (dark + 0.05) >= 3  # what WCAG asks of graphics and large text


def test_a_database_that_cannot_be_written_to_costs_one_line(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    @event.listens_for(study.storage.engine, "checkout")  # root may write to any file, so SQLite itself refuses
    def read_only(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute("PRAGMA query_only = 1")

    with caplog.at_level(logging.WARNING):
        publish(study, LINES, FINDINGS, [figure("a")])
    ours = [record for record in caplog.records if record.name == "hpo.report.dashboard.publish"]
    assert len(ours) == 1
    assert "\n" not in ours[0].getMessage()
    assert "filled is not shown there" in ours[0].getMessage()
    assert "readonly" in ours[0].getMessage()
