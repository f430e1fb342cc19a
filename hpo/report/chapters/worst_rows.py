"""Tables of the worst predictions, by the rows that they are of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpo.errors import HpoError
from hpo.report.chapters.blocks import HIDDEN, Block, Subtitle, Table, Text
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.predictions import Predictions, TargetPredictions, WorstRows
from hpo.report.data.user_rows import UserRows, is_public, read_user_rows
from hpo.report.format import amount_text, one_line, percent_text

__all__ = ["worst_class_blocks", "worst_target_blocks"]

ROWS = 20
FEATURES = 16  # columns; a page is not wider
TARGETS = 3


def worst_target_blocks(
    evaluation: EvaluationResults, split: str, predictions: TargetPredictions, *, show_data: bool
) -> list[Block]:
    """Tabulate the samples of a split whose targets are farthest from their predictions."""
    worst = predictions.worst
    if worst is None or not len(worst.rows):
        return []
    count = min(ROWS, len(worst.rows))
    places = _shown_targets(predictions)
    names = [_target_name(evaluation, place, predictions.targets.shape[1]) for place in places]
    columns = [
        _row_title(worst),
        *(f"{name}, {what}" if name else what for name in names for what in ("true", "predicted", "error")),
    ]
    rows = [
        [
            str(worst.rows[i]),
            *(
                amount_text(value)
                for place in places
                for value in _triple(predictions.worst_targets[i, place], predictions.worst_predictions[i, place])
            ),
        ]
        for i in range(count)
    ]
    if not show_data:  # without what is true and predicted
        columns, *rows = ([row[0], *row[3::3]] for row in (columns, *rows))
    several = predictions.targets.shape[1] > 1
    by = "the sum of squared errors, each in standard deviations of its target" if several else "the absolute error"
    return [
        Subtitle("Worst predictions"),
        *_table(evaluation, split, worst, columns, rows, f"Ordered by {by}. Some targets may be wrong.", show_data),
    ]


def worst_class_blocks(
    evaluation: EvaluationResults, predictions: Predictions, split: str, *, show_data: bool
) -> list[Block]:
    """Tabulate the rows that were misclassified with the highest probability; images have no rows of a table."""
    worst = predictions.worst
    if worst is None or not len(worst.rows) or predictions.pictures is not None:
        return []
    predicted, confidence = predictions.probabilities.argmax(1), predictions.probabilities.max(1)
    rows = [
        [
            str(worst.rows[i]),
            evaluation.name_output(int(predictions.labels[sample])),
            evaluation.name_output(int(predicted[sample])),
            percent_text(confidence[sample]),
        ]
        for i, sample in enumerate(predictions.mistakes[:ROWS])
    ]
    columns = [_row_title(worst), "label", "predicted", "probability"]
    if not (show_data or is_public(evaluation.data)):
        columns, *rows = ([row[0], row[3]] for row in (columns, *rows))
    return [
        Subtitle("Most confident mistakes"),
        *_table(evaluation, split, worst, columns, rows, "Some labels may be wrong.", show_data),
    ]


def _table(
    evaluation: EvaluationResults,
    split: str,
    worst: WorstRows,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str,
    show_data: bool,
) -> list[Block]:
    where = (
        "Rows are numbered from 1, the header not counted."
        if worst.in_file
        else ("Samples are numbered from 0, as in the data set's array.")
    )
    numbers = [name for name in columns if name not in ("label", "predicted")] if "label" in columns else columns
    if not show_data:
        return [Table(columns, rows, numbers), Text(f"{note} {where} {HIDDEN}", quiet=True)]
    shown, problem = _read_rows(evaluation, split, worst, len(rows))
    if shown is None:
        return [Table(columns, rows, numbers), Text(f"{note} {where} {problem}".strip(), quiet=True)]
    features = shown.features[:FEATURES]
    wide = [[*row, *cells[:FEATURES]] for row, cells in zip(rows, shown.cells, strict=True)]
    cut = f" {FEATURES} of {len(shown.features)} columns are shown." if len(shown.features) > FEATURES else ""
    return [Table([*columns, *features], wide, numbers), Text(f"{note} {where}{cut}", quiet=True)]


def _read_rows(evaluation: EvaluationResults, split: str, worst: WorstRows, count: int) -> tuple[UserRows | None, str]:
    """Read the rows of the user's data; without them return why they are not shown."""
    if evaluation.data is None:
        return None, ""
    try:
        return read_user_rows(evaluation.data, split, worst, count), ""
    except HpoError as error:
        return None, f"The rows themselves cannot be shown: {one_line(str(error))}."


def _row_title(worst: WorstRows) -> str:
    return "row" if worst.in_file else "sample"


def _shown_targets(predictions: TargetPredictions) -> list[int]:
    """Return the targets whose values are shown: those with the largest errors of the worst samples."""
    spread = predictions.targets.std(0)
    errors = np.abs(predictions.worst_targets - predictions.worst_predictions).mean(0) / np.where(spread > 0, spread, 1)
    return sorted(np.argsort(-errors, kind="stable")[:TARGETS].tolist())


def _target_name(evaluation: EvaluationResults, place: int, targets: int) -> str:
    return evaluation.name_output(place) if targets > 1 else ""


def _triple(target: float, prediction: float) -> tuple[float, float, float]:
    return float(target), float(prediction), float(prediction - target)
