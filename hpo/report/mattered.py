"""What mattered: how much each parameter sets the good trials apart."""

from __future__ import annotations

from hpo.report.chapter import Chapter
from hpo.report.figures import importance
from hpo.report.importance import importances
from hpo.report.results import Results
from hpo.report.words import dimension_text
from hpo.study import Study

__all__ = ["mattered"]


def mattered(study: Study, results: Results) -> Chapter:
    """The chapter."""
    shares, why = importances(study, results)
    words = {dimension.key: dimension_text(dimension) for dimension in results.space.varied}
    return Chapter("mattered", "What mattered", [importance({words[key]: s for key, s in shares.items()}, why)])
