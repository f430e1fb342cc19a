"""Table of a study's trials, as `hpo trials` writes it for programs and shows it to people."""

from __future__ import annotations

from typing import Any

from hpo.report.data.results import Results, TrialRow
from hpo.report.format import finite
from hpo.study.attributes import STANDARD_ERROR
from hpo.utils.text import format_rough

__all__ = ["shown_front", "shown_trials", "trial_table"]

OF_MODELS = ("best_epoch", "parameter_count", "baseline", "extra")  # keys of `trial_table`


def trial_table(results: Results) -> list[dict[str, Any]]:
    """Return a flat row per trial, all with the same keys, numbers that are not finite as None.

    Keys: `number`, `state`, the objectives' metrics, `standard_error` (in studies of several fits a trial), the metrics
    recorded beside them, the varied parameters by name (also those of extra trials), then `best_epoch`, `value_from`
    (in studies of training loops), `epochs_done`, `seconds`, `parameter_count`, `worker`, `started`, `finished`,
    `failure`, `message`, `raced` (in studies of several fits a trial: by which other one it was dropped, in words),
    `baseline`, `extra`. A parameter called like another key stands under `parameter NAME`.
    """
    rows = [_split_row(row, results) for row in results.trials]
    settings = [results.settings(row) for row in results.trials]
    names = dict.fromkeys([*results.varied, *(name for values in settings for name in values)])
    taken = rows[0][0].keys() | rows[0][1].keys() if rows else set()
    columns = {name: f"parameter {name}" if name in taken else name for name in names}
    return [
        finite({**head, **{column: values.get(name) for name, column in columns.items()}, **tail})
        for (head, tail), values in zip(rows, settings, strict=True)
    ]


def _split_row(row: TrialRow, results: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what stands before the parameters, and after them."""
    values = row.values or (None,) * len(results.objectives)
    metrics = {objective.metric: value for objective, value in zip(results.objectives, values, strict=False)}
    recorded = {name: row.metric(name) for name in results.recorded}
    error = {STANDARD_ERROR: row.standard_error} if results.definition.several_fits else {}
    head = {"number": row.number, "state": row.state, **metrics, **error, **recorded}
    tail = {
        "best_epoch": row.best_epoch,
        **({"value_from": row.value_from} if results.origins else {}),
        "epochs_done": len(row.epochs),
        "seconds": row.seconds,
        # An objective of that name has a column already.
        **({} if "parameter_count" in metrics else {"parameter_count": row.parameter_count}),
        "worker": row.worker,
        "started": row.started,
        "finished": row.finished,
        "failure": row.failure,
        "message": row.message,
        **({"raced": row.raced} if results.definition.several_fits else {}),
        "baseline": row.baseline,
        "extra": row.extra,
    }
    return head, tail


def shown_trials(results: Results) -> list[dict[str, Any]]:
    """Return `trial_table` for a person: of an objective function `steps` in place of what only models have.

    The mean over several fits stands with its standard error, as `0.953 ± 0.004`.
    """
    rows = [_join_error(row, results) for row in trial_table(results)]
    if results.definition.configured:
        return rows
    steps = [{"steps" if key == "epochs_done" else key: value for key, value in row.items()} for row in rows]
    return [{key: value for key, value in row.items() if key not in OF_MODELS} for row in steps]


def _join_error(row: dict[str, Any], results: Results) -> dict[str, Any]:
    metric, error = results.objective.metric, row.get(STANDARD_ERROR)
    if not results.definition.several_fits:
        return row
    joined = row[metric] if error is None or row[metric] is None else f"{row[metric]:.6g} ± {format_rough(error)}"
    return {key: value for key, value in {**row, metric: joined}.items() if key != STANDARD_ERROR}


NOT_OF_A_RESULT = ("state", "worker", "started", "finished", "failure", "message", "raced", "baseline", "extra")


def shown_front(results: Results) -> list[dict[str, Any]]:
    """Return a row for each trial of the Pareto front, for a person: its values and its parameters."""
    numbers = {row.number for row in results.front}
    rows = [row for row in shown_trials(results) if row["number"] in numbers]
    return [{key: value for key, value in row.items() if key not in NOT_OF_A_RESULT} for row in rows]
