from __future__ import annotations

import html.parser
import json
import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt

from hpo.errors import RequestError
from hpo.report.data.results import read_results
from hpo.report.figures.axes import choose_round_ticks, list_named_values
from hpo.report.figures.overview import pareto_figure
from hpo.report.format import domain_text, duration_text, finite, number_text, value_text, values_text
from hpo.report.render.json import report_schema
from hpo.report.write import write_report
from hpo.space import Choices, Float, Int
from hpo.study import Study
from tests.report.helpers import BASELINE, add_foreign, filled, tell_all
from tests.study.helpers import make_study

MIXED = ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "diverged", "RUNNING")
EVIL = "<script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """What a browser would find: text outside of scripts, scripts, and every reference."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.scripts, self.references, self._in_script = "", list[str](), list[str](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        if tag == "script":
            self.scripts.append("")
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data

    @property
    def figures(self) -> dict[str, Any]:
        """The figures as they are drawn: with their long texts in place."""
        held = json.loads(self.scripts[0])
        specs: dict[str, Any] = _texts_placed(held["specs"], held["texts"])
        return specs

    @property
    def tables(self) -> dict[str, Any]:
        tables: dict[str, Any] = json.loads(self.scripts[1])
        return tables


def _texts_placed(data: Any, texts: list[str]) -> Any:
    if isinstance(data, str):
        return texts[int(data[1:])] if data.startswith("~") else data
    if isinstance(data, dict):
        return {key: _texts_placed(value, texts) for key, value in data.items()}
    return [_texts_placed(value, texts) for value in data] if isinstance(data, list) else data


def report(study: Study, out: Path) -> tuple[Page, str, dict[str, Any]]:
    paths = write_report(study, out)
    document = json.loads(paths.json.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    jsonschema.Draft202012Validator(report_schema()).validate(document)
    page = Page(paths.html.read_text())
    # Plotly's own checks of what we hand it.
    import plotly.graph_objects as go

    for spec in page.figures.values():
        go.Figure(json.loads(re.sub(r'"@\w+"', '"red"', json.dumps(spec))))
    return page, paths.markdown.read_text(), document


def test_its_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_report(filled(tmp_path, states=MIXED), tmp_path / "out")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_five_files_and_the_answer_first(tmp_path: Path, real_svg: None) -> None:
    study = filled(tmp_path, states=MIXED, trials=30, baseline=BASELINE)
    out = tmp_path / "out"
    page, text, document = report(study, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "best_config.toml",
        "report.html",
        "report.json",
        "report.md",
        "report_figures",
        "study.toml",
    ]
    best = study.best()
    assert best is not None
    score = f"{100 * best.values[0]:.2f} %"
    first = f"Trial {best.number}: validation accuracy {score}, best of 10 complete trials; not tested yet."
    body = page.text.split("filled", 2)[2]
    assert body.strip().startswith(first)
    assert text.startswith(f"# filled\n\n**{first}")
    for words in ("The test set has not been read.", "of 10 complete trials", "It leads the baseline by"):
        assert words in page.text
        assert words in text
    assert "hpo train --config best_config.toml" in text
    assert document["best"]["number"] == best.number
    assert len(document["trials"]) == 30
    assert tomllib.loads((out / "best_config.toml").read_text())["parameters"]["epochs"] == 4
    assert {"history", "curves", "importance", "parallel", "timeline", "slice-0"} <= set(page.figures)


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page, _, _ = report(filled(tmp_path, trials=6), tmp_path / "out")
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert len(page.scripts) == 5  # figures and tables as data, plotly, ours
    assert len((tmp_path / "out" / "report.html").read_text()) < 6e6


def test_no_trial_data_is_trusted_as_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hpo.study.input.study_file.check_name", lambda name: name
    )  # not ours, but a database can hold any name
    study = filled(tmp_path, f"a {EVIL} | b", states=("COMPLETE", "FAIL"), trials=8)
    add_foreign(study, {EVIL: f"</script>{EVIL}"}, 0.9)
    page, text, _ = report(study, tmp_path / "out")
    assert len(page.scripts) == 5
    assert EVIL in page.text  # as text
    everything = json.dumps(page.figures)  # plotly reads markup in texts; tables are written as plain text
    assert "<script" not in everything
    assert "&lt;script&gt;" in everything
    rendered = MarkdownIt("commonmark").enable("table").render(text)  # which lets HTML pass
    assert "&lt;script&gt;" in rendered
    assert "<script" not in rendered
    assert "<img" not in rendered.replace('<img src="report_figures/', "")
    assert f"# a \\{EVIL[:-1]}".split("(")[0][:8] in text


def test_a_study_without_any_trial_begun(tmp_path: Path) -> None:
    page, text, document = report(make_study(tmp_path, sampler="tpe"), tmp_path / "out")
    assert "No result yet" in page.text
    assert page.figures == {}
    assert "hpo launch small" in page.text
    assert document["best"] is None
    assert not (tmp_path / "out" / "best_config.toml").exists()
    assert "no trial is complete (no trials yet)" in text
    assert "## Best configuration" not in text
    assert "## Cost" not in text


@pytest.mark.parametrize("states", [("FAIL",), ("PRUNED",), ("diverged",), ("RUNNING",)])
def test_a_study_without_a_complete_trial(tmp_path: Path, states: tuple[str, ...]) -> None:
    page, text, _ = report(filled(tmp_path, states=states, trials=5), tmp_path / "out")
    assert "No result yet" in page.text
    assert "No result yet" in text
    assert "curves" in page.figures


def test_one_trial(tmp_path: Path) -> None:
    page, text, _ = report(filled(tmp_path, trials=1), tmp_path / "out")
    assert "The only complete trial has been scored on validation data only." in text
    assert "This needs at least 10 complete trials; there are 1." in page.text
    assert "parallel" not in page.figures


def test_several_objectives(tmp_path: Path) -> None:
    objectives = ["val_accuracy", "parameter_count", "val_loss"]
    page, text, _ = report(filled(tmp_path, objective=objectives, pruner="none", trials=20), tmp_path / "out")
    assert "pareto" in page.figures
    assert "## Pareto front" in text
    assert text.index("## Pareto front") < text.index("## Cost")
    assert {trace["name"] for trace in page.figures["pareto"]["data"]} == {"Pareto front", "other trials"}


@pytest.mark.parametrize(("most", "kind"), [(19_000, None), (20_000, "log")])
def test_costs_that_lie_far_apart_are_drawn_on_a_logarithmic_axis(
    tmp_path: Path, most: float, kind: str | None
) -> None:
    results = read_results(filled(tmp_path, objective=["val_accuracy", "parameter_count"], pruner="none", trials=4))
    costs = [1000.0, 3000.0, 4000.0, most]
    rows = [replace(row, values=(0.9, cost)) for row, cost in zip(results.trials, costs, strict=True)]
    spec = pareto_figure(replace(results, trials=rows)).spec
    assert spec is not None
    assert spec["layout"]["xaxis"].get("type") == kind
    if kind:
        assert spec["layout"]["xaxis"]["ticktext"] == ["1000", "2000", "5000", "10000", "20000"]


def test_no_varied_parameter(tmp_path: Path) -> None:
    page, text, _ = report(filled(tmp_path, parameters={"epochs": 2}, trials=4), tmp_path / "out")
    assert "The study varies no parameter." in page.text
    assert "The study varies no parameter." in text


def test_trials_of_others(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=10)
    add_foreign(study, {"colour": "red", "depth": 9, "dropout": 0.7, "learning_rate[optimizer=adam]": 5.0}, 0.999)
    page, text, _ = report(study, tmp_path / "out")
    assert "1 trial was added by others" in text
    assert "it was added by others" in page.text
    assert not (tmp_path / "out" / "best_config.toml").exists()


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6)
    add_foreign(study, {"depth": 1}, float("inf"))
    page, _, document = report(study, tmp_path / "out")
    assert document["trials"][6]["val_accuracy"] is None
    assert document["best"]["number"] < 6
    assert "Infinity" not in page.scripts[0]


def test_an_outdated_best_configuration_goes(tmp_path: Path) -> None:
    write_report(filled(tmp_path, "first", trials=2), tmp_path / "out")
    assert (tmp_path / "out" / "best_config.toml").exists()
    assert write_report(make_study(tmp_path, "second"), tmp_path / "out").best_config is None
    assert not (tmp_path / "out" / "best_config.toml").exists()


def test_files_of_the_same_names_that_are_of_no_report_are_kept(tmp_path: Path) -> None:
    study, theirs = filled(tmp_path, trials=1), tmp_path / "study.toml"
    theirs.write_text("mine")
    with pytest.raises(RequestError, match=r"study.toml exists and belongs to no report; choose another folder"):
        write_report(study, tmp_path)
    assert theirs.read_text() == "mine"
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="report: cannot write to"):
        write_report(filled(tmp_path, trials=1), tmp_path / "file" / "out")


def test_baseline_that_is_the_best_says_so(tmp_path: Path) -> None:
    study = make_study(tmp_path, parameters={"depth": [1, 2]}, baseline={"depth": 1}, trials=1)
    tell_all(study)
    _, text, _ = report(study, tmp_path / "out")
    assert "The best trial is the baseline itself" in text


def test_baseline_without_a_score_says_so(tmp_path: Path) -> None:
    study = filled(tmp_path, states=("PRUNED", "COMPLETE"), baseline=BASELINE, trials=4)
    _, text, _ = report(study, tmp_path / "out")
    assert "The baseline (trial 0) has no score to compare with: it was pruned." in text


def test_conditional_keys_are_legible(tmp_path: Path) -> None:
    page, text, _ = report(filled(tmp_path, trials=20), tmp_path / "out")
    assert "learning_rate (optimizer = adam)" in page.text
    assert "[optimizer=" not in page.text
    assert "[optimizer=" not in text


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (values_text("val_accuracy", 0.978), "97.80 %"),
        (values_text("val_loss", 0.123456), "0.1235"),
        (values_text("parameter_count", 101770.0), "101,770"),
        (values_text("val_loss", float("nan")), "nan"),
        (value_text(0.00199813), "0.002"),
        (value_text(0.0123456), "0.0123"),
        (value_text(True), "true"),
        (value_text(256), "256"),
        (duration_text(4.23), "4.2 s"),
        (duration_text(123), "2 min 03 s"),
        (duration_text(3900), "1 h 05 min"),
        (duration_text(59.97), "1 min 00 s"),
        (domain_text(Float(1e-4, 1e-1, log=True)), "0.0001 to 0.1, log"),
        (domain_text(Choices((True, False))), "true, false"),
    ],
)
def test_words(told: str, text: str) -> None:
    assert told == text


def test_scales() -> None:
    assert list_named_values([Int(1, 3)], [2]) == [1, 2, 3]
    assert list_named_values([Float(0.0, 0.3, step=0.1)], [0.1 + 0.2]) == [0.0, 0.1, 0.2, 0.3]
    assert list_named_values([Int(1, 300)], [2]) is None
    assert list_named_values([Choices(("b", "a"))], ["c"]) == ["b", "a", "c"]
    assert choose_round_ticks(1e-4, 1e-1) == [1e-4, 1e-3, 1e-2, 1e-1]
    assert choose_round_ticks(5e-4, 5e-3) == [5e-4, 1e-3, 2e-3, 5e-3]
    assert choose_round_ticks(3.1, 3.2) == [3.1, 3.2]


@pytest.mark.parametrize(
    ("value", "text"), [(300_000, "300000"), (0.00123456, "0.001235"), (-2.0, "-2"), (1e20, "1e+20")]
)
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text


def test_finite() -> None:
    assert finite({1: [float("nan"), (float("inf"), 2.0)], "a": True}) == {"1": [None, [None, 2.0]], "a": True}
