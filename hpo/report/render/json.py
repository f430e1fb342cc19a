"""JSON document of the report, as `report.schema.json` describes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpo.report.chapters.verdict import write_verdict
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.reference_models import ReferenceModels
from hpo.report.data.results import study_summary, trial_table
from hpo.report.format import finite
from hpo.report.report_data import ReportData
from hpo.report.stats.choice import Choice
from hpo.report.stats.evaluation_stats import Comparison, EvaluationStats, Interval, Score

__all__ = ["SCHEMA", "report_document", "report_schema"]

SCHEMA = 2  # raised whenever a key goes or changes its meaning


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a report."""
    text = (Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def report_document(data: ReportData) -> dict[str, Any]:
    """Return what `hpo.report.data.results.study_summary` has, and all that the chapters are written from."""
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
        "looks": [asdict(read) for read in data.test_set_reads],
        "reference_models": _models_json(data.reference_models),
        "written": data.read_at,
    }
    return {"schema": SCHEMA, **study_summary(results), **finite(more)}


def _choice_json(choice: Choice | None) -> dict[str, Any] | None:
    return None if choice is None else {"trial": choice.row.number, "rule": choice.rule, "reason": choice.reason}


def _evaluation_json(evaluation: EvaluationResults, stats: EvaluationStats) -> dict[str, Any]:
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
    }


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
