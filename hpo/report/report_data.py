"""A study as its report reads it, once: results, evaluations, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hpo.report.chapters.blocks import Chapter
from hpo.report.chapters.verdict import write_verdict
from hpo.report.checks.finding import Finding
from hpo.report.checks.run import run_checks
from hpo.report.data.evaluations import EvaluationResults, read_evaluations
from hpo.report.data.results import Results, read_results
from hpo.report.stats.evaluation_stats import EvaluationStats, compare_candidates
from hpo.report.stats.importance import importances
from hpo.study import Study
from hpo.study.operations.evaluation_study import TestSetRead, list_test_set_reads

__all__ = ["ReportData", "read_report_data"]


@dataclass(frozen=True)
class ReportData:
    """What chapters are written from.

    Attributes:
        study: for what only it has, as artifacts.
        results: its trials.
        evaluations: of the study; its own data first.
        looks: at test sets.
        findings: of the diagnostics.
        now: when the study was read; naive local time.
    """

    study: Study
    results: Results
    evaluations: Sequence[EvaluationResults]
    looks: Sequence[TestSetRead]
    findings: Sequence[Finding]
    now: datetime

    @cached_property
    def judgements(self) -> tuple[EvaluationStats, ...]:
        """One per evaluation."""
        return tuple(compare_candidates(evaluation) for evaluation in self.evaluations)

    @cached_property
    def importances(self) -> dict[str, float]:
        """Shares by dimension key, the largest first; empty where there are none."""
        return importances(self.study, self.results)[0]

    @cached_property
    def important(self) -> list[str]:
        """Names of parameters, the most important first."""
        names = {dimension.key: dimension.parameter.name for dimension in self.results.space.varied}
        return list(dict.fromkeys(names[key] for key in self.importances))

    @cached_property
    def chapters(self) -> list[Chapter]:
        """The report's, top to bottom."""
        from hpo.report.chapters.order import make_chapters  # which is written from this

        return make_chapters(self)

    @cached_property
    def verdict(self) -> list[str]:
        """The report in three lines."""
        return write_verdict(self.results, self.evaluations, self.findings)


def read_report_data(study: Study) -> ReportData:
    """Read a study with its evaluations.

    Raises:
        RegistryError: it uses a model or metric that is not registered here; the line names the module to import.
    """
    results, evaluations = read_results(study), read_evaluations(study)
    return ReportData(
        study, results, evaluations, list_test_set_reads(study), run_checks(results, evaluations), datetime.now()
    )
