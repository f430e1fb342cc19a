"""Report on optuna-dashboard's pages: the study's note and its saved figures."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hpo.report.chapters.best_config import best_config_toml
from hpo.report.chapters.order import make_chapters
from hpo.report.chapters.verdict import write_verdict
from hpo.report.checks.finding import Finding
from hpo.report.figures.plotly_spec import Figure, Spec, escape_text
from hpo.report.format import one_line
from hpo.report.report_data import ReportData
from hpo.study import Study
from hpo.study.files.artifacts import save_artifact

__all__ = ["publish", "publish_report"]

log = logging.getLogger("hpo.report.dashboard.publish")
# Definitions of Markdown links that nobody uses: no renderer shows them, and a person who edits the note sees what
# they are for.
BEGIN = "[//]: # (hpo writes between these two lines; write above or below them)"
END = "[//]: # (hpo ends here)"
OURS = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
LONGEST = 400_000  # characters of a figure: each 2,045 of them are a row, which every page of the study reads
# The dashboard chooses between light and dark in the browser, so one colour must be readable on both.
PALETTE = {
    "surface": "rgba(0,0,0,0)",
    "raised": "#f6f7f9",
    "ink": "#78828f",
    "muted": "#78828f",
    "line": "rgba(128,138,150,.6)",
    "grid": "rgba(128,138,150,.25)",
    "faint": "rgba(128,138,150,.45)",
    "soft": "#5f9ac6",
    "veil": "rgba(128,138,150,.15)",
    "on": "#ffffff",
    "accent": "#2b8ac6",
    "second": "#de6a1b",
    "third": "#14976f",
    "fourth": "#bf659b",
    "fifth": "#a3851b",
    "pruned": "#858f9d",
    "fail": "#d4493f",
    "running": "#14976f",
}
CHAPTERS = {
    "honest",
    "nested",
    "mattered",
    "curves",
    "comparison",
    "mistakes",
    "features",
    "reconstruction",
    "pareto",
    "inside",
}  # whose figures are shown
CELL = 450  # pixels of height that the dashboard gives a figure
MODEBAR = {"bgcolor": PALETTE["surface"], "color": PALETTE["faint"], "activecolor": PALETTE["ink"], "orientation": "v"}
GONE: Spec = {
    "data": [],
    "layout": {
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
        "annotations": [{"text": "the report no longer has this figure", "showarrow": False}],
    },
}


def publish_report(data: ReportData) -> None:
    """Put what the report says on the study's pages: its verdict, findings, figures and best configuration.

    What optuna-dashboard draws itself (the course of the search, slices, parallel coordinates) is left to it.
    """
    blocks = [block for chapter in make_chapters(data) if chapter.key in CHAPTERS for block in chapter.blocks]
    figures = [block for block in blocks if isinstance(block, Figure) and not block.key.startswith("isolation")]
    publish(data.study, write_verdict(data), data.findings, figures)
    config, _ = best_config_toml(data.results, data.choice)
    if config:
        with _log_failures(data.study):
            save_artifact(data.study, "best_config.toml", config.encode(), "text/plain")


@contextmanager
def _log_failures(study: Study) -> Iterator[None]:
    """Log whatever a driver raises and go on: a report is worth more than its copy."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error  # Optuna's own error only guesses at what the driver said
        text = one_line(str(cause).partition("\n")[0])
        log.warning("dashboard: %s is not shown there: %s: %s", study.name, type(cause).__name__, text)


def publish(study: Study, lines: Sequence[str], findings: Sequence[Finding], figures: Sequence[Figure]) -> None:
    """Put a report's verdict, findings and figures on the study's pages of optuna-dashboard.

    What a person wrote into the note stays; doing it again changes nothing. It never fails its caller: a database that
    cannot be written to costs one line of the log.

    Args:
        study: whose pages.
        lines: of the verdict, plain text; commands stand between backticks.
        findings: of the diagnostics; those in order are only counted.
        figures: to be drawn; those that have nothing to draw are left out.
    """
    with _log_failures(study):
        _write_note(study, _note_text(lines, findings))
        _write_figures(study, [figure for figure in figures if figure.spec is not None])


# The note.


def _write_note(study: Study, text: str) -> None:
    from optuna_dashboard import get_note, save_note

    note = get_note(study.optuna_study)
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    body = f"{block}\n\n{note}" if note else block
    if OURS.search(note):
        body = OURS.sub(lambda _: block, note, count=1)
    if body != note:
        save_note(study.optuna_study, body)


def _note_text(lines: Sequence[str], findings: Sequence[Finding]) -> str:
    """Write Markdown: the verdict, the findings to act on, those to know, and the counts of the rest."""
    first = [f"**{_render_prose(line)}**" if i == 0 else _render_prose(line) for i, line in enumerate(lines)]
    ranked = sorted((f for f in findings if f.level in ("warning", "note")), key=lambda f: f.level != "warning")
    items = ["\n".join(map(_finding_item, ranked))] if ranked else []
    return "\n\n".join([*first, *(["### Findings"] if findings else []), *items, *_counts_text(findings)])


def _finding_item(finding: Finding) -> str:
    mark = "⚠️" if finding.level == "warning" else "ℹ️"  # noqa: RUF001
    advice = f" → {_render_prose(finding.advice)}" if finding.advice else ""
    return f"- {mark} **{_escape(finding.title)}**: {_render_prose(finding.evidence)}{advice}"


def _counts_text(findings: Sequence[Finding]) -> list[str]:
    kinds = (("ok", "passed"), ("unknown", "not computed"))
    counts = [(sum(f.level == level for f in findings), words) for level, words in kinds]
    text = ", ".join(f"{count} {words}" for count, words in counts if count)
    return [f"Checks: {text}."] if text else []


def _render_prose(text: str) -> str:
    """Render plain text as Markdown; what stands between backticks is code."""
    parts = re.split(r"`([^`]+)`", one_line(text))
    return "".join(f"`{part}`" if i % 2 else _escape(part) for i, part in enumerate(parts))


def _escape(text: str) -> str:
    """Escape text of unknown origin: no character of it means anything to Markdown, HTML or MathJax."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", one_line(text))


# The figures.


def _write_figures(study: Study, figures: Sequence[Figure]) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects  # it has no public reader

    saved = get_plotly_graph_objects(study.storage.get_study_system_attrs(study.id))
    wanted = {_figure_id(figure): _dashboard_spec(figure) for figure in figures}
    removed = {place: GONE for place in saved if place.startswith("hpo-") and place not in wanted}
    for place, spec in {**wanted, **removed}.items():
        _write_figure(study, place, spec, saved.get(place))


def _write_figure(study: Study, place: str, spec: Spec, saved: str | None) -> None:
    import plotly.graph_objects as go
    from optuna_dashboard import save_plotly_graph_object

    figure = go.Figure(spec)
    text = figure.to_json()
    if len(text) > LONGEST:
        log.warning("dashboard: figure %s of %s is too large for the database", place, study.name)
    elif text != saved:
        save_plotly_graph_object(study.optuna_study, figure, graph_object_id=place)


def _figure_id(figure: Figure) -> str:
    """Return an id as HTML has it; ours have a common beginning, for a person may save figures as well."""
    return "hpo-" + re.sub(r"[^A-Za-z0-9_.-]", "-", figure.key)


def _dashboard_spec(figure: Figure) -> Spec:
    """Return the figure under its title, in colours instead of names of the report's palette."""
    assert figure.spec is not None
    spec: Spec = _replace_colours(figure.spec, "")
    layout = spec["layout"]
    layout.pop("hoverlabel", None)  # Plotly's own has the point's colour, readable on any page
    if layout.get("height", 0) <= CELL:
        layout.pop("height", None)  # then it fills its cell
    layout |= {
        "title": {
            "text": escape_text(figure.title),
            "x": 0,
            "xref": "paper",
            "y": 0.96,
            "yanchor": "top",
            "font": {"size": 16},
        },
        "margin": {**layout.get("margin", {}), "t": 88},
        "modebar": MODEBAR,  # upright: a row of buttons would lie on the title
    }
    return spec


def _replace_colours(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _replace_colours(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_colours(item, key) for item in value]
    if isinstance(value, str) and value.startswith("@") and re.search(r"color(scale)?$", key):
        return PALETTE.get(value[1:], value)
    return value
