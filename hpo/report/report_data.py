"""A study as its report reads it, once: results, evaluations, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hpo.report.chapters.blocks import Chapter
from hpo.report.chapters.verdict import verdict
from hpo.report.checks.finding import Finding
from hpo.report.checks.run import diagnose
from hpo.report.data.evaluations import EvaluationResults, read_evaluations
from hpo.report.data.results import Results, read_results
from hpo.report.stats.evaluation_stats import Judgement, judge
from hpo.report.stats.importance import importances
from hpo.study import Study
from hpo.study.operations.evaluation_study import Look, looks

__all__ = ["Reading", "read"]


@dataclass(frozen=True)
class Reading:
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
    looks: Sequence[Look]
    findings: Sequence[Finding]
    now: datetime

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        """One per evaluation."""
        return tuple(judge(evaluation) for evaluation in self.evaluations)

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
        from hpo.report.chapters.order import chapters  # which is written from this

        return chapters(self)

    @cached_property
    def verdict(self) -> list[str]:
        """The report in three lines."""
        return verdict(self.results, self.evaluations, self.findings)


def read(study: Study) -> Reading:
    """Read a study with its evaluations.

    Raises:
        RegistryError: it uses a model or metric that is not registered here; the line names the module to import.
    """
    results, evaluations = read_results(study), read_evaluations(study)
    return Reading(study, results, evaluations, looks(study), diagnose(results, evaluations), datetime.now())
