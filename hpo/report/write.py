"""Writing of reports: all files of a study's report. What is slow is imported only when used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import RequestError
from hpo.utils.files import write_atomically

if TYPE_CHECKING:
    from hpo.report.report_data import ReportData
    from hpo.study import Study

__all__ = ["ReportPaths", "write_report"]

DOCUMENT, OPENING = "report.json", b'{"schema": '


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; `best_config_toml` is None where no trial is complete, `study` for an evaluation."""

    html: Path
    markdown: Path
    json: Path
    best_config: Path | None
    study: Path | None


def write_report(study: Study | ReportData, out: Path) -> ReportPaths:
    """Write the report of a study, or of what has been read of it, to the folder `out`, which is made.

    These are `report.html`, `report.md` with its figures in the folder `report_figures`, `report.json` (see
    `report.schema.json` of this package), `best_config.toml`, and `study.toml`, which launches the same study anew.
    Each file appears whole or not at all; those of an earlier report that this one has not are removed.

    Raises:
        RequestError: the folder cannot be written to, or holds files of these names that are of no report.
        RegistryError: the study uses a model or metric that is not registered here.
    """
    from hpo.report.render.markdown import FIGURES
    from hpo.report.report_data import ReportData, read_report_data

    files, figures = _make_files(study if isinstance(study, ReportData) else read_report_data(study))
    _check_folder(out, (*files, FIGURES))
    try:
        for name, content in files.items():
            _replace(out / name, content)
        _replace_figures(out / FIGURES, figures)
    except OSError as error:
        raise RequestError(f"report: cannot write to {out}: {error.strerror}") from error

    def path(name: str) -> Path | None:
        return out / name if files[name] else None

    html, text, data = (out / name for name in ("report.html", "report.md", DOCUMENT))
    return ReportPaths(html, text, data, path("best_config.toml"), path("study.toml"))


def _check_folder(out: Path, names: Iterable[str]) -> None:
    """Check that the folder holds an earlier report or no such files: what people keep there is not replaced."""
    with suppress(OSError), (out / DOCUMENT).open("rb") as file:
        if file.read(len(OPENING)) == OPENING:
            return
    existing = next((out / name for name in names if (out / name).exists()), None)
    if existing is not None:
        raise RequestError(f"report: {existing} exists and belongs to no report; choose another folder")


def _make_files(data: ReportData) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the report's files by name, those to be removed empty; and the figures of the Markdown."""
    from hpo.report.chapters.best_config import best_config_toml
    from hpo.report.chapters.order import make_chapters, study_facts
    from hpo.report.chapters.reproduction import format_study_file
    from hpo.report.chapters.verdict import write_verdict
    from hpo.report.format import time_text
    from hpo.report.render.html import render_html
    from hpo.report.render.json import report_document
    from hpo.report.render.markdown import render_markdown

    content = (data.results.name, write_verdict(data), study_facts(data), make_chapters(data), time_text(data.read_at))
    text, figures = render_markdown(*content)
    texts = {
        DOCUMENT: json.dumps(report_document(data), allow_nan=False),  # first, for by it a report is known
        "report.html": render_html(*content),
        "report.md": text,
        "best_config.toml": best_config_toml(data.results, data.choice)[0],
        "study.toml": format_study_file(data.results),
    }
    return {name: text.encode() for name, text in texts.items()}, figures


def _replace_figures(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the figures to the folder, and remove those of an earlier report."""
    if not files and not folder.exists():
        return
    for name, content in files.items():
        _replace(folder / name, content)
    for path in folder.iterdir():
        if path.suffix in (".svg", ".png") and path.name not in files:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole, so that no reader sees half of it; remove it where it would be empty."""
    if not content:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content, sync=False)
