"""Preview of an evaluation, for `hpo evaluate --dry-run`: what it would train, which needs neither code nor data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.datasets import make_reference
from hpo.execution.evaluate import choose_candidates
from hpo.report.data.results import read_results
from hpo.study import Study
from hpo.study.operations.evaluation_study import count_runs, list_candidates

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
    study: Study, top: int = 3, seeds: int = 5, dataset: str | None = None, *, refit: bool = False
) -> EvaluationPreview:
    """Return what an evaluation would train; see `hpo.execution.evaluate.plan_evaluations`.

    Raises:
        RequestError: it would be refused.
    """
    chosen = choose_candidates(study, top, dataset, refit=refit)
    data = study.definition.dataset if dataset is None else make_reference(dataset)
    candidates = list_candidates(study, chosen, data, refit=refit)
    present = [count_runs(study, each, data, refit=refit) for each in candidates]
    varied = read_results(study).varied
    rows: list[dict[str, Any]] = [
        {
            "configuration": each.label,
            "runs": max(0, seeds - count),
            "exist": count,
            **{name: each.values[name] for name in varied if name in each.values},
        }
        for each, count in zip(candidates, present, strict=True)
    ]
    runs = sum(max(0, seeds - count) for count in present)
    name = Path(data.name).name
    text = f"would train {runs} runs on {name} and read its test set once for each; nothing is created"
    return EvaluationPreview(rows, text if runs else f"every run exists, and the test set of {name} is read no more")
