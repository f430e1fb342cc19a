"""Learning curves."""

from __future__ import annotations

from hpo.report import figures
from hpo.report.chapter import Chapter
from hpo.report.results import Results

__all__ = ["curves"]


def curves(results: Results) -> Chapter:
    """The chapter."""
    return Chapter("curves", "Learning curves", [figures.curves(results)])
