"""Preview of an evaluation, for `hpo evaluate --dry-run`: what it would train, which needs neither code nor data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.config.values import plain_value
from hpo.datasets import DatasetReference
from hpo.execution.compare_studies import choose_compared, study_name
from hpo.execution.evaluate import EvaluationRequest, choose_candidates, refer_to_other
from hpo.execution.evaluate_function import check_function_options, choose_trials
from hpo.report.data.results import read_results
from hpo.report.format import names_text
from hpo.study import Study
from hpo.study.definition import Candidate, Source
from hpo.study.operations.candidates import SOURCES, list_candidates, list_function_candidates
from hpo.study.operations.evaluation_study import count_runs

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


def preview_evaluation(study: Study, request: EvaluationRequest) -> EvaluationPreview:
    """Return what an evaluation would train; see `hpo.execution.evaluate.plan_request`.

    Raises:
        RequestError: it would be refused.
    """
    request.check()
    if not study.definition.configured:
        given = request.dataset or request.datasets or None
        vary = request.vary[1:]
        check_function_options(study, given, refit=request.refit, inside=False, vary=vary, compare=request.compare)
        candidates = list_function_candidates(choose_trials(study, request.top))
        plans: list[_Plan] = [(study.definition.dataset, "seed", candidates)]
    elif request.compare is not None:
        plans = [(study.definition.dataset, "all", choose_compared(study, request.compare))]
    else:
        plans = list(_list_plans(study, request))
    rows = [row for data, vary, candidates in plans for row in _list_rows(study, request, data, vary, candidates)]
    data = names_text(list(dict.fromkeys(Path(data.name).name for data, *_ in plans)))
    return EvaluationPreview(rows, _describe(study, data, sum(row["runs"] for row in rows)))


_Plan = tuple[DatasetReference, Source, list[Candidate]]


def _list_plans(study: Study, request: EvaluationRequest) -> Iterator[_Plan]:
    """Yield data, source of chance and configurations of each evaluation."""
    for name in request.datasets or [request.dataset]:
        data = study.definition.dataset if name is None else refer_to_other(study, name)
        chosen = choose_candidates(study, request.top, name, refit=request.refit)
        for vary in request.vary:
            yield data, vary, list_candidates(study, chosen, data, refit=request.refit, vary=vary)


def _list_rows(
    study: Study, request: EvaluationRequest, data: DatasetReference, vary: Source, candidates: Sequence[Candidate]
) -> list[dict[str, Any]]:
    varied = read_results(study).varied
    compare = "" if request.compare is None else study_name(request.compare)
    counts = count_runs(study, candidates, data, refit=request.refit, vary=vary, compare=compare)
    several = {"dataset": Path(data.name).name} if request.datasets else {}
    several |= {"varied": SOURCES[vary]} if len(request.vary) > 1 else {}
    return [
        {
            "configuration": each.label,
            **several,
            "runs": max(0, request.seeds - count),
            "exist": count,
            **{name: plain_value(each.values[name]) for name in varied if name in each.values},
        }
        for each, count in counts
    ]


def _describe(study: Study, data: str, runs: int) -> str:
    if not study.definition.configured:
        calls = f"would call the objective function {runs} times; nothing is created"
        return calls if runs else "every run exists, and the objective function is called no more"
    if not runs:
        return f"every run exists, and the test set of {data} is read no more"
    return f"would train {runs} runs on {data} and read its test set once for each; nothing is created"
