"""The gallery of reports: small, its links complete, and without a figure that no report shows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

GALLERY = (Path(__file__).parents[1] / "reports").resolve()
LIMIT = 4_000_000  # bytes
LARGEST = 100_000  # bytes of a figure
REPORTS = sorted(GALLERY.glob("*/report.md"))


def links(document: Path) -> list[Path]:
    """The files that a document links to or shows."""
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    return [(document.parent / target).resolve() for target in targets if "://" not in target]


def test_the_gallery_is_small() -> None:
    sizes = {path: path.stat().st_size for path in GALLERY.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < LIMIT
    assert [path for path, size in sizes.items() if path.suffix == ".svg" and size > LARGEST] == []


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.parent.name)
def test_every_figure_of_a_report_exists(report: Path) -> None:
    figures = [path for path in links(report) if path.suffix == ".svg"]
    assert figures
    for figure in figures:
        assert figure.is_relative_to(GALLERY)
        assert figure.is_file(), figure
        assert ET.parse(figure).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_no_figure_is_unused() -> None:
    shown = {path for report in REPORTS for path in links(report)}
    assert set(GALLERY.rglob("*.svg")) - shown == set()


def test_the_overview_lists_every_report() -> None:
    listed = {path for path in links(GALLERY / "README.md") if path.name == "report.md"}
    assert listed == {report.resolve() for report in REPORTS}
