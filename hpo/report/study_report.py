"""Report of a stored study: files in a folder, and the figures and the note in the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna

from hpo.report.dashboard.publish import publish_report
from hpo.report.report_data import read_report_data
from hpo.report.write import ReportPaths
from hpo.report.write import write_report as write_files
from hpo.study import Study
from hpo.study.operations.open_study import open_study
from hpo.utils.home import make_folder
from hpo.utils.paths import study_path

__all__ = ["write_report"]


def write_report(
    study: str | Study | optuna.Study,
    out: str | Path | None = None,
    *,
    storage: str | None = None,
    imports: Sequence[str] = (),
    show_data: bool = False,
) -> ReportPaths:
    """Write the report of a study, as `hpo report` does, and return the paths of its files.

    Args:
        study: a study's name, or a study as `hpo.launch` returns it.
        out: folder to write to; by default `reports/NAME` in `HPO_HOME`.
        storage: URL of the storage that a name is looked up in; by default the one that the commands use.
        imports: modules that register the user's models, data sets and metrics.
        show_data: show rows of your own data in these files: the worst predictions as they stand in their file, points,
            and images. By default they are left out. The dashboard never has them.

    Raises:
        RequestError: there is no such study, or the folder cannot be written to.
    """
    opened = open_study(study, storage, imports)
    data = read_report_data(opened)
    folder = Path(out) if out is not None else make_folder(study_path("reports", opened.name))
    paths = write_files(replace(data, show_data=show_data), folder)
    publish_report(data)
    return paths
