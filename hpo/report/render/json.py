"""JSON document of the report, as `report.schema.json` describes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpo.report.chapters.verdict import write_verdict
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.reference_models import ReferenceModels
from hpo.report.data.summary import study_summary
from hpo.report.data.trial_table import trial_table
from hpo.report.format import finite
from hpo.report.report_data import ReportData
from hpo.report.stats.across_datasets import AcrossDatasets, describe_across
from hpo.report.stats.choice import Choice
from hpo.report.stats.evaluation_stats import Comparison, EvaluationStats, Interval, Score
from hpo.report.stats.nested_score import NestedScore
from hpo.report.stats.study_comparison import compare_studies, describe_comparison
from hpo.report.stats.variance_sources import VarianceSources, measure_variance_sources, tabulate_variance

__all__ = ["SCHEMA", "nested_document", "report_document", "report_schema"]

SCHEMA = 2  # raised whenever a key goes or changes its meaning


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a report."""
    text = (Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def report_document(data: ReportData) -> dict[str, Any]:
    """Return what `hpo.report.data.summary.study_summary` has, and all that the chapters are written from."""
    results = data.results
    pairs = zip(data.evaluations, data.evaluation_stats, strict=True)
    more = {
        "trials": trial_table(results),
        "epochs": {row.number: row.epochs for row in results.trials if row.epochs},
        "importances": data.importances.by_key,
        "verdict": write_verdict(data),
        "choice": _choice_json(data.choice),
        "leader_comparisons": [asdict(comparison) for comparison in data.leader_comparisons],
        "findings": [asdict(finding) for finding in data.findings],
        "evaluations": [_evaluation_json(evaluation, stats) for evaluation, stats in pairs],
        "study_comparisons": [_studies_json(each) for each in data.comparisons],
        "data_sets": [_data_sets_json(each) for each in data.across_datasets],
        "nested": [nested_document(each) for each in data.nested],
        "looks": [asdict(read) for read in data.test_set_reads],
        "reference_models": _models_json(data.reference_models),
        "written": data.read_at,
    }
    return {"schema": SCHEMA, **study_summary(results), **finite(more)}


def _choice_json(choice: Choice | None) -> dict[str, Any] | None:
    return None if choice is None else {"trial": choice.row.number, "rule": choice.rule, "reason": choice.reason}


def nested_document(nested: NestedScore) -> dict[str, Any]:
    """Return a nested evaluation as `report.schema.json` describes it."""
    left = {"remaining", "configurations"}
    values = {key: value for key, value in asdict(nested).items() if key not in left}
    document: dict[str, Any] = finite({**values, "left": nested.remaining, "different": nested.configurations})
    return document


def _evaluation_json(evaluation: EvaluationResults, stats: EvaluationStats) -> dict[str, Any]:
    sources = measure_variance_sources(evaluation)
    return {
        "studies": evaluation.studies,
        "dataset": evaluation.dataset,
        "own": evaluation.on_own_data,
        "refit": evaluation.refit,
        "validation_metric": evaluation.validation_metric,
        "test_metric": evaluation.test_metric,
        "left": evaluation.remaining_runs,
        "scores": [_score_json(score) for score in stats.scores],
        "comparisons": [_comparison_json(comparison) for comparison in stats.comparisons],
        "winner": stats.winner.label if stats.winner else None,
        "tied": stats.tied,
        "beats_rival": stats.beats_rival,
        "reference_models": _models_json(evaluation.reference_models),
        "variance": None if sources is None else _variance_json(sources),
    }


def _variance_json(found: VarianceSources) -> dict[str, Any]:
    sources = zip(found.spreads, tabulate_variance(found), strict=True)
    return {
        "metric": found.metric,
        "sources": [{"source": source, **row} for source, row in sources],
        "largest": found.leader,
        "clear": found.clear,
        "verdict": found.verdict,
    }


def _studies_json(comparison: EvaluationResults) -> dict[str, Any]:
    scores = compare_studies(comparison)
    return {
        "studies": comparison.studies,
        "with": comparison.compare,
        "left": comparison.remaining_runs,
        "configurations": [each.label for each in comparison.candidates],
        "scores": [{**asdict(score), "significant": score.significant} for score in scores],
        "verdict": describe_comparison(comparison, scores),
    }


def _data_sets_json(found: AcrossDatasets) -> dict[str, Any]:
    return {**asdict(found), "verdict": describe_across(found)}


def _models_json(models: ReferenceModels | None) -> list[dict[str, Any]]:
    return [] if models is None else [model.model_dump() for model in models.models]


def _score_json(score: Score) -> dict[str, Any]:
    candidate: CandidateRuns = score.candidate
    return {
        "label": candidate.label,
        "trial": candidate.trial,
        "baseline": candidate.baseline,
        "values": dict(candidate.values),
        "chosen": score.study_score,
        "validation": _interval_json(score.validation),
        "test": _interval_json(score.test),
        "bias": score.bias,
        "runs": [_run_json(run) for run in candidate.runs],
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "first": comparison.first,
        "second": comparison.second,
        "metric": comparison.metric,
        "difference": asdict(comparison.difference),
        "told_apart": comparison.significant,
    }


def _interval_json(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _run_json(run: EvaluationRun) -> dict[str, Any]:
    keys = ("study", "number", "seed", "state", "parameter_count", "train_seconds")
    metrics = {"validation": dict(run.validation), "test": dict(run.test)}
    return {**{key: getattr(run, key) for key in keys}, **metrics}
