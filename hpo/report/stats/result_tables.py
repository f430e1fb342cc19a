"""Tables of evaluations, as commands print them: rows, what their columns are, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.report.data.evaluations import EvaluationResults
from hpo.report.stats.across_datasets import compare_across, describe_across, tabulate_across
from hpo.report.stats.evaluation_stats import (
    compare_candidates,
    explain_columns,
    summarize_evaluation,
    tabulate_scores,
)
from hpo.report.stats.study_comparison import compare_studies, describe_comparison, tabulate_comparison
from hpo.report.stats.variance_sources import describe_variance, measure_variance_sources, tabulate_variance

__all__ = ["ResultTable", "list_result_tables"]

VARIANCE_LEGEND = (
    "deviation: of the validation score over runs that differ in this source alone; share: of the variance of all "
    "together; low, high: 95 % intervals"
)
COMPARISON_LEGEND = (
    "better_by: the mean gain of the first over the second; probability: that the first is better in a pair; low, "
    "high: 95 % intervals"
)
ACROSS_LEGEND = (
    "iqm: interquartile mean of all runs; rank: average over data sets; improvement: the probability that the first "
    "configuration is better than this one; low, high: 95 % bootstrap intervals"
)


@dataclass(frozen=True)
class ResultTable:
    """Table of results.

    Attributes:
        name: what it is of, a word or two.
        rows: flat rows.
        legend: what its columns are, in a line.
        lines: what follows.
    """

    name: str
    rows: list[dict[str, Any]]
    legend: str
    lines: list[str]


def list_result_tables(
    results: Sequence[EvaluationResults], comparisons: Sequence[EvaluationResults], *, across: bool
) -> list[ResultTable]:
    """List the tables of some evaluations: scores, sources of variance, data sets together, comparisons of studies.

    Args:
        results: evaluations of one study.
        comparisons: of that study with others.
        across: whether the data sets are compared.
    """
    tables = [*_score_tables(results), *_comparison_tables(comparisons)]
    found = compare_across(results) if across else None
    if found is not None:
        tables.append(ResultTable("data sets", tabulate_across(found), ACROSS_LEGEND, describe_across(found)))
    return tables


def _score_tables(results: Sequence[EvaluationResults]) -> Iterator[ResultTable]:
    for each in results:
        stats = compare_candidates(each)
        name = f"scores on {each.dataset}" if len(results) > 1 else "scores"
        yield ResultTable(name, tabulate_scores(stats), explain_columns(each), summarize_evaluation(each, stats))
        found = measure_variance_sources(each)
        if found is not None:
            name = f"variance on {each.dataset}" if len(results) > 1 else "variance"
            yield ResultTable(name, tabulate_variance(found), VARIANCE_LEGEND, describe_variance(each, found))


def _comparison_tables(comparisons: Sequence[EvaluationResults]) -> Iterator[ResultTable]:
    for each in comparisons:
        scores = compare_studies(each)
        rows = tabulate_comparison(each, scores)
        yield ResultTable(f"comparison with {each.compare}", rows, COMPARISON_LEGEND, describe_comparison(each, scores))
