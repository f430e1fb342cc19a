"""Reports: results, figures, export, HTML, Markdown. They read a study; no torch, and what is slow only when used."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import RequestError

if TYPE_CHECKING:
    from hpo.report.plot import Figure
    from hpo.report.results import Results
    from hpo.study import Study

__all__ = ["ReportPaths", "write_report"]


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; `best_config` is None where no trial is complete."""

    html: Path
    markdown: Path
    json: Path
    best_config: Path | None


def write_report(study: Study, out: Path) -> ReportPaths:
    """Write `report.html`, `report.md`, `report.json` and `best_config.toml` to the folder `out`, which is made.

    Each file appears whole or not at all. A `best_config.toml` of an earlier report is removed where there is no best
    trial any more. `report.json` has the keys of `hpo.report.results.show`, and `trials` (rows of `trial_table`),
    `epochs` (metrics of every epoch by trial number), `importances` (shares by Optuna parameter), `written`.

    Raises:
        RequestError: the folder cannot be written to.
        RegistryError: the study uses a model or metric that is not registered here.
    """
    from hpo.report.content import content
    from hpo.report.html import page
    from hpo.report.importance import importances
    from hpo.report.markdown import markdown
    from hpo.report.results import read_results
    from hpo.report.words import dimension_text

    results, now = read_results(study), datetime.now()
    shares, why = importances(study, results)
    words = {dimension.key: dimension_text(dimension) for dimension in results.space.varied}
    named = {words[key]: share for key, share in shares.items()}
    told = content(results, now)
    figures, slices = _figures(results, shares, named, why, now)
    files = {
        "report.html": page(told, figures, slices),
        "report.md": markdown(told, named, why),
        "report.json": json.dumps(_document(results, shares, now), indent=1, allow_nan=False),
        "best_config.toml": told.config or None,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            _publish(out / name, text)
    except OSError as error:
        raise RequestError(f"report: cannot write to {out}: {error.strerror}") from error
    best = out / "best_config.toml" if told.config else None
    return ReportPaths(out / "report.html", out / "report.md", out / "report.json", best)


def _figures(
    results: Results, shares: dict[str, float], named: dict[str, float], why: str, now: datetime
) -> tuple[list[Figure], list[Figure]]:
    from hpo.report import figures
    from hpo.report.parallel import parallel
    from hpo.report.slices import slices
    from hpo.report.timeline import timeline

    by_parameter = list(dict.fromkeys(d.parameter.name for key in shares for d in results.space.varied if d.key == key))
    several = len(results.objectives) > 1
    large = [
        figures.pareto(results) if several else figures.history(results),
        figures.curves(results),
        figures.importance(named, why),
        parallel(results, by_parameter),
        timeline(results, now),
    ]
    return large, slices(results, list(shares))


def _document(results: Results, shares: dict[str, float], now: datetime) -> dict[str, Any]:
    from hpo.report.results import show, trial_table
    from hpo.report.words import finite

    more = {
        "trials": trial_table(results),
        "epochs": {row.number: row.epochs for row in results.trials if row.epochs},
        "importances": shares,
        "written": now,
    }
    return {**show(results), **finite(more)}


def _publish(path: Path, text: str | None) -> None:
    """A reader sees the old file or the new one, never half of it."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # mkstemp's files are private
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
