"""Preview of an evaluation, for `hpo evaluate --dry-run`: what it would train, which needs neither code nor data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.config.values import plain_value
from hpo.execution.evaluate import choose_candidates, refer_to_other
from hpo.execution.evaluate_function import check_function_options, choose_trials
from hpo.report.data.results import read_results
from hpo.study import Study
from hpo.study.definition import Candidate
from hpo.study.operations.evaluation_study import count_runs, list_candidates, list_function_candidates

__all__ = ["EvaluationPreview", "preview_evaluation"]


@dataclass(frozen=True)
class EvaluationPreview:
    """Evaluation that is not in the storage yet.

    Attributes:
        rows: for each configuration its name, the number of runs to add and of those that exist, and the parameters
            that the study varies.
        text: a line that says what the evaluation would do.
    """

    rows: list[dict[str, Any]]
    text: str


def preview_evaluation(
    study: Study, top: int = 3, seeds: int = 5, dataset: object = None, *, refit: bool = False
) -> EvaluationPreview:
    """Return what an evaluation would train; see `hpo.execution.evaluate.plan_evaluations`.

    Raises:
        RequestError: it would be refused.
    """
    data = study.definition.dataset if dataset is None else refer_to_other(study, dataset)
    if study.definition.configured:
        chosen = choose_candidates(study, top, dataset, refit=refit)
        candidates = list_candidates(study, chosen, data, refit=refit)
    else:
        check_function_options(study, dataset, refit=refit, inside=False)
        candidates = list_function_candidates(choose_trials(study, top))
    present = [count_runs(study, each, data, refit=refit) for each in candidates]
    rows = _list_rows(study, candidates, present, seeds)
    runs = sum(max(0, seeds - count) for count in present)
    return EvaluationPreview(rows, _describe(study, Path(data.name).name, runs))


def _list_rows(
    study: Study, candidates: Sequence[Candidate], present: Sequence[int], seeds: int
) -> list[dict[str, Any]]:
    varied = read_results(study).varied
    return [
        {
            "configuration": each.label,
            "runs": max(0, seeds - count),
            "exist": count,
            **{name: plain_value(each.values[name]) for name in varied if name in each.values},
        }
        for each, count in zip(candidates, present, strict=True)
    ]


def _describe(study: Study, data: str, runs: int) -> str:
    if not study.definition.configured:
        calls = f"would call the objective function {runs} times; nothing is created"
        return calls if runs else "every run exists, and the objective function is called no more"
    if not runs:
        return f"every run exists, and the test set of {data} is read no more"
    return f"would train {runs} runs on {data} and read its test set once for each; nothing is created"
