"""Chapter on errors of the best model, by task."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Text
from hpo.report.chapters.class_errors import class_blocks
from hpo.report.chapters.label_errors import label_blocks
from hpo.report.chapters.target_errors import target_blocks
from hpo.report.chapters.worst_rows import worst_class_blocks
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun, median_run
from hpo.report.data.predictions import LabelPredictions, TargetPredictions
from hpo.report.data.user_rows import is_public
from hpo.report.format import count_text, number_of, percent_text, values_text

__all__ = ["choose_run", "describe_run", "error_analysis_chapter"]


def error_analysis_chapter(evaluations: Sequence[EvaluationResults], *, show_data: bool = False) -> Chapter | None:
    """Analyse the errors of the best model; None where no predictions of it are on this machine.

    The model is that of the run with the median validation score: neither the luckiest seed nor the unluckiest.

    Args:
        evaluations: of the study.
        show_data: whether rows of the user's data are shown.
    """
    for evaluation in evaluations:
        chosen = choose_run(evaluation)
        for split in ("test", "validation"):
            blocks = _blocks(evaluation, *chosen, split, show_data=show_data) if chosen else []
            if blocks:
                return Chapter("mistakes", "Error analysis", blocks)
    return None


def choose_run(evaluation: EvaluationResults) -> tuple[CandidateRuns, EvaluationRun] | None:
    """Return the best candidate, and the run of it to show."""
    best = evaluation.best
    run = median_run(evaluation, best) if best else None
    return (best, run) if best and run else None


def _blocks(
    evaluation: EvaluationResults, candidate: CandidateRuns, run: EvaluationRun, split: str, *, show_data: bool
) -> list[Block]:
    subject = describe_run(evaluation, candidate, run, split)
    name = evaluation.name_output
    if (classes := run.predictions(split)) is not None and len(classes.labels):
        wrong, total = int((~classes.correct).sum()), len(classes.labels)
        text = f"{count_text(wrong)} of {count_text(total)} samples are misclassified ({100 * wrong / total:.2f} %)."
        return [
            Text(f"{subject}: {text}"),
            *class_blocks(classes, name, show_data=show_data or is_public(evaluation.data)),
            *worst_class_blocks(evaluation, classes, split, show_data=show_data),
        ]
    if (labels := run.label_predictions(split)) is not None and len(labels.labels):
        text = (
            f"{percent_text(labels.correct.mean())} of the labels are right, and of "
            f"{percent_text((labels.correct == 1).mean())} of the samples all are. {_sample_text(labels)}"
        )
        return [Text(f"{subject}: {text}"), *label_blocks(run, split, labels, name)]
    if (targets := run.target_predictions(split)) is not None and len(targets.targets):
        text = f"{number_of(targets.count, 'sample')}. {_sample_text(targets)}".strip()
        return [Text(f"{subject}: {text}"), *target_blocks(evaluation, run, split, targets, show_data=show_data)]
    return []


def _sample_text(predictions: LabelPredictions | TargetPredictions) -> str:
    """Say so where not all predictions are stored."""
    stored = len(predictions.labels if isinstance(predictions, LabelPredictions) else predictions.targets)
    if stored >= predictions.count:
        return ""
    return f"What follows is of {count_text(stored)} of these samples, drawn at random."


def describe_run(evaluation: EvaluationResults, candidate: CandidateRuns, run: EvaluationRun, split: str) -> str:
    """Return a clause on a model and what it predicts."""
    data = "test set" if split == "test" else "validation data (the test set has not been read)"
    value = run.validation.get(evaluation.validation_metric or "")
    score = f", the run with the median validation score ({values_text(evaluation.objective.metric, value)})"
    which = score if value is not None else ""
    return f"The model of {candidate.label} trained from seed {run.seed}{which}, on the {data} of {evaluation.dataset}"
