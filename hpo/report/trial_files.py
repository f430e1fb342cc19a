"""Trial records as CSV and JSON files: `hpo export NAME --trials DIR`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import RequestError
from hpo.report.data.evaluation_runs import is_validation_metric
from hpo.report.data.evaluations import EvaluationResults, EvaluationRun, read_evaluations
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.format import finite
from hpo.storage.study_storage import EpochSteps
from hpo.study import Study
from hpo.utils.files import atomic_folder

__all__ = ["export_trials"]

STEPS = ("step", "epoch", "loss", "seconds")
TOLD = ("best_epoch", "parameter_count")  # attributes with a place of their own in params.json
Row = Sequence[object]


def export_trials(study: Study, folder: Path) -> int:
    """Write what is recorded of every trial that has begun to a new folder: all of it, or nothing.

    Each has a folder `comb_N`, N its number, with

    - `train.csv`: where the study records steps, a row per step, numbered from 1 over all epochs, with its epoch, the
      mean loss before it, and the seconds of training at its end; else a row per epoch, with its metrics of training,
      the learning rate that the next step would use, and the seconds of training so far;
    - `validation.csv`: a row per epoch with every metric of the validation split, and the seconds;
    - `params.json`: `number`, `state`, `parameters` (all that have an effect), `values` by objective, `best_epoch`,
      `parameter_count`, and `attributes`: others of the trial's that are plain values;
    - `test.csv`, where an evaluation has tested its configuration: a row per run, with the evaluation's study, its data
      set, the seed, the validation metrics of the run's best epoch, and the test metrics.

    Numbers that are not finite stand in CSV as `nan` and `inf`, and in JSON as null. Files of one kind have the same
    columns.

    Returns:
        How many trials were written.

    Raises:
        RequestError: the folder is not empty, or cannot be written; or no trial has begun.
        RegistryError: the study uses a model or metric that is not registered here.
    """
    with atomic_folder(folder) as new:
        results, evaluations = read_results(study), read_evaluations(study)
        trials = {trial.number: trial for trial in study.trials()}
        names = dict.fromkeys(name for row in results.trials for epoch in row.epochs for name in epoch)
        validation = [name for name in names if is_validation_metric(name, results.definition.metrics)]
        training = [name for name in names if name not in validation]
        begun = [row for row in results.trials if row.started is not None]
        if not begun:
            raise RequestError(
                f"study '{results.name}': no trial has begun, so there is nothing to write; launch it first"
            )
        for row in begun:
            place, trial = new / f"comb_{row.number}", trials[row.number]
            place.mkdir()
            _write_table(place / "validation.csv", ("epoch", *validation, "seconds"), row.epochs)
            if results.definition.record_steps:
                steps = study.storage.read_steps(study.id, trial._trial_id).get(trial._trial_id, [])
                _write_rows(place / "train.csv", STEPS, _step_rows(steps))
            else:
                _write_table(place / "train.csv", training, row.epochs)
            about = finite(_params_document(results, row, trial.user_attrs))
            (place / "params.json").write_text(json.dumps(about, indent=2, allow_nan=False) + "\n", encoding="utf-8")
            _write_tests(place / "test.csv", list(_tested_runs(evaluations, row.number)))
    return len(begun)


def _step_rows(epochs: Iterable[EpochSteps]) -> Iterator[Row]:
    step = 0
    for each in epochs:
        for loss, seconds in zip(each.losses, each.seconds, strict=True):
            step += 1
            yield step, each.epoch, loss, seconds


def _params_document(results: Results, row: TrialRow, attributes: Mapping[str, Any]) -> dict[str, Any]:
    pairs = zip(results.objectives, row.values or (), strict=False)
    plain_attributes = {
        name: value
        for name, value in attributes.items()
        if name not in TOLD and isinstance(value, str | int | float | None)
    }
    return {
        "number": row.number,
        "state": row.state,
        "parameters": row.config.literals() if row.config else row.params,
        "values": {objective.metric: value for objective, value in pairs},
        "best_epoch": row.best_epoch,
        "parameter_count": row.parameter_count,
        "attributes": plain_attributes,
    }


def _tested_runs(evaluations: Iterable[EvaluationResults], number: int) -> Iterator[tuple[str, EvaluationRun]]:
    """Yield the tested runs of a trial's configuration, each with the name of its data set."""
    for evaluation in evaluations:
        for candidate in evaluation.candidates:
            if candidate.trial == number:
                yield from ((evaluation.dataset, run) for run in candidate.runs if run.test)


def _write_tests(path: Path, runs: Sequence[tuple[str, EvaluationRun]]) -> None:
    if not runs:
        return
    rows = [
        {"evaluation": run.study, "dataset": dataset, "seed": run.seed, **run.validation, **run.test}
        for dataset, run in runs
    ]
    _write_table(path, list(dict.fromkeys(name for row in rows for name in row)), rows)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as CSV; a column that a row does not have is left empty."""
    _write_rows(path, columns, ([row.get(name, "") for name in columns] for row in rows))


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
