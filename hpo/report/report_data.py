"""Data of a report, read once: results, evaluations with their statistics, importances and findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from hpo.report.checks.finding import Finding
from hpo.report.checks.run import run_checks
from hpo.report.data.evaluations import EvaluationResults, read_comparisons, read_evaluations
from hpo.report.data.reference_models import ReferenceModels, read_reference_models
from hpo.report.data.results import Results, read_results
from hpo.report.data.sample_scores import SampleTable, read_sample_scores
from hpo.report.stats.across_datasets import AcrossDatasets, compare_across
from hpo.report.stats.choice import Choice, choose_trial
from hpo.report.stats.evaluation_stats import EvaluationStats, compare_candidates
from hpo.report.stats.importance import Importances, compute_importances
from hpo.report.stats.nested_score import NestedScore, read_scores
from hpo.report.stats.pairwise import PairedComparison, compare_trials
from hpo.report.stats.selection import correct_selection
from hpo.study import Study
from hpo.study.operations.evaluation_study import TestSetRead, list_test_set_reads

__all__ = ["ReportData", "read_report_data"]

LEADERS = 5


@dataclass(frozen=True)
class ReportData:
    """Data that chapters are written from.

    Attributes:
        study: for what only it has, as artifacts.
        results: its trials.
        evaluations: of the study; its own data first.
        test_set_reads: every read of a test set, the earliest first.
        findings: of the checks, warnings first.
        read_at: when the study was read; naive local time.
        sample_scores: what its trials keep of each validation sample.
        show_data: whether rows of the user's data are shown: values of features, and images.
    """

    study: Study
    results: Results
    evaluations: Sequence[EvaluationResults]
    test_set_reads: Sequence[TestSetRead]
    findings: Sequence[Finding]
    read_at: datetime
    sample_scores: SampleTable
    show_data: bool = False

    @cached_property
    def evaluation_stats(self) -> tuple[EvaluationStats, ...]:
        """Statistics of each evaluation, in the order of `evaluations`."""
        return tuple(compare_candidates(evaluation) for evaluation in self.evaluations)

    @cached_property
    def choice(self) -> Choice | None:
        """The trial that `hpo export` writes; None without a complete trial."""
        return None if self.results.best is None else choose_trial(self.results, table=self.sample_scores)

    @cached_property
    def leader_comparisons(self) -> list[PairedComparison]:
        """The best trial beside those that other samples would have chosen most often; empty without sample scores."""
        score = self.results.corrected
        rivals = [] if score is None else [number for number, _ in score.others[:LEADERS]]
        return compare_trials(self.sample_scores, self.results, score.number, rivals) if score and rivals else []

    @cached_property
    def comparisons(self) -> tuple[EvaluationResults, ...]:
        """Comparisons of the study with others."""
        return read_comparisons(self.study)

    @cached_property
    def across_datasets(self) -> tuple[AcrossDatasets, ...]:
        """Configurations over several data sets: those that were not refit, and those that were."""
        kinds = ([each for each in self.evaluations if each.refit is refit] for refit in (False, True))
        return tuple(found for kind in kinds if (found := compare_across(kind)) is not None)

    @cached_property
    def nested(self) -> tuple[NestedScore, ...]:
        """Scores of the study's nested evaluations, those of the fewest outer folds first."""
        return read_scores(self.study)

    @cached_property
    def reference_models(self) -> ReferenceModels | None:
        """Models of scikit-learn on the study's validation split; None where there are none."""
        return read_reference_models(self.study)

    @cached_property
    def importances(self) -> Importances:
        """Shares of the varied parameters; computed once, for they take seconds in a large study."""
        return compute_importances(self.study, self.results)

    @cached_property
    def parameters_by_importance(self) -> list[str]:
        """Names of parameters, the most important first; empty where there are no importances."""
        names = {dimension.key: dimension.parameter.name for dimension in self.results.space.varied}
        return list(dict.fromkeys(names[share.key] for share in self.importances.shares))


def read_report_data(study: Study) -> ReportData:
    """Read a study with its evaluations.

    Raises:
        RegistryError: it uses a model or metric that is not registered here; the line names the module to import.
    """
    results, evaluations, table = read_results(study), read_evaluations(study), read_sample_scores(study)
    results = replace(results, corrected=correct_selection(table, results))
    findings, reads = run_checks(results, evaluations), list_test_set_reads(study)
    return ReportData(study, results, evaluations, reads, findings, datetime.now(), table)
